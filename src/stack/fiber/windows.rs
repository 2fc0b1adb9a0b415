//! What a runner switches to on Windows, where this file takes the place of `coroutine`: one of the system's fibers.
//!
//! wasmtime's own fibers are the system's there. For each thread, the system records the current fiber and the bounds
//! of its stack. If a stack that the system does not know lay between two fibers, that record would be wrong.
//!
//! Only a thread that is a fiber itself can switch to fibers, and [`AsFiber`] makes it one. A runner only enters its
//! coroutine through its parking fiber, so this happens in a single place.
//!
//! The stack aside must lie below the coroutine's in memory (`memory` says why). The system chooses where a fiber's
//! stack lies. So there are two fibers of the same size, and the coroutine gets the higher one.
#![expect(unsafe_code, reason = "switches stacks")]

pub(super) use super::windows_fiber::AsFiber;
use super::windows_fiber::{Fiber, Job, NOT_FOR_USE, State};
use crate::frame::Frame;
use crate::nesting::StepAside;
use std::cell::Cell;
use std::io;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::{self, NonNull};
use std::thread;

/// A coroutine that serves a frame, and its stack aside.
pub(super) struct Coroutine {
    /// `Box::leak` made it.
    pair: NonNull<Pair>,
    started: bool,
}

/// Nothing, because wasmtime makes the stacks of its fibers itself.
pub(super) struct ParkingMemory;

impl Coroutine {
    /// Makes a coroutine with a stack of at least `size` bytes, and its stack aside. Both live as long as it does.
    pub(super) fn new(size: usize) -> io::Result<(Self, Aside, ParkingMemory)> {
        let fibers = [Fiber::new(size)?, Fiber::new(size)?];
        let pair = NonNull::from(Box::leak(Box::new(Pair { fibers, coroutine: Cell::new(0) })));
        Ok((Self { pair, started: false }, Aside(pair), ParkingMemory))
    }

    /// Whether the coroutine has ended.
    #[inline]
    pub(super) fn done(&self) -> bool {
        self.started && self.state().ended.get()
    }

    /// Runs the coroutine until it is left or has ended.
    ///
    /// # Safety
    ///
    /// It has not ended. The frame is the same each time, lives as long as the coroutine, and its next entry is sound.
    /// The thread is a fiber.
    #[inline]
    pub(super) unsafe fn resume(&mut self, frame: *const Frame) {
        if !self.started {
            // SAFETY: up to the caller.
            unsafe { self.start(frame) };
        }
        // SAFETY: the thread is a fiber, and nothing else enters this one.
        unsafe { self.state().enter() };
    }

    /// Makes the next entry serve the frame.
    ///
    /// # Safety
    ///
    /// That of `resume`.
    #[cold]
    unsafe fn start(&mut self, frame: *const Frame) {
        self.started = true;
        // SAFETY: the pair is valid until this is dropped.
        let Pair { fibers, coroutine } = unsafe { self.pair.as_ref() };
        for fiber in fibers {
            // SAFETY: the thread is a fiber, and nothing has entered this one. Without a job, it returns immediately.
            unsafe { fiber.state().enter() };
        }
        let [first, second] = fibers.each_ref().map(|fiber| fiber.state().stack.get().0);
        coroutine.set(usize::from(second > first));
        // SAFETY: up to the caller.
        unsafe { &*frame }.set_backend(ptr::from_ref(self.state()).cast());
        self.state().job.set(Some(Job { run: serve, data: frame.cast_mut().cast() }));
    }

    #[inline]
    fn state(&self) -> &State {
        // SAFETY: the pair is valid until this is dropped.
        let Pair { fibers, coroutine } = unsafe { self.pair.as_ref() };
        fibers[coroutine.get()].state()
    }
}

impl Drop for Coroutine {
    fn drop(&mut self) {
        // SAFETY: `Box::leak` in `new` made it. The owner of the stack aside does not use it any more.
        drop(unsafe { Box::from_raw(self.pair.as_ptr()) });
    }
}

