//! The hook that surrounds the code of a stack's calls.

use crate::frame::Frame;
use std::any::Any;
use std::fmt;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Captures on the poller's thread. What it returns is called on the thread that the stack runs on, and what that
/// returns is dropped there.
#[derive(Clone)]
pub(crate) struct Hook(Arc<dyn Fn() -> Captured + Send + Sync>);
pub(crate) type Captured = Box<dyn FnOnce() -> Box<dyn Any> + Send>;

impl Hook {
    pub(crate) fn new<E, G>(capture: impl Fn() -> E + Send + Sync + 'static) -> Self
    where
        E: FnOnce() -> G + Send + 'static,
        G: 'static,
    {
        Self(Arc::new(move || {
            let enter = capture();
            Box::new(move || Box::new(enter()) as Box<dyn Any>)
        }))
    }

    /// Returns `None` after a panic. Does not unwind, because the stack that is about to be entered may be in the
    /// middle of a call.
    pub(crate) fn capture(&self) -> Option<Captured> {
        without_panic(|| (self.0)())
    }

    /// Captures and enters on one thread. Does not unwind either.
    #[cfg(fiber_stack)]
    #[cold]
    pub(crate) fn enter(&self) -> Option<Surroundings> {
        let captured = self.capture()?;
        without_panic(captured).map(|entered| Surroundings(Some(entered)))
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

/// The ambient state of one entry of a call, until this is dropped.
#[cfg(fiber_stack)]
pub(crate) struct Surroundings(Option<Box<dyn Any>>);

#[cfg(fiber_stack)]
impl Drop for Surroundings {
    fn drop(&mut self) {
        let entered = self.0.take();
        without_panic(|| drop(entered));
    }
}

/// Runs the user's code, which is not part of a call, and must not suspend the stack that it runs on. Returns `None` if
/// it panics.
pub(crate) fn without_panic<R>(f: impl FnOnce() -> R) -> Option<R> {
    let _hidden = Frame::hide_current();
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(result) => Some(result),
        Err(payload) => {
            // The payload's destructor may panic.
            mem::forget(payload);
            None
        }
    }
}
