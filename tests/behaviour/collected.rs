//! Garbage-collected references on suspended stacks, and exceptions.

use crate::common::futures::{cancel, finish, pending, poll_once};
use crate::common::moving::sent;
use crate::support::guest::{assert_usable, export, export_of, guest, runner, stack, waits, with};
use crate::support::{Code, Host, Kind, matrix};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use wasmtime::{Caller, ExternRef, Func, Result, Rooted, ThrownException, Trap, Val};
use wasmtime_async::{FuncExt, Store, suspend_until};

matrix!(references_on_suspended_stacks_are_roots, references_of_many_stores, traps_of_collected_types, exceptions,);

/// A guest that keeps references in local variables while its host functions suspend the stack and collect garbage.
const KEEPS: &str = r#"(module
    (import "" "make" (func $make (param i32) (result externref)))
    (import "" "collect" (func $collect))
    (import "" "through" (func $through (param i32)))
    (import "" "check" (func $check (param externref i32)))
    (func $run (export "run") (param $depth i32)
        (local $one externref) (local $two externref)
        (local.set $one (call $make (local.get $depth)))
        (call $collect)
        (local.set $two (call $make (i32.add (local.get $depth) (i32.const 100))))
        (drop (call $make (i32.const 999)))
        (call $collect)
        (if (local.get $depth) (then (call $through (i32.sub (local.get $depth) (i32.const 1)))))
        (call $collect)
        (call $check (local.get $one) (local.get $depth))
        (call $check (local.get $two) (i32.add (local.get $depth) (i32.const 100)))))"#;

/// Data that lives as long as it is reachable.
struct Kept {
    number: i32,
    _alive: Arc<()>,
}

fn keeps<K: Kind>(store: &mut Store<Host>, alive: &Arc<()>) -> Result<Func> {
    let alive = Arc::clone(alive);
    let make = Func::wrap_suspending_boxed(&mut *store, move |mut caller: Caller<'_, Host>, (n,): (i32,)| {
        let kept = Kept { number: n, _alive: Arc::clone(&alive) };
        Box::new(async move {
            pending(1).await;
            ExternRef::new(&mut caller, kept).map(Some)
        })
    });
    let collect = Func::wrap_suspending_boxed(&mut *store, |mut caller: Caller<'_, Host>, (): ()| {
        Box::new(async move {
            caller.gc(None)?;
            pending(1).await;
            caller.gc(None)
        })
    });
    let through = Func::wrap(&mut *store, |mut caller: Caller<'_, Host>, depth: i32| -> Result<()> {
        let run = export_of(&mut caller, "run");
        suspend_until(pending(1))?;
        run.call(&mut caller, &[Val::I32(depth)], &mut [])?;
        caller.gc(None)
    });
    let check = Func::wrap(&mut *store, |caller: Caller<'_, Host>, kept: Option<Rooted<ExternRef>>, n: i32| {
        let data = kept.expect("is not null").data(&caller)?.and_then(|data| data.downcast_ref::<Kept>());
        assert_eq!(data.map(|kept| kept.number), Some(n));
        Ok(())
    });
    if K::ANYTHING {
        runner(store, KEEPS, [make, collect, through, check])
    } else {
        // Without host frames in between.
        runner(store, &KEEPS.replace("call $through", "call $run"), [make, collect, through, check])
    }
}

fn references_on_suspended_stacks_are_roots<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = with(code, |_| ())?;
    let alive = Arc::new(());
    let run = keeps::<K>(&mut store, &alive)?;
    for depth in 0..4 {
        finish(run.call_on(&mut stack, &mut store, &[Val::I32(depth)], &mut []))?;
        store.gc(None)?;
        // The closure of the host function holds one reference.
        assert_eq!(Arc::strong_count(&alive), 2, "all are collected at the end");
    }
    // Drops the call in the middle.
    for polls in 1..8 {
        let params = [Val::I32(1)];
        let mut call = run.call_on(&mut stack, &mut store, &params, &mut []);
        for _ in 0..polls {
            assert!(poll_once(&mut call).is_pending());
        }
        cancel(call);
        store.gc(None)?;
        assert_eq!(Arc::strong_count(&alive), 2);
    }
    assert_usable(&mut stack, &mut store)
}

fn references_of_many_stores<K: Kind>(code: Code) -> Result<()> {
    let task = |depth: i32| -> Pin<Box<dyn Future<Output = Result<()>> + Send>> {
        Box::pin(sent(async move {
            let mut stack = stack::<K>();
            let mut store = with(code, |_| ())?;
            let alive = Arc::new(());
            let run = keeps::<K>(&mut store, &alive)?;
            run.call_on(&mut stack, &mut store, &[Val::I32(depth)], &mut []).await?;
            store.gc(None)?;
            assert_eq!(Arc::strong_count(&alive), 2);
            Ok(())
        }))
    };
    let mut tasks: Vec<_> = (0..8).map(|n| task(n % 4)).collect();
    while !tasks.is_empty() {
        tasks.reverse();
        tasks.retain_mut(|task| match poll_once(task) {
            Poll::Pending => true,
            Poll::Ready(result) => {
                result.expect("does not fail");
                false
            }
        });
    }
    Ok(())
}

