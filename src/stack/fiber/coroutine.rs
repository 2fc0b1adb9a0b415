//! What a runner switches to: corosensei's coroutine. On Windows, [`windows`](super::windows) takes the place of this
//! file.
#![expect(unsafe_code, reason = "reaches frame and yielder by pointer")]

pub(super) use super::memory::Aside;
use super::memory::Memory;
use crate::frame::Frame;
use corosensei::Yielder;
use std::io;
use std::ops::Range;
use std::ptr;

/// A coroutine that serves a frame.
pub(super) struct Coroutine {
    inner: corosensei::Coroutine<*const Frame, (), (), Memory>,
    /// The addresses of its stack.
    #[cfg(call_hook)]
    pub(super) range: Range<usize>,
}

/// The memory that a parking fiber runs on.
pub(super) type ParkingMemory = Range<usize>;

/// What a thread must be before it enters a parking fiber. Here, any thread will do.
pub(super) struct AsFiber;

impl AsFiber {
    #[expect(clippy::unnecessary_wraps, reason = "on Windows there may be no memory for that")]
    #[inline(always)]
    pub(super) fn new() -> Option<Self> {
        Some(Self)
    }
}

impl Coroutine {
    /// Makes a coroutine with a stack of at least `size` bytes, and the stacks that belong to it. They live as long as
    /// it does.
    pub(super) fn new(size: usize) -> io::Result<(Self, Aside, ParkingMemory)> {
        let memory = Memory::new(size)?;
        let (aside, parking) = (memory.aside(), memory.parking_range());
        #[cfg(call_hook)]
        let range = memory.coroutine_range();
        let inner = corosensei::Coroutine::with_stack(memory, |yielder, frame| {
            // SAFETY: `resume` passes the frame that belongs to this coroutine, and the frame lives as long.
            unsafe { serve(yielder, frame) };
        });
        let coroutine = Self {
            inner,
            #[cfg(call_hook)]
            range,
        };
        Ok((coroutine, aside, parking))
    }

    /// Whether the coroutine has ended.
    #[inline(always)]
    pub(super) fn done(&self) -> bool {
        self.inner.done()
    }

    /// Runs the coroutine until it is left or has ended.
    ///
    /// # Safety
    ///
    /// It has not ended. The frame is the same each time, lives as long as the coroutine, and its next entry is sound.
    #[inline(always)]
    pub(super) unsafe fn resume(&mut self, frame: *const Frame) {
        self.inner.resume(frame);
    }
}

/// The root of a coroutine.
///
/// # Safety
///
/// The frame belongs to this coroutine, and lives as long.
unsafe fn serve(yielder: &Yielder<*const Frame, ()>, frame: *const Frame) {
    // SAFETY: up to the caller.
    let frame = unsafe { &*frame };
    frame.set_backend(ptr::from_ref(yielder).cast());
    // SAFETY: this runs at the root of the frame's stack. What each entry needs is up to the code that enters.
    unsafe { frame.serve() };
}

/// Leaves a coroutine.
///
/// # Safety
///
/// Called on the coroutine that has `backend` as its yielder, or on another stack that is entered from there. These are
/// left together.
#[inline]
pub(crate) unsafe fn leave(backend: *const ()) {
    // SAFETY: the yielder lies at the root of the coroutine's stack.
    let yielder = unsafe { &*backend.cast::<Yielder<*const Frame, ()>>() };
    yielder.suspend(());
}
