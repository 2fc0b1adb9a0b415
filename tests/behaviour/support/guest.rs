//! Stores, stacks and guests, ready for use.

use super::{AnyStack, Code, Host};
use crate::common::futures::{finish, pending, poll_once};
use std::task::Poll;
use wasmtime::{Func, Instance, Module, Result, Store};
use wasmtime_async::{Carries, DEFAULT_STACK_SIZE, FuncExt};

pub(crate) fn store(code: Code) -> Store<Host> {
    Store::new(&code.engine(), Host::default())
}

pub(crate) fn stack<S: AnyStack>() -> S {
    S::new(DEFAULT_STACK_SIZE).expect("there is memory")
}

/// Instantiates a module, given as text, that imports these functions, in this order.
pub(crate) fn guest<T>(store: &mut Store<T>, text: &str, imports: impl IntoIterator<Item = Func>) -> Result<Instance> {
    let module = Module::new(store.engine(), text)?;
    let imports: Vec<_> = imports.into_iter().map(Into::into).collect();
    Instance::new(store, &module, &imports)
}

/// What the instance exports by that name.
pub(crate) fn export<T>(store: &mut Store<T>, instance: &Instance, name: &str) -> Func {
    instance.get_func(store, name).unwrap_or_else(|| panic!("the guest exports `{name}`"))
}

/// A guest's function `run`, without parameters and results.
pub(crate) fn runner<T>(store: &mut Store<T>, text: &str, imports: impl IntoIterator<Item = Func>) -> Result<Func> {
    let instance = guest(store, text, imports)?;
    Ok(export(store, &instance, "run"))
}

/// Checks that a call that suspends a few times comes out right on this stack, with this store.
pub(crate) fn assert_usable<S: AnyStack + Carries<T>, T: 'static>(stack: &mut S, store: &mut Store<T>) -> Result<()> {
    let wait = Func::wrap_suspending(&mut *store, async |n: i32| {
        pending(2).await;
        n + 1
    });
    let text = r#"(module
        (import "" "" (func $wait (param i32) (result i32)))
        (func (export "run") (param i32) (result i32)
            (i32.mul (call $wait (local.get 0)) (call $wait (i32.add (local.get 0) (i32.const 1))))))"#;
    let run = runner(store, text, [wait])?.get_async(&*store).get1::<i32, i32>()?;
    for n in [3, 4] {
        let mut call = run.call(stack, store, (n,));
        for _ in 0..4 {
            assert!(matches!(poll_once(&mut call), Poll::Pending));
        }
        assert_eq!(finish(call)?, (n + 1) * (n + 2));
    }
    Ok(())
}
