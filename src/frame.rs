//! What the two sides of a running call share: the poller, which enters the stack, and the code on the stack, which
//! leaves it again.
//!
//! Each stack has one [`Frame`], at an address that does not change. Exactly one side runs at any moment, and handing
//! control over is a happens-before edge (a function call for fibers, the handoff for threads), so that plain cells
//! are enough.
#![expect(unsafe_code, reason = "frames are reached by pointer from the code that runs on their stack")]

// Named for the models, which include this file by its path.
#[path = "frame/waiting.rs"]
pub(crate) mod waiting;

use crate::Error;
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
use std::ptr;
use std::task::Waker;
#[cfg(feature = "thread-backend")]
use wasmtime::Engine;

/// The function that runs a call on its stack: takes its input from [`Frame::slot`] and leaves its result there. Must
/// not unwind.
pub(crate) type Start = unsafe fn(&Frame);

/// How a stack is left.
///
/// A processor that goes on with another stack mispredicts the returns from all functions that it then leaves, so there
/// should be as few as can be between the switch and the code that waits: hence no pointer to a function.
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
    /// The backend's switch from the stack back to the poller.
    leave: Leave,
    /// Set by the backend before anything runs on the stack.
    backend: Cell<*const ()>,
    /// Where nested calls are, and host futures that have them.
    #[cfg(fiber_stack)]
    pub(crate) nesting: Nesting,
    /// What the user wants around the code on the stack. Only for stacks that are switched to.
    #[cfg(fiber_stack)]
    hook: RefCell<Option<Hook>>,
    /// What the next entry starts. `None` at an entry of an idle stack: the stack ends.
    start: Cell<Option<Start>>,
    /// Where the call finds its input and leaves its result. Set by the poller at each entry, valid until the stack is
    /// left.
    slot: Cell<*mut ()>,
    /// Counts the entries, so that code can tell that the stack was suspended meanwhile.
    stretch: Cell<usize>,
    /// The poller's waker. Set at each entry, valid until it is left; null while the call is being cancelled.
    waker: Cell<*const Waker>,
    /// A clone of the poller's waker for the futures of this call. A future may still hold a reference to it when the
    /// poller has gone (it polls something that suspends the stack), so it is replaced only while `polling` is false.
    kept: UnsafeCell<Option<Waker>>,
    /// Whether a future is being polled on this stack, with a reference to `kept`.
    polling: Cell<bool>,
    /// Set once by the poller when the call is dropped: from then on nothing may suspend.
    cancelled: Cell<bool>,
    /// How many more futures may be waited for in this stretch before others have a turn. Only for stacks of threads.
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
    /// Entered before, and left after.
    #[cfg(fiber_stack)]
    _surroundings: Option<Surroundings>,
}

impl Drop for Entered {
    #[inline]
    fn drop(&mut self) {
        CURRENT.with(|current| current.set(self.outer));
    }
}

impl Frame {
    /// A frame whose stack is left by `leave`, and suspends what `rule` says.
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
            stretch: Cell::new(0),
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

    /// What `leave` is called with.
    pub(crate) fn set_backend(&self, backend: *const ()) {
        self.backend.set(backend);
    }

    /// Notes where the stack of a thread lies. Called at its root.
    #[cfg(feature = "thread-backend")]
    pub(crate) fn set_extent(&self, size: usize) {
        self.extent.set((stack::here().saturating_sub(size), size));
    }

    /// Runs one call after another, at the root of the stack, until the stack is entered with nothing to start.
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

    /// Runs the call that was begun, if there is one.
    ///
    /// # Safety
    ///
    /// That of [`serve`](Self::serve).
    pub(crate) unsafe fn serve_once(&self) -> bool {
        let Some(start) = self.start.take() else { return false };
        // SAFETY: whoever set the function also set a slot of its type.
        unsafe { start(self) };
        true
    }

    /// The current frame of this thread, or null.
    pub(crate) fn current() -> *const Self {
        current()
    }

    /// Whether this is the current frame of this thread.
    pub(crate) fn is_current(this: *const Self) -> bool {
        ptr::eq(current(), this)
    }

