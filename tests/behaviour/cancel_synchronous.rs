//! Calls that are dropped while synchronous code waits on their stacks.

use crate::cancel::{Reports, WAITS, attempt, panics_on_drop, waits_for_ever};
use crate::common::futures::{cancel, finish, pending, poll_once};
use crate::support::guest::{assert_usable, export, export_of, guest, runner, stack, store};
use crate::support::{Code, Host, Kind, Log, matrix};
use std::future::{pending as never, poll_fn, ready};
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::task::Poll;
use std::thread;
use wasmtime::{Caller, Func, Result};
use wasmtime_async::{Error, FuncExt, Stack, suspend_until, yield_now};

matrix!(
    anything:
    destructors_run_in_order,
    nothing_waits_any_more,
    host_functions_that_go_on,
    futures_that_go_on,
    futures_that_go_on_in_a_nested_poll,
    closures_see_it,
    panics_go_on_in_drop_of_closures,
    after_a_panic_on_the_stack,
    polled_in_a_panic,
);

fn destructors_run_in_order<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
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
        let mut call = stack.run_send(&mut store, move |mut store| {
            let _local = inner.on_drop("locals of the closure");
            run.call(&mut store, &[], &mut [])
        });
        for _ in 0..3 {
            assert!(poll_once(&mut call).is_pending());
        }
        assert!(log.take().is_empty());
        cancel(call);
        assert_eq!(
            log.take(),
            [
                "the future",
                "locals of the host function",
                "locals with the store's data, cancelled",
                "locals of the closure"
            ]
        );
        assert_eq!(store.data().id, round);
        assert_usable(&mut stack, &mut store)?;
    }
    Ok(())
}

fn nothing_waits_any_more<K: Kind>(code: Code) -> Result<()> {
    struct Tries(Log, &'static str);
    impl Drop for Tries {
        fn drop(&mut self) {
            self.0.add(format!("{}: {}", self.1, attempt()));
        }
    }

    let mut stack = stack::<K>();
    let mut store = store(code);
    let log = store.data().log.clone();
    let inner = log.clone();
    let wait = Func::wrap_suspending(&mut store, async move || {
        let _tries = Tries(inner.clone(), "host function");
        never::<()>().await;
    });
    let run = runner(&mut store, WAITS, [wait])?;
    let inner = log.clone();
    let mut call = stack.run_send(&mut store, move |mut store| {
        let _tries = Tries(inner.clone(), "closure");
        // Before cancellation, destructors may wait.
        drop(Tries(inner.clone(), "before"));
        run.call(&mut store, &[], &mut [])
    });
    for _ in 0..3 {
        assert!(poll_once(&mut call).is_pending());
    }
    cancel(call);
    assert_eq!(log.take(), ["before: fine", "host function: cancelled", "closure: cancelled"]);
    assert_usable(&mut stack, &mut store)
}

fn host_functions_that_go_on<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let log = store.data().log.clone();
    let wait = waits_for_ever(&mut store);
    // Ignores the error and calls the guest again.
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
    cancel(call);

    let cancelled = Error::Cancelled.to_string();
    let cancelled = cancelled.as_str();
    assert_eq!(
        log.take(),
        [
            "the future",
            "locals of the host function",
            cancelled,
            // The host function does not even start.
            cancelled,
            cancelled,
            "42"
        ]
    );
    let reached = instance.get_global(&mut store, "reached").expect("is exported");
    assert_eq!(reached.get(&mut store).unwrap_i32(), 1);
    assert_usable(&mut stack, &mut store)
}

fn futures_that_go_on<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let log = store.data().log.clone();
    let inner = log.clone();
    let mut call = stack.run_send(&mut store, move |_| {
        for _ in 0..5 {
            // Ignores the error.
            let waited = suspend_until(never::<()>());
            inner.add(if waited.is_err() { "not waited" } else { "waited" });
        }
        Ok(())
    });
    assert!(poll_once(&mut call).is_pending());
    cancel(call);
    assert_eq!(log.take(), ["not waited"; 5]);
    assert_usable(&mut stack, &mut store)
}

