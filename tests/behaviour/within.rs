//! Calls within calls as futures: an async host function calls its guest by `call_within`, and waits for it as for anything.
//!
//! On a fiber the host function's future is suspended like any other, with all that it does besides. On a `ThreadStack` the
//! nested call runs in place, within one poll.

mod cancelled;
mod collected;
mod composed;
mod deep;
mod endings;
mod forgotten;
mod misused;
mod synchronous;

use crate::common::futures::{pending, poll_once};
use crate::support::guest::{assert_usable, export_of, runner, stack, store};
use crate::support::{Code, Host, Kind, Log, matrix};
use std::fmt;
use std::future::Future;
use std::panic::resume_unwind;
use std::task::Poll;
use wasmtime::{AsContextMut, Caller, Func, FuncType, InstancePre, Linker, Module, Result, Val, ValType, format_err};
use wasmtime_async::{AsyncFunc, Error, FuncExt, InstancePreExt, LinkerExt, Store};

matrix!(
    guests_that_wait_or_do_not,
    one_after_the_other,
    untyped,
    with_signatures_known_at_run_time,
    instantiation,
    host_functions_called_without_a_guest,
    before_the_first_poll_and_after_the_end,
);

matrix!(local: async_closures);

/// What a test needs to know of how nested calls run.
pub(crate) trait Nests: Kind {
    /// Whether within one poll.
    const IN_PLACE: bool = false;
}

#[cfg(fiber_stack)]
impl Nests for crate::support::Fiber {}
#[cfg(fiber_stack)]
impl Nests for crate::support::Unchecked {}
#[cfg(thread_list)]
impl Nests for crate::support::SendFiber {}
#[cfg(feature = "thread-backend")]
impl Nests for crate::support::Thread {
    const IN_PLACE: bool = true;
}

/// Makes tests as [`matrix!`] does, on the stacks on which the host function's future is pending while a nested call is.
macro_rules! fibers {
    ($($test:ident),+ $(,)?) => {
        mod fibers {
            $crate::support::matrix!(@fiber [super::super::super] $($test),+);
            $crate::support::matrix!(@unchecked [super::super::super] $($test),+);
            $crate::support::matrix!(@send_fiber [super::super::super] $($test),+);
        }
    };
}
use fibers;

/// The same on the others.
macro_rules! in_place {
    ($($test:ident),+ $(,)?) => {
        mod in_place {
            $crate::support::matrix!(@thread [super::super::super] $($test),+);
        }
    };
}
use in_place;

/// A guest whose host functions are [`wait`] and `back`, which calls it again.
pub(crate) const GUEST: &str = r#"(module
    (import "" "wait" (func $wait (param i32) (result i32)))
    (import "" "back" (func $back (param i32) (result i32)))
    (func (export "nothing") (param i32) (result i32) (i32.add (local.get 0) (i32.const 7)))
    (func (export "inner") (param i32) (result i32) (i32.add (call $wait (local.get 0)) (i32.const 1)))
    (func (export "traps") (param i32) (result i32) (drop (call $wait (local.get 0))) unreachable)
    (func $recurse (export "recurse") (param i32) (result i32) (i32.add (call $recurse (local.get 0)) (i32.const 1)))
    (func (export "again") (param i32) (result i32) (i32.add (call $back (local.get 0)) (i32.const 1)))
    (func (export "run") (param i32) (result i32) (i32.add (call $back (local.get 0)) (call $wait (i32.const 1)))))"#;

/// What [`GUEST`]'s `run` adds, by waiting once.
pub(crate) const RUN: i32 = 10;

/// [`wait`]'s parameters for something else than to wait that many times.
pub(crate) const NEVER: i32 = -1;
pub(crate) const PANIC: i32 = -2;
pub(crate) const ERROR: i32 = -3;

/// A host function that waits as often as it is told, ten times which it returns.
pub(crate) fn wait(store: impl AsContextMut<Data = Host>) -> Func {
    Func::wrap_suspending_send(store, |caller: Caller<'_, Host>, n: i32| {
        let local = caller.data().log.on_drop("left wait");
        async move {
            let _local = local;
            match n {
                NEVER => std::future::pending().await,
                PANIC => {
                    pending(1).await;
                    // Like a panic that nothing is printed of.
                    resume_unwind(Box::new("of a nested guest's host function"))
                }
                ERROR => {
                    pending(1).await;
                    wasmtime::bail!("of a nested guest's host function")
                }
                _ => pending(usize::try_from(n)?).await,
            }
            Ok(10 * n)
        }
    })
}

