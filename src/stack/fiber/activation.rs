//! Looking at wasmtime from inside: what it keeps for each thread is only visible while something is entered there.
#![expect(unsafe_code, reason = "a host function borrows what is on the stack of who calls it")]

use crate::Result;
use std::ptr;
use std::sync::OnceLock;
use wasmtime::{Config, Engine, Func, Store};

/// Calls `f` from within an activation on the current stack. An error of `f` is the error of a trap.
pub(crate) fn in_activation<F: FnMut() -> Result<()>>(mut f: F) -> Result<()> {
    /// # Safety
    ///
    /// `f` is a valid `F` that nothing else uses.
    unsafe fn call<F: FnMut() -> Result<()>>(f: *mut ()) -> Result<()> {
        // SAFETY: up to the caller.
        unsafe { (*f.cast::<F>())() }
    }

    let closure = Erased { call: call::<F>, f: ptr::from_mut(&mut f).cast() };
    let mut store = Store::new(engine()?, ());
    let host = Func::wrap(&mut store, move || {
        // Moves the whole struct, for its `Send`.
        let Erased { call, f } = { closure };
        // SAFETY: this is called below, while `f` exists and nothing else uses it.
        unsafe { call(f) }
    });
    host.typed::<(), ()>(&store)?.call(&mut store, ())
}

/// A closure on the stack. wasmtime requires a host function to be `'static`, `Send` and `Sync`, although it is called
/// right where it is made.
#[derive(Clone, Copy)]
struct Erased {
    call: unsafe fn(*mut ()) -> Result<()>,
    f: *mut (),
}

// SAFETY: the thread that made it calls it.
unsafe impl Send for Erased {}
// SAFETY: the thread that made it calls it.
unsafe impl Sync for Erased {}

/// The engine of that store. It compiles nothing and runs no guest, so it handles no signals.
fn engine() -> Result<&'static Engine> {
    static ENGINE: OnceLock<Option<Engine>> = OnceLock::new();
    let engine = ENGINE.get_or_init(|| Engine::new(Config::new().signals_based_traps(false)).ok());
    engine.as_ref().ok_or_else(|| wasmtime::format_err!("wasmtime makes no engine"))
}
