//! wasmtime's own async and this crate's, one inside the other.

use crate::common::futures::{finish, pending, poll_once};
use crate::common::random::Random;
use crate::polled_inside::check_end;
use crate::support::guest::{ONCE, assert_overflow, assert_usable, export, runner, stack, store, waits};
use crate::support::{Code, Host, Kind, matrix};
use crate::towers::{Climb, ENDINGS, assert_usable_here};
use futures::future::LocalBoxFuture;
use std::task::Poll;
use wasmtime::{Caller, Engine, Extern, Func, Instance, Linker, Module, Result, Val};
use wasmtime_async::{Error, FuncExt, LinkerExt, Store};

matrix!(stacks_on_its_fibers, its_fibers_on_stacks, not_in_one_store);
matrix!(anything: suspended_on_its_fibers);

/// `run` of a guest whose imports include wasmtime's own async functions.
async fn async_runner(store: &mut Store<Host>, text: &str, imports: &[Func]) -> Result<Func> {
    let module = Module::new(store.engine(), text)?;
    let imports: Vec<_> = imports.iter().copied().map(Extern::from).collect();
    let instance = Instance::new_async(&mut *store, &module, &imports).await?;
    Ok(export(store, &instance, "run"))
}

fn stacks_on_its_fibers<K: Kind>(code: Code) -> Result<()> {
    let mut store = store(code);
    let wait = Func::wrap_async(&mut store, |_: Caller<'_, Host>, (): ()| Box::new(pending(1)));
    let call = Func::wrap(&mut store, move || -> Result<()> {
        for ending in ENDINGS {
            let mut climb = Climb::new::<K>(code, ending);
            while !climb.poll() {}
        }
        Ok(())
    });
    let text = r#"(module
        (import "" "" (func $wait))
        (import "" "" (func $call))
        (func (export "run") (call $wait) (call $call) (call $wait)))"#;
    let run = finish(Box::pin(async_runner(&mut store, text, &[wait, call])))?;
    let mut future = Box::pin(run.call_async(&mut store, &[], &mut []));
    assert!(poll_once(&mut future).is_pending());
    assert!(poll_once(&mut future).is_pending());
    assert!(matches!(poll_once(&mut future), Poll::Ready(Ok(()))));
    Ok(())
}

/// The error says what to do without.
fn not_in_one_store<K: Kind>(code: Code) -> Result<()> {
    let refused = |error: Result<()>| {
        let error = error.expect_err("the store is wasmtime's async's");
        assert!(matches!(error.downcast_ref(), Some(Error::AsyncStore)), "{error:?}");
        assert!(error.to_string().contains("func_wrap_suspending_boxed"), "{error}");
    };
    let mut stack = stack::<K>();
    let engine = Engine::new(code.config().epoch_interruption(true).consume_fuel(true))?;
    let module = Module::new(&engine, ONCE)?;
    let mut linker = Linker::new(&engine);
    linker.func_wrap_async("", "", |_: Caller<'_, Host>, (): ()| Box::new(pending(1)))?;
    let mut store = Store::new(&engine, Host::default());
    refused(finish(linker.instantiate_on(&mut stack, &mut store, &module)).map(drop));

    for turn_on in [(|store| store.epoch_deadline_async_yield_and_update(1)) as fn(&mut Store<Host>), |store| {
        store.fuel_async_yield_interval(Some(1)).expect("fuel is on");
    }] {
        let mut store = Store::new(&engine, Host::default());
        store.set_fuel(u64::MAX)?;
        let wait = waits::<K, _>(&mut store, 1);
        turn_on(&mut store);
        refused(finish(wait.call_on(&mut stack, &mut store, &[], &mut [])));
    }
    assert_usable(&mut stack, &mut self::store(code))
}

fn its_fibers_on_stacks<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let call = Func::wrap_suspending_send(&mut store, move || async move {
        let mut store = self::store(code);
        let recurse = runner(&mut store, r#"(module (func (export "run") (call 0) (call 0)))"#, [])?;
        let wait = Func::wrap_async(&mut store, |_: Caller<'_, Host>, (): ()| Box::new(pending(2)));
        let run = async_runner(&mut store, ONCE, &[wait]).await?;
        run.call_async(&mut store, &[], &mut []).await?;
        assert_overflow(recurse.call_async(&mut store, &[], &mut []).await);
        run.call_async(&mut store, &[], &mut []).await
    });
    let run = runner(&mut store, ONCE, [call])?;
    // Two at the same time, in turn.
    let mut other_stack = self::stack::<K>();
    let mut other = self::store(code);
    let mut call = run.call_on(&mut stack, &mut store, &[], &mut []);
    let wait = waits::<K, _>(&mut other, 6);
    let mut other_call = wait.call_on(&mut other_stack, &mut other, &[], &mut []);
    for _ in 0..4 {
        assert!(poll_once(&mut call).is_pending());
        assert!(poll_once(&mut other_call).is_pending());
    }
    finish(call)?;
    finish(other_call)?;
    assert_usable(&mut stack, &mut store)
}

/// One of wasmtime's fibers runs on one of this crate's stacks, and code on that fiber waits. All of it is suspended.
fn suspended_on_its_fibers<K: Kind>(code: Code) -> Result<()> {
    let task = |ending: i32| -> LocalBoxFuture<'static, Result<i32>> {
        Box::pin(async move {
            let mut stack = stack::<K>();
            let mut store = store(code);
            let calls = Func::wrap_suspending(&mut store, async move || -> Result<i32> {
                let mut store = self::store(code);
                let wait = Func::wrap_suspending(&mut store, async || pending(2).await);
                let own = Func::wrap_async(&mut store, |_: Caller<'_, Host>, (): ()| Box::new(pending(1)));
                let text = r#"(module
                    (import "" "" (func $wait))
                    (import "" "" (func $own))
                    (func $recurse (param i32) (result i32) (i32.add (i32.const 1) (call $recurse (local.get 0))))
                    (func (export "run") (param i32) (result i32)
                        (call $wait) (call $own) (call $wait)
                        (if (i32.eq (local.get 0) (i32.const 1)) (then unreachable))
                        (if (i32.eq (local.get 0) (i32.const 2)) (then (return (call $recurse (i32.const 0)))))
                        (call $own) (call $wait)
                        (i32.const 42)))"#;
                let run = async_runner(&mut store, text, &[wait, own]).await?;
                let mut results = [Val::I32(0)];
                run.call_async(&mut store, &[Val::I32(ending)], &mut results).await?;
                Ok(results[0].unwrap_i32())
            });
            let text = r#"(module
                (import "" "" (func $calls (result i32)))
                (func (export "run") (result i32) (call $calls)))"#;
            let run = runner(&mut store, text, [calls])?.get_async(&store).get0::<i32>()?;
            let result = run.call(&mut stack, &mut store, ()).await;
            assert_usable_here(&mut stack, &mut store).await?;
            result
        })
    };
    let mut random = Random::from_environment();
    let mut tasks: Vec<_> = (0..12).map(|n| (n % 3, task(n % 3))).collect();
    while !tasks.is_empty() {
        let chosen = random.below(tasks.len());
        let (ending, task) = &mut tasks[chosen];
        if let Poll::Ready(result) = poll_once(task) {
            check_end(*ending, &result);
            drop(tasks.swap_remove(chosen));
        } else if random.one_in(30) {
            drop(tasks.swap_remove(chosen));
        }
    }
    Ok(())
}
