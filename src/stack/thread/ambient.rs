//! Carries the ambient state of a poller's thread to a worker's thread.
//!
//! Each entry is one round: the poller captures, the worker enters before it resumes the call's code, and leaves
//! before it passes the baton back.

use crate::stack::ambient::{Captured, Hook, without_panic};
use crate::sync::cell::Cell;
use std::any::Any;
use std::fmt;

/// The ambient state of one entry.
#[derive(Default)]
pub(crate) struct Ambient {
    /// Goes from the poller to the worker.
    captured: Cell<Option<Captured>>,
    /// Belongs to the worker while that entry lasts.
    entered: Cell<Option<Box<dyn Any>>>,
    /// Whether something panicked on the worker, which may have left the thread's state damaged.
    spoilt: Cell<bool>,
}

impl Ambient {
    /// The poller's side. Does not unwind, because the stack that is about to be entered may be in the middle of a
    /// call.
    pub(crate) fn capture(&self, hook: Option<&Hook>) {
        self.captured.set(hook.and_then(Hook::capture));
    }

    /// The worker's side: before the code of an entry runs. Does not unwind, because there may be no call to unwind.
    pub(crate) fn enter(&self) {
        if let Some(captured) = self.captured.take() {
            self.entered.set(self.noting_panics(captured));
        }
    }

    /// The worker's side: after it. Does not unwind either.
    pub(crate) fn leave(&self) {
        if let Some(entered) = self.entered.take() {
            self.noting_panics(|| drop(entered));
        }
    }

    /// Whether the worker's thread should not be used for other calls.
    pub(crate) fn is_spoilt(&self) -> bool {
        self.spoilt.get()
    }

    fn noting_panics<R>(&self, f: impl FnOnce() -> R) -> Option<R> {
        let result = without_panic(f);
        if result.is_none() {
            self.spoilt.set(true);
        }
        result
    }
}

impl fmt::Debug for Ambient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ambient").finish_non_exhaustive()
    }
}
