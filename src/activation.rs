//! Looking at wasmtime from inside: what it keeps for each thread can be seen only while something is entered there.
#![expect(unsafe_code, reason = "a host function borrows what is on the stack of who calls it")]

use std::ptr;
use std::sync::OnceLock;
use wasmtime::{Config, Engine, Func, Store, StoreContextMut, WasmBacktrace};

/// Whether guests of the store have left frames on the stack of any thread. (None are left by one that made a tail call of
/// its host.)
///
/// wasmtime starts from what the store knows of its frames, but not on a thread on which nothing is entered
/// (`Backtrace::new` in `runtime/vm/traphandlers/backtrace.rs`), which would hide those of a store that is borrowed from
/// another thread.
pub(crate) fn has_frames<T>(store: &StoreContextMut<'_, T>) -> bool {
    // If it cannot be seen, there may be some.
    let mut found = true;
    let _ = in_activation(|| found = !WasmBacktrace::force_capture(store).frames().is_empty());
    found
}

/// Calls `f` from within an activation on the stack that this runs on.
pub(crate) fn in_activation<F: FnMut()>(mut f: F) -> Option<()> {
    /// # Safety
    ///
    /// `f` is a valid `F` that is not used otherwise.
    unsafe fn call<F: FnMut()>(f: *mut ()) {
        // SAFETY: up to the caller.
        unsafe { (*f.cast::<F>())() };
    }

    let closure = Erased { call: call::<F>, f: ptr::from_mut(&mut f).cast() };
    let mut store = Store::new(engine()?, ());
    let host = Func::wrap(&mut store, move || {
        // The whole of it, for its `Send`.
        let Erased { call, f } = { closure };
        // SAFETY: called below, while `f` is there and not used otherwise.
        unsafe { call(f) };
    });
    host.typed::<(), ()>(&store).ok()?.call(&mut store, ()).ok()
}

/// A closure on the stack, for a host function that wasmtime wants to be `'static`, `Send` and `Sync`, though it is
/// called right where it is made.
#[derive(Clone, Copy)]
struct Erased {
    call: unsafe fn(*mut ()),
    f: *mut (),
}

// SAFETY: called by the thread that made it.
unsafe impl Send for Erased {}
// SAFETY: as above.
unsafe impl Sync for Erased {}

/// The engine of the store that is called. It compiles nothing and runs no guest, so it handles no signals.
fn engine() -> Option<&'static Engine> {
    static ENGINE: OnceLock<Option<Engine>> = OnceLock::new();
    ENGINE.get_or_init(|| Engine::new(Config::new().signals_based_traps(false)).ok()).as_ref()
}
