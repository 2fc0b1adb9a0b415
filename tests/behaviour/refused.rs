//! What is not suspended. A stack that suspends only known frames refuses to suspend others, and the error says what is
//! in the way. The same programs run to their end on stacks that suspend anything.

use crate::common::futures::{finish, pending, poll_once};
use crate::support::guest::{assert_refused, assert_usable, export, export_of, guest, runner, stack, store, waits};
use crate::support::{Code, Host, Kind, matrix};
use std::fmt::Debug;
use wasmtime::{Caller, Func, FuncType, Linker, Module, Result, WasmBacktrace};
use wasmtime_async::{Between, Error, FuncExt, LinkerExt, Stack, Store, suspend_until, yield_now};

matrix!(
    closures,
    guests_called_by_closures,
    host_code,
    nested_calls,
    nested_calls_of_host_functions,
    polls,
    other_stores,
    futures_that_are_not_send,
);

/// Calls `host`, and notes that it continued. `inner` calls `wait`.
pub(crate) const PROGRAM: &str = r#"(module
    (import "" "host" (func $host))
    (import "" "wait" (func $wait))
    (global (export "reached") (mut i32) (i32.const 0))
    (func (export "inner") (call $wait))
    (func (export "nothing"))
    (func (export "run") (call $host) (global.set 0 (i32.const 1))))"#;

/// How a program ends on this kind of stack, given what blocks it on stacks that suspend only known frames.
pub(crate) fn on<K: Kind>(between: Between) -> Option<Between> {
    (!K::ANYTHING).then_some(between)
}

/// Checks how a call ended.
#[track_caller]
pub(crate) fn check_end<R: Debug>(result: Result<R>, refused: Option<Between>) -> Result<()> {
    match refused {
        Some(between) => {
            assert_refused(result, between);
            Ok(())
        }
        None => result.map(drop),
    }
}

/// Runs `run` of [`PROGRAM`] with this host function. Checks how it ends, and that the function left nothing behind.
pub(crate) fn check<K: Kind>(
    stack: &mut K::Stack,
    store: &mut Store<Host>,
    host: Func,
    refused: Option<Between>,
) -> Result<()> {
    let wait = waits::<K, _>(store, 2);
    let log = store.data().log.clone();
    let instance = guest(store, PROGRAM, [host, wait])?;
    let run = export(store, &instance, "run");
    // Twice, because the first run must leave everything as it was.
    for _ in 0..2 {
        let result = finish(run.call_on(stack, store, &[], &mut []));
        let reached = instance.get_global(&mut *store, "reached").expect("is exported").get(&mut *store);
        assert_eq!(reached.unwrap_i32(), i32::from(refused.is_none()), "{result:?}");
        let has_trapped = result.as_ref().is_err_and(wasmtime::Error::is::<WasmBacktrace>);
        assert_eq!(has_trapped, refused.is_some());
        check_end(result, refused)?;
        assert_eq!(log.take(), ["left"]);
        assert_usable(stack, store)?;
    }
    Ok(())
}

fn closures<K: Kind>(code: Code) -> Result<()> {
    fn check<K: Kind, R: Debug + Send + 'static>(
        stack: &mut K::Stack,
        store: &mut Store<Host>,
        waits: fn() -> Result<R, Error>,
    ) -> Result<()> {
        let log = store.data().log.clone();
        let local = log.on_drop("left");
        let mut call = stack.run_send(store, move |_| {
            let _local = local;
            Ok(waits()?)
        });
        // A refused call is not suspended first.
        assert_eq!(poll_once(&mut call).is_pending(), K::ANYTHING);
        drop(call);
        assert_eq!(log.take(), ["left"]);
        let result = finish(stack.run_send(store, move |_| Ok(waits()?)));
        check_end(result, on::<K>(Between::Closure))?;
        assert_usable(stack, store)
    }

    let mut stack = stack::<K>();
    let mut store = store(code);
    check::<K, _>(&mut stack, &mut store, || suspend_until(pending(2)))?;
    check::<K, _>(&mut stack, &mut store, yield_now)
}

