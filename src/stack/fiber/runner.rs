//! A coroutine that serves a frame. Whenever it is left, wasm's activations are parked.
#![expect(unsafe_code, reason = "the parts of a runner refer to each other by address")]

use super::coroutine::{AsFiber, Aside, Coroutine, ParkingMemory};
use super::list::{Head, Root, ThreadList};
use super::parking::{ParkingFiber, Relay};
use crate::error::{Between, Error};
use crate::frame::{Frame, Leave};
use crate::limits::Rule;
use crate::stack::here;
use std::cell::{Cell, UnsafeCell};
use std::ptr::NonNull;
use std::task::Poll;

/// The memory of a stack, and what enters it.
///
/// The parts stay at their address until the runner is dropped, which only happens while it is idle. A runner that is
/// unfinished can be forgotten.
#[derive(Debug)]
pub struct Runner(NonNull<Parts>);

// SAFETY: none of this crate's and wasmtime's frames on the stacks holds anything of a thread: no address of a
// thread-local variable across a switch, and nothing else that is not `Send`. (wasmtime's own fibers are `Send`.) The
// kind of stack decides whether the same is true of the call's other values: see `FiberStack` and `SendFiberStack`.
unsafe impl Send for Runner {}

struct Parts {
    frame: Frame,
    /// The call's part of the thread's list when the call was last suspended, if it parks directly.
    parked: Cell<Option<Head>>,
    /// Made when a call first needs it. It runs on a part of the coroutine's memory, so it is dropped before that.
    fiber: UnsafeCell<Option<ParkingFiber>>,
    /// The part of the memory that belongs to the fiber.
    fiber_memory: ParkingMemory,
    /// The stack on which the futures of host functions are polled while these call their guest.
    aside: Aside,
    /// Whether the stack aside has its guard.
    is_guarded: Cell<bool>,
    /// Serves `frame`, which it receives at the first resume.
    coroutine: UnsafeCell<Coroutine>,
}

impl Runner {
    /// Makes a coroutine. Nothing runs on it yet.
    pub(super) fn new(size: usize, rule: Rule) -> Result<Self, Error> {
        let (coroutine, aside, fiber_memory) =
            Coroutine::new(size).map_err(|source| Error::StackMemory { size, source })?;
        let frame = Frame::new(Leave::Fiber, rule);
        #[cfg(call_hook)]
        frame.limits.entries.set_stack(&coroutine.range);
        let parts = Parts {
            frame,
            parked: Cell::new(None),
            fiber: UnsafeCell::new(None),
            fiber_memory,
            aside,
            is_guarded: Cell::new(false),
            coroutine: UnsafeCell::new(coroutine),
        };
        let runner = Self(NonNull::from(Box::leak(Box::new(parts))));
        runner.frame().nesting.set_runner(runner.0.as_ptr().cast_const().cast());
        Ok(runner)
    }

    #[inline]
    pub(super) fn frame(&self) -> &Frame {
        &self.parts().frame
    }

    /// Decides how the next call parks: directly if this thread's list allows it, otherwise by the fiber.
    ///
    /// Called on the thread that is about to enter the call for the first time, and in the same state.
    #[inline]
    pub(super) fn prepare(&mut self) -> Result<(), Error> {
        let list = ThreadList::of_this_thread().filter(|list| list.can_park());
        let parts = self.parts();
        parts.parked.set(list.map(ThreadList::head));
        if list.is_none() {
            return self.prepare_fiber();
        }
        parts.frame.limits.set_root(Root::of(list));
        Ok(())
    }

    #[inline(never)]
    fn prepare_fiber(&mut self) -> Result<(), Error> {
        let relay = ToCoroutine(self.0);
        let parts = self.parts();
        // SAFETY: the runner is not entered, so nothing else uses the fiber.
        let fiber = unsafe { &mut *parts.fiber.get() };
        if fiber.is_none() {
            // SAFETY: that part of the memory belongs to the fiber, which is dropped before the coroutine.
            *fiber = Some(unsafe { ParkingFiber::new(&parts.fiber_memory, relay) }?);
        }
        Ok(())
    }

    /// Enters the coroutine, after putting the activations of its call on this thread's list.
    ///
    /// # Safety
    ///
    /// That of [`Backend::enter`](crate::stack::Backend::enter), and `prepare` was called for the call.
    #[inline(always)]
    pub(super) unsafe fn enter(&mut self) {
        let parts = self.parts();
        let _current = parts.frame.make_current();
        if let Some(parked) = parts.parked.get() {
            // The list of the thread that polls now, which may be another than last time.
            let list =
                ThreadList::of_this_thread().expect("wasmtime's list of activations is found on each thread or none");
            // SAFETY: what was parked was on a list above what is there now, and belongs to this call.
            let outer = unsafe { list.replace(parked) };
            // SAFETY: the runner is being entered, with the call's activations on the list.
            let _ended = unsafe { parts.drive() };
            // SAFETY: this takes off everything that this entry has pushed, together with the coroutine.
            let parked = unsafe { list.replace(outer) };
            parts.parked.set(Some(parked));
            return;
        }
        // SAFETY: only the code that enters the runner uses the fiber, and code on the runner cannot enter it.
        let fiber = unsafe { &mut *parts.fiber.get() }.as_mut();
        // SAFETY: the fiber relays to this coroutine, which is being entered.
        unsafe { fiber.expect("`prepare` has made it").enter() };
    }