/// The future of a host function that keeps its [`Caller`].
pub(crate) type Back<'a> = Box<dyn Future<Output = Result<i32>> + Send + 'a>;

/// `run` of a [`GUEST`] with this host function.
pub(crate) fn program(
    store: &mut Store<Host>,
    back: impl for<'a> Fn(Caller<'a, Host>, (i32,)) -> Back<'a> + Send + Sync + 'static,
) -> Result<AsyncFunc<i32, i32>> {
    let back = Func::wrap_suspending_boxed(&mut *store, back);
    program_of(store, back)
}

pub(crate) fn program_of(store: &mut Store<Host>, back: Func) -> Result<AsyncFunc<i32, i32>> {
    let wait = wait(&mut *store);
    runner(store, GUEST, [wait, back])?.get_async(&*store).typed()
}

/// A function that the guest that called exports.
pub(crate) fn func<T>(caller: &mut Caller<'_, T>, name: &str) -> AsyncFunc<i32, i32> {
    export_of(caller, name).get_async(&*caller).typed().expect("has this type")
}

/// Calls a function that the guest that called exports, and waits for it.
pub(crate) async fn call_back<T: Send>(caller: &mut Caller<'_, T>, name: &str, n: i32) -> Result<i32> {
    func(caller, name).call_within(caller, n).await
}

/// Polls to the end, and tells how many polls found it pending. There is nothing to wait for: each must bring it further.
#[track_caller]
pub(crate) fn end<F: Future + Unpin>(call: &mut F) -> (usize, F::Output) {
    for polls in 0..100_000 {
        if let Poll::Ready(output) = poll_once(call) {
            return (polls, output);
        }
    }
    panic!("this will never end");
}

/// Checks how many polls found a call pending: one for each wait, of whomever. In place, what is pending after its poll was
/// suspended in the middle is polled again at once, without a poll of the whole call.
#[track_caller]
pub(crate) fn assert_polls<K: Nests>(polls: usize, expected: usize) {
    assert!(polls == expected || K::IN_PLACE && (1..expected).contains(&polls), "{polls} polls instead of {expected}");
}

/// Says so when it is dropped.
pub(crate) struct Left(pub(crate) Log, pub(crate) String);

impl Drop for Left {
    fn drop(&mut self) {
        self.0.add(format!("left {}", self.1));
    }
}

#[track_caller]
pub(crate) fn assert_is<R: fmt::Debug>(result: Result<R>, is_it: impl FnOnce(&Error) -> bool) {
    let error = result.expect_err("cannot be");
    assert!(error.downcast_ref().is_some_and(is_it), "{error:?}");
}

/// Each wait, of the host function and of the guest that it calls, is one pending poll of the whole call.
fn guests_that_wait_or_do_not<K: Nests>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    for (before, after) in [(0, 0), (1, 0), (0, 1), (2, 2)] {
        let run = program(&mut store, move |mut caller, (n,)| {
            Box::new(async move {
                pending(before).await;
                let name = if n == 0 { "nothing" } else { "inner" };
                let result = call_back(&mut caller, name, n).await;
                pending(after).await;
                result
            })
        })?;
        for n in 0..4 {
            let mut call = run.call(&mut stack, &mut store, n);
            let (polls, result) = end(&mut call);
            assert_eq!(result?, RUN + if n == 0 { 7 } else { 10 * n + 1 });
            assert_polls::<K>(polls, before + usize::try_from(n)? + after + 1);
        }
    }
    assert_usable(&mut stack, &mut store)
}

