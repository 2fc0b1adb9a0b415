//! A coroutine that serves a frame, with wasm's activations parked whenever it is left.
#![expect(unsafe_code, reason = "the parts of a runner refer to each other by address")]

use super::coroutine::{AsFiber, Aside, Coroutine, ParkingMemory};
use super::list::{Head, Root, ThreadList};
use super::parking::{ParkingFiber, Relay};
use crate::error::{Between, Error};
use crate::frame::{Frame, Leave};
use crate::limits::Rule;
use crate::stack::here;
use std::cell::{Cell, UnsafeCell};
use std::ptr::{self, NonNull};
use std::task::Poll;

/// The memory of a stack and what enters it.
///
/// The parts stay at their address until the runner is dropped, which only happens while it is idle; one that is
/// unfinished can be forgotten.
#[derive(Debug)]
pub struct Runner(NonNull<Parts>);

// SAFETY: of this crate's and wasmtime's frames on the stacks, none holds anything of a thread: neither the address of one of
// its variables, across a switch, nor anything else that is not `Send`. (wasmtime's own fibers are `Send`.) Whether the
// same is true of what a call has on the stack is up to the kind of stack: see `FiberStack` and `SendFiberStack`.
unsafe impl Send for Runner {}

struct Parts {
    frame: Frame,
    /// What the call that runs had on the thread's list when it was last suspended, if it parks directly.
    parked: Cell<Option<Head>>,
    /// Made when a call first needs it. Runs on a part of the coroutine's memory, so it goes before that.
    fiber: UnsafeCell<Option<ParkingFiber>>,
    /// The part of the memory that is the fiber's.
    fiber_memory: ParkingMemory,
    /// The stack on which futures of host functions are polled while these call their guest.
    aside: Aside,
    /// Whether that has its guard.
    is_guarded: Cell<bool>,
    /// Serves `frame`, which it is given at the first resume.
    coroutine: UnsafeCell<Coroutine>,
}

impl Runner {
    /// Makes a coroutine. Nothing runs on it yet.
    pub(super) fn new(size: usize, rule: Rule) -> Result<Self, Error> {
        let (coroutine, aside, fiber_memory) =
            Coroutine::new(size).map_err(|source| Error::StackMemory { size, source })?;
        let parts = Parts {
            frame: Frame::new(Leave::Fiber, rule),
            parked: Cell::new(None),
            fiber: UnsafeCell::new(None),
            fiber_memory,
            aside,
            is_guarded: Cell::new(false),
            coroutine: UnsafeCell::new(coroutine),
        };
        let parts = Box::leak(Box::new(parts));
        parts.frame.nesting.set_runner(ptr::from_ref(parts).cast());
        Ok(Self(NonNull::from(parts)))
    }

    #[inline]
    pub(super) fn frame(&self) -> &Frame {
        &self.parts().frame
    }

    /// Decides how the next call parks: directly if this thread's list allows it, otherwise by way of the fiber.
    ///
    /// Called on the thread, and in the state, in which the call is about to be entered for the first time.
    #[inline]
    pub(super) fn prepare(&mut self) -> Result<(), Error> {
        let list = ThreadList::of_this_thread().filter(|list| list.can_park());
        let parts = self.parts();
        parts.parked.set(list.map(ThreadList::head));
        if list.is_some() {
            parts.frame.limits.set_root(Root::of(list));
            return Ok(());
        }
        let relay = ToCoroutine(self.0);
        let parts = self.parts();
        // SAFETY: the runner is not entered, so that nothing else uses the fiber.
        let fiber = unsafe { &mut *parts.fiber.get() };
        if fiber.is_none() {
            // SAFETY: that part of the memory is for the fiber, which is dropped before the coroutine.
            *fiber = Some(unsafe { ParkingFiber::new(&parts.fiber_memory, relay) }?);
        }
        Ok(())
    }

    /// Enters the coroutine, with the activations of the call that it runs on this thread's list.
    ///
    /// # Safety
    ///
    /// That of [`Backend::enter`](crate::stack::Backend::enter), and `prepare` was called for the call.
    #[inline(always)]
    pub(super) unsafe fn enter(&mut self) {
        let parts = self.parts();
        let _current = parts.frame.make_current();
        if let Some(parked) = parts.parked.get() {
            // Of the thread that polls now, which may be another than last time.
            let list =
                ThreadList::of_this_thread().expect("wasmtime's list of activations is found on each thread or none");
            // SAFETY: what was parked is what was on a list above what is there now, and the call's own.
            let outer = unsafe { list.replace(parked) };
            // SAFETY: the runner is being entered, with the call's activations on the list.
            let _ended = unsafe { parts.drive() };
            // SAFETY: all that this entry pushed is taken off with the coroutine.
            let parked = unsafe { list.replace(outer) };
            parts.parked.set(Some(parked));
            return;
        }
        // SAFETY: only whoever enters the runner uses the fiber, and what runs on the runner cannot enter it.
        let fiber = unsafe { &mut *parts.fiber.get() }.as_mut();
        // SAFETY: relays to this coroutine, which is being entered.
        unsafe { fiber.expect("`prepare` has made it").enter() };
    }

