//! Nested calls in the same store: host functions call their guest with wasmtime's own functions, on the current stack.
//! Some stacks refuse to let such a guest wait: see [`refused`](super::refused).

use crate::common::futures::{finish, pending, poll_once};
use crate::support::guest::{assert_overflow, assert_usable, export, export_of, guest, runner, stack, store};
use crate::support::{Code, Host, Kind, matrix};
use wasmtime::{Caller, Error, Func, Linker, Module, Result, TypedFunc};
use wasmtime_async::{FuncExt, LinkerExt, Store, suspend_until, yield_now};

matrix!(
    back_without_waiting_there,
    instantiation,
    recursion_in_the_same_store,
    recursion_by_way_of_the_host,
    another_store_without_a_stack_of_its_own,
);

matrix!(anything: back_into_the_same_store, another_store_that_waits);

/// `wait` and `back` are host functions. `back` calls `inner`, which calls `wait`.
const BACK: &str = r#"(module
    (import "" "wait" (func $wait (param i32) (result i32)))
    (import "" "back" (func $back (param i32) (result i32)))
    (func (export "inner") (param i32) (result i32) (i32.add (call $wait (local.get 0)) (i32.const 1)))
    (func (export "run") (param i32) (result i32)
        (i32.add (call $back (local.get 0)) (call $wait (i32.const 100)))))"#;

fn wait<T: 'static>(store: &mut Store<T>) -> Func {
    Func::wrap_suspending_send(store, |n: i32| async move {
        pending(2).await;
        n * 2
    })
}

fn inner_of<T>(caller: &mut Caller<'_, T>) -> TypedFunc<i32, i32> {
    export_of(caller, "inner").typed(caller).expect("has this type")
}

/// guest → host → guest → host → …, four deep. Only the outermost host function waits, before and after it calls the
/// guest.
fn back_without_waiting_there<K: Kind>(code: Code) -> Result<()> {
    const DEPTH: i32 = 3;
    let mut stack = stack::<K>();
    let mut store = store(code);
    let wait = wait(&mut store);
    let backs = [
        Func::wrap(&mut store, |mut caller: Caller<'_, Host>, n: i32| inner_of(&mut caller).call(&mut caller, n)),
        Func::wrap_suspending_boxed(&mut store, |mut caller: Caller<'_, Host>, (n,): (i32,)| {
            Box::new(async move {
                pending(usize::from(n == DEPTH)).await;
                let result = inner_of(&mut caller).call(&mut caller, n)?;
                pending(usize::from(n == DEPTH)).await;
                Ok::<_, Error>(result)
            })
        }),
    ];
    let text = r#"(module
        (import "" "wait" (func $wait (param i32) (result i32)))
        (import "" "back" (func $back (param i32) (result i32)))
        (func (export "inner") (param i32) (result i32)
            (if (result i32) (local.get 0)
                (then (i32.add (local.get 0) (call $back (i32.sub (local.get 0) (i32.const 1)))))
                (else (i32.const 0))))
        (func (export "run") (param i32) (result i32)
            (i32.add
                (call $wait (i32.const 100))
                (i32.add (call $back (local.get 0)) (call $wait (i32.const 100))))))"#;
    for (back, waits) in backs.into_iter().zip([0, 2]) {
        let run = runner(&mut store, text, [wait, back])?.get_async(&store).get1::<i32, i32>()?;
        for _ in 0..2 {
            let mut call = run.call(&mut stack, &mut store, (DEPTH,));
            for _ in 0..4 + waits {
                assert!(poll_once(&mut call).is_pending());
            }
            assert_eq!(finish(call)?, 200 + 6 + 200);
        }
        assert_usable(&mut stack, &mut store)?;
    }
    Ok(())
}

fn back_into_the_same_store<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let wait = wait(&mut store);
    let backs = [
        // Calls from a synchronous host function that waits as well.
        Func::wrap(&mut store, |mut caller: Caller<'_, Host>, n: i32| -> Result<i32> {
            yield_now()?;
            let result = inner_of(&mut caller).call(&mut caller, n)?;
            suspend_until(pending(1))?;
            Ok(result)
        }),
        // Calls from an async host function, which blocks its own poll.
        Func::wrap_suspending(&mut store, async |mut caller: Caller<'_, Host>, n: i32| -> Result<i32> {
            pending(1).await;
            let result = inner_of(&mut caller).call(&mut caller, n)?;
            pending(1).await;
            Ok(result)
        }),
    ];
    for back in backs {
        let run = runner(&mut store, BACK, [wait, back])?.get_async(&store).get1::<i32, i32>()?;
        for n in 0..3 {
            let mut call = run.call(&mut stack, &mut store, (n,));
            // At least: a future that is pending after a suspension within its poll may be polled again at once.
            for _ in 0..5 {
                assert!(poll_once(&mut call).is_pending());
            }
            assert_eq!(finish(call)?, 2 * n + 1 + 200);
        }
    }
    assert_usable(&mut stack, &mut store)
}