fn guests_called_by_closures<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let log = store.data().log.clone();
    let wait = waits::<K, _>(&mut store, 2);
    let instance = guest(&mut store, PROGRAM, [wait, wait])?;
    let run = export(&mut store, &instance, "run");
    let local = log.on_drop("left");
    let result = finish(stack.run_send(&mut store, move |mut store| {
        let _local = local;
        run.call(&mut store, &[], &mut [])
    }));
    let has_trapped = result.as_ref().is_err_and(wasmtime::Error::is::<WasmBacktrace>);
    assert_eq!(has_trapped, !K::ANYTHING);
    check_end(result, on::<K>(Between::Closure))?;
    assert_eq!(log.take(), ["left"]);
    assert_usable(&mut stack, &mut store)
}

fn host_code<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let functions = [
        Func::wrap(&mut store, |caller: Caller<'_, Host>| -> Result<()> {
            let _local = caller.data().log.on_drop("left");
            Ok(suspend_until(pending(2))?)
        }),
        Func::wrap(&mut store, |caller: Caller<'_, Host>| -> Result<()> {
            let _local = caller.data().log.on_drop("left");
            Ok(yield_now()?)
        }),
        // Waits in the middle of an async host function's poll.
        Func::wrap_suspending_send(&mut store, |caller: Caller<'_, Host>| {
            let local = caller.data().log.on_drop("left");
            async move {
                let _local = local;
                Ok::<_, wasmtime::Error>(suspend_until(pending(2))?)
            }
        }),
    ];
    for function in functions {
        check::<K>(&mut stack, &mut store, function, on::<K>(Between::HostCode))?;
    }
    Ok(())
}

/// A synchronous host function calls its guest again, once or several times, and the innermost guest waits.
fn nested_calls<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let host = Func::wrap(&mut store, |mut caller: Caller<'_, Host>| -> Result<()> {
        let _local = caller.data().log.on_drop("left");
        export_of(&mut caller, "inner").call(&mut caller, &[], &mut [])
    });
    check::<K>(&mut stack, &mut store, host, on::<K>(Between::NestedCall))?;

    let deep = Func::wrap(&mut store, |mut caller: Caller<'_, Host>| -> Result<()> {
        caller.data_mut().id += 1;
        if caller.data().id % 4 != 0 {
            return export_of(&mut caller, "run").call(&mut caller, &[], &mut []);
        }
        let _local = caller.data().log.on_drop("left");
        export_of(&mut caller, "inner").call(&mut caller, &[], &mut [])
    });
    check::<K>(&mut stack, &mut store, deep, on::<K>(Between::NestedCall))?;

    // The same for instantiation.
    let instantiates = Func::wrap(&mut store, |mut caller: Caller<'_, Host>| -> Result<()> {
        let _local = caller.data().log.on_drop("left");
        let mut linker = Linker::<Host>::new(caller.engine());
        linker.func_wrap_suspending_send("", "wait", || pending(2))?;
        let module = Module::new(caller.engine(), r#"(module (import "" "wait" (func)) (start 0))"#)?;
        linker.instantiate(&mut caller, &module).map(drop)
    });
    check::<K>(&mut stack, &mut store, instantiates, on::<K>(Between::NestedCall))
}

/// The same without wasm in between: a host function calls another one, which waits.
fn nested_calls_of_host_functions<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let wait = waits::<K, _>(&mut store, 2);
    let host = Func::wrap(&mut store, move |mut caller: Caller<'_, Host>| -> Result<()> {
        let _local = caller.data().log.on_drop("left");
        wait.call(&mut caller, &[], &mut [])
    });
    check::<K>(&mut stack, &mut store, host, on::<K>(Between::NestedCall))?;
    // The same without an outer guest.
    let result = finish(host.call_on(&mut stack, &mut store, &[], &mut []));
    check_end(result, on::<K>(Between::NestedCall))?;
    assert_usable(&mut stack, &mut store)
}

/// An async host function calls its guest again in the middle of its poll, and that guest waits.
fn polls<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    for before in [0, 2] {
        let host = Func::wrap_suspending_boxed(&mut store, move |mut caller: Caller<'_, Host>, (): ()| {
            Box::new(async move {
                let _local = caller.data().log.on_drop("left");
                pending(before).await;
                export_of(&mut caller, "inner").call(&mut caller, &[], &mut [])
            })
        });
        check::<K>(&mut stack, &mut store, host, on::<K>(Between::Poll))?;
    }
    // A guest of another store makes no difference there.
    let host = Func::wrap_suspending_boxed(&mut store, move |caller: Caller<'_, Host>, (): ()| {
        Box::new(async move {
            let _local = caller.data().log.on_drop("left");
            pending(1).await;
            call_in_another_store::<K>(code)
        })
    });
    check::<K>(&mut stack, &mut store, host, on::<K>(Between::Poll))
}

