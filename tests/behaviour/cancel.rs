//! Calls that are dropped before they end.

use crate::common::futures::{pending, poll_once};
use crate::support::guest::{assert_usable, export, guest, runner, stack, store};
use crate::support::{AnyStack, Code, Host, Log, matrix};
use std::any::Any;
use std::cell::RefCell;
use std::future::{pending as never, poll_fn, ready};
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::pin::pin;
use std::task::Poll;
use std::thread;
use wasmtime::{Caller, Extern, Func, Linker, Module, Result, Store};
use wasmtime_async::{Error, FuncExt, LinkerExt, suspend_until, yield_now};

matrix!(
    before_the_first_poll,
    destructors_run_in_order,
    guests_unwind,
    in_start_functions,
    nothing_waits_any_more,
    host_functions_that_go_on,
    futures_that_go_on,
    futures_that_go_on_in_a_nested_poll,
    closures_see_it,
    panics_go_on_in_drop,
    while_the_thread_is_panicking,
    after_a_panic_on_the_stack,
    within_another_call,
    with_a_call_inside,
    when_the_thread_ends,
);

/// Waits for ever, by way of the host function `wait`, and then sets the global.
const WAITS: &str = r#"(module
    (import "" "wait" (func $wait))
    (global (export "reached") (mut i32) (i32.const 0))
    (func (export "run") (call $wait) (global.set 0 (i32.const 1)))
    (func (export "answer") (result i32) (i32.const 42)))"#;

fn waits_for_ever(store: &mut Store<Host>) -> Func {
    let log = store.data().log.clone();
    Func::wrap_suspending(store, async move || {
        let _outer = log.on_drop("locals of the host function");
        let _inner = log.on_drop("the future");
        never::<()>().await;
    })
}

/// What trying to wait comes to.
fn attempt() -> &'static str {
    match (suspend_until(ready(())), suspend_until(pending(1)), yield_now()) {
        (Err(Error::Cancelled), Err(Error::Cancelled), Err(Error::Cancelled)) => "cancelled",
        (Ok(()), Ok(()), Ok(())) => "fine",
        other => panic!("some of it works: {other:?}"),
    }
}

fn export_of(caller: &mut Caller<'_, Host>, name: &str) -> Func {
    caller.get_export(name).and_then(Extern::into_func).expect("is exported")
}

fn before_the_first_poll<S: AnyStack>(code: Code) -> Result<()> {
    let mut stack = stack::<S>();
    let mut store = store(code);
    let log = store.data().log.clone();

    let local = log.on_drop("what the closure captured");
    let inner = log.clone();
    let call = stack.go(&mut store, move |_| {
        inner.add("ran");
        drop(local);
        Ok(())
    });
    assert!(log.take().is_empty());
    drop(call);
    assert_eq!(log.take(), ["what the closure captured"]);

    let called = log.clone();
    let host = Func::wrap_suspending(&mut store, async move || called.add("ran"));
    let run = runner(&mut store, WAITS, [host])?;
    drop(run.call_on(&mut stack, &mut store, &[], &mut []));
    let typed = run.get_async(&store).get0::<()>()?;
    drop(typed.call(&mut stack, &mut store, ()));
    assert!(log.take().is_empty());
    assert_usable(&mut stack, &mut store)
}

/// Reports, with a store's data, that its host function is left.
struct Reports<'a, 'b> {
    caller: &'a mut Caller<'b, Host>,
}

impl Drop for Reports<'_, '_> {
    fn drop(&mut self) {
        self.caller.data_mut().id += 1;
        self.caller.data().log.add(format!("locals of a synchronous host function, {}", attempt()));
    }
}

