//! Components that wasmtime's synchronous functions call, in closures of [`Stack::run`].

use super::GREETER;
use crate::common::futures::{finish, pending, poll_once};
use crate::support::guest::{assert_usable, stack};
use crate::support::{Code, Host, Kind, matrix};
use wasmtime::component::{Component, Linker};
use wasmtime::{Result, Trap};
use wasmtime_async::{Error, Stack, Store, suspend_until, yield_now};

matrix!(anything: components_that_wait);

/// Components whose host functions wait.
fn components_that_wait<K: Kind>(code: Code) -> Result<()> {
    let mut stacks = [stack::<K>(), stack::<K>()];
    let engine = code.engine();
    let component = Component::new(&engine, GREETER)?;
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
        assert_eq!(greeting, format!("hello hello hello hello {name} 1 2 3 4"));
        runs.push(run);
    }

    // A trap, an error of the host, and a dropped call. After each, the component is not entered again.
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
    // Without a stack, it is the same error as elsewhere.
    let error = runs[0].call(&mut stores[0], ("x",)).unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(Error::NotOnStack)), "{error:?}");
    Ok(())
}
