//! Calls within calls: host functions that call their guest and wait for it, as a future.
//!
//! The guest that a host function calls runs on the same stack, on top of the host function's frames, because wasmtime keeps
//! one stack limit a store. Were the host function's future polled there, it would lie below that guest, and be suspended with
//! it in the middle of its poll. But a pinned future can be polled from anywhere. So while a nested call is under way, the
//! host function's future is polled *aside*, on a second stack that never holds suspended frames:
//!
//! ```text
//! the guest's stack                                       the stack aside
//!
//! guest → host function, which polls its future
//!         the future wants to call the guest, is pending
//!         leaves ─────────────────────────────────────→  polls the future
//!         runs the nested guest  ←─────────────────────  the nested call's future enters
//!         … → host function, which waits and leaves ──→  it is pending, and with it whatever surrounds it
//!                                                        (all further polls begin here)
//!                      nested guest goes on  ←─────────  the nested call's future enters
//!         ends, leaves ────────────────────────────────→ it is ready
//!         polls its future again  ←────────────────────
//! ```
//!
//! Each nested call has a [`Frame`] of its own. The *host frame* is that of the call whose host function made it. A nested
//! call is polled and dropped by its future alone, so whoever has the future has the guest. What of the stack belongs to a
//! nested call whose future was forgotten is never touched again, nor is what lies below: the whole call is *lost*.
#![expect(unsafe_code, reason = "a future on one stack is polled from another")]

use crate::Error;
use crate::frame::Frame;
use crate::frame::waiting::Polled;
use crate::limits::Site;
use std::cell::Cell;
use std::future::Future;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::ptr;
use std::task::Poll;
use std::thread;

/// What a frame knows of calls within its own.
#[derive(Debug)]
pub(crate) struct Nesting {
    /// What enters the stack. Set by the backend.
    runner: Cell<*const ()>,
    /// Whether a nested call's future wants to be polled aside, and was not yet.
    wanted: Cell<bool>,
    /// The host future that is polled aside.
    aside: Cell<Option<Aside>>,
    /// Whether the nested call has ended, and the host future is to be polled on the guest's stack at once.
    back: Cell<bool>,
    /// The nested call that is on the stack: from its beginning until its guest has left.
    nested: Cell<*const Frame>,
    /// Whether that was forgotten, so that this call will never end.
    lost: Cell<bool>,
}

impl Default for Nesting {
    fn default() -> Self {
        Self {
            runner: Cell::new(ptr::null()),
            wanted: Cell::new(false),
            aside: Cell::new(None),
            back: Cell::new(false),
            nested: Cell::new(ptr::null()),
            lost: Cell::new(false),
        }
    }
}

/// A host future on the guest's stack, with its type erased.
#[derive(Clone, Copy, Debug)]
struct Aside {
    /// A [`Guest`] of its type.
    guest: *mut (),
    /// Polls it, or drops it if its call is being cancelled, and says whether it is still there.
    step: unsafe fn(*mut (), &Frame) -> Poll<()>,
}

/// How code gets aside: by a switch of stacks, or it is there already.
pub(crate) trait StepAside {
    /// Runs something on the stack aside.
    fn step_aside(&self, f: impl FnOnce());
}

/// What lies on the guest's stack while its future is polled aside.
struct Guest<'a, F: Future> {
    future: Pin<&'a mut Option<F>>,
    /// What it came to, if it is gone and was not cancelled.
    outcome: Option<thread::Result<F::Output>>,
}

impl Nesting {
    pub(crate) fn set_runner(&self, runner: *const ()) {
        self.runner.set(runner);
    }

    pub(crate) fn runner(&self) -> *const () {
        self.runner.get()
    }

    /// A nested call's future, polled on the guest's stack, wants to be polled aside.
    pub(crate) fn want(&self) {
        self.wanted.set(true);
    }

    /// It was polled aside, or is gone.
    pub(crate) fn want_no_more(&self) {
        self.wanted.set(false);
    }

    /// Whether one wants that.
    #[inline]
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.get()
    }

    /// Whether the host future is polled aside.
    #[inline]
    pub(crate) fn is_aside(&self) -> bool {
        self.aside.get().is_some()
    }

    /// A nested call's future has a result, to be had on the guest's stack.
    pub(crate) fn go_back(&self) {
        self.back.set(true);
    }

    /// Whether a nested call is on the stack, suspended.
    pub(crate) fn has_nested(&self) -> bool {
        !self.nested.get().is_null()
    }

    /// The call that is about to be entered for the first time.
    pub(crate) fn begin(&self, nested: &Frame) {
        self.nested.set(nested);
    }

    /// Whether a nested call was forgotten, and with it this one.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.get()
    }
}

