//! A coroutine whose wasm activations are parked whenever it is suspended.
//!
//! wasmtime keeps a list of activations for each thread, strictly last in, first out: entering wasm pushes one, leaving
//! it asserts that it is the head (`CallThreadState` in `runtime/vm/traphandlers.rs`). A coroutine that suspends in the
//! middle of wasm leaves its activations on that list, and the next call on the thread that ends before this one aborts
//! the process. wasmtime solves this for fibers of its own: when one suspends, all that was pushed on the list since it
//! was resumed is taken off, whoever pushed it, and put back at the next resume (`AsyncWasmCallState::push` and
//! `PreviousAsyncWasmCallState::restore`, called by `resume_fiber` in `runtime/fiber.rs`).
//!
//! So each coroutine has such a fiber: a function of a private store, called asynchronously once and for the life of
//! the coroutine, whose future resumes the coroutine whenever it is polled, and is pending until the coroutine ends.
//! Every way in leads from the poller through the fiber to the coroutine, every way out back the same way. Nothing else
//! runs on the fiber.
#![expect(unsafe_code, reason = "the parts of a runner refer to each other by address")]

use crate::Error;
use crate::frame::Frame;
use corosensei::stack::DefaultStack as Memory;
use corosensei::{Coroutine, Yielder};
use std::cell::UnsafeCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::ptr::{self, NonNull};
use std::sync::OnceLock;
use std::task::{Context, Poll, Waker};
use wasmtime::{Caller, Config, Engine, Func, Store};

/// The size of the stack that the parking fiber runs on, in bytes: a fixed handful of frames, with room for those of
/// an unoptimized build. Pages that are not touched cost nothing.
const FIBER_SIZE: usize = 64 << 10;

/// The memory of a stack and what enters it.
///
/// The parts stay at their address until the runner is dropped, which only happens while it is idle; one that is
/// unfinished can be forgotten.
#[derive(Debug)]
pub struct Runner(NonNull<Parts>);

struct Parts {
    frame: Frame,
    /// Serves `frame`, which it is given at the first resume.
    coroutine: UnsafeCell<Coroutine<*const Frame, (), (), Memory>>,
    /// The call of the private function. Ends when the coroutine does.
    fiber: UnsafeCell<Pin<Box<dyn Future<Output = wasmtime::Result<()>>>>>,
}

/// The address of a runner's parts, for the future on the parking fiber.
#[derive(Clone, Copy)]
struct PartsRef(*const Parts);

// SAFETY: followed only while the runner is entered, by the thread that enters it. wasmtime asks for the two bounds
// because a fiber of its own may change threads between polls; where a runner may go is decided by who owns it.
unsafe impl Send for PartsRef {}
// SAFETY: as above.
unsafe impl Sync for PartsRef {}

