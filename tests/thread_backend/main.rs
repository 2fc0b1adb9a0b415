//! What only concerns `ThreadStack`: threads, their number, the handoff, and the many ways to hang.
//!
//! `tests/behaviour` tests what it has in common with the other backend.
//!
//! Two environment variables set how long it takes:
//!
//! - `THREAD_CALLS`: how many calls are suspended at the same time in the test with many calls (1000 by default);
//! - `MATRIX_SEED`: the seed of its random numbers.
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

/// Opens once, for everyone who waits.
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