/// Calls a guest of another store, which waits, with wasmtime's own function.
pub(crate) fn call_in_another_store<K: Kind>(code: Code) -> Result<()> {
    let mut other = store(code);
    let wait = waits::<K, _>(&mut other, 2);
    runner(&mut other, PROGRAM, [wait, wait])?.call(&mut other, &[], &mut [])
}

fn other_stores<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let host = Func::wrap(&mut store, move |caller: Caller<'_, Host>| -> Result<()> {
        let _local = caller.data().log.on_drop("left");
        call_in_another_store::<K>(code)
    });
    check::<K>(&mut stack, &mut store, host, on::<K>(Between::OtherStore))?;

    // The same through a host function that is itself called on a stack, from a closure there.
    let host = Func::wrap(&mut store, move |caller: Caller<'_, Host>| -> Result<()> {
        let _local = caller.data().log.on_drop("left");
        let (mut stack, mut store) = (self::stack::<K>(), self::store(code));
        let mut call = stack.run_send(&mut store, move |_| call_in_another_store::<K>(code));
        loop {
            // Depends on its own stack, which is suspended or not as the outer one is.
            if let std::task::Poll::Ready(result) = poll_once(&mut call) {
                return result;
            }
        }
    });
    check::<K>(&mut stack, &mut store, host, on::<K>(Between::Closure))
}

fn futures_that_are_not_send<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let log = store.data().log.clone();
    let nothing = FuncType::new(store.engine(), [], []);
    let functions = [
        Func::wrap_suspending(&mut store, async |caller: Caller<'_, Host>| {
            let _local = caller.data().log.on_drop("left");
            pending(2).await;
        }),
        Func::new_suspending(&mut store, nothing.clone(), async |caller: Caller<'_, Host>, _, _| {
            let _local = caller.data().log.on_drop("left");
            pending(2).await;
            Ok(())
        }),
    ];
    let mut linker = Linker::new(store.engine());
    linker.define(&mut store, "", "define", functions[0])?;
    linker.func_wrap_suspending("", "func_wrap", async |caller: Caller<'_, Host>| {
        let _local = caller.data().log.on_drop("left");
        pending(2).await;
    })?;
    linker.func_new_suspending("", "func_new", nothing, async |caller: Caller<'_, Host>, _, _| {
        let _local = caller.data().log.on_drop("left");
        pending(2).await;
        Ok(())
    })?;
    let found = ["define", "func_wrap", "func_new"].map(|name| linker.get(&mut store, "", name));
    let found = found.into_iter().flatten().filter_map(wasmtime::Extern::into_func).collect::<Vec<_>>();
    assert_eq!(found.len(), 3);
    for function in functions.into_iter().chain(found) {
        let wait = waits::<K, _>(&mut store, 1);
        let instance = guest(&mut store, PROGRAM, [function, wait])?;
        let run = export(&mut store, &instance, "run");
        let result = finish(run.call_on(&mut stack, &mut store, &[], &mut []));
        let reached = instance.get_global(&mut store, "reached").expect("is exported").get(&mut store);
        assert_eq!(reached.unwrap_i32(), i32::from(!K::MOVES));
        if K::MOVES {
            let error = result.unwrap_err();
            assert!(matches!(error.downcast_ref(), Some(Error::NotSend)), "{error:?}");
            assert!(error.is::<WasmBacktrace>(), "{error:?}");
            let text = format!("{error:?}");
            for word in ["func_wrap_suspending_send", "wrap_suspending_send", "SendFiberStack", "`FiberStack`"] {
                assert!(text.contains(word), "`{word}` is missing: {text}");
            }
        } else {
            result?;
        }
        assert_eq!(log.take(), ["left"]);
        assert_usable(&mut stack, &mut store)?;
    }
    Ok(())
}
