//! What a runner switches to on Windows, in place of `coroutine`: a fiber of the system's.
//!
//! wasmtime's own fibers are the system's there, which keeps a record for each thread of the fiber that it is on, and of the
//! bounds of its stack. A stack that the system knows nothing of would lie between two fibers, and leave the wrong ones in that
//! record.
//!
//! Fibers can only be switched to on a thread that is one itself, which [`AsFiber`] makes it. A runner enters its coroutine by
//! way of its parking fiber alone, so that this happens in one place.
//!
//! Fibers of wasmtime's may lie on top of this one. So whoever leaves notes on which fiber that was, and that is where the next
//! entry goes to.
//!
//! The stack aside must lie below the coroutine's in memory (see `memory`, which says why). Where a fiber's stack lies is the
//! system's choice, so there are two of the same size, and the coroutine gets the higher one.
#![expect(unsafe_code, reason = "switches stacks")]

use crate::frame::Frame;
use crate::nesting::StepAside;
use std::arch::asm;
use std::cell::Cell;
use std::ffi::c_void;
use std::io;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::{self, NonNull};
use std::thread;
use windows_sys::Win32::System::Threading::{
    ConvertFiberToThread, ConvertThreadToFiberEx, CreateFiberEx, DeleteFiber, GetCurrentThreadStackLimits,
    IsThreadAFiber, SetThreadStackGuarantee, SwitchToFiber,
};

/// What is kept back of a stack, in bytes, so that its overflow can be told of: what std has for threads.
const GUARANTEE: u32 = 0x5000;
/// What of a fiber's stack is not for use, in bytes: what is kept back, and the pages that guard it. Rounded up to what
/// Windows allocates addresses in.
const NOT_FOR_USE: usize = 64 << 10;
/// Has the system keep the state of floating-point arithmetic with each fiber.
const FIBER_FLAG_FLOAT_SWITCH: u32 = 1;

/// A coroutine that serves a frame, with its stack aside.
pub(super) struct Coroutine {
    /// Made by `Box::leak`.
    pair: NonNull<Pair>,
    started: bool,
}

/// Nothing: wasmtime makes the stacks of its fibers itself.
pub(super) struct ParkingMemory;

impl Coroutine {
    /// Makes one with a stack of at least `size` bytes, and the stack aside, for as long as it is there.
    pub(super) fn new(size: usize) -> io::Result<(Self, Aside, ParkingMemory)> {
        let fibers = [Fiber::new(size)?, Fiber::new(size)?];
        let pair = NonNull::from(Box::leak(Box::new(Pair { fibers, coroutine: Cell::new(0) })));
        Ok((Self { pair, started: false }, Aside(pair), ParkingMemory))
    }

    /// Whether it has come to its end.
    #[inline]
    pub(super) fn done(&self) -> bool {
        self.started && self.state().ended.get()
    }

    /// Runs it until it is left or has ended.
    ///
    /// # Safety
    ///
    /// It has not ended. The frame is the same each time, lives as long, and its next entry is sound. The thread is a fiber.
    #[inline]
    pub(super) unsafe fn resume(&mut self, frame: *const Frame) {
        if !self.started {
            // SAFETY: up to the caller.
            unsafe { self.start(frame) };
        }
        // SAFETY: the thread is a fiber, and nobody else enters this one.
        unsafe { self.state().enter() };
    }

