//! Components whose async host functions wait, called with this crate's own methods.

use super::GREETER;
use crate::common::futures::{cancel, finish, pending, poll_caught, poll_once};
use crate::support::guest::{assert_overflow, assert_usable, stack, store};
use crate::support::{Code, Host, Kind, matrix};
use std::sync::{Arc, OnceLock};
use wasmtime::component::{Component, Func, Instance, Linker, Val};
use wasmtime::{Result, StoreContextMut, Trap};
use wasmtime_async::component::{AsyncFunc, FuncExt, InstancePreExt, LinkerExt, LinkerInstanceExt};
use wasmtime_async::{Error, Store};

matrix!(interleaved, cancelled, untyped, start_functions, post_return,);
#[cfg(not(call_hook))]
matrix!(within: other_components_within, the_same_component_within);
matrix!(local: async_closures);

/// The host function of [`GREETER`]: pending twice, or as the name says.
fn linker(store: &Store<Host>) -> Result<Linker<Host>> {
    let mut linker = Linker::<Host>::new(store.engine());
    linker.root().func_wrap_suspending_boxed("greet", |mut store: StoreContextMut<'_, Host>, (name,): (String,)| {
        Box::new(async move {
            let _dropped = store.data().log.on_drop("future");
            store.data_mut().id += 1;
            match name.as_str() {
                "error" => wasmtime::bail!("from the host"),
                "panic" => panic!("of the host"),
                "never" => std::future::pending::<()>().await,
                _ => pending(2).await,
            }
            Ok((format!("hello {name} {}", store.data().id),))
        })
    })?;
    Ok(linker)
}

type Run = AsyncFunc<(&'static str,), (String,)>;

fn greeter<K: Kind>(stack: &mut K::Stack, store: &mut Store<Host>) -> Result<(Instance, Run)> {
    let component = Component::new(store.engine(), GREETER)?;
    let linker = linker(store)?;
    let instance = finish(linker.instantiate_on(stack, store, &component))?;
    let run = instance.get_typed_func::<(&str,), (String,)>(&mut *store, "run")?.into();
    Ok((instance, run))
}

fn interleaved<K: Kind>(code: Code) -> Result<()> {
    let mut stacks: [_; 3] = std::array::from_fn(|_| stack::<K>());
    let mut stores: [_; 3] = std::array::from_fn(|_| store(code));
    let mut calls = Vec::new();
    for (stack, store) in stacks.iter_mut().zip(&mut stores) {
        let (_, run) = greeter::<K>(stack, store)?;
        calls.push(run.call(stack, store, ("anna",)));
    }
    for _ in 0..4 {
        for call in calls.iter_mut().rev() {
            assert!(poll_once(call).is_pending());
        }
    }
    for call in calls {
        assert_eq!(finish(call)?, ("hello hello anna 1 2".to_owned(),));
    }
    Ok(())
}

/// Calls that are dropped wherever they wait, and calls that an error, a panic or a trap ends.
fn cancelled<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    for polls in 0..=4 {
        let mut store = store(code);
        let log = store.data().log.clone();
        let (_, run) = greeter::<K>(&mut stack, &mut store)?;
        let mut call = run.call(&mut stack, &mut store, ("ben",));
        for _ in 0..polls {
            assert!(poll_once(&mut call).is_pending());
        }
        cancel(call);
        assert_eq!(log.take().len(), [0, 1, 1, 2, 2][polls]);
        assert_usable(&mut stack, &mut store)?;
        let again = finish(run.call(&mut stack, &mut store, ("ben",)));
        if polls == 0 {
            assert_eq!(again?.0, "hello hello ben 1 2");
        } else {
            assert_eq!(again.unwrap_err().downcast_ref(), Some(&Trap::CannotEnterComponent));
        }
    }
    for name in ["error", ""] {
        let mut store = store(code);
        let (_, run) = greeter::<K>(&mut stack, &mut store)?;
        let error = finish(run.call(&mut stack, &mut store, (name,))).unwrap_err();
        match name {
            "" => assert_eq!(error.downcast_ref(), Some(&Trap::UnreachableCodeReached), "{error:?}"),
            _ => assert_eq!(error.root_cause().to_string(), "from the host"),
        }
        assert_usable(&mut stack, &mut store)?;
    }
    let mut store = store(code);
    let (_, run) = greeter::<K>(&mut stack, &mut store)?;
    let mut call = run.call(&mut stack, &mut store, ("panic",));
    assert!(poll_caught(&mut call).is_err());
    drop(call);
    assert_usable(&mut stack, &mut store)?;
    // Without a stack, it is the same error as elsewhere.
    let mut other = crate::support::guest::store(code);
    let (_, run) = greeter::<K>(&mut stack, &mut other)?;
    let error = run.as_typed().call(&mut other, ("x",)).unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(Error::NotOnStack)), "{error:?}");
    Ok(())
}

