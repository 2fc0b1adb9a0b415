//! The stack that is switched to: a corosensei coroutine, entered by way of a wasmtime fiber of its own.

#[cfg(direct_parking)]
mod direct;
mod memory;
mod parking;
mod runner;

use super::{Backend, CarriesSealed, Stack, check_size};
use crate::Error;
use crate::frame::Frame;
use runner::Runner;
pub(crate) use runner::leave;
use std::fmt;

/// A stack that is switched to and from by a handful of instructions (corosensei), on the thread that polls.
///
/// Calls on it are not `Send`, and in return neither the store's data nor host futures need to be. Idle, the stack can
/// be sent to another thread.
///
/// # Thread-local state
///
/// Frames that are suspended share the thread's variables with all that runs meanwhile. The types cannot see that, so it
/// is up to you, also in safe code, not to suspend
///
/// - inside anything that sets a variable of the thread for the time of a closure or of a guard: such things count on
///   ending in the reverse order of their beginning, which suspended calls need not do. Where the variable is a pointer,
///   as in `scoped_tls`, it is left dangling: undefined behaviour; a runtime's or a span's guard is left entered. wasmtime
///   itself does so around the futures that the event loop of its `component-model-async` polls
///   (`Store::run_concurrent`);
/// - while a variable is borrowed (`LocalKey::with`), if the call itself is kept in another variable of the thread: when
///   the thread ends, the borrowed one may be destroyed first, and dropping the call then goes on with what is there no
///   more: undefined behaviour;
/// - in guests of an engine with wasmtime's `memory-protection-keys`: the processor's register of them is not parked.
///
/// The first two do no harm on a `ThreadStack`, whose calls have a thread, and its variables, to themselves.
///
/// # Memory
///
/// Address space of the stack's size with a guard page below, and a small second stack with a store of wasmtime's that
/// parks the activations of a suspended call (see the crate's documentation). All of it is made at the first use, or by
/// [`Stack::new`], and reused call after call without an allocation. A guest that recurses without end is stopped by
/// wasmtime's own limit (`Config::max_wasm_stack`); a host function that does so hits the guard page, which ends the
/// process as it would on a thread's own stack.
pub struct FiberStack {
    size: usize,
    /// `None` while a call runs, and after one was forgotten.
    idle: Option<Runner>,
}

// SAFETY: an idle runner has nothing on its stacks but frames of this crate and of wasmtime, which hold nothing of a
// thread: neither thread-local addresses nor anything else that is not `Send`. (wasmtime's own fibers are `Send`.)
#[expect(unsafe_code)]
unsafe impl Send for FiberStack {}

// SAFETY: a shared reference gives away the size only.
#[expect(unsafe_code)]
unsafe impl Sync for FiberStack {}

impl FiberStack {
    /// How a call that is made from this thread now, outside any other, parks its activations when it suspends.
    ///
    /// ```
    /// use wasmtime_async::{FiberStack, Parking};
    ///
    /// if !cfg!(feature = "direct-parking") {
    ///     assert_eq!(FiberStack::parking(), Parking::Fiber);
    /// }
    /// ```
    pub fn parking() -> Parking {
        #[cfg(direct_parking)]
        if direct::ThreadList::of_this_thread().is_some() {
            return Parking::Direct;
        }
        Parking::Fiber
    }
}

/// How the activations of a suspended call are parked; see the crate's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Parking {
    /// By a fiber of wasmtime's own, with nothing but its public API.
    Fiber,
    /// By setting wasmtime's per-thread word (feature `direct-parking`, where that word was found).
    Direct,
}

impl<T: ?Sized> CarriesSealed<T> for FiberStack {}

impl Stack for FiberStack {
    fn new(size: usize) -> Result<Self, Error> {
        let size = check_size(size)?;
        Ok(Self { size, idle: Some(Runner::new(size)?) })
    }

    fn size(&self) -> usize {
        self.size
    }
}

// SAFETY: see `Runner`, which keeps each of the promises.
#[expect(unsafe_code)]
unsafe impl Backend for FiberStack {
    type Runner = Runner;

    #[inline]
    fn take(&mut self) -> Result<Runner, Error> {
        let mut runner = match self.idle.take() {
            Some(runner) => runner,
            None => Runner::new(self.size)?,
        };
        match runner.prepare() {
            Ok(()) => Ok(runner),
            Err(error) => {
                self.idle = Some(runner);
                Err(error)
            }
        }
    }

    #[inline]
    unsafe fn put_back(&mut self, runner: Runner) {
        self.idle = Some(runner);
    }

    #[inline]
    fn frame(runner: &Runner) -> &Frame {
        runner.frame()
    }

    #[inline]
    unsafe fn enter(runner: &mut Runner) {
        // SAFETY: up to the caller; `take` has prepared it.
        unsafe { runner.enter() }
    }
}

impl fmt::Debug for FiberStack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FiberStack").field("size", &self.size).finish_non_exhaustive()
    }
}