    #[inline]
    fn parts(&self) -> &Parts {
        // SAFETY: valid until the runner is dropped.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        let Some(_fiber) = AsFiber::new() else {
            // Windows has no memory for that: all of it stays as it is.
            return;
        };
        let parts = self.parts();
        // With nothing to start, the coroutine returns from `serve`. No wasm runs, so there is nothing to park.
        // SAFETY: the runner is idle, so that nobody else uses the fiber.
        match unsafe { &mut *parts.fiber.get() } {
            // Resumes the coroutine, sees that it has ended and ends too.
            // SAFETY: as above, and nobody else uses the coroutine.
            Some(fiber) => unsafe { fiber.enter() },
            // Entered by way of its parking fiber, or not at all.
            None if cfg!(windows) => {}
            None => {
                // SAFETY: the runner is idle, so that nobody else uses the coroutine.
                let ended = unsafe { parts.resume() };
                debug_assert!(ended.is_ready(), "a runner was dropped while unfinished");
            }
        }
        // SAFETY: made by `Box::leak` in `new`; both that referred to the parts have ended.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

impl Parts {
    /// Runs the call until it is suspended or has ended, and tells whether the coroutine has.
    ///
    /// # Safety
    ///
    /// Nobody else uses the coroutine.
    #[inline(always)]
    unsafe fn drive(&self) -> Poll<()> {
        let resume = || {
            // SAFETY: up to the caller.
            let _ended = unsafe { self.resume() };
        };
        // SAFETY: the stack aside is below the coroutine's.
        unsafe { self.frame.drive(resume, &self.aside) };
        // SAFETY: up to the caller.
        let coroutine = unsafe { &*self.coroutine.get() };
        if coroutine.done() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Resumes the coroutine until it is left, and tells whether it has ended.
    ///
    /// # Safety
    ///
    /// Nobody else uses the coroutine.
    #[inline]
    unsafe fn resume(&self) -> Poll<()> {
        // SAFETY: up to the caller.
        let coroutine = unsafe { &mut *self.coroutine.get() };
        if !coroutine.done() {
            // SAFETY: the frame is one of these parts, as the coroutine is; what its entry needs is up to the caller. On Windows
            // this runs on the parking fiber, or on what is entered from there.
            unsafe { coroutine.resume(&raw const self.frame) };
        }
        if coroutine.done() { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// What the parking fiber of a runner relays to.
#[derive(Clone, Copy)]
struct ToCoroutine(NonNull<Parts>);

impl Relay for ToCoroutine {
    #[inline]
    unsafe fn relay(self) -> Poll<()> {
        // SAFETY: the fiber is one of these parts.
        let parts = unsafe { self.0.as_ref() };
        if parts.frame.is_to_start() {
            // The fiber's own activation, which is the youngest now.
            parts.frame.limits.set_root(Root::here());
        }
        // SAFETY: the runner is being entered, with the call's activations on the list. Or it is being dropped, and the coroutine
        // has ended.
        unsafe { parts.drive() }
    }
}

/// Enters a coroutine from the stack aside, for a nested call.
///
/// # Safety
///
/// `runner` is that of a frame whose call is being driven, and whose host future is polled aside.
#[inline(always)]
pub(crate) unsafe fn resume(runner: *const ()) {
    // SAFETY: up to the caller.
    let parts = unsafe { &*runner.cast::<Parts>() };
    // SAFETY: the coroutine was left, and who drives it waits for the host future.
    let _ended = unsafe { parts.resume() };
}

/// Makes the stack aside ready.
///
/// # Safety
///
/// `runner` is that of a current frame.
pub(crate) unsafe fn prepare_aside(runner: *const ()) -> Result<(), Error> {
    // SAFETY: up to the caller.
    let Parts { aside, is_guarded, .. } = unsafe { &*runner.cast::<Parts>() };
    if !is_guarded.get() {
        aside.make_guard().map_err(|source| Error::StackMemory { size: aside.size(), source })?;
        is_guarded.set(true);
    }
    Ok(())
}

/// Whether the running code, on the coroutine's stack or aside, leaves enough of that for another host function.
///
/// # Errors
///
/// If it is on neither: wasm's stack switching has stacks, too, and so have other coroutines, whose limits are elsewhere.
///
/// # Safety
///
/// `runner` is that of a current frame.
pub(crate) unsafe fn has_room(runner: *const ()) -> Result<bool, Error> {
    // SAFETY: up to the caller.
    let Parts { aside, .. } = unsafe { &*runner.cast::<Parts>() };
    let left = aside.room_below(here()).ok_or(Error::ForeignFrames { between: Between::OtherStack })?;
    Ok(left >= aside.size() / 4)
}