    /// Makes this the current frame of this thread, whose stack is about to run.
    #[inline]
    pub(crate) fn make_current(&self) -> Entered {
        self.limits.enter();
        Entered {
            #[cfg(fiber_stack)]
            _surroundings: self.surroundings(),
            outer: CURRENT.with(|current| current.replace(self)),
        }
    }

    /// Makes no frame the current one of this thread, for code that must not suspend a stack.
    pub(crate) fn hide_current() -> Entered {
        Entered {
            #[cfg(fiber_stack)]
            _surroundings: None,
            outer: CURRENT.with(|current| current.replace(ptr::null())),
        }
    }

    /// Sets what surrounds the code of the calls to come.
    #[cfg(fiber_stack)]
    pub(crate) fn set_hook(&self, hook: Option<Hook>) {
        self.hook.replace(hook);
    }

    /// What surrounds the stretch that begins.
    #[cfg(fiber_stack)]
    #[inline]
    fn surroundings(&self) -> Option<Surroundings> {
        self.hook.borrow().as_ref()?.enter()
    }

    // ---- the poller's side

    /// Gets an idle frame ready for the entry that starts a call.
    #[inline]
    pub(crate) fn begin(&self, start: Start) {
        self.start.set(Some(start));
    }

    /// Sets what the next stretch of work runs with.
    #[inline]
    pub(crate) fn set_stretch(&self, slot: *mut (), waker: Option<&Waker>) {
        self.slot.set(slot);
        self.stretch.set(self.stretch.get().wrapping_add(1));
        self.waker.set(waker.map_or(ptr::null(), ptr::from_ref));
    }

    /// Whether the call is being cancelled.
    #[cfg(fiber_stack)]
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.get()
    }

    /// Whether a future of this frame's is being polled.
    #[cfg(fiber_stack)]
    pub(crate) fn is_polling(&self) -> bool {
        self.polling.get()
    }

    /// Whether this stack is a thread's.
    #[cfg(feature = "thread-backend")]
    pub(crate) fn is_of_thread(&self) -> bool {
        matches!(self.leave, Leave::Thread)
    }

    /// Whether there is room on a thread's stack for one more guest that a host function calls. Compiled code is stopped by
    /// wasmtime's limit, which does not know how much the host functions in between have used.
    #[cfg(feature = "thread-backend")]
    pub(crate) fn has_room(&self, engine: &Engine) -> bool {
        let (end, size) = self.extent.get();
        let guests = if engine.is_pulley() { 0 } else { engine.get_max_wasm_stack() };
        stack::here().saturating_sub(end) >= size.saturating_sub(guests) / 4
    }

    /// Whether a call was begun that has not been entered yet.
    #[cfg(fiber_stack)]
    pub(crate) fn is_to_start(&self) -> bool {
        self.start.get().is_some()
    }

    /// A frame for a call within this one, on the same stack.
    #[cfg(fiber_stack)]
    pub(crate) fn nested(&self) -> Self {
        let nested = Self::new(self.leave, self.limits.rule());
        nested.backend.set(self.backend.get());
        nested.nesting.set_runner(self.nesting.runner());
        nested
    }

    /// From now on, whatever tries to suspend is told that the call is cancelled.
    pub(crate) fn cancel(&self) {
        self.cancelled.set(true);
    }

    /// The call has ended: forgets all that belonged to it.
    #[inline]
    pub(crate) fn end(&self) {
        self.cancelled.set(false);
        self.set_stretch(ptr::null_mut(), None);
        #[cfg(fiber_stack)]
        debug_assert!(!self.nesting.is_aside(), "a call ended with a host future aside");
        debug_assert!(!self.polling.get(), "a call ended while a future of its own was being polled");
        // SAFETY: no future is being polled, so nothing refers to the waker; the stack is idle, so nothing else runs.
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
        // SAFETY: a frame is current only while its stack runs code, this code, and outlives it. (Unless somebody's own
        // coroutine carries this code on to where another stack is entered: see the module `reviewing`.)
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
                // SAFETY: as above.
                unsafe { stack::thread::leave(self.backend.get()) };
            }
        }
    }
}
