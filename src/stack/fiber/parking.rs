//! Parking wasm's activations by way of a fiber of wasmtime's own.
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
#![expect(unsafe_code, reason = "lends wasmtime a stack, and asserts that futures may be where they stay")]

use super::memory::PARKING_SIZE;
use crate::Error;
use std::cell::Cell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::ops::Range;
use std::pin::Pin;
use std::ptr;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use wasmtime::{Caller, Config, Engine, Func, StackCreator, StackMemory, Store};

/// A fiber of wasmtime's, suspended.
pub(super) struct ParkingFiber(Pin<Box<dyn Future<Output = wasmtime::Result<()>>>>);

/// What runs on a parking fiber: enters the coroutine, returns when that is left, and tells whether it has ended.
pub(super) trait Relay: Copy + 'static {
    /// # Safety
    ///
    /// Called only from within [`ParkingFiber::enter`].
    unsafe fn relay(self) -> Poll<()>;
}

impl ParkingFiber {
    /// Makes a fiber on a part of the coroutine's memory. Nothing is relayed yet.
    ///
    /// # Safety
    ///
    /// The memory is the fiber's alone until it is dropped, `PARKING_SIZE` bytes above a guard page.
    pub(super) unsafe fn new(memory: Range<usize>, relay: impl Relay) -> Result<Self, Error> {
        debug_assert_eq!(memory.len(), PARKING_SIZE);
        let mut fiber = Self(Box::pin(live(StaysHere(relay))));
        // Brings the fiber to where it waits to relay for the first time, so that what it lacks is known now.
        NEXT_STACK.set(Some(memory));
        let outcome = fiber.poll();
        NEXT_STACK.set(None);
        match outcome {
            Poll::Pending => Ok(fiber),
            Poll::Ready(Ok(())) => unreachable!("a parking fiber ends by relaying"),
            Poll::Ready(Err(error)) => Err(Error::Fibers { reason: format!("{error:#}") }),
        }
    }

    /// Relays once, with the activations on the thread's list while the coroutine runs.
    ///
    /// # Safety
    ///
    /// Upholds whatever the relay given to `new` asks for.
    #[inline]
    pub(super) unsafe fn enter(&mut self) {
        let _ended = self.poll();
    }

    #[inline]
    fn poll(&mut self) -> Poll<wasmtime::Result<()>> {
        self.0.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }
}

impl fmt::Debug for ParkingFiber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParkingFiber").finish_non_exhaustive()
    }
}

/// The life of a parking fiber.
async fn live(relay: StaysHere<impl Relay>) -> wasmtime::Result<()> {
    let mut store = Store::new(engine()?, ());
    let run = Func::wrap_async(&mut store, move |_: Caller<'_, ()>, (): ()| Box::new(relay_on_fiber(relay)));
    run.typed::<(), ()>(&store)?.call_async(&mut store, ()).await
}

/// Relays at each poll but the first, until the coroutine has ended.
fn relay_on_fiber(relay: StaysHere<impl Relay>) -> impl Future<Output = ()> + Send {
    let mut reached = false;
    poll_fn(move |_| {
        // The whole of it, for its `Send`.
        let StaysHere(relay) = { relay };
        if !reached {
            reached = true;
            return Poll::Pending;
        }
        // SAFETY: all polls but the first are those of `enter`.
        unsafe { relay.relay() }
    })
}

/// Something that wasmtime wants to be `Send` and `Sync`, because a future of its own may change threads.
#[derive(Clone, Copy)]
struct StaysHere<T>(T);

// SAFETY: used only by the thread that enters the fiber. Where a fiber may go is decided by who owns it.
unsafe impl<T> Send for StaysHere<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for StaysHere<T> {}

/// The engine of these fibers. It compiles nothing and runs no guest, so it handles no signals.
fn engine() -> Result<&'static Engine, Error> {
    static ENGINE: OnceLock<Result<Engine, String>> = OnceLock::new();
    ENGINE
        .get_or_init(|| {
            let mut config = Config::new();
            config
                .signals_based_traps(false)
                .max_wasm_stack(PARKING_SIZE / 2)
                .async_stack_size(PARKING_SIZE)
                .with_host_stack(Arc::new(LentStacks));
            Engine::new(&config).map_err(|error| format!("{error:#}"))
        })
        .as_ref()
        .map_err(|reason| Error::Fibers { reason: reason.clone() })
}

thread_local! {
    /// The memory of the fiber that is being made.
    static NEXT_STACK: Cell<Option<Range<usize>>> = const { Cell::new(None) };
}

/// Lends parts of the coroutines' memory as stacks of fibers.
struct LentStacks;

/// A part of a coroutine's memory.
struct LentStack(Range<usize>);

// SAFETY: each stack is the part of a mapping that `ParkingFiber::new` was given for it alone: page-aligned, zero, above
// a guard page.
unsafe impl StackCreator for LentStacks {
    fn new_stack(&self, _size: usize, _zeroed: bool) -> wasmtime::Result<Box<dyn StackMemory>> {
        let memory = NEXT_STACK.take().ok_or_else(|| wasmtime::format_err!("no stack was lent"))?;
        Ok(Box::new(LentStack(memory)))
    }
}

// SAFETY: as above.
unsafe impl StackMemory for LentStack {
    fn top(&self) -> *mut u8 {
        ptr::with_exposed_provenance_mut(self.0.end)
    }

    fn range(&self) -> Range<usize> {
        self.0.clone()
    }

    fn guard_range(&self) -> Range<*mut u8> {
        // wasmtime only compares faulting addresses with it, for a message.
        ptr::null_mut()..ptr::null_mut()
    }
}
