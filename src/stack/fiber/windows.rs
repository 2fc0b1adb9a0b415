//! What a runner switches to on Windows, where this file takes the place of `coroutine`: one of the system's fibers.
//!
//! wasmtime's own fibers are the system's there. For each thread, the system records the current fiber and the bounds
//! of its stack. If a stack that the system does not know lay between two fibers, that record would be wrong.
//!
//! Only a thread that is a fiber itself can switch to fibers, and [`AsFiber`] makes it one. A runner only enters its
//! coroutine through its parking fiber, so this happens in a single place.
//!
//! wasmtime's fibers may lie on top of this one. So the code that leaves notes the current fiber, and the next entry
//! goes there.
//!
//! The stack aside must lie below the coroutine's in memory (`memory` says why). The system chooses where a fiber's
//! stack lies. So there are two fibers of the same size, and the coroutine gets the higher one.
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

/// The part of a stack that is reserved, in bytes, so that an overflow can be reported. std reserves as much for
/// threads.
const GUARANTEE: u32 = 0x5000;
/// The part of a fiber's stack that cannot be used, in bytes: the reserve and the guard pages, rounded up to the
/// granularity in which Windows allocates addresses.
const NOT_FOR_USE: usize = 64 << 10;
/// Makes the system keep the floating-point state of each fiber.
const FIBER_FLAG_FLOAT_SWITCH: u32 = 1;

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

/// A fiber that runs jobs. It is deleted when this is dropped, wherever it was left.
struct Fiber(NonNull<State>);

/// The state that a fiber and the code that enters it share.
struct State {
    /// The fiber itself.
    own: Cell<*mut c_void>,
    /// The fiber to switch to in order to resume this one: itself, or one that lay on top of it when it was left.
    left_on: Cell<*mut c_void>,
    /// The fiber that entered it last.
    entered_from: Cell<*mut c_void>,
    /// The next job.
    job: Cell<Option<Job>>,
    /// Whether that job has ended.
    ended: Cell<bool>,
    /// The lowest address of its stack, and the address above it. Known after the first entry.
    stack: Cell<(usize, usize)>,
}

/// A job of a fiber.
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
        // SAFETY: `root` uses the pointer as what it is, and the state exists as long as the fiber.
        let fiber =
            unsafe { CreateFiberEx(0, size + NOT_FOR_USE, FIBER_FLAG_FLOAT_SWITCH, Some(root), state.as_ptr().cast()) };
        if fiber.is_null() {
            let error = io::Error::last_os_error();
            // SAFETY: this was made above, and nothing else has it.
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
        // SAFETY: the state is valid until this is dropped.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for Fiber {
    fn drop(&mut self) {
        let Some(_fiber) = AsFiber::new() else {
            // There is no memory to make this thread a fiber, so the stack stays.
            return;
        };
        // SAFETY: no thread is on this fiber, and none ever will be. Nothing on it must be dropped: the job has ended
        // or never began, and what is below has no destructors.
        unsafe { DeleteFiber(self.state().own.get()) };
        // SAFETY: `Box::leak` in `new` made it. The fiber that referred to it is gone.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// Makes the thread a fiber until this is dropped, unless it is one already.
///
/// std asks the system to report the end of threads, so that it can drop their variables. It may use a mechanism that
/// reports the end of fibers. Then a request that was made on a thread is reported when the thread ends. A request that
/// was made on a fiber is reported when the fiber is deleted, and std ignores that report if the thread is a fiber at
/// that time. So std must ask before the thread becomes a fiber, and fibers must be deleted before it becomes a thread
/// again. wasmtime takes the same care when it makes a thread a fiber, but not if such a variable of its own was
/// dropped before.
pub(super) struct AsFiber {
    is_converted: bool,
    /// It belongs to this thread.
    not_send: PhantomData<*const ()>,
}

impl AsFiber {
    /// `None` if the system has no memory for this.
    pub(super) fn new() -> Option<Self> {
        /// A value with a destructor.
        struct Asks;
        impl Drop for Asks {
            fn drop(&mut self) {}
        }
        thread_local!(static ASKS: Asks = const { Asks });

        // SAFETY: this has no requirement.
        let is_fiber = unsafe { IsThreadAFiber() } != 0;
        if !is_fiber {
            // If it was dropped before, std was told about the end of the thread.
            let _was_dropped = ASKS.try_with(|_| ());
            // SAFETY: the thread is not a fiber.
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
            // SAFETY: `new` has made this thread a fiber. The thread is on that fiber again, because code that enters
            // another one comes back.
            unsafe { ConvertFiberToThread() };
        }
    }
}

impl State {
    /// Runs the code on the fiber until it leaves the fiber.
    ///
    /// # Safety
    ///
    /// The thread is a fiber, and nothing is on this one. The code on it may resume.
    #[inline]
    unsafe fn enter(&self) {
        // SAFETY: this has no requirement.
        debug_assert!(unsafe { IsThreadAFiber() } != 0, "entered by a thread that is no fiber");
        self.entered_from.set(current_fiber());
        // SAFETY: the fiber exists, and no thread is on it.
        unsafe { SwitchToFiber(self.left_on.get()) };
    }

    /// Returns to where this fiber was entered.
    ///
    /// # Safety
    ///
    /// Called on this fiber, or on one that was entered from it.
    #[inline]
    unsafe fn leave(&self) {
        self.left_on.set(current_fiber());
        // SAFETY: that fiber waits in `enter`.
        unsafe { SwitchToFiber(self.entered_from.get()) };
    }
}

/// The root of a fiber. It never returns, because that would end the thread.
///
/// # Safety
///
/// `state` belongs to the running fiber, and lives as long.
unsafe extern "system" fn root(state: *mut c_void) {
    let mut guarantee = GUARANTEE;
    // Each fiber has a reserve of its own. If the system refuses it, an overflow ends the process without a message.
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
            // SAFETY: the code that set the function also set its argument.
            unsafe { run(data) };
            state.ended.set(true);
        }
        // SAFETY: this runs on the fiber.
        unsafe { state.leave() };
    }
}

/// The current fiber of the thread, which must be a fiber.
#[inline]
fn current_fiber() -> *mut c_void {
    let fiber;
    // SAFETY: this reads the field `FiberData` of the thread's `NT_TIB`, where the system keeps the fiber.
    // `GetCurrentFiber` does the same in every program, because it is not a function of the system.
    unsafe { asm!("mov {}, gs:[0x20]", out(reg) fiber, options(nostack, readonly, preserves_flags)) };
    fiber
}