/// A future that waits in the middle of its own poll, is told that the call is cancelled, ignores that, and is pending.
/// `join!` behaves like this if one of its futures calls back into wasm.
fn futures_that_go_on_in_a_nested_poll<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let log = store.data().log.clone();
    for depth in 1..4 {
        let inner = log.clone();
        let mut call = stack.run_send(&mut store, move |_| {
            let _local = inner.on_drop("closure");
            wait_in_polls(&inner, depth)?;
            Ok(())
        });
        assert!(poll_once(&mut call).is_pending());
        assert!(poll_once(&mut call).is_pending());
        cancel(call);
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
    cancel(call);
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

fn closures_see_it<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let log = store.data().log.clone();
    let wait = waits_for_ever(&mut store);
    let run = runner(&mut store, WAITS, [wait])?;
    let inner = log.clone();
    let mut call = stack.run_send(&mut store, move |mut store| {
        let error = run.call(&mut store, &[], &mut []).unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(Error::Cancelled)), "{error:?}");
        assert!(error.is::<wasmtime::WasmBacktrace>(), "{error:?}");
        inner.add("seen");
        Ok(inner.on_drop("the result"))
    });
    assert!(poll_once(&mut call).is_pending());
    cancel(call);
    assert_eq!(log.take(), ["the future", "locals of the host function", "seen", "the result"]);
    assert_usable(&mut stack, &mut store)
}

fn panics_go_on_in_drop_of_closures<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let log = store.data().log.clone();
    let wait = panics_on_drop(&mut store);
    let run = runner(&mut store, WAITS, [wait])?;
    let inner = log.clone();
    let mut call = stack.run_send(&mut store, move |mut store| {
        let _local = inner.on_drop("closure");
        run.call(&mut store, &[], &mut [])
    });
    assert!(poll_once(&mut call).is_pending());
    let payload = catch_unwind(AssertUnwindSafe(|| cancel(call))).expect_err("drop goes on with the panic");
    assert_eq!(payload.downcast_ref(), Some(&"on the way out"));
    assert_eq!(log.take(), ["host function", "closure"]);
    assert_usable(&mut stack, &mut store)
}

/// A destructor polls a call while its poller panics. The call has done nothing wrong, and waits.
fn polled_in_a_panic<K: Kind>(code: Code) -> Result<()> {
    /// Polls a call when it is dropped.
    struct Polls<F: FnMut()>(F);
    impl<F: FnMut()> Drop for Polls<F> {
        fn drop(&mut self) {
            assert!(thread::panicking());
            (self.0)();
        }
    }

    let mut stack = stack::<K>();
    let mut store = store(code);
    let mut call = stack.run_send(&mut store, |_| {
        suspend_until(pending(1))?;
        yield_now()?;
        Ok(7)
    });
    for _ in 0..2 {
        let caught = catch_unwind(AssertUnwindSafe(|| {
            let _polls = Polls(|| assert!(poll_once(&mut call).is_pending()));
            panic_any("of the poller");
        }));
        assert!(caught.is_err());
    }
    assert_eq!(finish(call)?, 7);
    assert_usable(&mut stack, &mut store)
}

fn after_a_panic_on_the_stack<K: Kind>(code: Code) -> Result<()> {
    /// Waits while the panic below unwinds this.
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

    let mut stack = stack::<K>();
    let mut store = store(code);
    let log = store.data().log.clone();
    let inner = log.clone();
    let mut call = stack.run_send(&mut store, move |_| {
        let caught = catch_unwind(AssertUnwindSafe(|| {
            let _waits = Waits(inner.clone());
            panic_any("on the stack");
        }));
        assert!(caught.is_err());
        // After the panic, the call can wait again and be cancelled.
        suspend_until(pending(1))?;
        let told = suspend_until(never::<()>()).is_err();
        inner.add(if told { "told" } else { "not told" });
        Ok(())
    });
    assert!(poll_once(&mut call).is_pending());
    assert_eq!(log.take(), ["1 true"]);
    assert!(poll_once(&mut call).is_pending());
    cancel(call);
    assert_eq!(log.take(), ["told"]);
    assert!(Error::Unwinding.to_string().contains("panic"));
    assert_usable(&mut stack, &mut store)
}
