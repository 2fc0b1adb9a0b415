//! What the two sides of a running call share: the poller, which enters the stack, and the code on the stack, which
//! leaves it again.
//!
//! Each stack has one [`Frame`], at an address that does not change. Exactly one side runs at any moment, and handing
//! control over is a happens-before edge (a function call for fibers, the handoff for threads), so that plain cells
//! are enough.
#![expect(unsafe_code, reason = "frames are reached by pointer from the code that runs on their stack")]

use crate::Error;
#[cfg(fiber_stack)]
use crate::error::Between;
use crate::limits::{Limits, Rule, Site};
#[cfg(fiber_stack)]
use crate::nesting::Nesting;
use crate::stack;
use crate::sync::cell::{Cell, UnsafeCell};
use crate::sync::thread_cell;
use std::future::Future;
use std::pin::Pin;
use std::ptr;
use std::task::{Context, Poll, Waker};

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
    /// What may be suspended on this stack.
    pub(crate) limits: Limits,
}

/// Makes a frame the current one of this thread, until it is dropped.
pub(crate) struct Entered {
    outer: *const Frame,
}

impl Drop for Entered {
    #[inline]
    fn drop(&mut self) {
        CURRENT.with(|current| current.set(self.outer));
    }
}

/// What came of polling a future once.
pub(crate) enum Polled<T> {
    Ready(T),
    Pending,
    /// Pending, but the stack was suspended within the poll. What the future had asked to be woken for may have happened
    /// since, with the wake-up spent on what the stack was waiting for then, or with another poller's waker.
    Stale,
}

impl Frame {
    /// A frame whose stack is left by `leave`, and suspends what `rule` says.
    pub(crate) fn new(leave: Leave, rule: Rule) -> Self {
        Self {
            leave,
            backend: Cell::new(ptr::null()),
            #[cfg(fiber_stack)]
            nesting: Nesting::default(),
            start: Cell::new(None),
            slot: Cell::new(ptr::null_mut()),
            stretch: Cell::new(0),
            waker: Cell::new(ptr::null()),
            kept: UnsafeCell::new(None),
            polling: Cell::new(false),
            cancelled: Cell::new(false),
            limits: Limits::new(rule),
        }
    }

    // ---- the backend's side

    /// What `leave` is called with.
    pub(crate) fn set_backend(&self, backend: *const ()) {
        self.backend.set(backend);
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
        Entered { outer: CURRENT.with(|current| current.replace(self)) }
    }

