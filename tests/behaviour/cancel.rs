//! Calls that are dropped before they end.

use crate::common::futures::{cancel, finish, pending, poll_once};
use crate::common::moving::sent;
use crate::support::guest::{ONCE, assert_usable, export, guest, runner, stack, store};
use crate::support::{Code, Host, Kind, Log, matrix};
use std::any::Any;
use std::cell::RefCell;
use std::future::{pending as never, ready};
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::pin::pin;
use std::thread;
use wasmtime::{Caller, Func, Linker, Module, Result};
use wasmtime_async::{Error, FuncExt, LinkerExt, Stack, Store, suspend_until, yield_now};

matrix!(
    before_the_first_poll,
    guests_unwind,
    destructors_have_the_store,
    in_start_functions,
    panics_go_on_in_drop,
    while_the_thread_is_panicking,
    within_another_call,
    with_a_call_inside,
    when_the_thread_ends,
);

/// Waits forever in the host function `wait`, and sets the global afterwards.
pub(crate) const WAITS: &str = r#"(module
    (import "" "wait" (func $wait))
    (global (export "reached") (mut i32) (i32.const 0))
    (func (export "run") (call $wait) (global.set 0 (i32.const 1)))
    (func (export "answer") (result i32) (i32.const 42)))"#;

pub(crate) fn waits_for_ever(store: &mut Store<Host>) -> Func {
    let log = store.data().log.clone();
    Func::wrap_suspending_send(store, move || {
        let log = log.clone();
        async move {
            let _outer = log.on_drop("locals of the host function");
            let _inner = log.on_drop("the future");
            never::<()>().await;
        }
    })
}

/// The result of trying to wait.
pub(crate) fn attempt() -> &'static str {
    match (suspend_until(ready(())), suspend_until(pending(1)), yield_now()) {
        (Err(Error::Cancelled), Err(Error::Cancelled), Err(Error::Cancelled)) => "cancelled",
        (Ok(()), Ok(()), Ok(())) => "fine",
        other => panic!("some of it works: {other:?}"),
    }
}

fn before_the_first_poll<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let log = store.data().log.clone();

    let local = log.on_drop("what the closure captured");
    let inner = log.clone();
    let call = stack.run_send(&mut store, move |_| {
        inner.add("ran");
        drop(local);
        Ok(())
    });
    assert!(log.take().is_empty());
    cancel(call);
    assert_eq!(log.take(), ["what the closure captured"]);

    let called = log.clone();
    let host = Func::wrap_suspending_send(&mut store, move || {
        called.add("ran");
        async {}
    });
    let run = runner(&mut store, WAITS, [host])?;
    drop(run.call_on(&mut stack, &mut store, &[], &mut []));
    let typed = run.get_async(&store).get0::<()>()?;
    drop(typed.call(&mut stack, &mut store, ()));
    assert!(log.take().is_empty());
    assert_usable(&mut stack, &mut store)
}

/// Logs, through a store's data, that its host function was left.
pub(crate) struct Reports<'a, 'b> {
    pub(crate) caller: &'a mut Caller<'b, Host>,
}

impl Drop for Reports<'_, '_> {
    fn drop(&mut self) {
        self.caller.data_mut().id += 1;
        self.caller.data().log.add(format!("locals with the store's data, {}", attempt()));
    }
}

fn guests_unwind<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let log = store.data().log.clone();
    let wait = waits_for_ever(&mut store);
    let instance = guest(&mut store, WAITS, [wait])?;
    let run = export(&mut store, &instance, "run");

    let mut call = run.call_on(&mut stack, &mut store, &[], &mut []);
    assert!(poll_once(&mut call).is_pending());
    cancel(call);
    let typed = run.get_async(&store).get0::<()>()?;
    let mut call = typed.call(&mut stack, &mut store, ());
    assert!(poll_once(&mut call).is_pending());
    cancel(call);

    assert_eq!(log.take().len(), 4);
    let reached = instance.get_global(&mut store, "reached").expect("is exported");
    assert_eq!(reached.get(&mut store).unwrap_i32(), 0, "the guest went on");
    assert_usable(&mut stack, &mut store)
}