/// Guest and host only know the types at run time.
fn untyped<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let mut linker = Linker::<Host>::new(store.engine());
    linker.root().func_new_suspending_boxed(
        "greet",
        |mut store: StoreContextMut<'_, Host>, ty, params: &[Val], results: &mut [Val]| {
            Box::new(async move {
                assert_eq!((ty.params().len(), ty.results().len()), (1, 1));
                let Val::String(name) = &params[0] else { panic!("{params:?}") };
                pending(1).await;
                store.data_mut().id += 1;
                results[0] = Val::String(format!("hi {name} {}", store.data().id));
                Ok(())
            })
        },
    )?;
    let pre = linker.instantiate_pre(&Component::new(store.engine(), GREETER)?)?;
    let instance = finish(pre.instantiate_on(&mut stack, &mut store))?;
    let run: Func = instance.get_func(&mut store, "run").expect("is exported");
    let mut results = [Val::Bool(false)];
    let params = [Val::String("carl".to_owned())];
    let mut call = run.call_on(&mut stack, &mut store, &params, &mut results);
    for _ in 0..2 {
        assert!(poll_once(&mut call).is_pending());
    }
    finish(call)?;
    assert_eq!(results, [Val::String("hi hi carl 1 2".to_owned())]);
    let error = finish(run.call_on(&mut stack, &mut store, &[], &mut [])).unwrap_err();
    assert!(error.to_string().contains("argument"), "{error:?}");
    Ok(())
}

/// Code that runs when a core module within a component is instantiated may wait, too.
fn start_functions<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let component = Component::new(
        store.engine(),
        r#"(component
            (import "wait" (func $wait (result u32)))
            (core func $wait (canon lower (func $wait)))
            (core module $guest
                (import "" "wait" (func $wait (result i32)))
                (global $level (mut i32) (i32.const 0))
                (func $start (global.set $level (call $wait)))
                (start $start)
                (func (export "level") (result i32) (global.get $level)))
            (core instance $guest (instantiate $guest (with "" (instance (export "wait" (func $wait))))))
            (func (export "level") (result u32) (canon lift (core func $guest "level"))))"#,
    )?;
    let mut linker = Linker::<Host>::new(store.engine());
    linker.root().func_wrap_suspending_send("wait", |_store: StoreContextMut<'_, Host>, (): ()| async {
        pending(2).await;
        Ok((42_u32,))
    })?;
    let mut call = linker.instantiate_on(&mut stack, &mut store, &component);
    for _ in 0..2 {
        assert!(poll_once(&mut call).is_pending());
    }
    let instance = finish(call)?;
    let level = AsyncFunc::from(instance.get_typed_func::<(), (u32,)>(&mut store, "level")?);
    assert_eq!(finish(level.call(&mut stack, &mut store, ()))?, (42,));

    let mut call = linker.instantiate_on(&mut stack, &mut store, &component);
    assert!(poll_once(&mut call).is_pending());
    cancel(call);
    assert_usable(&mut stack, &mut store)
}

fn post_return<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let (instance, run) = greeter::<K>(&mut stack, &mut store)?;
    let returned = AsyncFunc::from(instance.get_typed_func::<(), (u32,)>(&mut store, "returned")?);
    for times in 1..4 {
        finish(run.call(&mut stack, &mut store, ("dora",)))?;
        assert_eq!(finish(returned.call(&mut stack, &mut store, ()))?, (times,));
    }
    Ok(())
}

/// A component that calls its host function once.
pub(super) const OUTER: &str = r#"(component
    (import "nest" (func $nest (result u32)))
    (core func $nest (canon lower (func $nest)))
    (core module $guest
        (import "" "nest" (func $nest (result i32)))
        (func (export "run") (result i32) (call $nest)))
    (core instance $guest (instantiate $guest (with "" (instance (export "nest" (func $nest))))))
    (func (export "run") (result u32) (canon lift (core func $guest "run"))))"#;