/// Two fibers of the same size.
struct Pair {
    fibers: [Fiber; 2],
    /// The index of the coroutine, once that has started. Its stack lies above the other one's.
    coroutine: Cell<usize>,
}

/// The job of a coroutine.
///
/// # Safety
///
/// `frame` belongs to this coroutine, and lives as long.
unsafe fn serve(frame: *mut ()) {
    // SAFETY: up to the caller.
    let frame = unsafe { &*frame.cast_const().cast::<Frame>() };
    // SAFETY: this runs at the root of the frame's stack. What each entry needs is up to the code that enters.
    unsafe { frame.serve() };
}

/// Leaves a coroutine.
///
/// # Safety
///
/// Called on the coroutine that `backend` belongs to, or on another fiber that is entered from there. These are left
/// together.
#[inline]
pub(crate) unsafe fn leave(backend: *const ()) {
    // SAFETY: the state exists as long as the coroutine.
    let state = unsafe { &*backend.cast::<State>() };
    // SAFETY: up to the caller.
    unsafe { state.leave() };
}

/// The stack aside of a coroutine that has started.
pub(super) struct Aside(NonNull<Pair>);

impl Aside {
    /// Its whole size, in bytes.
    pub(super) fn size(&self) -> usize {
        let (low, high) = self.states().0.stack.get();
        high - low
    }

    /// How much space there is below an address on this stack or on the coroutine's.
    pub(super) fn room_below(&self, address: usize) -> Option<usize> {
        let (aside, coroutine) = self.states();
        let stacks = [aside, coroutine].map(|state| state.stack.get());
        let (low, _) = stacks.into_iter().find(|(low, high)| (low..high).contains(&&address))?;
        Some((address - low).saturating_sub(NOT_FOR_USE))
    }

    /// The system guards it.
    #[expect(clippy::unnecessary_wraps, clippy::unused_self, reason = "elsewhere there is something to do")]
    pub(super) fn make_guard(&self) -> io::Result<()> {
        Ok(())
    }

    /// The states of the fiber aside and of the coroutine.
    fn states(&self) -> (&State, &State) {
        // SAFETY: the owner of this keeps the coroutine.
        let Pair { fibers: [first, second], coroutine } = unsafe { self.0.as_ref() };
        if coroutine.get() == 0 { (second.state(), first.state()) } else { (first.state(), second.state()) }
    }
}

impl StepAside for Aside {
    fn step_aside(&self, f: impl FnOnce()) {
        /// # Safety
        ///
        /// `f` is a valid `Crossing<F>` that nothing else uses.
        unsafe fn run<F: FnOnce()>(f: *mut ()) {
            // SAFETY: up to the caller.
            let crossing = unsafe { &mut *f.cast::<Crossing<F>>() };
            if let Some(f) = crossing.f.take() {
                crossing.outcome = catch_unwind(AssertUnwindSafe(f));
            }
        }

        struct Crossing<F> {
            f: Option<F>,
            outcome: thread::Result<()>,
        }

        fn run_of<F: FnOnce()>(_: &Crossing<F>) -> unsafe fn(*mut ()) {
            run::<F>
        }

        // Dropped where it is read, below.
        let mut crossing = ManuallyDrop::new(Crossing { f: Some(f), outcome: Ok(()) });
        let run = run_of(&crossing);
        let data = ptr::from_mut(&mut *crossing);
        let (state, _) = self.states();
        state.job.set(Some(Job { run, data: data.cast() }));
        // SAFETY: a fiber drives a call. Nothing else uses the stack aside, and nothing is suspended on it, so the job
        // has ended when this returns.
        unsafe { state.enter() };
        // SAFETY: it belongs to this function alone again.
        let Crossing { outcome, .. } = unsafe { data.read() };
        if let Err(payload) = outcome {
            resume_unwind(payload);
        }
    }
}
