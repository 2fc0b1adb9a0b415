//! What is particular to `ThreadStack`: threads, their number, their hand-over, and the many ways to hang.
//!
//! What it has in common with the other backend is tested in `tests/behaviour`.
//!
//! Two environment variables set how long it takes:
//!
//! - `THREAD_CALLS`: how many calls are suspended at once in the test that is about many (1000 unless set);
//! - `MATRIX_SEED`: where its random numbers start.
#![cfg(all(feature = "thread-backend", not(feature = "loom")))]

mod ambient;
#[path = "../common/mod.rs"]
mod common;
mod crossing;
mod inherited;
mod limits;

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

/// Opens once, for all who wait.
#[derive(Clone, Default)]
struct Gate(Arc<Mutex<(bool, VecDeque<Waker>)>>);

impl Gate {
    fn open(&self) {
        let waiting = {
            let mut state = self.0.lock().unwrap();
            state.0 = true;
            std::mem::take(&mut state.1)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    fn wait(&self) -> impl Future<Output = ()> + use<> {
        let gate = self.clone();
        std::future::poll_fn(move |cx| {
            let mut state = gate.0.lock().unwrap();
            if state.0 {
                return Poll::Ready(());
            }
            state.1.push_back(cx.waker().clone());
            Poll::Pending
        })
    }
}