    /// Has the next entry serve the frame.
    ///
    /// # Safety
    ///
    /// That of `resume`.
    #[cold]
    unsafe fn start(&mut self, frame: *const Frame) {
        self.started = true;
        // SAFETY: valid until this is dropped.
        let Pair { fibers, coroutine } = unsafe { self.pair.as_ref() };
        for fiber in fibers {
            // SAFETY: the thread is a fiber, and nobody has entered this one. With no job, it comes right back.
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
        // SAFETY: valid until this is dropped.
        let Pair { fibers, coroutine } = unsafe { self.pair.as_ref() };
        fibers[coroutine.get()].state()
    }
}

impl Drop for Coroutine {
    fn drop(&mut self) {
        // SAFETY: made by `Box::leak` in `new`. Who has the stack aside does not use it any more.
        drop(unsafe { Box::from_raw(self.pair.as_ptr()) });
    }
}

/// Two fibers of the same size.
struct Pair {
    fibers: [Fiber; 2],
    /// Which of them is the coroutine, once that has started: the one whose stack lies above the other's.
    coroutine: Cell<usize>,
}

/// The job of a coroutine.
///
/// # Safety
///
/// `frame` is that of this coroutine, and lives as long.
unsafe fn serve(frame: *mut ()) {
    // SAFETY: up to the caller.
    let frame = unsafe { &*frame.cast_const().cast::<Frame>() };
    // SAFETY: runs at the root of the frame's stack; what each entry needs is up to who enters.
    unsafe { frame.serve() };
}

/// Leaves a coroutine.
///
/// # Safety
///
/// Called on the coroutine that `backend` belongs to, or on another fiber that is entered from there; those are left together.
#[inline]
pub(crate) unsafe fn leave(backend: *const ()) {
    // SAFETY: the state is there as long as the coroutine.
    let state = unsafe { &*backend.cast::<State>() };
    // SAFETY: up to the caller.
    unsafe { state.leave() };
}

/// The stack aside of a coroutine that has started.
pub(super) struct Aside(NonNull<Pair>);

impl Aside {
    /// All of it, in bytes.
    pub(super) fn size(&self) -> usize {
        let (low, high) = self.states().0.stack.get();
        high - low
    }

    /// How much there is below an address on this stack, or on the coroutine's.
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

    /// Of the fiber aside, and of the coroutine.
    fn states(&self) -> (&State, &State) {
        // SAFETY: whoever has this keeps the coroutine.
        let Pair { fibers: [first, second], coroutine } = unsafe { self.0.as_ref() };
        if coroutine.get() == 0 { (second.state(), first.state()) } else { (first.state(), second.state()) }
    }
}

impl StepAside for Aside {
    fn step_aside(&self, f: impl FnOnce()) {
        /// # Safety
        ///
        /// `f` is a valid `Crossing<F>` that is not used otherwise.
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
        // SAFETY: a call is being driven, which is done by a fiber. Nobody else uses the stack aside, on which nothing is
        // suspended, so that the job has ended when this returns.
        unsafe { state.enter() };
        // SAFETY: it is this function's alone again.
        let Crossing { outcome, .. } = unsafe { data.read() };
        if let Err(payload) = outcome {
            resume_unwind(payload);
        }
    }
}

/// A fiber that runs jobs, and is deleted with this, whatever it was left in the middle of.
struct Fiber(NonNull<State>);

/// What a fiber and those who enter it share.
struct State {
    /// The fiber itself.
    own: Cell<*mut c_void>,
    /// The fiber to switch to so that this one goes on: itself, or one that lay on top of it when it was left.
    left_on: Cell<*mut c_void>,
    /// The fiber that entered it last.
    entered_from: Cell<*mut c_void>,
    /// What to run next.
    job: Cell<Option<Job>>,
    /// Whether that has come to its end.
    ended: Cell<bool>,
    /// Where its stack lies: from where to where. Known once it was entered.
    stack: Cell<(usize, usize)>,
}

/// What a fiber runs.
#[derive(Clone, Copy)]
struct Job {
    /// Does not unwind.
    run: unsafe fn(*mut ()),
    data: *mut (),
}

impl Fiber {
    fn new(size: usize) -> io::Result<Self> {
        let null = || Cell::new(ptr::null_mut());
        let state = State {
            own: null(),
            left_on: null(),
            entered_from: null(),
            job: Cell::new(None),
            ended: Cell::new(false),
            stack: Cell::new((0, 0)),
        };
        let state = NonNull::from(Box::leak(Box::new(state)));
        // SAFETY: `root` takes the pointer for what it is, and the state is there as long as the fiber.
        let fiber =
            unsafe { CreateFiberEx(0, size + NOT_FOR_USE, FIBER_FLAG_FLOAT_SWITCH, Some(root), state.as_ptr().cast()) };
        if fiber.is_null() {
            let error = io::Error::last_os_error();
            // SAFETY: made above, and nobody else has it.
            drop(unsafe { Box::from_raw(state.as_ptr()) });
            return Err(error);
        }
        let this = Self(state);
        this.state().own.set(fiber);
        this.state().left_on.set(fiber);
        Ok(this)
    }

