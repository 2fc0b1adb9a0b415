//! A fiber of the system that runs jobs, and the thread that switches to it.
//!
//! wasmtime's fibers may lie on top of such a fiber. So the code that leaves notes the current fiber, and the next entry
//! goes there.
//!
//! # Stacks that the system does not know
//!
//! A coroutine of another library may poll a call. Such a library sets the thread's record of the running stack itself
//! (corosensei does so). A switch to another fiber and back gives the thread the record of the fiber that the coroutine
//! runs on. With a wrong record the system neither extends the stack nor finds the handlers of a panic. So whoever
//! switches restores the record: see [`Bounds`].
#![expect(unsafe_code, reason = "switches stacks")]

use std::arch::asm;
use std::cell::Cell;
use std::ffi::c_void;
use std::hint::black_box;
use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};
use windows_sys::Win32::System::Threading::{
    ConvertFiberToThread, ConvertThreadToFiberEx, CreateFiberEx, DeleteFiber, GetCurrentThreadStackLimits,
    IsThreadAFiber, SetThreadStackGuarantee, SwitchToFiber,
};

/// The part of a stack that is reserved, in bytes, so that an overflow can be reported. std reserves as much for
/// threads.
const GUARANTEE: u32 = 0x5000;
/// The part of a fiber's stack that cannot be used, in bytes: the reserve and the guard pages, rounded up to the
/// granularity in which Windows allocates addresses.
pub(super) const NOT_FOR_USE: usize = 64 << 10;
/// Makes the system keep the floating-point state of each fiber.
const FIBER_FLAG_FLOAT_SWITCH: u32 = 1;

/// A fiber that runs jobs. It is deleted when this is dropped, wherever it was left.
pub(super) struct Fiber(NonNull<State>);

/// The state that a fiber and the code that enters it share.
pub(super) struct State {
    /// The fiber itself.
    own: Cell<*mut c_void>,
    /// The fiber to switch to in order to resume this one: itself, or one that lay on top of it when it was left.
    left_on: Cell<*mut c_void>,
    /// The fiber that entered it last.
    entered_from: Cell<*mut c_void>,
    /// The next job.
    pub(super) job: Cell<Option<Job>>,
    /// Whether that job has ended.
    pub(super) ended: Cell<bool>,
    /// The lowest address of its stack, and the address above it. Known after the first entry.
    pub(super) stack: Cell<(usize, usize)>,
}

/// A job of a fiber.
#[derive(Clone, Copy)]
pub(super) struct Job {
    /// Does not unwind.
    pub(super) run: unsafe fn(*mut ()),
    pub(super) data: *mut (),
}

impl Fiber {
    pub(super) fn new(size: usize) -> io::Result<Self> {
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
    pub(super) fn state(&self) -> &State {
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
///
/// When this is dropped, the thread has the record of the running stack that it had before.
pub(super) struct AsFiber {
    is_converted: bool,
    bounds: Bounds,
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
        if is_fiber {
            extend_stack();
        } else {
            // If it was dropped before, std was told about the end of the thread.
            let _was_dropped = ASKS.try_with(|_| ());
            // SAFETY: the thread is not a fiber.
            if unsafe { ConvertThreadToFiberEx(ptr::null(), FIBER_FLAG_FLOAT_SWITCH) }.is_null() {
                return None;
            }
        }
        Some(Self { is_converted: !is_fiber, bounds: Bounds::of_running_stack(), not_send: PhantomData })
    }
}

impl Drop for AsFiber {
    fn drop(&mut self) {
        if self.is_converted {
            // SAFETY: `new` has made this thread a fiber. The thread is on that fiber again, because code that enters
            // another one comes back.
            unsafe { ConvertFiberToThread() };
        }
        // SAFETY: this was made on the running stack.
        unsafe { self.bounds.restore() };
    }
}

/// Makes sure that the running stack need not be extended while the thread has another stack's record: from the switch
/// back, within wasmtime, until [`AsFiber`] is dropped. If the parking fiber ends there, wasmtime deletes it and drops its
/// store. In an unoptimised build, that uses between 4 and 8 KiB.
#[inline(never)]
fn extend_stack() {
    let mut used = MaybeUninit::<[u8; 16 << 10]>::uninit();
    black_box(used.as_mut_ptr());
}

/// What the system records for the thread about the running stack, without what it saves itself at each switch: the
/// limit, down to which the stack is in use, and the reserve.
#[derive(Clone, Copy)]
struct Bounds {
    /// The address above the stack.
    base: usize,
    /// The lowest address of its memory.
    allocation: usize,
}

impl Bounds {
    #[inline]
    fn of_running_stack() -> Self {
        let (base, allocation);
        // SAFETY: this reads the fields `StackBase` and `DeallocationStack` of the thread's block.
        unsafe {
            asm!(
                "mov {}, gs:[0x8]",
                "mov {}, gs:[0x1478]",
                out(reg) base,
                out(reg) allocation,
                options(nostack, readonly, preserves_flags),
            );
        }
        Self { base, allocation }
    }

    /// # Safety
    ///
    /// These belong to the running stack. The thread may be another than before.
    #[inline]
    unsafe fn restore(self) {
        let Self { base, allocation } = self;
        // SAFETY: up to the caller. This writes to the same fields.
        unsafe {
            asm!(
                "mov gs:[0x8], {}",
                "mov gs:[0x1478], {}",
                in(reg) base,
                in(reg) allocation,
                options(nostack, preserves_flags),
            );
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
    pub(super) unsafe fn enter(&self) {
        // SAFETY: this has no requirement.
        debug_assert!(unsafe { IsThreadAFiber() } != 0, "entered by a thread that is no fiber");
        self.entered_from.set(current_fiber());
        // SAFETY: the fiber exists, and no thread is on it.
        unsafe { switch_to(self.left_on.get()) };
    }

    /// Returns to where this fiber was entered.
    ///
    /// # Safety
    ///
    /// Called on this fiber, or on one that was entered from it.
    #[inline]
    pub(super) unsafe fn leave(&self) {
        self.left_on.set(current_fiber());
        // SAFETY: that fiber waits in `enter`.
        unsafe { switch_to(self.entered_from.get()) };
    }
}

/// Switches to a fiber, and returns on this stack, perhaps on another thread.
///
/// # Safety
///
/// The thread is a fiber. The other fiber exists, and no thread is on it.
#[inline]
unsafe fn switch_to(fiber: *mut c_void) {
    let bounds = Bounds::of_running_stack();
    // SAFETY: up to the caller.
    unsafe { SwitchToFiber(fiber) };
    // SAFETY: this stack runs again.
    unsafe { bounds.restore() };
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