fn destructors_have_the_store<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let log = store.data().log.clone();
    let wait = Func::wrap_suspending_boxed(&mut store, |mut caller: Caller<'_, Host>, (): ()| {
        Box::new(async move {
            let _outer = caller.data().log.on_drop("before it");
            let _reports = Reports { caller: &mut caller };
            never::<()>().await;
        })
    });
    let run = runner(&mut store, WAITS, [wait])?;
    for round in 1..4 {
        let mut call = run.call_on(&mut stack, &mut store, &[], &mut []);
        assert!(poll_once(&mut call).is_pending());
        cancel(call);
        assert_eq!(log.take(), ["locals with the store's data, cancelled", "before it"]);
        assert_eq!(store.data().id, round);
        assert_usable(&mut stack, &mut store)?;
    }
    Ok(())
}

fn in_start_functions<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let log = store.data().log.clone();
    let wait = waits_for_ever(&mut store);
    let mut linker = Linker::new(store.engine());
    linker.define(&mut store, "", "wait", wait)?;
    let module = Module::new(store.engine(), r#"(module (import "" "wait" (func)) (start 0))"#)?;
    let mut call = linker.instantiate_on(&mut stack, &mut store, &module);
    assert!(poll_once(&mut call).is_pending());
    cancel(call);
    assert_eq!(log.take(), ["the future", "locals of the host function"]);
    assert_usable(&mut stack, &mut store)
}

/// Panics when it is dropped.
struct PanicsOnDrop(&'static str);

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        panic_any(self.0);
    }
}

/// A host function that waits forever, and panics when it is cancelled.
pub(crate) fn panics_on_drop(store: &mut Store<Host>) -> Func {
    let log = store.data().log.clone();
    Func::wrap_suspending_send(store, move || {
        let log = log.clone();
        async move {
            let _local = log.on_drop("host function");
            let _bomb = PanicsOnDrop("on the way out");
            never::<()>().await;
        }
    })
}

fn panics_go_on_in_drop<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let log = store.data().log.clone();
    let wait = panics_on_drop(&mut store);
    let run = runner(&mut store, WAITS, [wait])?;
    let mut call = run.call_on(&mut stack, &mut store, &[], &mut []);
    assert!(poll_once(&mut call).is_pending());
    let payload = catch_unwind(AssertUnwindSafe(|| cancel(call))).expect_err("drop goes on with the panic");
    assert_eq!(payload.downcast_ref(), Some(&"on the way out"));
    assert_eq!(log.take(), ["host function"]);
    assert_usable(&mut stack, &mut store)
}

fn while_the_thread_is_panicking<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let log = store.data().log.clone();
    let wait = waits_for_ever(&mut store);
    let run = runner(&mut store, WAITS, [wait])?;
    let payload = catch_unwind(AssertUnwindSafe(|| {
        let mut call = run.call_on(&mut stack, &mut store, &[], &mut []);
        assert!(poll_once(&mut call).is_pending());
        panic_any("of the poller");
    }));
    assert_eq!(payload.expect_err("panics").downcast_ref(), Some(&"of the poller"));
    assert_eq!(log.take(), ["the future", "locals of the host function"]);
    assert_usable(&mut stack, &mut store)?;

    // A second panic, from the code that is being cancelled, must not end the process.
    let wait = panics_on_drop(&mut store);
    let run = runner(&mut store, WAITS, [wait])?;
    let payload = catch_unwind(AssertUnwindSafe(|| {
        let mut call = run.call_on(&mut stack, &mut store, &[], &mut []);
        assert!(poll_once(&mut call).is_pending());
        panic_any("of the poller");
    }));
    assert_eq!(payload.expect_err("panics").downcast_ref(), Some(&"of the poller"));
    assert_eq!(log.take(), ["host function"]);
    assert_usable(&mut stack, &mut store)
}