fn destructors_run_in_order<S: AnyStack>(code: Code) -> Result<()> {
    let mut stack = stack::<S>();
    let mut store = store(code);
    let log = store.data().log.clone();
    let wait = waits_for_ever(&mut store);
    let through = Func::wrap(&mut store, |mut caller: Caller<'_, Host>| -> Result<()> {
        let inner = export_of(&mut caller, "inner");
        let reports = Reports { caller: &mut caller };
        inner.call(&mut *reports.caller, &[], &mut [])
    });
    let text = r#"(module
        (import "" "wait" (func $wait))
        (import "" "through" (func $through))
        (func (export "inner") (call $wait))
        (func (export "run") (call $through)))"#;
    let instance = guest(&mut store, text, [wait, through])?;
    let run = export(&mut store, &instance, "run");
    for round in 1..4 {
        let inner = log.clone();
        let mut call = stack.go(&mut store, |mut store| {
            let _local = inner.on_drop("locals of the closure");
            run.call(&mut store, &[], &mut [])
        });
        for _ in 0..3 {
            assert!(poll_once(&mut call).is_pending());
        }
        assert!(log.take().is_empty());
        drop(call);
        assert_eq!(
            log.take(),
            [
                "the future",
                "locals of the host function",
                "locals of a synchronous host function, cancelled",
                "locals of the closure"
            ]
        );
        assert_eq!(store.data().id, round);
        assert_usable(&mut stack, &mut store)?;
    }
    Ok(())
}

fn guests_unwind<S: AnyStack>(code: Code) -> Result<()> {
    let mut stack = stack::<S>();
    let mut store = store(code);
    let log = store.data().log.clone();
    let wait = waits_for_ever(&mut store);
    let instance = guest(&mut store, WAITS, [wait])?;
    let run = export(&mut store, &instance, "run");

    let mut call = run.call_on(&mut stack, &mut store, &[], &mut []);
    assert!(poll_once(&mut call).is_pending());
    drop(call);
    let typed = run.get_async(&store).get0::<()>()?;
    let mut call = typed.call(&mut stack, &mut store, ());
    assert!(poll_once(&mut call).is_pending());
    drop(call);

    assert_eq!(log.take().len(), 4);
    let reached = instance.get_global(&mut store, "reached").expect("is exported");
    assert_eq!(reached.get(&mut store).unwrap_i32(), 0, "the guest went on");
    assert_usable(&mut stack, &mut store)
}

fn in_start_functions<S: AnyStack>(code: Code) -> Result<()> {
    let mut stack = stack::<S>();
    let mut store = store(code);
    let log = store.data().log.clone();
    let wait = waits_for_ever(&mut store);
    let mut linker = Linker::new(store.engine());
    linker.define(&mut store, "", "wait", wait)?;
    let module = Module::new(store.engine(), r#"(module (import "" "wait" (func)) (start 0))"#)?;
    let mut call = linker.instantiate_on(&mut stack, &mut store, &module);
    assert!(poll_once(&mut call).is_pending());
    drop(call);
    assert_eq!(log.take(), ["the future", "locals of the host function"]);
    assert_usable(&mut stack, &mut store)
}

fn nothing_waits_any_more<S: AnyStack>(code: Code) -> Result<()> {
    struct Tries(Log, &'static str);
    impl Drop for Tries {
        fn drop(&mut self) {
            self.0.add(format!("{}: {}", self.1, attempt()));
        }
    }

    let mut stack = stack::<S>();
    let mut store = store(code);
    let log = store.data().log.clone();
    let inner = log.clone();
    let wait = Func::wrap_suspending(&mut store, async move || {
        let _tries = Tries(inner.clone(), "host function");
        never::<()>().await;
    });
    let run = runner(&mut store, WAITS, [wait])?;
    let inner = log.clone();
    let mut call = stack.go(&mut store, |mut store| {
        let _tries = Tries(inner.clone(), "closure");
        // Before it is cancelled, destructors may wait.
        drop(Tries(inner.clone(), "before"));
        run.call(&mut store, &[], &mut [])
    });
    for _ in 0..3 {
        assert!(poll_once(&mut call).is_pending());
    }
    drop(call);
    assert_eq!(log.take(), ["before: fine", "host function: cancelled", "closure: cancelled"]);
    assert_usable(&mut stack, &mut store)
}

fn host_functions_that_go_on<S: AnyStack>(code: Code) -> Result<()> {
    let mut stack = stack::<S>();
    let mut store = store(code);
    let log = store.data().log.clone();
    let wait = waits_for_ever(&mut store);
    // Does not care for the error, and calls the guest again.
    let stubborn = Func::wrap(&mut store, |mut caller: Caller<'_, Host>| {
        let (run, answer) = (export_of(&mut caller, "inner"), export_of(&mut caller, "answer"));
        for _ in 0..3 {
            let error = run.call(&mut caller, &[], &mut []).expect_err("is cancelled");
            caller.data().log.add(error.downcast::<Error>().expect("an error of this crate").to_string());
        }
        let answer = answer.typed::<(), i32>(&caller).expect("has this type");
        let answer = answer.call(&mut caller, ()).expect("does not wait");
        caller.data().log.add(answer.to_string());
    });
    let text = r#"(module
        (import "" "wait" (func $wait))
        (import "" "stubborn" (func $stubborn))
        (global (export "reached") (mut i32) (i32.const 0))
        (func (export "inner") (call $wait))
        (func (export "answer") (result i32) (i32.const 42))
        (func (export "run")
            (call $stubborn) (global.set 0 (i32.const 1))
            (call $wait) (global.set 0 (i32.const 2))))"#;
    let instance = guest(&mut store, text, [wait, stubborn])?;
    let run = export(&mut store, &instance, "run");
    let mut call = run.call_on(&mut stack, &mut store, &[], &mut []);
    assert!(poll_once(&mut call).is_pending());
    drop(call);

    let cancelled = Error::Cancelled.to_string();
    let cancelled = cancelled.as_str();
    assert_eq!(
        log.take(),
        [
            "the future",
            "locals of the host function",
            cancelled,
            // The host function is not even started.
            cancelled,
            cancelled,
            "42"
        ]
    );
    let reached = instance.get_global(&mut store, "reached").expect("is exported");
    assert_eq!(reached.get(&mut store).unwrap_i32(), 1);
    assert_usable(&mut stack, &mut store)
}

