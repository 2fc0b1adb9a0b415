//! What the tests of modules and of components have in common.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake};

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
