//! Parks wasm's activations with one of wasmtime's own fibers.
//!
//! wasmtime keeps a list of activations for each thread, strictly last in, first out. Entering wasm pushes one, and
//! leaving it asserts that it is the head (`CallThreadState` in `runtime/vm/traphandlers.rs`). A coroutine that
//! suspends in the middle of wasm leaves its activations on that list, and the next call on the thread that ends before
//! it aborts the process. wasmtime solves this for its own fibers: when one suspends, everything that was pushed on the
//! list since its last resume is taken off, whoever pushed it, and put back at the next resume
//! (`AsyncWasmCallState::push` and `PreviousAsyncWasmCallState::restore`, called by `resume_fiber` in
//! `runtime/fiber.rs`).
//!
//! So each coroutine has such a fiber. It is a function of a private store, which is called asynchronously once, for
//! the life of the coroutine. Its future resumes the coroutine whenever it is polled, and is pending until the
//! coroutine ends. Every way in leads from the poller through the fiber to the coroutine, and every way out leads back
//! the same way. Nothing else runs on the fiber.
#![expect(unsafe_code, reason = "asserts that futures may be where they stay")]

#[cfg(not(windows))]
mod lent;

use super::coroutine::{AsFiber, ParkingMemory};
use crate::Error;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll, Waker};
use wasmtime::{Caller, Config, Engine, Func, Store};

/// The size of the parking fiber's stack, in bytes. It holds a fixed handful of frames, with room for those of an
/// unoptimised build, and on Windows for what the system reserves. Pages that are not touched cost nothing.
pub(super) const PARKING_SIZE: usize = if cfg!(windows) { 128 << 10 } else { 64 << 10 };

/// A suspended fiber of wasmtime's.
pub(super) struct ParkingFiber(Pin<Box<dyn Future<Output = wasmtime::Result<()>>>>);

/// The code on a parking fiber: it enters the coroutine, returns when the coroutine is left, and says whether it has
/// ended.
pub(super) trait Relay: Copy + 'static {
    /// # Safety
    ///
    /// Only called from within [`ParkingFiber::enter`].
    unsafe fn relay(self) -> Poll<()>;
}

impl ParkingFiber {
    /// Makes a fiber on a part of the coroutine's memory. Nothing is relayed yet.
    ///
    /// # Safety
    ///
    /// The memory belongs to the fiber alone until the fiber is dropped. It has `PARKING_SIZE` bytes and lies above a
    /// guard page.
    pub(super) unsafe fn new(memory: &ParkingMemory, relay: impl Relay) -> Result<Self, Error> {
        let Some(_fiber) = AsFiber::new() else {
            return Err(Error::Fibers { reason: "this thread cannot be made a fiber: out of memory".to_owned() });
        };
        let mut fiber = Self(Box::pin(live(StaysHere(relay))));
        // Runs the fiber up to the point where it waits to relay for the first time, so that errors show up now.
        match lending(memory, || fiber.poll()) {
            Poll::Pending => Ok(fiber),
            Poll::Ready(Ok(())) => unreachable!("a parking fiber ends by relaying"),
            Poll::Ready(Err(error)) => Err(Error::Fibers { reason: format!("{error:#}") }),
        }
    }

    /// Relays once, with the activations on the thread's list while the coroutine runs.
    ///
    /// # Safety
    ///
    /// Meets all requirements of the relay that was given to `new`.
    #[inline]
    pub(super) unsafe fn enter(&mut self) {
        let _ended = self.poll();
    }

    #[inline]
    fn poll(&mut self) -> Poll<wasmtime::Result<()>> {
        // Before wasmtime tries this, because its fiber would have to unwind.
        let _fiber = AsFiber::new().expect("there is memory to make this thread a fiber");
        self.0.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }
}

/// Makes wasmtime create a fiber on this memory.
fn lending<R>(memory: &ParkingMemory, make: impl FnOnce() -> R) -> R {
    cfg_select! {
        // Where wasmtime uses the system's fibers, these have stacks of their own.
        windows => {
            let ParkingMemory = memory;
            make()
        }
        _ => lent::lending(memory, make)
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

/// Relays at each poll except the first, until the coroutine has ended.
fn relay_on_fiber(relay: StaysHere<impl Relay>) -> impl Future<Output = ()> + Send {
    let mut reached = false;
    poll_fn(move |_| {
        // Moves the whole struct, for its `Send`.
        let StaysHere(relay) = { relay };
        if !reached {
            reached = true;
            return Poll::Pending;
        }
        // SAFETY: all polls except the first come from `enter`.
        unsafe { relay.relay() }
    })
}

/// A value that wasmtime requires to be `Send` and `Sync`, because futures of its own may change threads.
#[derive(Clone, Copy)]
struct StaysHere<T>(T);

// SAFETY: only the thread that enters the fiber uses it. The owner of the fiber decides where it may go.
unsafe impl<T> Send for StaysHere<T> {}
// SAFETY: only the thread that enters the fiber uses it.
unsafe impl<T> Sync for StaysHere<T> {}

/// The engine of these fibers. It compiles nothing and runs no guest, so it handles no signals.
fn engine() -> Result<&'static Engine, Error> {
    static ENGINE: OnceLock<Result<Engine, String>> = OnceLock::new();
    ENGINE
        .get_or_init(|| {
            let mut config = Config::new();
            config.signals_based_traps(false).max_wasm_stack(PARKING_SIZE / 2).async_stack_size(PARKING_SIZE);
            #[cfg(not(windows))]
            lent::use_lent_stacks(&mut config);
            Engine::new(&config).map_err(|error| format!("{error:#}"))
        })
        .as_ref()
        .map_err(|reason| Error::Fibers { reason: reason.clone() })
}
