//! Garbage-collected references on all levels of nested calls.

use super::{end, fibers};
use crate::common::futures::{cancel, pending, poll_once};
use crate::support::guest::{assert_usable, export_of, runner, stack, with};
use crate::support::{Code, Host, Kind, matrix};
use futures::future::{Either, select};
use std::pin::pin;
use std::sync::Arc;
use wasmtime::{Caller, ExternRef, Func, Result, Rooted, Val};
use wasmtime_async::{FuncExt, Store};

matrix!(references_on_all_levels, dropped_with_references_on_all_levels, structs_on_all_levels);

fibers!(dropped_beside_references_of_the_host_function);

/// A guest that keeps references in local variables while its host functions suspend the stack, collect garbage, and
/// call it again.
const KEEPS: &str = r#"(module
    (import "" "make" (func $make (param i32) (result externref)))
    (import "" "collect" (func $collect))
    (import "" "deeper" (func $deeper (param i32)))
    (import "" "check" (func $check (param externref i32)))
    (func (export "run") (param $depth i32)
        (local $one externref) (local $two externref)
        (local.set $one (call $make (local.get $depth)))
        (call $collect)
        (local.set $two (call $make (i32.add (local.get $depth) (i32.const 100))))
        (drop (call $make (i32.const 999)))
        (call $collect)
        (if (local.get $depth) (then (call $deeper (i32.sub (local.get $depth) (i32.const 1)))))
        (call $check (local.get $one) (local.get $depth))
        (call $collect)
        (call $check (local.get $one) (local.get $depth))
        (call $check (local.get $two) (i32.add (local.get $depth) (i32.const 100)))))"#;

/// Data that lives as long as it is reachable.
struct Kept {
    number: i32,
    _alive: Arc<()>,
}

#[track_caller]
fn check(caller: &Caller<'_, Host>, kept: Option<Rooted<ExternRef>>, n: i32) -> Result<()> {
    let data = kept.expect("is not null").data(caller)?.and_then(|data| data.downcast_ref::<Kept>());
    assert_eq!(data.map(|kept| kept.number), Some(n));
    Ok(())
}

fn make(store: &mut Store<Host>, alive: &Arc<()>) -> Func {
    let alive = Arc::clone(alive);
    Func::wrap_suspending_boxed(&mut *store, move |mut caller: Caller<'_, Host>, (n,): (i32,)| {
        let kept = Kept { number: n, _alive: Arc::clone(&alive) };
        Box::new(async move {
            pending(1).await;
            ExternRef::new(&mut caller, kept).map(Some)
        })
    })
}

fn collect(store: &mut Store<Host>) -> Func {
    Func::wrap_suspending_boxed(store, |mut caller: Caller<'_, Host>, (): ()| {
        Box::new(async move {
            caller.gc(None)?;
            pending(1).await;
            caller.gc(None)
        })
    })
}

/// `run` of [`KEEPS`]. Each of its host functions keeps a reference of its own while it calls the guest again.
fn keeps(store: &mut Store<Host>, alive: &Arc<()>) -> Result<Func> {
    let inner_alive = Arc::clone(alive);
    let deeper = Func::wrap_suspending_boxed(&mut *store, move |mut caller: Caller<'_, Host>, (depth,): (i32,)| {
        let kept = Kept { number: 200 + depth, _alive: Arc::clone(&inner_alive) };
        Box::new(async move {
            let run = export_of(&mut caller, "run");
            let kept = ExternRef::new(&mut caller, kept)?;
            caller.gc(None)?;
            run.call_within(&mut caller, &[Val::I32(depth)], &mut []).await?;
            check(&caller, Some(kept), 200 + depth)?;
            caller.gc(None)?;
            pending(1).await;
            check(&caller, Some(kept), 200 + depth)
        })
    });
    let check = Func::wrap(&mut *store, |caller: Caller<'_, Host>, kept: Option<Rooted<ExternRef>>, n: i32| {
        check(&caller, kept, n)
    });
    let imports = [make(store, alive), collect(store), deeper, check];
    runner(store, KEEPS, imports)
}

fn references_on_all_levels<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = with(code, |_| ())?;
    let alive = Arc::new(());
    let run = keeps(&mut store, &alive)?;
    // The reference of this test, and those that the host functions' closures hold.
    let few = Arc::strong_count(&alive);
    for depth in [0, 1, 2, 10] {
        end(&mut run.call_on(&mut stack, &mut store, &[Val::I32(depth)], &mut [])).1?;
        store.gc(None)?;
        assert_eq!(Arc::strong_count(&alive), few, "all are collected at the end");
    }
    assert_usable(&mut stack, &mut store)
}