    #[inline]
    fn state(&self) -> &State {
        // SAFETY: valid until this is dropped.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for Fiber {
    fn drop(&mut self) {
        let Some(_fiber) = AsFiber::new() else {
            // No memory for that: the stack stays.
            return;
        };
        // SAFETY: no thread is on this fiber, and none will be. Nothing on it needs to be dropped, as the job has ended or
        // never began, and what is below has no destructors.
        unsafe { DeleteFiber(self.state().own.get()) };
        // SAFETY: made by `Box::leak` in `new`; the fiber that referred to it is gone.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// Makes the thread a fiber, if it is none, until this is dropped.
///
/// std has the system tell it of the end of threads, to drop their variables. It may do so by what the system tells of the end
/// of fibers: what it has asked for on a thread comes when that ends, what it has asked for on a fiber when that is deleted,
/// which it passes over if the thread is a fiber then. So it must ask before the thread becomes one, and fibers must be deleted
/// before it becomes a thread again. wasmtime makes a thread a fiber with the same care, but not where such a variable of its
/// own has been dropped.
pub(super) struct AsFiber {
    is_converted: bool,
    /// Of this thread.
    not_send: PhantomData<*const ()>,
}

impl AsFiber {
    /// `None` if the system has no memory for that.
    pub(super) fn new() -> Option<Self> {
        /// Has a destructor.
        struct Asks;
        impl Drop for Asks {
            fn drop(&mut self) {}
        }
        thread_local!(static ASKS: Asks = const { Asks });

        // SAFETY: has no requirement.
        let is_fiber = unsafe { IsThreadAFiber() } != 0;
        if !is_fiber {
            // If it has been dropped, std was told of the end of the thread.
            let _was_dropped = ASKS.try_with(|_| ());
            // SAFETY: the thread is no fiber.
            if unsafe { ConvertThreadToFiberEx(ptr::null(), FIBER_FLAG_FLOAT_SWITCH) }.is_null() {
                return None;
            }
        }
        Some(Self { is_converted: !is_fiber, not_send: PhantomData })
    }
}

impl Drop for AsFiber {
    fn drop(&mut self) {
        if self.is_converted {
            // SAFETY: `new` has made this thread a fiber, which it is on again: whoever enters another one comes back.
            unsafe { ConvertFiberToThread() };
        }
    }
}

impl State {
    /// Runs what is on the fiber until that leaves it.
    ///
    /// # Safety
    ///
    /// The thread is a fiber, and nobody is on this one. What runs there may go on.
    #[inline]
    unsafe fn enter(&self) {
        // SAFETY: has no requirement.
        debug_assert!(unsafe { IsThreadAFiber() } != 0, "entered by a thread that is no fiber");
        self.entered_from.set(current_fiber());
        // SAFETY: the fiber is there, and no thread is on it.
        unsafe { SwitchToFiber(self.left_on.get()) };
    }

    /// Goes back to where this was entered.
    ///
    /// # Safety
    ///
    /// On this fiber, or on one that was switched to from it.
    #[inline]
    unsafe fn leave(&self) {
        self.left_on.set(current_fiber());
        // SAFETY: that one waits in `enter`.
        unsafe { SwitchToFiber(self.entered_from.get()) };
    }
}

/// Where a fiber begins. It never returns, as the thread would end.
///
/// # Safety
///
/// `state` is that of the running fiber, and lives as long.
unsafe extern "system" fn root(state: *mut c_void) {
    let mut guarantee = GUARANTEE;
    // Each fiber has its own. Should it be refused, an overflow ends the process without a message.
    // SAFETY: the pointer is valid.
    unsafe { SetThreadStackGuarantee(&raw mut guarantee) };
    // SAFETY: up to the caller.
    let state = unsafe { &*state.cast_const().cast::<State>() };
    let (mut low, mut high) = (0, 0);
    // SAFETY: the pointers are valid.
    unsafe { GetCurrentThreadStackLimits(&raw mut low, &raw mut high) };
    state.stack.set((low, high));
    loop {
        if let Some(Job { run, data }) = state.job.take() {
            state.ended.set(false);
            // SAFETY: whoever set the function also set what it takes.
            unsafe { run(data) };
            state.ended.set(true);
        }
        // SAFETY: this is the fiber.
        unsafe { state.leave() };
    }
}

/// The fiber that the thread is on, which is one.
#[inline]
fn current_fiber() -> *mut c_void {
    let fiber;
    // SAFETY: reads the field `FiberData` of the thread's `NT_TIB`, where the system has it, and every program's
    // `GetCurrentFiber`, which is no function of the system's.
    unsafe { asm!("mov {}, gs:[0x20]", out(reg) fiber, options(nostack, readonly, preserves_flags)) };
    fiber
}
