//! Calls that are forgotten, and stores that are lost with them.

use crate::{Checked, assert_usable, calls, checked, pending, poll_once, run, stack};
use std::future::Future;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use wasmtime::{AsContext as _, AsContextMut as _, Caller, Engine, Func, Module, Result};
use wasmtime_async::{FuncExt, LinkerExt, Store};

checked!(
    a_store_that_is_lost_says_so,
    a_call_that_has_ended_loses_nothing,
    with_all_that_it_owns,
    within_a_host_function,
);

/// A store that contains a forgotten call.
fn lost<S: Checked>(stack: &mut S) -> Result<Store<()>> {
    let mut store = Store::new(&Engine::default(), ());
    let nothing = Func::wrap(&mut store, || ());
    let run = calls(&mut store, nothing)?;
    let mut call = run.call(stack, &mut store, ());
    assert!(poll_once(&mut call).is_pending());
    mem::forget(call);
    Ok(store)
}

/// Whether this panics with advice.
fn is_refused<R>(use_it: impl FnOnce() -> R) -> bool {
    let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(use_it()))) else { return false };
    payload.downcast_ref::<&str>().is_some_and(|message| message.starts_with("this store is lost"))
}

fn a_store_that_is_lost_says_so<S: Checked>() -> Result<()> {
    let mut stack = stack::<S>();
    let mut other = crate::stack::<S>();
    let mut store = lost(&mut stack)?;
    let nothing = Func::wrap(&mut Store::new(&Engine::default(), ()), || ());
    assert!(is_refused(|| *store.data()));
    assert!(is_refused(|| *store.data_mut()));
    assert!(is_refused(|| store.engine().clone()));
    assert!(is_refused(|| store.gc(None)));
    assert!(is_refused(|| store.as_context().engine().clone()));
    assert!(is_refused(|| store.as_context_mut().engine().clone()));
    assert!(is_refused(|| Func::wrap(&mut store, || ())));
    assert!(is_refused(|| drop(nothing.call_on(&mut other, &mut store, &[], &mut []))));
    assert!(is_refused(|| drop(other.run_send(&mut store, |_| Ok(())))));
    let engine = Engine::default();
    let (linker, module) = (wasmtime::Linker::new(&engine), Module::new(&engine, "(module)")?);
    assert!(is_refused(|| drop(linker.instantiate_on(&mut other, &mut store, &module))));
    assert!(format!("{store:?}").contains("lost"));
    drop(store);
    assert!(is_refused(|| lost(&mut stack).map(Store::into_inner)));
    assert!(is_refused(|| lost(&mut stack).map(Store::into_data)));
    assert!(is_refused(|| lost(&mut stack).map(wasmtime::Store::from)));
    // The stacks work with other stores.
    assert_usable(&mut stack, &mut Store::new(&engine, ()))?;
    assert_usable(&mut other, &mut Store::new(&engine, ()))
}

fn a_call_that_has_ended_loses_nothing<S: Checked>() -> Result<()> {
    let mut store = Store::new(&Engine::default(), ());
    let nothing = Func::wrap(&mut store, || ());
    let mut stack = stack::<S>();
    mem::forget(nothing.call_on(&mut stack, &mut store, &[], &mut []));
    assert_usable(&mut stack, &mut store)?;
    let mut call = nothing.call_on(&mut stack, &mut store, &[], &mut []);
    assert!(poll_once(&mut call).is_ready());
    mem::forget(call);
    assert_usable(&mut stack, &mut store)
}

/// A suspended call in a future that owns its stack and its store.
fn owned<S: Checked>() -> Pin<Box<dyn Future<Output = Result<()>>>> {
    let mut task: Pin<Box<dyn Future<Output = _>>> = Box::pin(async {
        let mut store = Store::new(&Engine::default(), ());
        let wait = Func::wrap_suspending_send(&mut store, || pending(usize::MAX));
        wait.call_on(&mut stack::<S>(), &mut store, &[], &mut []).await
    });
    assert!(poll_once(&mut task).is_pending());
    task
}

fn with_all_that_it_owns<S: Checked>() -> Result<()> {
    for _ in 0..5 {
        let mut leaked = Box::pin(owned::<S>());
        assert!(poll_once(&mut leaked).is_pending());
        Box::leak(Box::new(leaked));
        mem::forget(owned::<S>());
        assert_usable(&mut stack::<S>(), &mut Store::new(&Engine::default(), ()))?;
    }
    Ok(())
}

/// A call begins, is suspended and is forgotten while another call runs, which continues.
fn within_a_host_function<S: Checked>() -> Result<()> {
    let mut store = Store::new(&Engine::default(), ());
    let host = Func::wrap(&mut store, |_: Caller<'_, ()>| {
        mem::forget(owned::<S>());
        drop(owned::<S>());
        mem::forget(owned::<S>());
    });
    let mut stack = stack::<S>();
    run(&mut stack, &mut store, host)?;
    run(&mut stack, &mut store, host)?;
    assert_usable(&mut stack, &mut store)
}
