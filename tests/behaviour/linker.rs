//! Async host functions by name, shared by stores, and instantiation on a stack.

use crate::common::futures::{cancel, finish, pending, poll_once};
use crate::common::moving::sent;
use crate::support::guest::{assert_usable, export, stack, store};
use crate::support::{Code, Host, Kind, matrix};
use std::future::Future;
use std::pin::Pin;
use wasmtime::{Caller, FuncType, Instance, Linker, Module, Result, Val, ValType};
use wasmtime_async::{FuncExt, InstancePreExt, LinkerExt, Store};

matrix!(functions_by_name, start_functions, shared_by_stores, instances_of_instances);

/// Defines the functions in the way that fits this kind of stack best.
fn linker<K: Kind>(store: &Store<Host>) -> Result<Linker<Host>> {
    let mut linker = Linker::new(store.engine());
    let ty = FuncType::new(store.engine(), [ValType::I32], [ValType::I32]);
    if K::MOVES {
        linker
            .func_wrap_suspending_send("host", "double", |n: i32| async move {
                pending(1).await;
                n * 2
            })?
            .func_wrap_suspending_boxed("host", "add_id", |caller: Caller<'_, Host>, (n,): (i32,)| {
                Box::new(async move {
                    pending(1).await;
                    Ok(n + caller.data().id)
                })
            })?
            .func_new_suspending_boxed("host", "negate", ty, |_, params, results| {
                Box::new(async move {
                    pending(1).await;
                    results[0] = Val::I32(-params[0].unwrap_i32());
                    Ok(())
                })
            })?;
    } else {
        linker
            .func_wrap_suspending("host", "double", async |n: i32| {
                pending(1).await;
                n * 2
            })?
            .func_wrap_suspending("host", "add_id", async |caller: Caller<'_, Host>, n: i32| -> Result<i32> {
                pending(1).await;
                Ok(n + caller.data().id)
            })?
            .func_new_suspending("host", "negate", ty, async |_, params, results| {
                pending(1).await;
                results[0] = Val::I32(-params[0].unwrap_i32());
                Ok(())
            })?;
    }
    Ok(linker)
}

/// Calls all three, in `run` and when it starts.
const GUEST: &str = r#"(module
    (import "host" "double" (func $double (param i32) (result i32)))
    (import "host" "add_id" (func $add_id (param i32) (result i32)))
    (import "host" "negate" (func $negate (param i32) (result i32)))
    (global (export "started") (mut i32) (i32.const 0))
    (func $start (global.set 0 (call $run (i32.const 1))))
    (start $start)
    (func $run (export "run") (param i32) (result i32)
        (call $negate (call $add_id (call $double (local.get 0))))))"#;

fn started(store: &mut Store<Host>, instance: &Instance) -> i32 {
    instance.get_global(&mut *store, "started").expect("is exported").get(store).unwrap_i32()
}

fn functions_by_name<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    store.data_mut().id = 100;
    let linker = linker::<K>(&store)?;
    let module = Module::new(store.engine(), GUEST)?;
    let instance = finish(linker.instantiate_on(&mut stack, &mut store, &module))?;
    assert_eq!(started(&mut store, &instance), -102);
    let run = export(&mut store, &instance, "run").get_async(&store).get1::<i32, i32>()?;
    for n in 0..3 {
        assert_eq!(finish(run.call(&mut stack, &mut store, (n,)))?, -100 - 2 * n);
    }
    Ok(())
}

fn start_functions<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let linker = linker::<K>(&store)?;
    let module = Module::new(store.engine(), GUEST)?;
    // Dropped in the middle, at each place.
    for polls in 0..4 {
        let mut call = linker.instantiate_on(&mut stack, &mut store, &module);
        for _ in 0..polls {
            assert!(poll_once(&mut call).is_pending(), "three suspensions");
        }
        cancel(call);
        assert_usable(&mut stack, &mut store)?;
    }
    let pre = linker.instantiate_pre(&module)?;
    for id in 0..3 {
        store.data_mut().id = id;
        let instance = finish(pre.instantiate_on(&mut stack, &mut store))?;
        assert_eq!(started(&mut store, &instance), -2 - id);
    }
    Ok(())
}

/// The functions of one linker, in use in many stores at once, on stacks of their own.
fn shared_by_stores<K: Kind>(code: Code) -> Result<()> {
    let first = store(code);
    let linker = linker::<K>(&first)?;
    let pre = linker.instantiate_pre(&Module::new(first.engine(), GUEST)?)?;
    let task = |id: i32| -> Pin<Box<dyn Future<Output = Result<i32>> + Send + '_>> {
        let pre = &pre;
        let mut store = Store::new(first.engine(), Host { id, ..Host::default() });
        Box::pin(sent(async move {
            let mut stack = stack::<K>();
            let instance = pre.instantiate_on(&mut stack, &mut store).await?;
            assert_eq!(started(&mut store, &instance), -2 - id);
            let run = export(&mut store, &instance, "run").get_async(&store).get1::<i32, i32>()?;
            run.call(&mut stack, &mut store, (id,)).await
        }))
    };
    let mut tasks: Vec<_> = (0..20).map(|id| (id, task(id))).collect();
    // Each poll of all of them in turn, from either end.
    let mut rounds = 0;
    while !tasks.is_empty() {
        rounds += 1;
        tasks.reverse();
        tasks.retain_mut(|(id, task)| match poll_once(task) {
            std::task::Poll::Pending => true,
            std::task::Poll::Ready(result) => {
                assert_eq!(result.expect("does not fail"), -3 * *id);
                false
            }
        });
    }
    assert_eq!(rounds, 7);
    Ok(())
}

/// A guest imports what another exports, and reaches the async host functions through it.
fn instances_of_instances<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let mut linker = linker::<K>(&store)?;
    let module = Module::new(store.engine(), GUEST)?;
    let instance = finish(linker.instantiate_on(&mut stack, &mut store, &module))?;
    linker.instance(&mut store, "guest", instance)?;
    let text = r#"(module
        (import "guest" "run" (func $run (param i32) (result i32)))
        (global (export "started") (mut i32) (i32.const 0))
        (func $start (global.set 0 (call $run (i32.const 7))))
        (start $start))"#;
    let module = Module::new(store.engine(), text)?;
    let instance = finish(linker.instantiate_on(&mut stack, &mut store, &module))?;
    assert_eq!(started(&mut store, &instance), -14);
    assert_usable(&mut stack, &mut store)
}
