//! What still works after something was refused, and what is never refused: see [`refused`](super::refused).

use crate::common::futures::{finish, pending};
use crate::refused::{PROGRAM, call_in_another_store};
use crate::support::guest::{assert_usable, export, export_of, guest, runner, stack, store, waits};
use crate::support::{Code, Host, Kind, Log, matrix};
use std::future::{Future, ready};
use wasmtime::{AsContextMut, Caller, Func, Result};
use wasmtime_async::{FuncExt, Stack, Store, suspend_until};

matrix!(whoever_makes_nothing_of_it_goes_on, ready_at_once);

/// The error is an ordinary error: host code may turn it into something else, and then wait where that is allowed.
fn whoever_makes_nothing_of_it_goes_on<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let tries = Func::wrap_suspending_boxed(&mut store, move |mut caller: Caller<'_, Host>, (): ()| {
        Box::new(async move {
            for _ in 0..2 {
                pending(1).await;
                let refused = [
                    suspend_until(pending(1)).is_err(),
                    export_of(&mut caller, "inner").call(&mut caller, &[], &mut []).is_err(),
                    call_in_another_store::<K>(code).is_err(),
                ];
                assert_eq!(refused, [!K::ANYTHING; 3]);
                export_of(&mut caller, "nothing").call(&mut caller, &[], &mut []).expect("does not wait");
                caller.data().log.add("tried");
            }
        })
    });
    let wait = waits::<K, _>(&mut store, 2);
    let text = r#"(module
        (import "" "tries" (func $tries))
        (import "" "wait" (func $wait))
        (func (export "inner") (call $wait))
        (func (export "nothing"))
        (func (export "run") (call $tries) (call $wait) (call $tries)))"#;
    let run = runner(&mut store, text, [tries, wait])?;
    finish(run.call_on(&mut stack, &mut store, &[], &mut []))?;
    assert_eq!(store.data().log.take(), ["tried"; 4]);
    assert_usable(&mut stack, &mut store)
}

/// If a future is ready at its first poll, nothing is suspended for it, wherever it is.
fn ready_at_once<K: Kind>(code: Code) -> Result<()> {
    fn ready_store(code: Code) -> Result<(Store<Host>, Func)> {
        let mut other = store(code);
        let wait = Func::wrap_suspending(&mut other, async || ready(()).await);
        let run = runner(&mut other, PROGRAM, [wait, wait])?;
        Ok((other, run))
    }

    fn everywhere(mut store: impl AsContextMut<Data = Host>, inner: Func, code: Code) -> Result<i32> {
        inner.call(store.as_context_mut(), &[], &mut [])?;
        let (mut other, run) = ready_store(code)?;
        run.call(&mut other, &[], &mut [])?;
        let answer = suspend_until(ready(40))?;
        Ok(answer + suspend_until(async { suspend_until(ready(2)) })??)
    }

    let mut stack = stack::<K>();
    let mut store = store(code);
    let wait = Func::wrap_suspending(&mut store, async || ready(()).await);
    let instance = guest(&mut store, PROGRAM, [wait, wait])?;
    let inner = export(&mut store, &instance, "inner");

    let call = stack.run_send(&mut store, move |mut store| everywhere(&mut store, inner, code));
    assert_eq!(finish(call)?, 42);
    let functions = [
        Func::wrap(&mut store, move |mut caller: Caller<'_, Host>| everywhere(&mut caller, inner, code)),
        Func::wrap_suspending(&mut store, async move |mut caller: Caller<'_, Host>| {
            everywhere(&mut caller, inner, code)
        }),
        Func::wrap_suspending_boxed(&mut store, move |mut caller: Caller<'_, Host>, (): ()| {
            let first: Box<dyn Future<Output = Result<i32>> + Send + '_> = Box::new(async move {
                pending(1).await;
                everywhere(&mut caller, inner, code)
            });
            first
        }),
    ];
    let text = r#"(module
        (import "" "" (func (result i32)))
        (func (export "run") (result i32) (i32.add (call 0) (call 0))))"#;
    for function in functions {
        let run = runner(&mut store, text, [function])?.get_async(&store).get0::<i32>()?;
        assert_eq!(finish(run.call(&mut stack, &mut store, ()))?, 84);
    }
    let log: &Log = &store.data().log;
    assert!(log.take().is_empty());
    assert_usable(&mut stack, &mut store)
}
