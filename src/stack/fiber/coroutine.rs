//! What a runner switches to: corosensei's coroutine. On Windows there is [`windows`](super::windows) in place of this.
#![expect(unsafe_code, reason = "reaches frame and yielder by pointer")]

pub(super) use super::memory::Aside;
use super::memory::Memory;
use crate::frame::Frame;
use corosensei::Yielder;
use std::io;
use std::ops::Range;
use std::ptr;

/// A coroutine that serves a frame.
pub(super) struct Coroutine(corosensei::Coroutine<*const Frame, (), (), Memory>);

/// The memory that a parking fiber runs on.
pub(super) type ParkingMemory = Range<usize>;

/// What a thread must be for a parking fiber to be entered there: here, a thread.
pub(super) struct AsFiber;

impl AsFiber {
    #[expect(clippy::unnecessary_wraps, reason = "on Windows there may be no memory for that")]
    #[inline(always)]
    pub(super) fn new() -> Option<Self> {
        Some(Self)
    }
}

impl Coroutine {
    /// Makes one with a stack of at least `size` bytes, and the stacks that go with it, for as long as it is there.
    pub(super) fn new(size: usize) -> io::Result<(Self, Aside, ParkingMemory)> {
        let memory = Memory::new(size)?;
        let (aside, parking) = (memory.aside(), memory.parking_range());
        let coroutine = corosensei::Coroutine::with_stack(memory, |yielder, frame| {
            // SAFETY: `resume` passes the frame that belongs to this coroutine, and it lives as long.
            unsafe { serve(yielder, frame) };
        });
        Ok((Self(coroutine), aside, parking))
    }

    /// Whether it has come to its end.
    #[inline(always)]
    pub(super) fn done(&self) -> bool {
        self.0.done()
    }

    /// Runs it until it is left or has ended.
    ///
    /// # Safety
    ///
    /// It has not ended. The frame is the same each time, lives as long, and its next entry is sound.
    #[inline(always)]
    pub(super) unsafe fn resume(&mut self, frame: *const Frame) {
        self.0.resume(frame);
    }
}

/// The root of a coroutine.
///
/// # Safety
///
/// The frame is that of this coroutine, and lives as long.
unsafe fn serve(yielder: &Yielder<*const Frame, ()>, frame: *const Frame) {
    // SAFETY: up to the caller.
    let frame = unsafe { &*frame };
    frame.set_backend(ptr::from_ref(yielder).cast());
    // SAFETY: runs at the root of the frame's stack; what each entry needs is up to who enters.
    unsafe { frame.serve() };
}

/// Leaves a coroutine.
///
/// # Safety
///
/// Called on the coroutine whose yielder `backend` is, or on another stack that is entered from there; those are left
/// together.
#[inline]
pub(crate) unsafe fn leave(backend: *const ()) {
    // SAFETY: the yielder lies at the root of the coroutine's stack.
    let yielder = unsafe { &*backend.cast::<Yielder<*const Frame, ()>>() };
    yielder.suspend(());
}