fn futures_that_go_on<S: AnyStack>(code: Code) -> Result<()> {
    let mut stack = stack::<S>();
    let mut store = store(code);
    let log = store.data().log.clone();
    let inner = log.clone();
    let mut call = stack.go(&mut store, |_| {
        for _ in 0..5 {
            // Makes nothing of the error.
            let waited = suspend_until(never::<()>());
            inner.add(if waited.is_err() { "not waited" } else { "waited" });
        }
        Ok(())
    });
    assert!(poll_once(&mut call).is_pending());
    drop(call);
    assert_eq!(log.take(), ["not waited"; 5]);
    assert_usable(&mut stack, &mut store)
}

/// A future that waits in the middle of its own poll, is told that the call is cancelled, makes nothing of it, and is
/// pending: as `join!` is if one of its futures calls back into wasm.
fn futures_that_go_on_in_a_nested_poll<S: AnyStack>(code: Code) -> Result<()> {
    let mut stack = stack::<S>();
    let mut store = store(code);
    let log = store.data().log.clone();
    for depth in 1..4 {
        let inner = log.clone();
        let mut call = stack.go(&mut store, move |_| {
            let _local = inner.on_drop("closure");
            wait_in_polls(&inner, depth)?;
            Ok(())
        });
        assert!(poll_once(&mut call).is_pending());
        assert!(poll_once(&mut call).is_pending());
        drop(call);
        let mut expected = vec!["innermost, told"];
        expected.extend(vec!["outer, told"; depth - 1]);
        expected.push("closure");
        assert_eq!(log.take(), expected);
        assert_usable(&mut stack, &mut store)?;
    }

    let wait = waits_for_ever(&mut store);
    let back = Func::wrap_suspending(&mut store, async |mut caller: Caller<'_, Host>| {
        let inner = export_of(&mut caller, "inner");
        let calls_back = async { inner.call(&mut caller, &[], &mut []) };
        let (_told, ()) = futures::join!(calls_back, never::<()>());
    });
    let text = r#"(module
        (import "" "wait" (func $wait))
        (import "" "back" (func $back))
        (func (export "inner") (call $wait))
        (func (export "run") (call $back)))"#;
    let run = runner(&mut store, text, [wait, back])?;
    let mut call = run.call_on(&mut stack, &mut store, &[], &mut []);
    assert!(poll_once(&mut call).is_pending());
    drop(call);
    assert_eq!(log.take(), ["the future", "locals of the host function"]);
    assert_usable(&mut stack, &mut store)
}

