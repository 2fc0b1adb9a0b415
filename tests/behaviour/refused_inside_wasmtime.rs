//! The same where wasmtime itself calls host code: destructors, limiters, epoch callbacks, components.

use crate::common::futures::{finish, pending};
use crate::refused::{PROGRAM, call_in_another_store, check, check_end, on};
use crate::support::guest::{assert_refused, assert_usable, export, guest, runner, stack, store, waits};
use crate::support::{Code, Host, Kind, Log, matrix};
use std::future::ready;
use wasmtime::component::{Component, Linker};
use wasmtime::{AsContextMut, Caller, Engine, ExternRef, Func, ResourceLimiter, Result, Rooted, UpdateDeadline};
use wasmtime_async::{Between, Carries, FuncExt, Stack, Store, suspend_until, yield_now};

matrix!(
    destructors_of_references,
    destructors_of_stores,
    limiters,
    epoch_callbacks,
    time_slices,
    components_in_closures,
    components_called_by_host_functions,
);

/// Waits when it is dropped, and logs the result.
struct Waits(Log);

impl Drop for Waits {
    fn drop(&mut self) {
        let ready = suspend_until(ready(1)).expect("nothing to wait for");
        let results = [suspend_until(pending(2)), yield_now()];
        for result in results {
            // Converts the error as a trap would.
            let result = result.map_err(wasmtime::Error::from);
            self.0.add(match result {
                Ok(()) => format!("waited after {ready}"),
                Err(error) => {
                    assert_refused(Err::<(), _>(error), Between::HostCode);
                    format!("refused after {ready}")
                }
            });
        }
    }
}

fn expected<K: Kind>() -> [&'static str; 2] {
    [if K::ANYTHING { "waited after 1" } else { "refused after 1" }; 2]
}

/// The host's data of a reference that is collected in the middle of a call.
fn destructors_of_references<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let log = store.data().log.clone();
    let make = Func::wrap(&mut store, |mut caller: Caller<'_, Host>| -> Result<Option<Rooted<ExternRef>>> {
        let waits = Waits(caller.data().log.clone());
        Ok(Some(ExternRef::new(&mut caller, waits)?))
    });
    let collect = Func::wrap(&mut store, |mut caller: Caller<'_, Host>| caller.gc(None));
    let wait = waits::<K, _>(&mut store, 2);
    let text = r#"(module
        (import "" "make" (func $make (result externref)))
        (import "" "collect" (func $collect))
        (import "" "wait" (func $wait))
        (func (export "run") (drop (call $make)) (call $wait) (call $collect) (call $wait)))"#;
    let run = runner(&mut store, text, [make, collect, wait])?;
    for _ in 0..2 {
        finish(run.call_on(&mut stack, &mut store, &[], &mut []))?;
        assert_eq!(log.take(), expected::<K>());
        assert_usable(&mut stack, &mut store)?;
    }
    Ok(())
}

/// The data of a store that is dropped in the middle of another store's call, and the captured values of a host
/// function's closure.
fn destructors_of_stores<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let log = store.data().log.clone();
    let drops = Func::wrap(&mut store, move |caller: Caller<'_, Host>| {
        let _local = caller.data().log.on_drop("left");
        let log = Log::default();
        let mut other = Store::new(&code.engine(), Waits(log.clone()));
        let captured = Waits(log.clone());
        Func::wrap(&mut other, move || captured.0.add("is not called"));
        drop(other);
        assert_eq!(log.take(), [expected::<K>(), expected::<K>()].concat());
    });
    check::<K>(&mut stack, &mut store, drops, None)?;
    assert!(log.take().is_empty());
    Ok(())
}

/// A limiter that waits before memory may grow.
pub(crate) struct Limiter;

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, _: usize, _: usize, _: Option<usize>) -> Result<bool> {
        suspend_until(pending(2))?;
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, _: usize, _: Option<usize>) -> Result<bool> {
        Ok(suspend_until(ready(true))?)
    }
}

