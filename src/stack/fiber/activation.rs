//! Looking at wasmtime from inside: what it keeps for each thread can be seen only while something is entered there.
#![expect(unsafe_code, reason = "a host function borrows what is on the stack of who calls it")]

use crate::Result;
use std::ptr;
use std::sync::OnceLock;
use wasmtime::{Config, Engine, Func, Store};

/// Calls `f` from within an activation on the stack that this runs on. Its error is a trap's.
pub(crate) fn in_activation<F: FnMut() -> Result<()>>(mut f: F) -> Result<()> {
    /// # Safety
    ///
    /// `f` is a valid `F` that is not used otherwise.
    unsafe fn call<F: FnMut() -> Result<()>>(f: *mut ()) -> Result<()> {
        // SAFETY: up to the caller.
        unsafe { (*f.cast::<F>())() }
    }

    let closure = Erased { call: call::<F>, f: ptr::from_mut(&mut f).cast() };
    let mut store = Store::new(engine()?, ());
    let host = Func::wrap(&mut store, move || {
        // The whole of it, for its `Send`.
        let Erased { call, f } = { closure };
        // SAFETY: called below, while `f` is there and not used otherwise.
        unsafe { call(f) }
    });
    host.typed::<(), ()>(&store)?.call(&mut store, ())
}

/// A closure on the stack, for a host function that wasmtime wants to be `'static`, `Send` and `Sync`, though it is
/// called right where it is made.
#[derive(Clone, Copy)]
struct Erased {
    call: unsafe fn(*mut ()) -> Result<()>,
    f: *mut (),
}

// SAFETY: called by the thread that made it.
unsafe impl Send for Erased {}
// SAFETY: as above.
unsafe impl Sync for Erased {}

/// The engine of the store that is called. It compiles nothing and runs no guest, so it handles no signals.
fn engine() -> Result<&'static Engine> {
    static ENGINE: OnceLock<Option<Engine>> = OnceLock::new();
    let engine = ENGINE.get_or_init(|| Engine::new(Config::new().signals_based_traps(false)).ok());
    engine.as_ref().ok_or_else(|| wasmtime::format_err!("wasmtime makes no engine"))
}
