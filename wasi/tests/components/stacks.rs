//! The kinds of stack, which host functions each has, and a program on one.

use crate::guests::ENGINE;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake};
use wasmtime::Result;
use wasmtime::component::{Component, Linker};
use wasmtime_async::{
    Carries, DEFAULT_STACK_SIZE, FiberStack, SendFiberStack, Stack, Store, ThreadStack, tokio_runtime,
};
use wasmtime_async_wasi::{command, p2};
use wasmtime_wasi::p1::WasiP1Ctx;

pub(crate) trait Kind: Stack + Carries<WasiP1Ctx> {
    fn new_stack() -> Self {
        Self::new(DEFAULT_STACK_SIZE).unwrap()
    }

    fn linker() -> Linker<WasiP1Ctx> {
        let mut linker = Linker::new(&ENGINE);
        p2::add_to_linker(&mut linker).unwrap();
        linker
    }
}

impl Kind for FiberStack {}

impl Kind for ThreadStack {
    fn new_stack() -> Self {
        let mut stack = Self::new(DEFAULT_STACK_SIZE).unwrap();
        stack.set_ambient(tokio_runtime);
        stack
    }
}

impl Kind for SendFiberStack {
    fn linker() -> Linker<WasiP1Ctx> {
        let mut linker = Linker::new(&ENGINE);
        p2::add_to_linker_send(&mut linker).unwrap();
        linker
    }
}

/// A test of each of these generic functions for each kind of stack.
macro_rules! on_each_stack {
    ($($test:ident)*) => {$(
        mod $test {
            #[test]
            fn on_a_fiber_stack() {
                super::$test::<wasmtime_async::FiberStack>();
            }

            #[test]
            fn on_a_send_fiber_stack() {
                super::$test::<wasmtime_async::SendFiberStack>();
            }

            #[test]
            fn on_a_thread_stack() {
                super::$test::<wasmtime_async::ThreadStack>();
            }
        }
    )*};
}
pub(crate) use on_each_stack;

/// Runs a program. What it has open is closed when this ends, and when this is dropped.
pub(crate) async fn run<S: Kind>(component: &Component, wasi: WasiP1Ctx) -> Result<i32> {
    let linker = S::linker();
    let mut store = Store::new(&ENGINE, wasi);
    let mut stack = S::new_stack();
    command::run_component(&mut stack, &mut store, &linker, component).await
}

/// Polls by hand, and counts wake-ups.
#[derive(Default)]
pub(crate) struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Wakes {
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    pub(crate) fn poll<F: Future>(self: &Arc<Self>, future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(&Arc::clone(self).into()))
    }
}

/// Polls a future once, which must be pending, and drops it.
pub(crate) fn poll_and_drop<F: Future>(future: F) {
    assert!(Arc::new(Wakes::default()).poll(pin!(future)).is_pending(), "this was to wait");
}