fn one_after_the_other<K: Nests>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let run = program(&mut store, |mut caller, (n,)| {
        Box::new(async move {
            let mut sum = call_back(&mut caller, "inner", 1).await?;
            sum += call_back(&mut caller, "nothing", n).await?;
            pending(1).await;
            let inner = func(&mut caller, "inner");
            for waits in [2, 0, 3] {
                sum += inner.call_within(&mut caller, waits).await?;
                caller.data_mut().id += 1;
                pending(2).await;
                sum += inner.call_within(&mut caller, 0).await?;
            }
            Ok(sum + call_back(&mut caller, "nothing", n).await?)
        })
    })?;
    for n in 0..3 {
        let mut call = run.call(&mut stack, &mut store, n);
        let (polls, result) = end(&mut call);
        assert_eq!(result?, 11 + 7 + n + (21 + 1 + 31 + 3) + 7 + n + RUN);
        assert_polls::<K>(polls, 1 + 1 + (2 + 3) + 3 * 2 + 1);
        drop(call);
        assert_eq!(store.data().id, 3 * (n + 1));
    }
    assert_usable(&mut stack, &mut store)
}

fn untyped<K: Nests>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let run = program(&mut store, |mut caller, (n,)| {
        Box::new(async move {
            let inner = export_of(&mut caller, "inner");
            let log = caller.data().log.clone();
            log.take();
            let mut results = [Val::I64(5)];
            // What does not fit is found out before anything runs.
            assert!(inner.call_within(&mut caller, &[], &mut results).await.is_err());
            assert!(inner.call_within(&mut caller, &[Val::I64(n.into())], &mut results).await.is_err());
            assert!(inner.call_within(&mut caller, &[Val::I32(n)], &mut []).await.is_err());
            assert!(log.take().is_empty());
            FuncExt::call_within(&inner, &mut caller, &[Val::I32(n)], &mut results).await?;
            pending(1).await;
            Ok(results[0].unwrap_i32())
        })
    })?;
    for n in 0..3 {
        let (polls, result) = end(&mut run.call(&mut stack, &mut store, n));
        assert_polls::<K>(polls, usize::try_from(n)? + 2);
        assert_eq!(result?, 10 * n + 1 + RUN);
    }
    assert_usable(&mut stack, &mut store)
}

/// Of the host functions that call.
fn with_signatures_known_at_run_time<K: Nests>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let ty = FuncType::new(store.engine(), [ValType::I32], [ValType::I32]);
    let back = Func::new_suspending_boxed(&mut store, ty, |mut caller: Caller<'_, Host>, params, results| {
        Box::new(async move {
            let inner = export_of(&mut caller, "inner");
            inner.call_within(&mut caller, params, results).await?;
            results[0] = Val::I32(results[0].unwrap_i32() + call_back(&mut caller, "inner", 1).await?);
            Ok(())
        })
    });
    let run = program_of(&mut store, back)?;
    for n in 0..3 {
        let (polls, result) = end(&mut run.call(&mut stack, &mut store, n));
        assert_polls::<K>(polls, usize::try_from(n)? + 2);
        assert_eq!(result?, 10 * n + 1 + 11 + RUN);
    }
    assert_usable(&mut stack, &mut store)
}

/// Modules whose start function waits, or does not.
fn instantiation<K: Nests>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let run = program(&mut store, |mut caller, (n,)| {
        Box::new(async move {
            let engine = caller.engine().clone();
            let mut linker = Linker::<Host>::new(&engine);
            linker.func_wrap_suspending_send("", "wait", move || async move {
                pending(usize::try_from(n)?).await;
                Ok::<_, wasmtime::Error>(n)
            })?;
            let text = r#"(module
                (import "" "wait" (func $wait (result i32)))
                (global $got (mut i32) (i32.const 0))
                (func $start (global.set $got (i32.add (call $wait) (i32.const 1))))
                (start $start)
                (func (export "got") (param i32) (result i32) (i32.add (global.get $got) (call $wait))))"#;
            let module = Module::new(&engine, text)?;
            let mut sum = 0;
            let pre: InstancePre<Host> = linker.instantiate_pre(&module)?;
            let instances =
                [linker.instantiate_within(&mut caller, &module).await?, pre.instantiate_within(&mut caller).await?];
            for instance in instances {
                let got: AsyncFunc<i32, i32> = instance.get_typed_func(&mut caller, "got")?.into();
                sum += got.call_within(&mut caller, 0).await?;
            }
            // What is missing is found out before anything runs.
            assert!(Linker::new(&engine).instantiate_within(&mut caller, &module).await.is_err());
            Ok(sum)
        })
    })?;
    for n in 0..3 {
        let (polls, result) = end(&mut run.call(&mut stack, &mut store, n));
        assert_polls::<K>(polls, 4 * usize::try_from(n)? + 1);
        assert_eq!(result?, 2 * (2 * n + 1) + RUN);
    }
    assert_usable(&mut stack, &mut store)
}