impl Runner {
    /// Makes coroutine and fiber. Nothing runs on the coroutine yet.
    pub(crate) fn new(size: usize) -> Result<Self, Error> {
        let memory = Memory::new(size).map_err(|source| Error::StackMemory { size, source })?;
        let coroutine = Coroutine::with_stack(memory, |yielder: &Yielder<*const Frame, ()>, frame: *const Frame| {
            // SAFETY: `resume` passes the frame that belongs to this coroutine, and it lives as long.
            let frame = unsafe { &*frame };
            frame.set_backend(ptr::from_ref(yielder).cast());
            // SAFETY: runs at the root of the frame's stack; what each entry needs is up to who enters.
            unsafe { frame.serve() };
        });
        let parts = NonNull::from(Box::leak(Box::new(Parts {
            frame: Frame::new(leave),
            coroutine: UnsafeCell::new(coroutine),
            fiber: UnsafeCell::new(Box::pin(std::future::ready(Ok(())))),
        })));
        let mut runner = Self(parts);
        let mut fiber: Pin<Box<dyn Future<Output = _>>> = Box::pin(park(PartsRef(parts.as_ptr())));
        // Brings the fiber to where it waits for the coroutine's first entry, so that what it lacks is known now.
        match fiber.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => {
                *runner.parts_mut().fiber.get_mut() = fiber;
                Ok(runner)
            }
            Poll::Ready(outcome) => {
                let error = outcome.expect_err("the fiber waits for the coroutine");
                Err(match error.downcast::<io::Error>() {
                    Ok(source) => Error::StackMemory { size, source },
                    Err(error) => Error::Fibers(format!("{error:#}")),
                })
            }
        }
    }

    pub(crate) fn frame(&self) -> &Frame {
        &self.parts().frame
    }

    /// Enters the coroutine, by way of the parking fiber.
    ///
    /// # Safety
    ///
    /// That of [`Backend::enter`](crate::stack::Backend::enter).
    pub(crate) unsafe fn enter(&mut self) {
        let parts = self.parts();
        let _entered = parts.frame.enter();
        // SAFETY: only whoever enters the runner uses the fiber, and what runs on the runner cannot enter it.
        let fiber = unsafe { &mut *parts.fiber.get() };
        let _pending = fiber.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    }

    fn parts(&self) -> &Parts {
        // SAFETY: valid until the runner is dropped.
        unsafe { self.0.as_ref() }
    }

    fn parts_mut(&mut self) -> &mut Parts {
        // SAFETY: as above, and the runner is not entered, so that nothing else refers to the parts.
        unsafe { self.0.as_mut() }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        // Without a job, the coroutine returns from `serve`, and the fiber from its function.
        // SAFETY: the runner is idle, and there is no job that could use slot or waker.
        unsafe { self.enter() };
        debug_assert!(self.parts_mut().coroutine.get_mut().done(), "a runner was dropped while unfinished");
        // SAFETY: made by `Box::leak` in `new`; both that referred to the parts have ended.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// Leaves a coroutine.
///
/// # Safety
///
/// Called on the coroutine whose yielder `backend` is.
unsafe fn leave(backend: *const ()) {
    // SAFETY: the yielder lies at the root of the coroutine's stack.
    let yielder = unsafe { &*backend.cast::<Yielder<*const Frame, ()>>() };
    yielder.suspend(());
}

/// The engine of all parking fibers. It compiles nothing and runs no guest, so it handles no signals.
fn engine() -> Result<&'static Engine, Error> {
    static ENGINE: OnceLock<Result<Engine, String>> = OnceLock::new();
    ENGINE
        .get_or_init(|| {
            let mut config = Config::new();
            config.signals_based_traps(false).max_wasm_stack(FIBER_SIZE / 2).async_stack_size(FIBER_SIZE);
            Engine::new(&config).map_err(|error| format!("{error:#}"))
        })
        .as_ref()
        .map_err(|reason| Error::Fibers(reason.clone()))
}

/// The life of a parking fiber.
async fn park(parts: PartsRef) -> wasmtime::Result<()> {
    let mut store = Store::new(engine()?, ());
    let relay = Func::wrap_async(&mut store, move |_: Caller<'_, ()>, (): ()| Box::new(relay(parts)));
    relay.typed::<(), ()>(&store)?.call_async(&mut store, ()).await
}

/// What runs on a parking fiber: resumes the coroutine at each poll but the first, until it has ended.
fn relay(parts: PartsRef) -> impl Future<Output = ()> + Send {
    let mut reached = false;
    poll_fn(move |_| {
        // The whole of it, for its `Send`.
        let PartsRef(parts) = { parts };
        if !reached {
            reached = true;
            return Poll::Pending;
        }
        // SAFETY: the runner that this fiber is part of is being entered, so its parts are there.
        let parts = unsafe { &*parts };
        // SAFETY: nobody else uses the coroutine while the runner is being entered.
        let coroutine = unsafe { &mut *parts.coroutine.get() };
        coroutine.resume(&raw const parts.frame);
        if coroutine.done() { Poll::Ready(()) } else { Poll::Pending }
    })
}