/// A host function instantiates another component in its store and calls it, and both wait.
#[cfg_attr(call_hook, allow(dead_code, reason = "nested calls are an error there"))]
fn other_components_within<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let greeters = linker(&store)?;
    let greeter = Component::new(store.engine(), GREETER)?;
    let mut linker = Linker::<Host>::new(store.engine());
    linker.root().func_wrap_suspending_boxed("nest", move |mut store: StoreContextMut<'_, Host>, (): ()| {
        let (greeters, greeter) = (greeters.clone(), greeter.clone());
        Box::new(async move {
            let instance = greeters.instantiate_within(&mut store, &greeter).await?;
            let run: Run = instance.get_typed_func::<(&str,), (String,)>(&mut store, "run")?.into();
            pending(1).await;
            let (greeting,) = run.call_within(&mut store, ("emil",)).await?;
            if !K::IN_PLACE {
                // Dropping one call affects nothing else.
                let never = run.call_within(&mut store, ("never",));
                futures::future::select(never, Box::pin(pending(3))).await;
                pending(1).await;
            }
            Ok((u32::try_from(greeting.len())?,))
        })
    })?;
    let component = Component::new(store.engine(), OUTER)?;
    let instance = finish(linker.instantiate_on(&mut stack, &mut store, &component))?;
    let run = AsyncFunc::from(instance.get_typed_func::<(), (u32,)>(&mut store, "run")?);
    let expected = u32::try_from("hello hello emil 1 2".len())?;
    assert_eq!(finish(run.call(&mut stack, &mut store, ()))?, (expected,));
    assert_usable(&mut stack, &mut store)
}

/// A component that is calling its host may be entered again. If this does not end by itself, it ends when there is no
/// room left.
#[cfg_attr(call_hook, allow(dead_code, reason = "nested calls are an error there"))]
fn the_same_component_within<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let exported = Arc::new(OnceLock::<AsyncFunc<(), (u32,)>>::new());
    let mut linker = Linker::<Host>::new(store.engine());
    let itself = Arc::clone(&exported);
    linker.root().func_wrap_suspending_boxed("nest", move |mut store: StoreContextMut<'_, Host>, (): ()| {
        let run = *itself.get().expect("was set");
        Box::new(async move {
            store.data_mut().id -= 1;
            pending(1).await;
            if store.data().id == 0 {
                return Ok((7_u32,));
            }
            let (result,) = run.call_within(&mut store, ()).await?;
            Ok((result + 1,))
        })
    })?;
    let component = Component::new(store.engine(), OUTER)?;
    let instance = finish(linker.instantiate_on(&mut stack, &mut store, &component))?;
    let run = AsyncFunc::from(instance.get_typed_func::<(), (u32,)>(&mut store, "run")?);
    exported.set(run).expect("is set once");
    store.data_mut().id = 5;
    assert_eq!(finish(run.call(&mut stack, &mut store, ()))?, (7 + 4,));
    store.data_mut().id = -1;
    assert_overflow(finish(run.call(&mut stack, &mut store, ())));
    assert_usable(&mut stack, &mut store)
}

/// The futures of async closures may hold what is not `Send`.
fn async_closures<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let mut linker = Linker::<Host>::new(store.engine());
    linker.root().func_wrap_suspending(
        "greet",
        async |mut store: StoreContextMut<'_, Host>, (name,): (String,)| -> Result<(String,)> {
            let local = std::rc::Rc::new(1);
            pending(1).await;
            store.data_mut().id += *local;
            Ok((format!("hey {name} {}", store.data().id),))
        },
    )?;
    let component = Component::new(store.engine(), GREETER)?;
    let instance = finish(linker.instantiate_on(&mut stack, &mut store, &component))?;
    let run: Run = instance.get_typed_func::<(&str,), (String,)>(&mut store, "run")?.into();
    assert_eq!(finish(run.call(&mut stack, &mut store, ("fred",)))?, ("hey hey fred 1 2".to_owned(),));

    let mut linker = Linker::<Host>::new(store.engine());
    linker.root().func_new_suspending(
        "greet",
        async |_store: StoreContextMut<'_, Host>, _ty, params: &[Val], results: &mut [Val]| -> Result<()> {
            let local = std::rc::Rc::new(params[0].clone());
            pending(1).await;
            results[0] = (*local).clone();
            Ok(())
        },
    )?;
    let instance = finish(linker.instantiate_on(&mut stack, &mut store, &component))?;
    let run: Run = instance.get_typed_func::<(&str,), (String,)>(&mut store, "run")?.into();
    assert_eq!(finish(run.call(&mut stack, &mut store, ("gerd",)))?, ("gerd".to_owned(),));
    Ok(())
}