    #[inline]
    fn parts(&self) -> &Parts {
        // SAFETY: the parts are valid until the runner is dropped.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        let Some(_fiber) = AsFiber::new() else {
            // Windows has no memory to make this thread a fiber, so everything stays as it is.
            return;
        };
        let parts = self.parts();
        // With nothing to start, the coroutine returns from `serve`. No wasm runs, so there is nothing to park.
        // SAFETY: the runner is idle, so nothing else uses the fiber.
        match unsafe { &mut *parts.fiber.get() } {
            // Resumes the coroutine, sees that it has ended, and ends, too.
            // SAFETY: the runner is idle, so nothing else uses the fiber or the coroutine.
            Some(fiber) => unsafe { fiber.enter() },
            // Its parking fiber enters it, or nothing does.
            None if cfg!(windows) => {}
            None => {
                // SAFETY: the runner is idle, so nothing else uses the coroutine.
                let ended = unsafe { parts.resume() };
                debug_assert!(ended.is_ready(), "a runner was dropped while unfinished");
            }
        }
        // SAFETY: `Box::leak` in `new` made it. Both that referred to the parts have ended.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

impl Parts {
    /// Runs the call until it is suspended or has ended, and returns whether the coroutine has ended.
    ///
    /// # Safety
    ///
    /// Nothing else uses the coroutine.
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

    /// Resumes the coroutine until it is left, and returns whether it has ended.
    ///
    /// # Safety
    ///
    /// Nothing else uses the coroutine.
    #[inline]
    unsafe fn resume(&self) -> Poll<()> {
        // SAFETY: up to the caller.
        let coroutine = unsafe { &mut *self.coroutine.get() };
        if !coroutine.done() {
            // SAFETY: frame and coroutine belong to the same parts. What the entry needs is up to the caller. On
            // Windows this runs on the parking fiber, or on what is entered from there.
            unsafe { coroutine.resume(&raw const self.frame) };
        }
        if coroutine.done() { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// What a runner's parking fiber relays to.
#[derive(Clone, Copy)]
struct ToCoroutine(NonNull<Parts>);

impl Relay for ToCoroutine {
    #[inline]
    unsafe fn relay(self) -> Poll<()> {
        // SAFETY: the fiber is one of these parts.
        let parts = unsafe { self.0.as_ref() };
        if parts.frame.is_to_start() {
            // This is the fiber's own activation, which is the youngest one now.
            parts.frame.limits.set_root(Root::here());
        }
        // SAFETY: either the runner is being entered, with the call's activations on the list, or it is being dropped,
        // and the coroutine has ended.
        unsafe { parts.drive() }
    }
}

/// Enters a coroutine from the stack aside, for a nested call.
///
/// # Safety
///
/// `runner` belongs to a frame whose call is being driven, and whose host future is polled aside.
#[inline(always)]
pub(crate) unsafe fn resume(runner: *const ()) {
    // SAFETY: up to the caller.
    let parts = unsafe { &*runner.cast::<Parts>() };
    // SAFETY: the coroutine was left, and the code that drives it waits for the host future.
    let _ended = unsafe { parts.resume() };
}

/// Prepares the stack aside.
///
/// # Safety
///
/// `runner` belongs to a current frame.
pub(crate) unsafe fn prepare_aside(runner: *const ()) -> Result<(), Error> {
    // SAFETY: up to the caller.
    let Parts { aside, is_guarded, .. } = unsafe { &*runner.cast::<Parts>() };
    if !is_guarded.get() {
        aside.make_guard().map_err(|source| Error::StackMemory { size: aside.size(), source })?;
        is_guarded.set(true);
    }
    Ok(())
}

/// Whether the running code, on the coroutine's stack or aside, leaves enough space on that stack for another host
/// function.
///
/// # Errors
///
/// If it runs on neither. wasm's stack switching and other coroutines have stacks, too, whose limits are elsewhere.
///
/// # Safety
///
/// `runner` belongs to a current frame.
pub(crate) unsafe fn has_room(runner: *const ()) -> Result<bool, Error> {
    // SAFETY: up to the caller.
    let Parts { aside, .. } = unsafe { &*runner.cast::<Parts>() };
    let left = aside.room_below(here()).ok_or(Error::ForeignFrames { between: Between::OtherStack })?;
    Ok(left >= aside.size() / 4)
}
