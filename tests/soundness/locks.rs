//! Locks that are held, and cells that are being initialised. Other code on the thread, and other threads, may want
//! them.

use crate::{Around, Checked, Ways, assert_usable, checked, pending, refused, run, stack};
use std::cell::RefCell;
use std::sync::{Arc, LazyLock, Mutex, Once, OnceLock, PoisonError, RwLock};
use wasmtime::{Caller, Config, Engine, Extern, Func, Result};
use wasmtime_async::{AsyncFunc, Between, FuncExt, Store, suspend_until, yield_now};

checked!(
    cells_that_are_being_initialised,
    a_cell_initialised_by_what_the_guest_computes,
    a_lazy_value,
    locks_that_are_held,
    a_lock_held_at_the_end_of_a_time_slice,
);

fn cells_that_are_being_initialised<S: Checked>() -> Result<()> {
    let mut store = Store::new(&Engine::default(), ());
    let ways = Ways::new(&mut store)?;
    let (once, cell) = (Arc::new(Once::new()), Arc::new(OnceLock::new()));
    let (inner_once, inner_cell) = (Arc::clone(&once), Arc::clone(&cell));
    let host = Func::wrap(&mut store, move |mut caller: Caller<'_, ()>| {
        inner_once.call_once(|| ways.try_all(&mut caller, Around::HostFunction));
        inner_cell.get_or_init(|| {
            ways.try_all(&mut caller, Around::HostFunction);
            7
        });
    });
    let mut stack = stack::<S>();
    run(&mut stack, &mut store, host)?;
    assert!(once.is_completed());
    assert_eq!(cell.get(), Some(&7));
    run(&mut stack, &mut store, host)
}

fn a_cell_initialised_by_what_the_guest_computes<S: Checked>() -> Result<()> {
    let mut store = Store::new(&Engine::default(), ());
    let wait = Func::wrap_suspending_send(&mut store, |polls: i32| async move {
        pending(usize::try_from(polls).expect("a number of polls")).await;
        polls + 100
    });
    let guest = r#"(module (import "" "" (func $wait (param i32) (result i32)))
        (func (export "compute") (param i32) (result i32) (call $wait (local.get 0))))"#;
    let compute = crate::instance(&mut store, guest, &[wait])?.get_typed_func::<i32, i32>(&mut store, "compute")?;
    let (inner_waits, inner_ready) = (OnceLock::new(), OnceLock::new());
    let host = Func::wrap(&mut store, move |mut caller: Caller<'_, ()>| {
        let mut compute = |polls| compute.call(&mut caller, polls).map_err(|error| refused(Err(error)));
        // One of the two has something to wait for.
        assert_eq!(*inner_waits.get_or_init(|| compute(1)), Err(Between::NestedCall));
        assert_eq!(*inner_ready.get_or_init(|| compute(0)), Ok(100));
    });
    let mut stack = stack::<S>();
    run(&mut stack, &mut store, host)?;
    assert_usable(&mut stack, &mut store)
}

fn a_lazy_value<S: Checked>() -> Result<()> {
    let mut store = Store::new(&Engine::default(), ());
    let lazy = LazyLock::new(|| refused(suspend_until(pending(1))));
    let host = Func::wrap(&mut store, move || assert_eq!(*lazy, Between::HostCode));
    let mut stack = stack::<S>();
    run(&mut stack, &mut store, host)?;
    run(&mut stack, &mut store, host)
}

fn locks_that_are_held<S: Checked>() -> Result<()> {
    let mut store = Store::new(&Engine::default(), ());
    let ways = Ways::new(&mut store)?;
    let (mutex, lock) = (Arc::new(Mutex::new(0)), Arc::new(RwLock::new(0)));
    let (inner_mutex, inner_lock) = (Arc::clone(&mutex), Arc::clone(&lock));
    let host = Func::wrap(&mut store, move |mut caller: Caller<'_, ()>| {
        let mut count = inner_mutex.lock().expect("nothing panics");
        let reading = inner_lock.read().expect("nothing panics");
        let cell = RefCell::new(0);
        let borrowed = cell.borrow_mut();
        ways.try_all(&mut caller, Around::HostFunction);
        *count += 1 + *reading + *borrowed;
    });
    let run = crate::calls(&mut store, host)?;
    let mut stack = stack::<S>();
    for round in 1..=2 {
        let mut call = run.call(&mut stack, &mut store, ());
        assert!(crate::poll_once(&mut call).is_pending());
        // The call is suspended after the host function, when it holds none of them.
        assert_eq!(mutex.try_lock().map(|count| *count).ok(), Some(round));
        assert!(lock.try_write().is_ok());
        assert_eq!(crate::finish(call)?, 42);
    }
    Ok(())
}

/// A host function holds a lock and calls a guest, which reaches the end of its time slice.
fn a_lock_held_at_the_end_of_a_time_slice<S: Checked>() -> Result<()> {
    let engine = Engine::new(Config::new().epoch_interruption(true))?;
    let mut store = Store::new(&engine, ());
    store.set_epoch_deadline(1);
    store.epoch_deadline_suspend_and_update(1);
    let clock = engine.clone();
    let tick = Func::wrap(&mut store, move || clock.increment_epoch());
    let mutex = Arc::new(Mutex::new(0));
    let inner = Arc::clone(&mutex);
    let locked = Func::wrap(&mut store, move |mut caller: Caller<'_, ()>| {
        let mut count = inner.lock().unwrap_or_else(PoisonError::into_inner);
        let slice = caller.get_export("slice").and_then(Extern::into_func).expect("is exported");
        assert_eq!(refused(slice.call(&mut caller, &[], &mut [])), Between::NestedCall);
        assert_eq!(refused(yield_now()), Between::HostCode);
        *count += 1;
    });
    let guest = r#"(module
        (import "" "" (func $tick))
        (import "" "" (func $locked))
        (func $slice (export "slice") (local i32)
            (call $tick)
            (loop (br_if 0 (i32.lt_u (local.tee 0 (i32.add (local.get 0) (i32.const 1))) (i32.const 3)))))
        (func (export "run") (call $slice) (call $locked) (call $slice)))"#;
    let instance = crate::instance(&mut store, guest, &[tick, locked])?;
    let run = AsyncFunc::from(instance.get_typed_func::<(), ()>(&mut store, "run")?);
    let mut stack = stack::<S>();
    let mut call = run.call(&mut stack, &mut store, ());
    let mut slices = 1;
    while crate::poll_once(&mut call).is_pending() {
        assert!(mutex.try_lock().is_ok());
        slices += 1;
    }
    drop(call);
    assert!(slices > 2, "the guest has had {slices} slices");
    assert_eq!(*mutex.lock().expect("nothing panics"), 1);
    Ok(())
}