fn limiters<K: Kind<Stack: Carries<Limiter>>>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = Store::new(&code.engine(), Limiter);
    let wait = waits::<K, _>(&mut store, 1);
    let text = r#"(module
        (import "" "" (func $wait))
        (memory (export "memory") 1)
        (table 1 funcref)
        (func (export "table") (result i32) (call $wait) (table.grow (ref.null func) (i32.const 1)))
        (func (export "run") (result i32) (call $wait) (memory.grow (i32.const 1))))"#;
    let instance = guest(&mut store, text, [wait])?;
    store.limiter(|limiter| limiter);
    let memory = instance.get_memory(&mut store, "memory").expect("is exported");
    let run = export(&mut store, &instance, "run").get_async(&store).get0::<i32>()?;
    let result = finish(run.call(&mut stack, &mut store, ()));
    match on::<K>(Between::HostCode) {
        Some(between) => assert_refused(result, between),
        None => assert_eq!(result?, 1),
    }
    assert_eq!(memory.size(&store), if K::ANYTHING { 2 } else { 1 });
    let table = export(&mut store, &instance, "table").get_async(&store).get0::<i32>()?;
    assert_eq!(finish(table.call(&mut stack, &mut store, ()))?, 1);
    assert_usable(&mut stack, &mut store)
}

/// A store whose guests reach their deadline whenever the engine's epoch changes.
fn with_epochs(code: Code) -> Result<Store<Host>> {
    let mut store = Store::new(&Engine::new(code.config().epoch_interruption(true))?, Host::default());
    store.set_epoch_deadline(1);
    Ok(store)
}

/// A custom callback that waits, or that calls the guest again, which waits. (From wasmtime 50 on, it cannot call the
/// guest.)
fn epoch_callbacks<K: Kind>(code: Code) -> Result<()> {
    let cases = [(false, Between::HostCode), (true, Between::NestedCall)];
    for (calls, between) in cases.into_iter().take(if cfg!(next_wasmtime) { 1 } else { 2 }) {
        let mut stack = stack::<K>();
        let mut store = with_epochs(code)?;
        let engine = store.engine().clone();
        let wait = waits::<K, _>(&mut store, 2);
        let other = guest(&mut store, PROGRAM, [wait, wait])?;
        let inner = export(&mut store, &other, "inner");
        store.epoch_deadline_callback(move |mut store| {
            let _local = store.data().log.on_drop("callback left");
            if calls {
                #[cfg(not(next_wasmtime))]
                {
                    // Must not reach the deadline again.
                    store.as_context_mut().set_epoch_deadline(1000);
                    inner.call(&mut store, &[], &mut [])?;
                }
            } else {
                suspend_until(pending(2))?;
            }
            Ok(UpdateDeadline::Continue(1))
        });
        let tick = Func::wrap(&mut store, move |caller: Caller<'_, Host>| {
            engine.increment_epoch();
            caller.data().log.add("tick");
        });
        let text = r#"(module
            (import "" "" (func $tick))
            (func (export "run") (call $tick) (loop)))"#;
        let run = runner(&mut store, text, [tick])?;
        let result = finish(run.call_on(&mut stack, &mut store, &[], &mut []));
        check_end(result, on::<K>(between))?;
        assert_eq!(store.data().log.take(), ["tick", "callback left"]);
        store.set_epoch_deadline(1000);
        assert_usable(&mut stack, &mut store)?;
    }
    Ok(())
}