fn wait_in_polls(log: &Log, depth: usize) -> Result<(), Error> {
    let future = poll_fn(|_| {
        if depth == 1 {
            let told = suspend_until(never::<()>()).is_err();
            log.add(if told { "innermost, told" } else { "innermost" });
        } else {
            let told = wait_in_polls(log, depth - 1).is_err();
            log.add(if told { "outer, told" } else { "outer" });
        }
        Poll::Pending
    });
    suspend_until(future)
}

fn closures_see_it<S: AnyStack>(code: Code) -> Result<()> {
    let mut stack = stack::<S>();
    let mut store = store(code);
    let log = store.data().log.clone();
    let wait = waits_for_ever(&mut store);
    let run = runner(&mut store, WAITS, [wait])?;
    let inner = log.clone();
    let mut call = stack.go(&mut store, |mut store| {
        let error = run.call(&mut store, &[], &mut []).unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(Error::Cancelled)), "{error:?}");
        assert!(error.is::<wasmtime::WasmBacktrace>(), "{error:?}");
        inner.add("seen");
        Ok(inner.on_drop("the result"))
    });
    assert!(poll_once(&mut call).is_pending());
    drop(call);
    assert_eq!(log.take(), ["the future", "locals of the host function", "seen", "the result"]);
    assert_usable(&mut stack, &mut store)
}

/// Panics when it is dropped.
struct PanicsOnDrop(&'static str);

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        panic_any(self.0);
    }
}

fn panics_go_on_in_drop<S: AnyStack>(code: Code) -> Result<()> {
    let mut stack = stack::<S>();
    let mut store = store(code);
    let log = store.data().log.clone();
    let inner = log.clone();
    let wait = Func::wrap_suspending(&mut store, async move || {
        let _local = inner.on_drop("host function");
        let _bomb = PanicsOnDrop("on the way out");
        never::<()>().await;
    });
    let run = runner(&mut store, WAITS, [wait])?;
    let inner = log.clone();
    let mut call = stack.go(&mut store, |mut store| {
        let _local = inner.on_drop("closure");
        run.call(&mut store, &[], &mut [])
    });
    assert!(poll_once(&mut call).is_pending());
    let payload = catch_unwind(AssertUnwindSafe(|| drop(call))).expect_err("drop goes on with the panic");
    assert_eq!(payload.downcast_ref(), Some(&"on the way out"));
    assert_eq!(log.take(), ["host function", "closure"]);
    assert_usable(&mut stack, &mut store)
}

fn while_the_thread_is_panicking<S: AnyStack>(code: Code) -> Result<()> {
    let mut stack = stack::<S>();
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

    // A second panic, of what is being cancelled, is not to end the process.
    let inner = log.clone();
    let payload = catch_unwind(AssertUnwindSafe(|| {
        let mut call = stack.go(&mut store, |_| {
            let _local = inner.on_drop("closure");
            let _bomb = PanicsOnDrop("on the way out");
            Ok(suspend_until(never::<()>())?)
        });
        assert!(poll_once(&mut call).is_pending());
        panic_any("of the poller");
    }));
    assert_eq!(payload.expect_err("panics").downcast_ref(), Some(&"of the poller"));
    assert_eq!(log.take(), ["closure"]);
    assert_usable(&mut stack, &mut store)
}

fn after_a_panic_on_the_stack<S: AnyStack>(code: Code) -> Result<()> {
    /// Waits while the panic below unwinds it.
    struct Waits(Log);
    impl Drop for Waits {
        fn drop(&mut self) {
            assert!(thread::panicking());
            let ready = suspend_until(ready(1)).expect("nothing to wait for");
            let (pending, yielding) = (suspend_until(pending(1)), yield_now());
            let refused = matches!((pending, yielding), (Err(Error::Unwinding), Err(Error::Unwinding)));
            self.0.add(format!("{ready} {refused}"));
        }
    }

    let mut stack = stack::<S>();
    let mut store = store(code);
    let log = store.data().log.clone();
    let inner = log.clone();
    let mut call = stack.go(&mut store, move |_| {
        let caught = catch_unwind(AssertUnwindSafe(|| {
            let _waits = Waits(inner.clone());
            panic_any("on the stack");
        }));
        assert!(caught.is_err());
        // That over, it can wait again, and be cancelled.
        suspend_until(pending(1))?;
        let told = suspend_until(never::<()>()).is_err();
        inner.add(if told { "told" } else { "not told" });
        Ok(())
    });
    assert!(poll_once(&mut call).is_pending());
    assert_eq!(log.take(), ["1 true"]);
    assert!(poll_once(&mut call).is_pending());
    drop(call);
    assert_eq!(log.take(), ["told"]);
    assert!(Error::Unwinding.to_string().contains("panic"));
    assert_usable(&mut stack, &mut store)
}