/// A call is dropped by code that runs on another stack, in another call's host function. That code continues.
fn within_another_call<K: Kind>(code: Code) -> Result<()> {
    let (mut stack, mut other_stack) = (stack::<K>(), self::stack::<K>());
    let (mut store, mut other_store) = (store(code), self::store(code));
    let (log, other_log) = (store.data().log.clone(), other_store.data().log.clone());
    let wait = waits_for_ever(&mut store);
    let run = runner(&mut store, WAITS, [wait])?;

    let made = other_log.clone();
    let drops = Func::wrap_suspending_send(&mut other_store, move || {
        let made = made.clone();
        sent(async move {
            let (mut stack, mut store) = (self::stack::<K>(), self::store(code));
            let wait = waits_for_ever(&mut store);
            let run = runner(&mut store, WAITS, [wait])?;
            let mut call = run.call_on(&mut stack, &mut store, &[], &mut []);
            assert!(poll_once(&mut call).is_pending());
            drop(call);
            made.add(format!("dropped one of {}", store.data().log.take().len()));
            pending(1).await;
            assert_usable(&mut stack, &mut store)
        })
    });
    let outer = runner(&mut other_store, ONCE, [drops])?;

    let mut waiting = run.call_on(&mut stack, &mut store, &[], &mut []);
    assert!(poll_once(&mut waiting).is_pending());
    let mut call = outer.call_on(&mut other_stack, &mut other_store, &[], &mut []);
    assert!(poll_once(&mut call).is_pending());
    assert_eq!(other_log.take(), ["dropped one of 2"]);
    cancel(waiting);
    assert_eq!(log.take().len(), 2);
    finish(call)?;
    assert_usable(&mut stack, &mut store)?;
    assert_usable(&mut other_stack, &mut other_store)
}

/// A host function waits for a call on another stack and is cancelled. The inner call is dropped with its future.
fn with_a_call_inside<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let log = store.data().log.clone();
    let inner_log = log.clone();
    let calls = Func::wrap_suspending_send(&mut store, move || {
        let log = inner_log.clone();
        sent(async move {
            let _local = log.on_drop("outer host function");
            let (mut stack, mut store) = (self::stack::<K>(), self::store(code));
            store.data_mut().log = log.clone();
            let wait = waits_for_ever(&mut store);
            let run = runner(&mut store, WAITS, [wait])?;
            let call = pin!(run.call_on(&mut stack, &mut store, &[], &mut []));
            call.await
        })
    });
    let run = runner(&mut store, WAITS, [calls])?;
    let mut call = run.call_on(&mut stack, &mut store, &[], &mut []);
    assert!(poll_once(&mut call).is_pending());
    assert!(poll_once(&mut call).is_pending());
    cancel(call);
    assert_eq!(log.take(), ["the future", "locals of the host function", "outer host function"]);
    assert_usable(&mut stack, &mut store)
}

/// A call in a thread-local variable is dropped together with the thread-local variables.
fn when_the_thread_ends<K: Kind>(code: Code) -> Result<()> {
    thread_local!(static HELD: RefCell<Option<Box<dyn Any>>> = const { RefCell::new(None) });

    let log = Log::default();
    let inner = log.clone();
    let ended = thread::spawn(move || -> Result<()> {
        let mut store = store(code);
        store.data_mut().log = inner;
        let wait = waits_for_ever(&mut store);
        let text = r#"(module
            (import "" "" (func $wait))
            (func (export "run") (param i32) (result i32) (call $wait) (local.get 0)))"#;
        let run = runner(&mut store, text, [wait])?.get_async(&store).typed::<i32, i32>()?;
        // This comes first, so that the variable is dropped after the thread-local state that the call uses.
        HELD.with(|held| assert!(held.borrow().is_none()));
        let mut call = K::boxed(stack::<K>(), store, run, 1);
        assert!(poll_once(&mut call).is_pending());
        HELD.set(Some(Box::new(call)));
        Ok(())
    });
    ended.join().expect("does not panic")?;
    assert_eq!(log.take(), ["the future", "locals of the host function"]);
    Ok(())
}