impl Frame {
    /// Waits for a host future that has nested calls: leaves the stack, so that it is polled aside, and runs the nested
    /// calls. `None` if it is to be polled here again, or was dropped because its call is being cancelled.
    ///
    /// # Errors
    ///
    /// What is in the way of suspending this stack.
    #[inline(never)]
    pub(crate) fn wait_for_nested<F: Future>(
        &self,
        future: Pin<&mut Option<F>>,
        site: Site,
    ) -> Result<Option<F::Output>, Error> {
        self.allow(site)?;
        let mut guest = Guest { future, outcome: None };
        let guest = ptr::from_mut(&mut guest);
        self.nesting.aside.set(Some(Aside { guest: guest.cast(), step: step::<F> }));
        loop {
            // SAFETY: the backend was set before this stack ran anything, and this code runs on the stack.
            unsafe { self.leave() };
            // SAFETY: it stays where it is until its job has ended, below.
            let Some(nested) = (unsafe { self.nesting.nested.get().as_ref() }) else { break };
            // SAFETY: this is its stack, and its future has just entered it for the first time.
            unsafe { nested.serve_once() };
            self.nesting.nested.set(ptr::null());
        }
        // It does no more, unless it was forgotten.
        self.nesting.want_no_more();
        // SAFETY: nobody polls the future aside any more.
        let outcome = unsafe { (*guest).outcome.take() };
        outcome.transpose().map_or_else(|payload| resume_unwind(payload), Ok)
    }

    /// Enters the stack until the call is suspended or has ended, and polls the host future aside while it has to be.
    ///
    /// # Safety
    ///
    /// `resume` may enter the stack, and `aside` leads to a stack that lies below it in memory.
    #[inline(always)]
    pub(crate) unsafe fn drive(&self, resume: impl Fn(), aside: &impl StepAside) {
        if !self.nesting.is_aside() {
            resume();
        }
        if self.nesting.is_aside() {
            self.drive_aside(resume, aside);
        }
    }

    #[inline(never)]
    fn drive_aside(&self, resume: impl Fn(), aside: &impl StepAside) {
        let nesting = &self.nesting;
        while let Some(Aside { guest, step }) = nesting.aside.get() {
            let mut polled = Poll::Pending;
            // SAFETY: it lies on the stack, which is not entered but by nested calls, until `aside` is taken back.
            aside.step_aside(|| polled = unsafe { step(guest, self) });
            let goes_back = nesting.back.take();
            match (polled, nesting.has_nested()) {
                (Poll::Pending, true) => return,
                // Gone, with the nested call's future or without. The guest that it left behind is in the way for ever.
                (Poll::Ready(()), true) => return nesting.lost.set(true),
                // Not every poll of the host function's future polls the nested call's.
                (Poll::Pending, false) if !goes_back && nesting.is_wanted() => return,
                (Poll::Pending, false) if !goes_back => return nesting.aside.set(None),
                (_, false) => nesting.aside.set(None),
            }
            resume();
        }
    }
}

/// See [`Aside::step`].
///
/// # Safety
///
/// `guest` is a valid `Guest<F>` that nobody else uses meanwhile, waiting on the stack of this frame.
unsafe fn step<F: Future>(guest: *mut (), frame: &Frame) -> Poll<()> {
    // SAFETY: up to the caller.
    let guest = unsafe { &mut *guest.cast::<Guest<'_, F>>() };
    if !frame.is_cancelled() {
        let future = guest.future.as_mut().as_pin_mut();
        match catch_unwind(AssertUnwindSafe(|| future.map(|future| frame.poll(future)))) {
            Ok(Some(Polled::Ready(output))) => guest.outcome = Some(Ok(output)),
            Ok(Some(Polled::Pending | Polled::Stale)) => return Poll::Pending,
            Ok(None) => {}
            Err(payload) => guest.outcome = Some(Err(payload)),
        }
    }
    // Here, because the nested call's future, if it is still there, enters the stack to cancel its guest.
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| guest.future.set(None))) {
        match &guest.outcome {
            // Its destructor may panic.
            Some(Err(_)) => mem::forget(payload),
            _ => guest.outcome = Some(Err(payload)),
        }
    }
    Poll::Ready(())
}
