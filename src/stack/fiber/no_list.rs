//! Takes the place of `list` on systems where the thread's list of activations is not looked for. It is never
//! available. Instead, a hook in each store counts how often the guests of a call are entered.
#![expect(unsafe_code, reason = "has the functions of `list`")]

use crate::call::store_id;
use crate::frame::Frame;
use std::convert::Infallible;

/// Makes the store count how often its guests are entered, in the frame of the call that runs in it.
///
/// wasmtime calls the hook before each activation is pushed and after it was popped (`invoke_wasm_and_catch_traps` in
/// `runtime/func.rs`). If someone replaces the hook, nothing is counted, and nothing is suspended.
pub(crate) fn count_entries<T: 'static>(store: &mut wasmtime::Store<T>) {
    store.call_hook(|store, hook| {
        // Outside of calls on stacks there is nothing to count.
        let _not_on_stack = Frame::with_current(|frame| {
            frame.limits.count(store_id(&store), hook);
            Ok(())
        });
        Ok(())
    });
}

/// There is none. (A private field, so that other modules are not told that their code is unreachable.)
#[derive(Clone, Copy, Debug)]
#[allow(dead_code, reason = "is never made")]
pub(super) struct ThreadList(Infallible);

/// There is nothing on it.
#[derive(Clone, Copy, Debug)]
#[allow(dead_code, reason = "is never made")]
pub(super) struct Head(Infallible);

impl ThreadList {
    pub(super) fn of_this_thread() -> Option<Self> {
        None
    }

    pub(super) fn can_park(self) -> bool {
        match self.0 {}
    }

    pub(super) fn head(self) -> Head {
        match self.0 {}
    }

    /// # Safety
    ///
    /// Never called.
    pub(super) unsafe fn replace(self, _: Head) -> Head {
        match self.0 {}
    }
}

/// The root cannot be seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Root;

impl Root {
    pub(crate) const UNSEEN: Self = Self;

    pub(super) fn of(_: Option<ThreadList>) -> Self {
        Self
    }

    pub(crate) fn here() -> Self {
        Self
    }

    #[expect(clippy::unused_self, reason = "has the functions of `list`")]
    pub(crate) fn is_seen(self) -> bool {
        false
    }
}
