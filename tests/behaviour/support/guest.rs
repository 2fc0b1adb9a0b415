//! Stores, stacks and guests that are ready for use.

use super::{Code, Host, Kind};
use crate::common::futures::{finish, pending, poll_once};
use std::fmt::{self, Write};
use std::task::Poll;
use wasmtime::{Caller, Config, Engine, Extern, Func, Instance, Module, Result, Trap};
use wasmtime_async::{Between, Carries, DEFAULT_STACK_SIZE, Error, FuncExt, Stack, Store};

pub(crate) fn store(code: Code) -> Store<Host> {
    Store::new(&code.engine(), Host::default())
}

/// A store whose engine has this configuration.
pub(crate) fn with(code: Code, configure: impl FnOnce(&mut Config)) -> Result<Store<Host>> {
    let mut config = code.config();
    configure(&mut config);
    Ok(Store::new(&Engine::new(&config)?, Host::default()))
}

pub(crate) fn stack<K: Kind>() -> K::Stack {
    K::stack_of(DEFAULT_STACK_SIZE).expect("there is memory")
}

/// Instantiates a module, given as text, with these functions as imports, in this order.
pub(crate) fn guest<T>(store: &mut Store<T>, text: &str, imports: impl IntoIterator<Item = Func>) -> Result<Instance> {
    let module = Module::new(store.engine(), text)?;
    let imports: Vec<_> = imports.into_iter().map(Into::into).collect();
    Instance::new(store, &module, &imports)
}

/// The export of the instance with this name.
pub(crate) fn export<T>(store: &mut Store<T>, instance: &Instance, name: &str) -> Func {
    instance.get_func(store, name).unwrap_or_else(|| panic!("the guest exports `{name}`"))
}

/// The export of the calling guest with this name.
pub(crate) fn export_of<T>(caller: &mut Caller<'_, T>, name: &str) -> Func {
    caller.get_export(name).and_then(Extern::into_func).unwrap_or_else(|| panic!("the guest exports `{name}`"))
}

/// A guest's function `run`, without parameters and results.
pub(crate) fn runner<T>(store: &mut Store<T>, text: &str, imports: impl IntoIterator<Item = Func>) -> Result<Func> {
    let instance = guest(store, text, imports)?;
    Ok(export(store, &instance, "run"))
}

/// A guest that calls its only import.
pub(crate) const ONCE: &str = r#"(module (import "" "" (func)) (func (export "run") (call 0)))"#;

/// A guest that passes its parameters to its import, and returns the results of that.
pub(crate) fn passes_on(params: &str, results: &str) -> String {
    let mut gets = String::new();
    for n in 0..params.split_terminator(';').count() {
        write!(gets, "(local.get {n})").expect("strings take all");
    }
    let params = params.replace(';', " ");
    format!(
        r#"(module
            (import "" "" (func $host (param {params}) (result {results})))
            (func (export "run") (param {params}) (result {results}) (call $host {gets})))"#
    )
}

/// A host function that is pending this many times, registered in the usual way for this kind of stack.
pub(crate) fn waits<K: Kind, T: 'static>(store: &mut Store<T>, times: usize) -> Func {
    if K::MOVES {
        Func::wrap_suspending_send(store, move || pending(times))
    } else {
        Func::wrap_suspending(store, async move || pending(times).await)
    }
}

/// Checks that a call with a few suspensions ends correctly on this stack, with this store.
#[track_caller]
pub(crate) fn assert_usable<S: Stack + Carries<T>, T: 'static>(stack: &mut S, store: &mut Store<T>) -> Result<()> {
    let wait = Func::wrap_suspending_send(&mut *store, |n: i32| async move {
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

/// Checks that this was refused because of these frames, and that the error says what to do instead.
#[track_caller]
pub(crate) fn assert_refused<R: fmt::Debug>(result: Result<R>, expected: Between) {
    let error = result.expect_err("cannot be suspended");
    match error.downcast_ref() {
        Some(Error::ForeignFrames { between, .. }) => assert_eq!(*between, expected, "{error:?}"),
        other => panic!("{other:?}: {error:?}"),
    }
    let text = format!("{error:?}");
    for word in [&*expected.to_string(), "async host function", "ThreadStack", "FiberStack::unchecked"] {
        assert!(text.contains(word), "`{word}` is missing: {text}");
    }
}

#[track_caller]
pub(crate) fn assert_overflow<R: fmt::Debug>(result: Result<R>) {
    let error = result.expect_err("recurses without end");
    assert_eq!(error.downcast_ref(), Some(&Trap::StackOverflow), "{error:?}");
}