/// A host function instantiates a module in its caller's store, and calls it.
fn instantiation<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let back = Func::wrap_suspending_boxed(&mut store, |mut caller: Caller<'_, Host>, (n,): (i32,)| {
        Box::new(async move {
            pending(1).await;
            let text = r#"(module
                (import "" "wait" (func $wait (param i32) (result i32)))
                (global $sum (mut i32) (i32.const 0))
                (func $start (global.set $sum (call $wait (i32.const 20))))
                (start $start)
                (func (export "run") (param i32) (result i32)
                    (i32.add (global.get $sum) (call $wait (local.get 0)))))"#;
            let module = Module::new(caller.engine(), text)?;
            let mut linker = Linker::<Host>::new(caller.engine());
            linker.func_wrap_suspending_send("", "wait", |n: i32| async move {
                pending(usize::from(K::ANYTHING)).await;
                n
            })?;
            let instance = linker.instantiate(&mut caller, &module)?;
            let result = instance.get_typed_func::<i32, i32>(&mut caller, "run")?.call(&mut caller, n)?;
            pending(1).await;
            Ok::<_, Error>(result)
        })
    });
    let wait = wait(&mut store);
    let run = runner(&mut store, BACK, [wait, back])?.get_async(&store).get1::<i32, i32>()?;
    assert_eq!(finish(run.call(&mut stack, &mut store, (5,)))?, 20 + 5 + 200);
    assert_usable(&mut stack, &mut store)
}

/// `recurse` has no end. `run` calls it through the host function `back`.
const RECURSES: &str = r#"(module
    (import "" "back" (func $back))
    (func $recurse (export "recurse") (call $recurse) (call $recurse))
    (func (export "run") (call $back)))"#;

fn recursion_in_the_same_store<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let waits = usize::from(K::ANYTHING);
    let backs = [
        Func::wrap(&mut store, move |mut caller: Caller<'_, Host>| -> Result<()> {
            suspend_until(pending(waits))?;
            let recurse = export_of(&mut caller, "recurse");
            for _ in 0..3 {
                assert_overflow(recurse.call(&mut caller, &[], &mut []));
                suspend_until(pending(waits))?;
            }
            recurse.call(&mut caller, &[], &mut [])
        }),
        Func::wrap_suspending_boxed(&mut store, |mut caller: Caller<'_, Host>, (): ()| {
            Box::new(async move {
                pending(1).await;
                let recurse = export_of(&mut caller, "recurse");
                for _ in 0..3 {
                    assert_overflow(recurse.call(&mut caller, &[], &mut []));
                    pending(1).await;
                }
                recurse.call(&mut caller, &[], &mut [])
            })
        }),
    ];
    for back in backs {
        let instance = guest(&mut store, RECURSES, [back])?;
        for name in ["recurse", "run"] {
            let func = export(&mut store, &instance, name);
            assert_overflow(finish(func.call_on(&mut stack, &mut store, &[], &mut [])));
            assert_usable(&mut stack, &mut store)?;
        }
    }
    Ok(())
}

/// guest → host → guest → host → … without end.
fn recursion_by_way_of_the_host<K: Kind>(code: Code) -> Result<()> {
    if code == Code::Pulley {
        // Pulley's limit applies to the interpreter's own stack, which holds no host frames. So wasmtime does not limit
        // this recursion, on any stack.
        return Ok(());
    }
    let mut stack = stack::<K>();
    let mut store = store(code);
    let backs = [
        Func::wrap(&mut store, |mut caller: Caller<'_, Host>| -> Result<()> {
            export_of(&mut caller, "run").call(&mut caller, &[], &mut [])
        }),
        Func::wrap_suspending_boxed(&mut store, |mut caller: Caller<'_, Host>, (): ()| {
            Box::new(async move {
                pending(usize::from(K::ANYTHING)).await;
                export_of(&mut caller, "run").call(&mut caller, &[], &mut [])
            })
        }),
    ];
    for back in backs {
        let run = runner(&mut store, RECURSES, [back])?;
        assert_overflow(finish(run.call_on(&mut stack, &mut store, &[], &mut [])));
        assert_usable(&mut stack, &mut store)?;
    }
    Ok(())
}

/// Code on a stack calls into another store with wasmtime's own functions.
fn another_store_without_a_stack_of_its_own<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let plain = Func::wrap(&mut store, move |n: i32| -> Result<i32> {
        let mut other = self::store(code);
        let double = Func::wrap_suspending(&mut other, async |n: i32| n * 2);
        let instance = guest(&mut other, BACK, [double, double])?;
        let run = instance.get_typed_func::<i32, i32>(&mut other, "run")?;
        let nothing = Func::wrap(&mut other, || ());
        let recurses = guest(&mut other, RECURSES, [nothing])?;
        assert_overflow(export(&mut other, &recurses, "recurse").call(&mut other, &[], &mut []));
        run.call(&mut other, n)
    });
    let wait = wait(&mut store);
    let run = runner(&mut store, BACK, [wait, plain])?.get_async(&store).get1::<i32, i32>()?;
    assert_eq!(finish(run.call(&mut stack, &mut store, (3,)))?, 6 + 200 + 200);
    assert_usable(&mut stack, &mut store)
}

/// Host functions of that store wait by suspending the stack, like everything on it.
fn another_store_that_waits<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let plain = Func::wrap(&mut store, move |n: i32| -> Result<i32> {
        let mut other = self::store(code);
        let (wait, back) = (wait(&mut other), wait(&mut other));
        let instance = guest(&mut other, BACK, [wait, back])?;
        instance.get_typed_func::<i32, i32>(&mut other, "run")?.call(&mut other, n)
    });
    let wait = wait(&mut store);
    let run = runner(&mut store, BACK, [wait, plain])?.get_async(&store).get1::<i32, i32>()?;
    let mut call = run.call(&mut stack, &mut store, (3,));
    for _ in 0..6 {
        assert!(poll_once(&mut call).is_pending());
    }
    assert_eq!(finish(call)?, 6 + 200 + 200);
    assert_usable(&mut stack, &mut store)
}
