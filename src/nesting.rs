//! Nested calls: a host function calls its guest and waits for it, as a future.
//!
//! The guest that a host function calls runs on the same stack, on top of the host function's frames, because wasmtime
//! keeps one stack limit per store. If the host function's future were polled there, it would lie below that guest, and
//! would be suspended together with it in the middle of a poll. But a pinned future can be polled from anywhere. So
//! while a nested call is under way, the host function's future is polled *aside*, on a second stack that never holds
//! suspended frames:
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
//!                      nested guest resumes  ←─────────  the nested call's future enters
//!         ends, leaves ────────────────────────────────→ it is ready
//!         polls its future again  ←────────────────────
//! ```
//!
//! Each nested call has a [`Frame`] of its own. The *host frame* belongs to the call whose host function made the
//! nested call. Only its future polls and drops a nested call, so the owner of the future also owns the guest. If the
//! future of a nested call is forgotten, nothing touches its part of the stack again, or anything below it: the whole
//! call is *lost*.
#![expect(unsafe_code, reason = "a future on one stack is polled from another")]

use crate::Error;
use crate::frame::Frame;
use crate::frame::waiting::Polled;
use crate::limits::Site;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::ptr;
use std::task::Poll;
use std::thread;

/// The state of a frame that concerns nested calls.
#[derive(Debug)]
pub(crate) struct Nesting {
    /// The runner that enters the stack. The backend sets it.
    runner: Cell<*const ()>,
    /// Whether the future of a nested call wants to be polled aside, and has not been yet.
    wanted: Cell<bool>,
    /// The host future that is being polled aside.
    aside: Cell<Option<Aside>>,
    /// Whether the nested call has ended, so that the host future must be polled on the guest's stack at once.
    back: Cell<bool>,
    /// The nested call that is on the stack. Set from its beginning until its guest has left the stack.
    nested: Cell<*const Frame>,
    /// Whether that nested call was forgotten. Then this call can never end.
    lost: Cell<bool>,
    /// The frame of an earlier nested call, for the next one.
    spare: RefCell<Option<Box<Frame>>>,
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
            spare: RefCell::new(None),
        }
    }
}

/// A host future on the guest's stack, with its type erased.
#[derive(Clone, Copy, Debug)]
struct Aside {
    /// A [`Guest`] of its type.
    guest: *mut (),
    /// Polls the future, or drops it if its call is being cancelled. Returns whether it is still there.
    step: unsafe fn(*mut (), &Frame) -> Poll<()>,
}

/// A way to get to the stack aside: by a switch of stacks, or because the code is there already.
pub(crate) trait StepAside {
    /// Runs a closure on the stack aside.
    fn step_aside(&self, f: impl FnOnce());
}

/// The data on the guest's stack while its future is polled aside.
struct Guest<'a, F: Future> {
    future: Pin<&'a mut Option<F>>,
    /// The result, if the future has ended and was not cancelled.
    outcome: Option<thread::Result<F::Output>>,
}

impl Nesting {
    pub(crate) fn set_runner(&self, runner: *const ()) {
        self.runner.set(runner);
    }

    pub(crate) fn runner(&self) -> *const () {
        self.runner.get()
    }

    /// Notes that the future of a nested call, which was polled on the guest's stack, wants to be polled aside.
    pub(crate) fn want(&self) {
        self.wanted.set(true);
    }

    /// Notes that this future was polled aside, or is gone.
    pub(crate) fn want_no_more(&self) {
        self.wanted.set(false);
    }

    /// Whether the future of a nested call wants to be polled aside.
    #[inline]
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.get()
    }

    /// Whether the host future is polled aside.
    #[inline]
    pub(crate) fn is_aside(&self) -> bool {
        self.aside.get().is_some()
    }

    /// Notes that the future of a nested call has a result, which it will return on the guest's stack.
    pub(crate) fn go_back(&self) {
        self.back.set(true);
    }

    /// Whether a nested call is suspended on the stack.
    pub(crate) fn has_nested(&self) -> bool {
        !self.nested.get().is_null()
    }

    /// Notes that a nested call is about to be entered for the first time.
    pub(crate) fn begin(&self, nested: &Frame) {
        self.nested.set(nested);
    }

    /// Takes the frame of an earlier nested call.
    pub(crate) fn take_spare(&self) -> Option<Box<Frame>> {
        self.spare.take()
    }

    /// Keeps the frame of a nested call that has ended, but not those of calls within it: a guest decides how many
    /// there were.
    pub(crate) fn put_spare(&self, frame: Box<Frame>) {
        frame.nesting.take_spare();
        self.spare.replace(Some(frame));
    }

    /// Whether a nested call was forgotten, and this call with it.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.get()
    }
}

impl Frame {
    /// Waits for a host future that has nested calls. Leaves the stack, so that the future is polled aside, and runs
    /// the nested calls. Returns `None` if the future must be polled here again, or was dropped because its call is
    /// being cancelled.
    ///
    /// # Errors
    ///
    /// What keeps this stack from being suspended.
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
            // SAFETY: the nested frame stays where it is until its job has ended, below.
            let Some(nested) = (unsafe { self.nesting.nested.get().as_ref() }) else { break };
            // SAFETY: this is the nested frame's stack, and its future has just entered it for the first time.
            unsafe { nested.serve_once() };
            self.nesting.nested.set(ptr::null());
        }
        // The future asks for nothing any more, unless it was forgotten.
        self.nesting.want_no_more();
        // SAFETY: nothing polls the future aside any more.
        let outcome = unsafe { (*guest).outcome.take() };
        outcome.transpose().map_or_else(|payload| resume_unwind(payload), Ok)
    }

    /// Enters the stack until the call is suspended or has ended. Polls the host future aside as long as that is
    /// necessary.
    ///
    /// # Safety
    ///
    /// `resume` may enter the stack, and `aside` leads to a stack that lies below it in memory.
    #[inline(always)]
    pub(crate) unsafe fn drive(&self, resume: impl Fn(), aside: &impl StepAside) {
        if !self.nesting.is_aside() {
            resume();
        }
        let nesting = &self.nesting;
        while let Some(Aside { guest, step }) = nesting.aside.get() {
            let mut polled = Poll::Pending;
            // SAFETY: the guest lies on the stack, which only nested calls enter until `aside` is cleared.
            aside.step_aside(|| polled = unsafe { step(guest, self) });
            let goes_back = nesting.back.take();
            match (polled, nesting.has_nested()) {
                (Poll::Pending, true) => return,
                // The host future is gone, but the nested guest is still on the stack, and blocks it forever.
                (Poll::Ready(()), true) => return nesting.lost.set(true),
                // The host function's future may be polled without polling the nested call's.
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
/// `guest` is a valid `Guest<F>` that waits on the stack of this frame, and nobody else uses it in the meantime.
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
    // The future is dropped here, because a nested call's future that is still in it enters the stack to cancel its
    // guest.
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| guest.future.set(None))) {
        // Destructors of payloads and outputs may panic, too. Nothing may unwind out of here.
        let (first, second) = match guest.outcome.take() {
            Some(Err(first)) => (first, Some(payload)),
            Some(Ok(output)) => (payload, catch_unwind(AssertUnwindSafe(|| drop(output))).err()),
            None => (payload, None),
        };
        mem::forget(second);
        guest.outcome = Some(Err(first));
    }
    Poll::Ready(())
}