fn traps_of_collected_types<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = with(code, |config| {
        config.wasm_function_references(true).wasm_gc(true);
    })?;
    let wait = waits::<K, _>(&mut store, 2);
    let text = r#"(module
        (type $pair (struct (field i32) (field i32)))
        (type $bytes (array (mut i8)))
        (type $nothing (func))
        (import "" "" (func $wait))
        (func $make (result (ref $pair)) (struct.new $pair (i32.const 1) (i32.const 2)))
        (func (export "null struct") (local $pair (ref null $pair))
            (call $wait) (drop (struct.get $pair 0 (local.get $pair))))
        (func (export "null function") (local $nothing (ref null $nothing))
            (call $wait) (call_ref $nothing (local.get $nothing)))
        (func (export "not null") (local $pair (ref null $pair))
            (call $wait) (drop (ref.as_non_null (local.get $pair))))
        (func (export "cast") (local $any anyref)
            (local.set $any (call $make))
            (call $wait) (drop (ref.cast (ref $bytes) (local.get $any))))
        (func (export "array") (local $bytes (ref null $bytes))
            (local.set $bytes (array.new $bytes (i32.const 0) (i32.const 9)))
            (call $wait) (array.set $bytes (local.get $bytes) (i32.const 9) (i32.const 1)))
        (func (export "fine") (result i32) (local $pair (ref null $pair))
            (local.set $pair (call $make))
            (call $wait) (struct.get $pair 1 (local.get $pair))))"#;
    let instance = guest(&mut store, text, [wait])?;
    for (name, expected) in [
        ("null struct", Trap::NullReference),
        ("null function", Trap::IndirectCallToNull),
        ("not null", Trap::NullReference),
        ("cast", Trap::CastFailure),
        ("array", Trap::ArrayOutOfBounds),
    ] {
        let func = export(&mut store, &instance, name);
        let error = finish(func.call_on(&mut stack, &mut store, &[], &mut [])).unwrap_err();
        let trap = error.downcast_ref::<Trap>();
        assert!(
            trap == Some(&expected) || name == "null function" && trap == Some(&Trap::NullReference),
            "{name}: {error:?}"
        );
        assert_usable(&mut stack, &mut store)?;
    }
    let fine = export(&mut store, &instance, "fine").get_async(&store).get0::<i32>()?;
    assert_eq!(finish(fine.call(&mut stack, &mut store, ()))?, 2);
    Ok(())
}

/// Exceptions that are thrown and caught, with suspensions before, between and after, through host frames.
fn exceptions<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = with(code, |config| {
        config.wasm_function_references(true).wasm_gc(true).wasm_exceptions(true);
    })?;
    let wait = waits::<K, _>(&mut store, 2);
    let through = Func::wrap(&mut store, |mut caller: Caller<'_, Host>| -> Result<()> {
        let throws = export_of(&mut caller, "throws");
        suspend_until(pending(1))?;
        let result = throws.call(&mut caller, &[], &mut []);
        suspend_until(pending(1))?;
        result
    });
    let text = r#"(module
        (import "" "" (func $wait))
        (import "" "" (func $through))
        (tag $ball (param i32))
        (func $throws (export "throws") (call $wait) (throw $ball (i32.const 42)))
        (func (export "run") (result i32)
            (call $wait)
            (block $caught (result i32)
                (try_table (catch $ball $caught) (call $throws))
                (i32.const 0))
            (call $wait))
        (func (export "deep") (result i32)
            (block $caught (result i32)
                (try_table (catch $ball $caught) (call $through))
                (i32.const 0))
            (call $wait))
        (func (export "uncaught") (call $throws)))"#;
    let instance = guest(&mut store, text, [wait, through])?;
    for name in if K::ANYTHING { &["run", "deep"][..] } else { &["run"] } {
        let func = export(&mut store, &instance, name).get_async(&store).get0::<i32>()?;
        for _ in 0..3 {
            assert_eq!(finish(func.call(&mut stack, &mut store, ()))?, 42, "{name}");
        }
    }
    let uncaught = export(&mut store, &instance, "uncaught");
    let error = finish(uncaught.call_on(&mut stack, &mut store, &[], &mut [])).unwrap_err();
    assert!(error.is::<ThrownException>(), "{error:?}");
    assert!(store.take_pending_exception().is_some());
    assert_usable(&mut stack, &mut store)
}
