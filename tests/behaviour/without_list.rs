//! Systems where wasmtime's list of activations cannot be read: a hook in the store counts entries instead.

use crate::common::futures::{finish, pending};
use crate::support::guest::{assert_refused, assert_usable, export_of, runner, stack, store};
use crate::support::{Code, Host, Kind, matrix};
use wasmtime::{Caller, Func, Result};
use wasmtime_async::{Between, Error, FuncExt, Store};

matrix!(by_new: nested_calls);
matrix!(local: another_hook);

const GUEST: &str = r#"(module
    (import "" "back" (func $back))
    (func (export "nothing"))
    (func (export "run") (call $back)))"#;

/// Nested calls need the list itself. (A thread's stack needs nothing.)
fn nested_calls<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let back = Func::wrap_suspending_boxed(&mut store, |mut caller: Caller<'_, Host>, (): ()| {
        Box::new(async move {
            let nothing = export_of(&mut caller, "nothing").get_async(&caller).get0::<()>()?;
            let result = nothing.call_within(&mut caller, ()).await;
            match result {
                Ok(()) => assert!(K::ANYTHING),
                Err(error) => assert!(matches!(error.downcast_ref(), Some(Error::NoThreadList)), "{error:?}"),
            }
            pending(1).await;
            Ok::<_, wasmtime::Error>(())
        })
    });
    let run = runner(&mut store, GUEST, [back])?;
    finish(run.call_on(&mut stack, &mut store, &[], &mut []))?;
    assert_usable(&mut stack, &mut store)
}

/// A store whose hook was replaced counts nothing, so its guests cannot wait until it has its hook again.
fn another_hook<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let back = Func::wrap_suspending(&mut store, async || pending(1).await);
    let run = runner(&mut store, GUEST, [back])?;
    finish(run.call_on(&mut stack, &mut store, &[], &mut []))?;
    store.call_hook(|_, _| Ok(()));
    let result = finish(run.call_on(&mut stack, &mut store, &[], &mut []));
    if K::ANYTHING {
        result?;
    } else {
        assert_refused(result, Between::Unseen);
    }
    let mut store = Store::from(store.into_inner());
    finish(run.call_on(&mut stack, &mut store, &[], &mut []))?;
    assert_usable(&mut stack, &mut store)
}
