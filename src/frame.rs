//! The state that the two sides of a running call share: the poller, which enters the stack, and the code on the stack,
//! which leaves it again.
//!
//! Each stack has one [`Frame`], at an address that does not change. Exactly one side runs at any moment. Handing over
//! control is a happens-before edge (a function call for fibers, the handoff for threads), so plain cells are enough.
//!
//! | state | `start` | `slot`, `waker` | `cancelled` | next |
//! |---|---|---|---|---|
//! | idle | `None` | stale | false | [`begin`](Frame::begin); or entered once more, which ends the stack |
//! | begun | `Some` | set by [`begin_entry`](Frame::begin_entry) for each entry | false | entered, which takes `start` |
//! | running | `None` | valid | false | suspended by [`leave`](Frame::leave), or ended |
//! | suspended | `None` | stale | false | entered again, with a new slot and waker; or [`cancel`](Frame::cancel) |
//! | cancelled | `None` | valid, the waker null | true | runs to its end in one entry, because whatever wants to suspend gets an error |
//! | ended | `None` | the result is in the slot | either | [`end`](Frame::end), which makes the frame idle |
//!
//! A frame is *lost* if it stays suspended because its call, or a nested one, was forgotten: nothing enters it again.
#![expect(unsafe_code, reason = "frames are reached by pointer from the code that runs on their stack")]

// The path is explicit for the models, which include this file by path.
#[path = "frame/waiting.rs"]
pub(crate) mod waiting;

use crate::Error;
#[cfg(feature = "thread-backend")]
use crate::error::Between;
use crate::limits::{Limits, Rule};
#[cfg(fiber_stack)]
use crate::nesting::Nesting;
use crate::stack;
#[cfg(fiber_stack)]
use crate::stack::ambient::{Hook, Surroundings};
use crate::sync::cell::{Cell, UnsafeCell};
use crate::sync::thread_cell;
#[cfg(fiber_stack)]
use std::cell::RefCell;
#[cfg(fiber_stack)]
use std::mem::ManuallyDrop;
use std::ptr;
use std::task::Waker;
#[cfg(feature = "thread-backend")]
use wasmtime::Engine;

/// The function that runs a call on its stack. It takes its input from [`Frame::slot`], and leaves its result there. It
/// must not unwind.
pub(crate) type Start = unsafe fn(&Frame);

/// How a stack is left.
///
/// After a switch to another stack, a processor mispredicts the return from every function on it. So there should be as
/// few functions as possible between the switch and the code that waits, and this is not a function pointer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Leave {
    #[cfg(fiber_stack)]
    Fiber,
    #[cfg(feature = "thread-backend")]
    Thread,
}

thread_cell! {
    /// The frame of the innermost stack that this thread is on, or null.
    static CURRENT: *const Frame = ptr::null();
}