    /// Makes no frame the current one of this thread, for code on a stack that must not suspend it.
    #[cfg(feature = "thread-backend")]
    pub(crate) fn hide_current() -> Entered {
        Entered { outer: CURRENT.with(|current| current.replace(ptr::null())) }
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
    pub(crate) fn is_of_thread(&self) -> bool {
        match self.leave {
            #[cfg(fiber_stack)]
            Leave::Fiber => false,
            #[cfg(feature = "thread-backend")]
            Leave::Thread => true,
        }
    }

    /// Whether a call was begun that has not been entered yet.
    #[cfg(fiber_stack)]
    pub(crate) fn is_to_start(&self) -> bool {
        self.start.get().is_some()
    }

    /// Whether a waker is the one that this frame gives to futures, so that its task polls all of the host function.
    #[inline]
    pub(crate) fn is_own_waker(&self, waker: &Waker) -> bool {
        // SAFETY: nothing replaces `kept` while this reference lives: `will_wake` compares two words.
        self.kept.with(|kept| unsafe { &*kept }.as_ref().is_some_and(|kept| kept.will_wake(waker)))
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

    /// Polls the future until it is ready, suspending the stack whenever it is not.
    ///
    /// The future is pinned where it was made: to move it takes longer than to poll one that is ready. Only if it may have
    /// nested calls, `NESTS`, is its address given away. Otherwise a small one is not in memory at all.
    #[inline]
    pub(crate) fn block_on<const NESTS: bool, F: Future>(
        &self,
        mut future: Pin<&mut Option<F>>,
        site: Site,
    ) -> Result<F::Output, Error> {
        loop {
            if self.cancelled.get() {
                return Err(Error::Cancelled);
            }
            let Some(polled) = future.as_mut().as_pin_mut().map(|future| self.poll(future)) else {
                return Err(Error::Cancelled);
            };
            match polled {
                Polled::Ready(output) => return Ok(output),
                #[cfg(fiber_stack)]
                Polled::Pending | Polled::Stale if NESTS && self.nesting.take_wanted() => {
                    if let Some(output) = self.wait_for_nested(future.as_mut(), site)? {
                        return Ok(output);
                    }
                }
                Polled::Pending => self.suspend(site)?,
                Polled::Stale => (),
            }
        }
    }

    /// Suspends the stack once, having asked to be resumed soon.
    pub(crate) fn yield_now(&self, site: Site) -> Result<(), Error> {
        if self.cancelled.get() {
            return Err(Error::Cancelled);
        }
        self.allow(site)?;
        // A clone, because waking runs foreign code, and the poller's waker is gone should that suspend. Woken by value, so
        // that the clone is gone, too, when this suspends.
        let waker = self.poller_waker().clone();
        let stretch = self.stretch.get();
        waker.wake();
        // Should that have suspended, the turn of others has been.
        if self.stretch.get() == stretch { self.suspend(site) } else { Ok(()) }
    }

    /// Polls once, with a waker that wakes the task of the poller.
    #[inline]
    pub(crate) fn poll<F: Future>(&self, future: Pin<&mut F>) -> Polled<F::Output> {
        struct Polling<'a> {
            polling: &'a Cell<bool>,
            outer: bool,
        }
        impl Drop for Polling<'_> {
            #[inline]
            fn drop(&mut self) {
                self.polling.set(self.outer);
            }
        }

        // Before anything of the user's runs, a waker's destructor included.
        let stretch = self.stretch.get();
        let own;
        let waker = if self.polling.get() {
            // Inside the poll of another future, which may hold a reference to `kept`.
            own = self.poller_waker().clone();
            &own
        } else {
            self.keep_waker();
            // SAFETY: `kept` is not replaced while `polling` is set.
            self.kept.with(|kept| unsafe { &*kept }).as_ref().unwrap_or(Waker::noop())
        };
        let polling = Polling { polling: &self.polling, outer: self.polling.replace(true) };
        let polled = future.poll(&mut Context::from_waker(waker));
        drop(polling);
        match polled {
            Poll::Ready(output) => Polled::Ready(output),
            Poll::Pending if self.stretch.get() == stretch => Polled::Pending,
            Poll::Pending => Polled::Stale,
        }
    }

    /// The waker of this stretch. Only before the stack is left.
    #[inline]
    fn poller_waker(&self) -> &Waker {
        // SAFETY: the poller keeps its waker alive while it waits for the stack to be left.
        unsafe { self.waker.get().as_ref() }.unwrap_or(Waker::noop())
    }

    /// Makes `kept` a waker that wakes the same task as the poller's.
    #[inline]
    fn keep_waker(&self) {
        debug_assert!(!self.polling.get());
        let waker = self.poller_waker();
        if !self.is_own_waker(waker) {
            let fresh = waker.clone();
            // SAFETY: no future is being polled, so nothing refers to what is replaced.
            let stale = self.kept.with_mut(|kept| unsafe { (*kept).replace(fresh) });
            // Only now, since this may run anything.
            drop(stale);
        }
    }

    /// Whether this stack may be suspended by the running code.
    ///
    /// # Errors
    ///
    /// What is in the way.
    #[inline]
    pub(crate) fn allow(&self, site: Site) -> Result<(), Error> {
        #[cfg(fiber_stack)]
        if self.nesting.is_aside() {
            // This code does not even run on the stack.
            return Err(Error::ForeignFrames { between: Between::Poll });
        }
        Ok(self.limits.allow(site, self.polling.get())?)
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
            // SAFETY: as above.
            Leave::Thread => unsafe { stack::thread::leave(self.backend.get()) },
        }
    }

    /// Leaves the stack and comes back when the poller enters it again.
    #[inline]
    fn suspend(&self, site: Site) -> Result<(), Error> {
        debug_assert!(!self.cancelled.get(), "a poll in whose middle the call was cancelled is stale");
        self.allow(site)?;
        // SAFETY: the backend was set before this stack ran anything, and this code runs on the stack.
        unsafe { self.leave() };
        if self.cancelled.get() { Err(Error::Cancelled) } else { Ok(()) }
    }
}