/// A call is dropped by code that runs on another stack, in another call's host function, and goes on after that.
fn within_another_call<S: AnyStack>(code: Code) -> Result<()> {
    let (mut stack, mut other_stack) = (stack::<S>(), self::stack::<S>());
    let (mut store, mut other_store) = (store(code), self::store(code));
    let (log, other_log) = (store.data().log.clone(), other_store.data().log.clone());
    let wait = waits_for_ever(&mut store);
    let run = runner(&mut store, WAITS, [wait])?;

    let made = other_log.clone();
    let drops = Func::wrap_suspending(&mut other_store, async move || {
        let (mut stack, mut store) = (self::stack::<S>(), self::store(code));
        let wait = waits_for_ever(&mut store);
        let run = runner(&mut store, WAITS, [wait])?;
        let mut call = run.call_on(&mut stack, &mut store, &[], &mut []);
        assert!(poll_once(&mut call).is_pending());
        drop(call);
        made.add(format!("dropped one of {}", store.data().log.take().len()));
        pending(1).await;
        assert_usable(&mut stack, &mut store)
    });
    let outer = runner(&mut other_store, r#"(module (import "" "" (func)) (func (export "run") (call 0)))"#, [drops])?;

    let mut waiting = run.call_on(&mut stack, &mut store, &[], &mut []);
    assert!(poll_once(&mut waiting).is_pending());
    let mut call = outer.call_on(&mut other_stack, &mut other_store, &[], &mut []);
    assert!(poll_once(&mut call).is_pending());
    assert_eq!(other_log.take(), ["dropped one of 2"]);
    drop(waiting);
    assert_eq!(log.take().len(), 2);
    crate::common::futures::finish(call)?;
    assert_usable(&mut stack, &mut store)?;
    assert_usable(&mut other_stack, &mut other_store)
}

/// A host function waits for a call on another stack, and is cancelled: the call inside is dropped with its future.
fn with_a_call_inside<S: AnyStack>(code: Code) -> Result<()> {
    let mut stack = stack::<S>();
    let mut store = store(code);
    let log = store.data().log.clone();
    let inner_log = log.clone();
    let calls = Func::wrap_suspending(&mut store, async move || -> Result<()> {
        let _local = inner_log.on_drop("outer host function");
        let (mut stack, mut store) = (self::stack::<S>(), self::store(code));
        store.data_mut().log = inner_log.clone();
        let wait = waits_for_ever(&mut store);
        let run = runner(&mut store, WAITS, [wait])?;
        let call = pin!(run.call_on(&mut stack, &mut store, &[], &mut []));
        call.await
    });
    let run = runner(&mut store, WAITS, [calls])?;
    let mut call = run.call_on(&mut stack, &mut store, &[], &mut []);
    assert!(poll_once(&mut call).is_pending());
    assert!(poll_once(&mut call).is_pending());
    drop(call);
    assert_eq!(log.take(), ["the future", "locals of the host function", "outer host function"]);
    assert_usable(&mut stack, &mut store)
}

/// A call that a thread-local variable holds is dropped when thread-local variables are.
fn when_the_thread_ends<S: AnyStack>(code: Code) -> Result<()> {
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
        // Before, so that it is dropped after what the call uses of the thread.
        HELD.with(|held| assert!(held.borrow().is_none()));
        let mut call = stack::<S>().boxed(store, run, 1);
        assert!(poll_once(&mut call).is_pending());
        HELD.set(Some(Box::new(call)));
        Ok(())
    });
    ended.join().expect("does not panic")?;
    assert_eq!(log.take(), ["the future", "locals of the host function"]);
    Ok(())
}