/// Time slices belong to the guest of the call, not to guests that the host calls in the meantime.
fn time_slices<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = with_epochs(code)?;
    store.epoch_deadline_suspend_and_update(1);
    let engine = store.engine().clone();
    let tick = Func::wrap(&mut store, move || engine.increment_epoch());
    let ticks = runner(
        &mut store,
        r#"(module (import "" "" (func $tick)) (func (export "run") (call $tick) (loop)))"#,
        [tick],
    )?;
    let engine = store.engine().clone();

    // A slice of the call itself.
    finish(ticks.call_on(&mut stack, &mut store, &[], &mut []))?;
    let synchronous = Func::wrap(&mut store, move |mut caller: Caller<'_, Host>| -> Result<()> {
        let _local = caller.data().log.on_drop("left");
        ticks.call(&mut caller, &[], &mut [])
    });
    let in_a_poll = Func::wrap_suspending_boxed(&mut store, move |mut caller: Caller<'_, Host>, (): ()| {
        Box::new(async move {
            let _local = caller.data().log.on_drop("left");
            ticks.call(&mut caller, &[], &mut [])
        })
    });
    let in_another_store = Func::wrap(&mut store, move |caller: Caller<'_, Host>| -> Result<()> {
        let _local = caller.data().log.on_drop("left");
        let mut other = Store::new(&engine, Host::default());
        other.set_epoch_deadline(1);
        other.epoch_deadline_suspend_and_update(1);
        let engine = engine.clone();
        let tick = Func::wrap(&mut other, move || engine.increment_epoch());
        let text = r#"(module (import "" "" (func $tick)) (func (export "run") (call $tick) (loop)))"#;
        runner(&mut other, text, [tick])?.call(&mut other, &[], &mut [])
    });
    for (host, between) in
        [(synchronous, Between::NestedCall), (in_a_poll, Between::Poll), (in_another_store, Between::OtherStore)]
    {
        // A refused slice leaves its guest past the deadline.
        let wait = waits::<K, _>(&mut store, 1);
        let instance = guest(&mut store, PROGRAM, [host, wait])?;
        let run = export(&mut store, &instance, "run");
        store.set_epoch_deadline(1);
        let result = finish(run.call_on(&mut stack, &mut store, &[], &mut []));
        check_end(result, on::<K>(between))?;
        assert_eq!(store.data().log.take(), ["left"]);
        assert_usable(&mut stack, &mut store)?;
    }
    // A slice in a closure.
    store.set_epoch_deadline(1);
    let result = finish(stack.run_send(&mut store, move |mut store| ticks.call(&mut store, &[], &mut [])));
    check_end(result, on::<K>(Between::Closure))?;
    assert_usable(&mut stack, &mut store)
}

/// A component that calls its only import.
fn component(engine: &Engine) -> Result<Component> {
    let text = r#"(component
        (import "host" (func $host))
        (core func $host (canon lower (func $host)))
        (core module $guest (import "" "host" (func $host)) (func (export "run") (call $host)))
        (core instance $guest (instantiate $guest (with "" (instance (export "host" (func $host))))))
        (func (export "run") (canon lift (core func $guest "run"))))"#;
    Component::new(engine, text)
}

/// Calls a component that has this host function, with wasmtime's own functions.
fn call_component(
    mut store: impl AsContextMut<Data = Host>,
    host: impl Fn() -> Result<()> + Send + Sync + 'static,
) -> Result<()> {
    let engine = store.as_context().engine().clone();
    let mut linker = Linker::<Host>::new(&engine);
    linker.root().func_wrap("host", move |store, (): ()| {
        let _local = store.data().log.on_drop("left");
        host()
    })?;
    let instance = linker.instantiate(&mut store, &component(&engine)?)?;
    instance.get_typed_func::<(), ()>(&mut store, "run")?.call(&mut store, ())
}

/// Components that are called in closures can be suspended where closures can.
fn components_in_closures<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let hosts: [fn(Code) -> Result<()>; 3] = [
        |_| Ok(suspend_until(pending(2))?),
        call_in_another_store::<K>,
        // Host functions that do not wait work, too.
        |_| Ok(suspend_until(ready(()))?),
    ];
    for (host, waits) in hosts.into_iter().zip([true, true, false]) {
        let mut store = store(code);
        let result = finish(stack.run_send(&mut store, move |store| call_component(store, move || host(code))));
        match on::<K>(Between::Closure) {
            Some(between) if waits => assert_refused(result, between),
            _ => result?,
        }
        assert_eq!(store.data().log.take(), ["left"]);
        assert_usable(&mut stack, &mut store)?;
    }
    Ok(())
}

/// A host function of a core module calls a component, in a store of its own.
fn components_called_by_host_functions<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let hosts: [fn(Code) -> Result<()>; 3] =
        [|_| Ok(suspend_until(pending(2))?), call_in_another_store::<K>, |_| Ok(suspend_until(ready(()))?)];
    for (host, between) in hosts.into_iter().zip([Some(Between::HostCode), Some(Between::OtherStore), None]) {
        let calls = Func::wrap(&mut store, move |caller: Caller<'_, Host>| {
            let other = Host { id: 1, log: caller.data().log.clone() };
            call_component(&mut Store::new(&code.engine(), other), move || host(code))
        });
        check::<K>(&mut stack, &mut store, calls, between.and_then(on::<K>))?;
    }
    Ok(())
}