/// Neither outside nor within.
fn host_functions_called_without_a_guest<K: Nests>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let wait = wait(&mut store);
    let inner = wait.get_async(&store).typed::<i32, i32>()?;
    let back = Func::wrap_suspending_boxed(&mut store, move |mut caller: Caller<'_, Host>, (n,): (i32,)| {
        let inner = inner.clone();
        Box::new(async move {
            pending(1).await;
            Ok::<_, wasmtime::Error>(inner.call_within(&mut caller, n).await? + 1)
        })
    });
    let back = back.get_async(&store).typed::<i32, i32>()?;
    for n in 0..3 {
        let (polls, result) = end(&mut back.call(&mut stack, &mut store, n));
        assert_polls::<K>(polls, usize::try_from(n)? + 1);
        assert_eq!(result?, 10 * n + 1);
    }
    assert_usable(&mut stack, &mut store)
}

fn before_the_first_poll_and_after_the_end<K: Nests>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let run = program(&mut store, |mut caller, (n,)| {
        Box::new(async move {
            let log = caller.data().log.clone();
            let inner = func(&mut caller, "inner");
            let unused = inner.call_within(&mut caller, n);
            assert_eq!(format!("{unused:?}"), "CallWithin { state: new, .. }");
            drop(unused);
            std::mem::forget(inner.call_within(&mut caller, n));
            pending(1).await;
            assert!(log.take().is_empty());

            let mut call = inner.call_within(&mut caller, n);
            let result = (&mut call).await;
            for _ in 0..2 {
                assert_eq!(format!("{call:?}"), "CallWithin { state: ended, .. }");
                assert_is((&mut call).await, |error| matches!(error, Error::Ended));
                pending(1).await;
            }
            assert_eq!(log.take(), ["left wait"]);
            result
        })
    })?;
    for n in 0..3 {
        let (polls, result) = end(&mut run.call(&mut stack, &mut store, n));
        assert_polls::<K>(polls, usize::try_from(n)? + 4);
        assert_eq!(result?, 10 * n + 1 + RUN);
        store.data().log.take();
    }
    assert_usable(&mut stack, &mut store)
}

/// Closures that have the [`Caller`] across an await without a box, in all the ways to make one.
fn async_closures<K: Nests>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let ty = FuncType::new(store.engine(), [ValType::I32], [ValType::I32]);
    let back = async |mut caller: Caller<'_, Host>, n: i32| -> Result<i32> {
        pending(1).await;
        let result = call_back(&mut caller, "inner", n).await?;
        pending(1).await;
        Ok(result + call_back(&mut caller, "inner", 0).await?)
    };
    let back_untyped = async |mut caller: Caller<'_, Host>, params: &[Val], results: &mut [Val]| -> Result<()> {
        pending(1).await;
        let inner = export_of(&mut caller, "inner");
        inner.call_within(&mut caller, params, results).await?;
        pending(1).await;
        results[0] = Val::I32(results[0].unwrap_i32() + call_back(&mut caller, "inner", 0).await?);
        Ok(())
    };
    let mut linker = Linker::new(store.engine());
    linker.func_wrap_suspending("", "wrap", back)?;
    linker.func_new_suspending("", "new", ty.clone(), back_untyped)?;
    let mut linked = |name| linker.get(&mut store, "", name)?.into_func().ok_or(format_err!("was defined as one"));
    let backs = [
        linked("wrap")?,
        linked("new")?,
        Func::wrap_suspending(&mut store, back),
        Func::new_suspending(&mut store, ty, back_untyped),
    ];
    for back in backs {
        let run = program_of(&mut store, back)?;
        for n in 0..3 {
            let (polls, result) = end(&mut run.call(&mut stack, &mut store, n));
            assert_polls::<K>(polls, usize::try_from(n)? + 3);
            assert_eq!(result?, 10 * n + 1 + 1 + RUN);
        }
        assert_usable(&mut stack, &mut store)?;
    }
    Ok(())
}
