//! [`suspend_in_host_function`]: suspends a synchronous host function on the caller's word, and nothing else.
#![expect(unsafe_code, reason = "what is tested has a contract")]

use crate::common::futures::{cancel, finish, pending, poll_once};
use crate::refused::{check, check_end, on};
use crate::support::guest::{ONCE, assert_usable, runner, stack, store};
use crate::support::{Code, Host, Kind, matrix};
use std::future::{Future, ready};
use wasmtime::{AsContext, Caller, Func, Result, WasmBacktrace};
use wasmtime_async::{Between, Error, FuncExt, Stack, Store, suspend_in_host_function};

matrix!(
    where_the_guest_called_it,
    within_a_nested_call,
    within_another_store,
    within_a_poll,
    within_a_closure,
    without_a_stack,
);

/// Waits in a host function that this store's guest called.
fn wait<F: Future>(store: &impl AsContext, future: F) -> Result<F::Output, Error> {
    // SAFETY: the host functions of these tests keep nothing in the thread.
    unsafe { suspend_in_host_function(store, future) }
}

fn waits_and_counts(store: &mut Store<Host>) -> Func {
    Func::wrap(store, |mut caller: Caller<'_, Host>| -> Result<()> {
        let _local = caller.data().log.on_drop("left");
        for _ in 0..3 {
            assert_eq!(wait(&caller, ready(1)).expect("nothing to wait for"), 1);
            wait(&caller, pending(1))?;
            caller.data_mut().id += 1;
        }
        Ok(())
    })
}

fn where_the_guest_called_it<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let log = store.data().log.clone();
    let waits = waits_and_counts(&mut store);
    let run = runner(&mut store, ONCE, [waits])?;
    if K::MOVES {
        // No promise of the caller lets the function continue on another thread.
        let error = finish(run.call_on(&mut stack, &mut store, &[], &mut [])).unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(Error::NotSend)), "{error:?}");
        assert!(error.is::<WasmBacktrace>(), "{error:?}");
        assert_eq!((store.data().id, log.take()), (0, vec!["left".to_owned()]));
        return assert_usable(&mut stack, &mut store);
    }
    for polls in 0..=3 {
        store.data_mut().id = 0;
        let mut call = run.call_on(&mut stack, &mut store, &[], &mut []);
        for _ in 0..polls {
            assert!(poll_once(&mut call).is_pending());
        }
        if polls == 3 {
            finish(call)?;
            assert_eq!(store.data().id, 3);
        } else {
            cancel(call);
        }
        assert_eq!(log.take().len(), usize::from(polls > 0));
        assert_usable(&mut stack, &mut store)?;
    }
    // Without a guest in between.
    finish(waits.call_on(&mut stack, &mut store, &[], &mut []))?;
    assert_usable(&mut stack, &mut store)
}

fn within_a_nested_call<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let sleeps = Func::wrap(&mut store, |caller: Caller<'_, Host>| Ok(wait(&caller, pending(1))?));
    let sleeps = runner(&mut store, ONCE, [sleeps])?;
    let host = Func::wrap(&mut store, move |mut caller: Caller<'_, Host>| -> Result<()> {
        let _local = caller.data().log.on_drop("left");
        sleeps.call(&mut caller, &[], &mut [])
    });
    check::<K>(&mut stack, &mut store, host, on::<K>(Between::NestedCall))?;
    // It does not help that the host function belongs to the outer store.
    let host = Func::wrap(&mut store, |mut caller: Caller<'_, Host>| -> Result<()> {
        let _local = caller.data().log.on_drop("left");
        let nested = Func::wrap(&mut caller, |caller: Caller<'_, Host>| Ok(wait(&caller, pending(1))?));
        nested.call(&mut caller, &[], &mut [])
    });
    check::<K>(&mut stack, &mut store, host, on::<K>(Between::NestedCall))
}

fn within_another_store<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let host = Func::wrap(&mut store, move |caller: Caller<'_, Host>| -> Result<()> {
        let _local = caller.data().log.on_drop("left");
        let mut other = self::store(code);
        let sleeps = Func::wrap(&mut other, |caller: Caller<'_, Host>| Ok(wait(&caller, pending(1))?));
        runner(&mut other, ONCE, [sleeps])?.call(&mut other, &[], &mut [])
    });
    check::<K>(&mut stack, &mut store, host, on::<K>(Between::OtherStore))
}

fn within_a_poll<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let sleeps = Func::wrap(&mut store, |caller: Caller<'_, Host>| Ok(wait(&caller, pending(1))?));
    let sleeps = runner(&mut store, ONCE, [sleeps])?;
    let host = Func::wrap_suspending_boxed(&mut store, move |mut caller: Caller<'_, Host>, (): ()| {
        Box::new(async move {
            let _local = caller.data().log.on_drop("left");
            sleeps.call(&mut caller, &[], &mut [])
        })
    });
    check::<K>(&mut stack, &mut store, host, on::<K>(Between::Poll))
}

fn within_a_closure<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let waits = waits_and_counts(&mut store);
    let run = runner(&mut store, ONCE, [waits])?;
    let result = finish(stack.run_send(&mut store, move |mut store| run.call(&mut store, &[], &mut [])));
    check_end(result, on::<K>(Between::Closure))?;
    assert_usable(&mut stack, &mut store)
}

fn without_a_stack<K: Kind>(code: Code) -> Result<()> {
    let mut store = store(code);
    let sleeps = Func::wrap(&mut store, |caller: Caller<'_, Host>| Ok(wait(&caller, pending(1))?));
    let error = sleeps.call(&mut store, &[], &mut []).unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(Error::NotOnStack)), "{error:?}");
    assert_usable(&mut stack::<K>(), &mut store)
}
