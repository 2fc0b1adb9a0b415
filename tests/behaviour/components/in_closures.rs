//! Components, which are called by wasmtime's synchronous functions in closures of [`Stack::run`].

use crate::common::futures::{finish, pending, poll_once};
use crate::support::guest::{assert_usable, stack};
use crate::support::{Code, Host, Kind, matrix};
use wasmtime::component::{Component, Linker};
use wasmtime::{Result, Trap};
use wasmtime_async::{Error, Stack, Store, suspend_until, yield_now};

matrix!(anything: components_that_wait);

/// Their host functions wait.
fn components_that_wait<K: Kind>(code: Code) -> Result<()> {
    let mut stacks = [stack::<K>(), stack::<K>()];
    let engine = code.engine();
    let component = Component::new(
        &engine,
        r#"(component
            (import "greet" (func $greet (param "name" string) (result string)))
            (core module $memory
                (memory (export "memory") 1)
                (global $next (mut i32) (i32.const 1024))
                (func (export "realloc") (param i32 i32 i32 i32) (result i32)
                    (local $place i32)
                    (local.set $place (global.get $next))
                    (global.set $next (i32.add (global.get $next) (local.get 3)))
                    (local.get $place)))
            (core instance $memory (instantiate $memory))
            (core func $greet (canon lower (func $greet)
                (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
            (core module $guest
                (import "" "memory" (memory 1))
                (import "" "greet" (func $greet (param i32 i32 i32)))
                (func (export "run") (param i32 i32) (result i32)
                    (call $greet (local.get 0) (local.get 1) (i32.const 16))
                    (if (i32.eqz (local.get 1)) (then unreachable))
                    (i32.const 16)))
            (core instance $guest (instantiate $guest
                (with "" (instance (export "memory" (memory $memory "memory")) (export "greet" (func $greet))))))
            (func (export "run") (param "name" string) (result string)
                (canon lift (core func $guest "run")
                    (memory (core memory $memory "memory")) (realloc (core func $memory "realloc")))))"#,
    )?;
    let mut linker = Linker::<Host>::new(&engine);
    linker.root().func_wrap("greet", |mut store, (name,): (String,)| {
        store.data_mut().id += 1;
        let n = store.data().id;
        suspend_until(pending(2))?;
        match name.as_str() {
            "error" => wasmtime::bail!("from the host"),
            "never" => suspend_until(std::future::pending::<()>())?,
            _ => yield_now()?,
        }
        Ok((format!("hello {name} {n}"),))
    })?;

    let mut stores: [_; 2] = std::array::from_fn(|_| Store::new(&engine, Host::default()));
    let mut tasks = Vec::new();
    for ((stack, store), name) in stacks.iter_mut().zip(&mut stores).zip(["anna", "ben"]) {
        let (linker, component) = (linker.clone(), component.clone());
        tasks.push(stack.run_send(store, move |mut store| {
            let instance = linker.instantiate(&mut store, &component)?;
            let run = instance.get_typed_func::<(&str,), (String,)>(&mut store, "run")?;
            let (first,) = run.call(&mut store, (name,))?;
            let (second,) = run.call(&mut store, (&first,))?;
            Ok((run, second))
        }));
    }
    for _ in 0..6 {
        for task in tasks.iter_mut().rev() {
            assert!(poll_once(task).is_pending());
        }
    }
    let mut runs = Vec::new();
    for (task, name) in tasks.into_iter().zip(["anna", "ben"]) {
        let (run, greeting) = finish(task)?;
        assert_eq!(greeting, format!("hello hello {name} 1 2"));
        runs.push(run);
    }

    // A trap, an error of the host and a drop, after each of which the component is not to be entered again.
    let [stack, _] = &mut stacks;
    for name in ["", "error", "never"] {
        let mut store = Store::new(&engine, Host::default());
        let (linker, component) = (linker.clone(), component.clone());
        let instance = finish(stack.run_send(&mut store, move |mut store| linker.instantiate(&mut store, &component)))?;
        let run = instance.get_typed_func::<(&str,), (String,)>(&mut store, "run")?;
        let mut call = stack.run_send(&mut store, move |mut store| run.call(&mut store, (name,)));
        for _ in 0..2 {
            assert!(poll_once(&mut call).is_pending());
        }
        match name {
            "never" => {
                assert!(poll_once(&mut call).is_pending());
                drop(call);
            }
            "error" => {
                let error = finish(call).unwrap_err();
                assert_eq!(error.root_cause().to_string(), "from the host");
            }
            _ => {
                let error = finish(call).unwrap_err();
                assert_eq!(error.downcast_ref(), Some(&Trap::UnreachableCodeReached), "{error:?}");
            }
        }
        assert_usable(stack, &mut store)?;
    }
    // Off a stack it is an error as everywhere.
    let error = runs[0].call(&mut stores[0], ("x",)).unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(Error::NotOnStack)), "{error:?}");
    Ok(())
}