/// See [`CURRENT`].
#[inline]
fn current() -> *const Frame {
    CURRENT.with(std::cell::Cell::get)
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Frame {
    /// The backend's way to switch from the stack back to the poller.
    leave: Leave,
    /// The backend sets this before anything runs on the stack.
    backend: Cell<*const ()>,
    /// The state of nested calls, and of host futures that make them.
    #[cfg(fiber_stack)]
    pub(crate) nesting: Nesting,
    /// The user's hook for the code on the stack. Only for fiber stacks.
    #[cfg(fiber_stack)]
    hook: RefCell<Option<Hook>>,
    /// What the next entry starts. If an idle stack is entered with `None`, it ends.
    start: Cell<Option<Start>>,
    /// Where the call finds its input and leaves its result. The poller sets this at each entry. It is valid until the
    /// stack is left.
    slot: Cell<*mut ()>,
    /// Counts the entries, so that code can tell whether the stack was suspended in the meantime.
    entries: Cell<usize>,
    /// The poller's waker. Set at each entry, and valid until the stack is left. Null while the call is being
    /// cancelled.
    waker: Cell<*const Waker>,
    /// A clone of the poller's waker for the futures of this call. A future may still hold a reference to it after the
    /// poller has gone (if it polls something that suspends the stack). So it is only replaced while `polling` is
    /// false.
    kept: UnsafeCell<Option<Waker>>,
    /// Whether a future is being polled on this stack, with a reference to `kept`.
    polling: Cell<bool>,
    /// The poller sets this once, when the call is dropped. From then on nothing may suspend.
    cancelled: Cell<bool>,
    /// How many more futures this entry may wait for before it lets other tasks run. Only for threads' stacks.
    #[cfg(feature = "thread-backend")]
    budget: Cell<u32>,
    /// What may be suspended on this stack.
    pub(crate) limits: Limits,
    /// The lowest address and the size of a thread's stack, set before anything runs on it.
    #[cfg(feature = "thread-backend")]
    extent: Cell<(usize, usize)>,
}

/// Makes a frame the current one of this thread, until it is dropped.
pub(crate) struct Entered {
    outer: *const Frame,
    /// Entered before the frame becomes current, and left afterwards. (`ManuallyDrop` keeps the destructor small enough
    /// to be inlined.)
    #[cfg(fiber_stack)]
    surroundings: ManuallyDrop<Option<Surroundings>>,
}

impl Drop for Entered {
    #[inline]
    fn drop(&mut self) {
        CURRENT.with(|current| current.set(self.outer));
        #[cfg(fiber_stack)]
        if self.surroundings.is_some() {
            self.leave_surroundings();
        }
    }
}

#[cfg(fiber_stack)]
impl Entered {
    #[cold]
    fn leave_surroundings(&mut self) {
        drop(self.surroundings.take());
    }
}

impl Frame {
    /// Makes a frame whose stack is left by `leave`, and which suspends what `rule` allows.
    pub(crate) fn new(leave: Leave, rule: Rule) -> Self {
        Self {
            leave,
            backend: Cell::new(ptr::null()),
            #[cfg(fiber_stack)]
            nesting: Nesting::default(),
            #[cfg(fiber_stack)]
            hook: RefCell::new(None),
            start: Cell::new(None),
            slot: Cell::new(ptr::null_mut()),
            entries: Cell::new(0),
            waker: Cell::new(ptr::null()),
            kept: UnsafeCell::new(None),
            polling: Cell::new(false),
            cancelled: Cell::new(false),
            #[cfg(feature = "thread-backend")]
            budget: Cell::new(waiting::BUDGET),
            limits: Limits::new(rule),
            #[cfg(feature = "thread-backend")]
            extent: Cell::new((0, 0)),
        }
    }

    // ---- the backend's side

    /// Sets the argument of `leave`.
    pub(crate) fn set_backend(&self, backend: *const ()) {
        self.backend.set(backend);
    }

    /// Notes where a thread's stack lies. Called at its root.
    #[cfg(feature = "thread-backend")]
    pub(crate) fn set_extent(&self, size: usize) {
        self.extent.set((stack::here().saturating_sub(size), size));
    }

    /// Runs one call after the other at the root of the stack, until the stack is entered with nothing to start.
    ///
    /// # Safety
    ///
    /// Runs on the stack that belongs to this frame, and the frame's backend is set. The caller of each entry upholds
    /// the contract of [`Backend::enter`](crate::stack::Backend::enter).
    pub(crate) unsafe fn serve(&self) {
        // SAFETY: up to the caller.
        while unsafe { self.serve_once() } {
            // SAFETY: the backend is set, and this is its stack.
            unsafe { self.leave() };
        }
    }

    /// Runs the call that has begun, if there is one.
    ///
    /// # Safety
    ///
    /// That of [`serve`](Self::serve).
    pub(crate) unsafe fn serve_once(&self) -> bool {
        let Some(start) = self.start.take() else { return false };
        // SAFETY: the code that set the function also set a slot of its type.
        unsafe { start(self) };
        true
    }

    /// The current frame of this thread, or null.
    #[inline]
    pub(crate) fn current() -> *const Self {
        current()
    }

    /// Whether this is the current frame of this thread.
    #[inline]
    pub(crate) fn is_current(this: *const Self) -> bool {
        ptr::eq(current(), this)
    }

    /// Makes this frame the current one of this thread. Its stack is about to run.
    #[inline(always)]
    pub(crate) fn make_current(&self) -> Entered {
        self.limits.enter();
        Entered {
            #[cfg(fiber_stack)]
            surroundings: ManuallyDrop::new(self.surroundings()),
            outer: CURRENT.with(|current| current.replace(self)),
        }
    }

    /// Leaves this thread without a current frame, for code that must not suspend a stack.
    pub(crate) fn hide_current() -> Entered {
        Entered {
            #[cfg(fiber_stack)]
            surroundings: ManuallyDrop::new(None),
            outer: CURRENT.with(|current| current.replace(ptr::null())),
        }
    }

    /// Sets the hook for the code of future calls.
    #[cfg(fiber_stack)]
    pub(crate) fn set_hook(&self, hook: Option<Hook>) {
        self.hook.replace(hook);
    }

    /// Enters the ambient state of the entry that begins.
    #[cfg(fiber_stack)]
    #[inline]
    fn surroundings(&self) -> Option<Surroundings> {
        self.hook.borrow().as_ref()?.enter()
    }

    // ---- the poller's side

    /// Prepares an idle frame for the entry that starts a call.
    #[inline]
    pub(crate) fn begin(&self, start: Start) {
        self.start.set(Some(start));
    }

    /// Sets the slot and the waker for the next entry.
    #[inline]
    pub(crate) fn begin_entry(&self, slot: *mut (), waker: Option<&Waker>) {
        self.slot.set(slot);
        self.entries.set(self.entries.get().wrapping_add(1));
        self.waker.set(waker.map_or(ptr::null(), ptr::from_ref));
    }

    /// Whether the call is being cancelled.
    #[cfg(fiber_stack)]
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.get()
    }

    /// Whether one of this frame's futures is being polled.
    #[cfg(fiber_stack)]
    pub(crate) fn is_polling(&self) -> bool {
        self.polling.get()
    }

    /// Whether this stack is a thread's.
    #[cfg(feature = "thread-backend")]
    pub(crate) fn is_of_thread(&self) -> bool {
        matches!(self.leave, Leave::Thread)
    }

    /// Whether a thread's stack has room for one more guest that a host function calls. wasmtime's limit stops compiled
    /// code, but does not know how much space the host functions in between have used. For the guests of another store
    /// than the call's, wasmtime counts the limit anew from here.
    ///
    /// # Errors
    ///
    /// If this code runs on a stack within the thread's, whose end is unknown.
    #[cfg(feature = "thread-backend")]
    pub(crate) fn has_room(&self, store: *const (), engine: &Engine) -> Result<bool, Error> {
        let (end, size) = self.extent.get();
        let left = stack::here().checked_sub(end).filter(|left| *left <= size);
        let left = left.ok_or(Error::ForeignFrames { between: Between::OtherStack })?;
        let guests = if engine.is_pulley() { 0 } else { engine.get_max_wasm_stack() };
        if !self.limits.is_of(store) && stack::check_room(left, engine).is_err() {
            return Ok(false);
        }
        Ok(left >= size.saturating_sub(guests) / 4)
    }

    /// Whether a call has begun that was not entered yet.
    #[cfg(fiber_stack)]
    pub(crate) fn is_to_start(&self) -> bool {
        self.start.get().is_some()
    }

    /// Makes a frame for a call within this one, on the same stack.
    #[cfg(fiber_stack)]
    pub(crate) fn nested(&self) -> Self {
        let nested = Self::new(self.leave, self.limits.rule());
        nested.backend.set(self.backend.get());
        nested.nesting.set_runner(self.nesting.runner());
        nested
    }

    /// Cancels the call: from now on, every attempt to suspend returns an error.
    pub(crate) fn cancel(&self) {
        self.cancelled.set(true);
    }

    /// Notes that the call has ended, and clears everything that belonged to it.
    #[inline]
    pub(crate) fn end(&self) {
        self.cancelled.set(false);
        self.begin_entry(ptr::null_mut(), None);
        #[cfg(fiber_stack)]
        debug_assert!(!self.nesting.is_aside(), "a call ended with a host future aside");
        debug_assert!(!self.polling.get(), "a call ended while a future of its own was being polled");
        // SAFETY: no future is being polled, so nothing refers to the waker. The stack is idle, so nothing else runs.
        drop(self.kept.with_mut(|kept| unsafe { (*kept).take() }));
    }

    // ---- the side of the code on the stack

    /// Where the call finds its input and leaves its result.
    #[inline]
    pub(crate) fn slot(&self) -> *mut () {
        self.slot.get()
    }

    /// Calls `f` with the frame of the innermost stack that this code runs on.
    ///
    /// # Errors
    ///
    /// [`Error::NotOnStack`] if this code does not run on one.
    #[inline]
    pub(crate) fn with_current<R>(f: impl FnOnce(&Self) -> Result<R, Error>) -> Result<R, Error> {
        // SAFETY: a frame is only current while its stack runs code, which is this code, and it outlives that code.
        // (The exception is a foreign coroutine that carries this code to where another stack is entered: see the
        // module `reviewing`.)
        let current = unsafe { current().as_ref() };
        f(current.ok_or(Error::NotOnStack)?)
    }

    /// Leaves the stack until it is entered again.
    ///
    /// # Safety
    ///
    /// On this frame's stack, with the backend set.
    #[inline]
    pub(crate) unsafe fn leave(&self) {
        match self.leave {
            #[cfg(fiber_stack)]
            // SAFETY: up to the caller.
            Leave::Fiber => unsafe { stack::fiber::leave(self.backend.get()) },
            #[cfg(feature = "thread-backend")]
            Leave::Thread => {
                self.budget.set(waiting::BUDGET);
                // SAFETY: up to the caller.
                unsafe { stack::thread::leave(self.backend.get()) };
            }
        }
    }
}
