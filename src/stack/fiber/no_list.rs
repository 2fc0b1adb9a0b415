//! Takes the place of `list` on systems where the thread's list of activations is not looked for. It is never
//! available. Instead, a hook in each store counts how often the guests of a call are entered.
#![expect(unsafe_code, reason = "has the functions of `list`")]

use crate::call::store_id;
use crate::error::Between;
use crate::frame::Frame;
use crate::stack::here;
use std::cell::Cell;
use std::convert::Infallible;
use std::ops::Range;
use wasmtime::CallHook;

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

/// How often the guests of a call's store are entered, on the call's own stack.
///
/// Other stacks may lie on it: wasmtime's own fibers, and coroutines of other libraries. What is entered there may be
/// left while another frame is current, or none, so it is not counted, and nothing is suspended from there. On the
/// call's own stack, the function that enters a guest also leaves it. In between, other frames are current only while
/// functions run that it has called.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    start: Cell<usize>,
    end: Cell<usize>,
    open: Cell<usize>,
}

impl Entries {
    /// Sets where the stack lies. Called once, before anything runs on it.
    pub(super) fn set_stack(&self, stack: &Range<usize>) {
        self.start.set(stack.start);
        self.end.set(stack.end);
    }

    fn is_on_stack(&self) -> bool {
        (self.start.get()..self.end.get()).contains(&here())
    }

    /// Forgets what the last call left behind. (wasmtime does not call the hook when a panic leaves a guest.)
    pub(crate) fn begin(&self) {
        self.open.set(0);
    }

    pub(crate) fn count(&self, hook: CallHook) {
        let open = self.open.get();
        match hook {
            CallHook::CallingWasm if self.is_on_stack() => self.open.set(open.wrapping_add(1)),
            CallHook::ReturningFromWasm if self.is_on_stack() => self.open.set(open.wrapping_sub(1)),
            _ => {}
        }
    }

    /// What lies between the root of the call and the running code, unless the call's guest was entered exactly once.
    pub(crate) fn between_root_and_here(&self) -> Option<Between> {
        if !self.is_on_stack() {
            return Some(Between::OtherStack);
        }
        match self.open.get() {
            0 => Some(Between::Unseen),
            1 => None,
            _ => Some(Between::NestedCall),
        }
    }
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