fn dropped_with_references_on_all_levels<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = with(code, |_| ())?;
    let alive = Arc::new(());
    let run = keeps(&mut store, &alive)?;
    let few = Arc::strong_count(&alive);
    let (polls, result) = end(&mut run.call_on(&mut stack, &mut store, &[Val::I32(2)], &mut []));
    result?;
    for dropped_after in 1..=polls {
        let params = [Val::I32(2)];
        let mut call = run.call_on(&mut stack, &mut store, &params, &mut []);
        for _ in 0..dropped_after {
            assert!(poll_once(&mut call).is_pending());
        }
        cancel(call);
        store.gc(None)?;
        assert_eq!(Arc::strong_count(&alive), few);
    }
    assert_usable(&mut stack, &mut store)
}

/// A nested call is dropped after any number of polls, and garbage is collected at once. The references of the host
/// function and of the outer guest still work.
fn dropped_beside_references_of_the_host_function<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = with(code, |_| ())?;
    let alive = Arc::new(());
    let inner = keeps(&mut store, &alive)?;
    let inner_alive = Arc::clone(&alive);
    let drops = Func::wrap_suspending_boxed(&mut store, move |mut caller: Caller<'_, Host>, (waits,): (i32,)| {
        let kept = |number| Kept { number, _alive: Arc::clone(&inner_alive) };
        let (before, after) = (kept(300), kept(301));
        Box::new(async move {
            let before = ExternRef::new(&mut caller, before)?;
            let params = [Val::I32(2)];
            let call = inner.call_within(&mut caller, &params, &mut []);
            match select(call, pin!(pending(usize::try_from(waits)?))).await {
                Either::Left(_) => panic!("waits longer"),
                Either::Right(((), call)) => drop(call),
            }
            caller.gc(None)?;
            check(&caller, Some(before), 300)?;
            let after = ExternRef::new(&mut caller, after)?;
            pending(1).await;
            caller.gc(None)?;
            inner.call_within(&mut caller, &params, &mut []).await?;
            caller.gc(None)?;
            check(&caller, Some(before), 300)?;
            check(&caller, Some(after), 301)
        })
    });
    let checks = Func::wrap(&mut store, |caller: Caller<'_, Host>, kept: Option<Rooted<ExternRef>>, n: i32| {
        check(&caller, kept, n)
    });
    let imports = [make(&mut store, &alive), drops, checks];
    let text = r#"(module
        (import "" "make" (func $make (param i32) (result externref)))
        (import "" "drops" (func $drops (param i32)))
        (import "" "check" (func $check (param externref i32)))
        (func (export "run") (param $waits i32) (local $kept externref)
            (local.set $kept (call $make (i32.const 5)))
            (call $drops (local.get $waits))
            (call $check (local.get $kept) (i32.const 5))))"#;
    let run = runner(&mut store, text, imports)?;
    let few = Arc::strong_count(&alive);
    for waits in 0..10 {
        end(&mut run.call_on(&mut stack, &mut store, &[Val::I32(waits)], &mut [])).1?;
        store.gc(None)?;
        assert_eq!(Arc::strong_count(&alive), few);
    }
    assert_usable(&mut stack, &mut store)
}

/// Objects that the guest makes and reads by itself.
fn structs_on_all_levels<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = with(code, |config| {
        config.wasm_function_references(true).wasm_gc(true);
    })?;
    let deeper = Func::wrap_suspending_boxed(&mut store, |mut caller: Caller<'_, Host>, (depth,): (i32,)| {
        Box::new(async move {
            let run = export_of(&mut caller, "run").get_async(&caller).typed::<i32, i32>()?;
            caller.gc(None)?;
            let result = run.call_within(&mut caller, depth).await?;
            caller.gc(None)?;
            Ok::<_, wasmtime::Error>(result)
        })
    });
    let collect = collect(&mut store);
    let text = r#"(module
        (type $pair (struct (field (mut i32)) (field (ref null $pair))))
        (import "" "collect" (func $collect))
        (import "" "deeper" (func $deeper (param i32) (result i32)))
        (func (export "run") (param $depth i32) (result i32)
            (local $pair (ref null $pair)) (local $sum i32)
            (local.set $pair (struct.new $pair (local.get $depth)
                (struct.new $pair (i32.const 1000) (ref.null $pair))))
            (call $collect)
            (if (local.get $depth)
                (then (local.set $sum (call $deeper (i32.sub (local.get $depth) (i32.const 1))))))
            (call $collect)
            (struct.set $pair 0 (local.get $pair) (i32.add (local.get $sum) (struct.get $pair 0 (local.get $pair))))
            (call $collect)
            (i32.add (struct.get $pair 0 (local.get $pair)) (struct.get $pair 0 (struct.get $pair 1 (local.get $pair))))))"#;
    let run = runner(&mut store, text, [collect, deeper])?.get_async(&store).typed::<i32, i32>()?;
    for depth in [0, 1, 5, 20] {
        let result = end(&mut run.call(&mut stack, &mut store, depth)).1?;
        assert_eq!(result, (0..=depth).map(|level| level + 1000).sum::<i32>());
    }
    assert_usable(&mut stack, &mut store)
}
