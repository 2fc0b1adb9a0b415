//! Nested calls as futures: an async host function calls its guest with `call_within`, and waits for it as for anything
//! else.
//!
//! On a fiber, the host function's future is suspended like any other, with everything else that it does. On a
//! `ThreadStack`, the nested call runs in place, within one poll.
#![cfg_attr(
    not(all(fiber_stack, feature = "thread-backend")),
    allow(dead_code, unused_imports, reason = "some tests are for fibers, some for threads")
)]

mod cancelled;
mod collected;
mod composed;
mod deep;
mod destructors;
mod endings;
mod forgotten;
mod misused;
mod plain;
mod refused;
mod sets;
mod synchronous;

use crate::common::futures::{pending, poll_once};
use crate::support::guest::{export_of, runner};
use crate::support::{Host, Kind, Log};
use std::fmt;
use std::future::Future;
use std::panic::resume_unwind;
use std::task::Poll;
use wasmtime::{AsContextMut, Caller, Func, Result};
use wasmtime_async::{AsyncFunc, Error, FuncExt, Store};

/// Makes tests like [`matrix!`], on the stacks where the host function's future is pending during a nested call.
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

/// Makes tests on the other stacks.
macro_rules! in_place {
    ($($test:ident),+ $(,)?) => {
        mod in_place {
            $crate::support::matrix!(@thread [super::super::super] $($test),+);
        }
    };
}
use in_place;

/// A guest whose host functions are [`wait`] and `back`, which calls the guest again.
pub(crate) const GUEST: &str = r#"(module
    (import "" "wait" (func $wait (param i32) (result i32)))
    (import "" "back" (func $back (param i32) (result i32)))
    (func (export "nothing") (param i32) (result i32) (i32.add (local.get 0) (i32.const 7)))
    (func (export "inner") (param i32) (result i32) (i32.add (call $wait (local.get 0)) (i32.const 1)))
    (func (export "traps") (param i32) (result i32) (drop (call $wait (local.get 0))) unreachable)
    (func $recurse (export "recurse") (param i32) (result i32) (i32.add (call $recurse (local.get 0)) (i32.const 1)))
    (func (export "again") (param i32) (result i32) (i32.add (call $back (local.get 0)) (i32.const 1)))
    (func (export "run") (param i32) (result i32) (i32.add (call $back (local.get 0)) (call $wait (i32.const 1)))))"#;

/// What [`GUEST`]'s `run` adds when it waits once.
pub(crate) const RUN: i32 = 10;

/// Parameters of [`wait`] that make it do something else than wait that many times.
pub(crate) const NEVER: i32 = -1;
pub(crate) const PANIC: i32 = -2;
pub(crate) const ERROR: i32 = -3;

/// A host function that waits as often as it is told, and returns ten times that number.
pub(crate) fn wait(store: impl AsContextMut<Data = Host>) -> Func {
    Func::wrap_suspending_send(store, |caller: Caller<'_, Host>, n: i32| {
        let local = caller.data().log.on_drop("left wait");
        async move {
            let _local = local;
            match n {
                NEVER => std::future::pending().await,
                PANIC => {
                    pending(1).await;
                    // Like a panic, but nothing is printed.
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

/// A function that the calling guest exports.
pub(crate) fn func<T>(caller: &mut Caller<'_, T>, name: &str) -> AsyncFunc<i32, i32> {
    export_of(caller, name).get_async(&*caller).typed().expect("has this type")
}

/// Calls a function that the calling guest exports, and waits for it.
pub(crate) async fn call_back<T: Send>(caller: &mut Caller<'_, T>, name: &str, n: i32) -> Result<i32> {
    func(caller, name).call_within(caller, n).await
}

/// Polls a call to its end, and returns how many polls found it pending. There is nothing to wait for, so each poll
/// must make progress.
#[track_caller]
pub(crate) fn end<F: Future + Unpin>(call: &mut F) -> (usize, F::Output) {
    for polls in 0..100_000 {
        if let Poll::Ready(output) = poll_once(call) {
            return (polls, output);
        }
    }
    panic!("this will never end");
}

/// Checks how many polls found a call pending: one for each wait, whoever waits. In place, a future that was suspended
/// in the middle of its poll is polled again at once, without a poll of the whole call.
#[track_caller]
pub(crate) fn assert_polls<K: Kind>(polls: usize, expected: usize) {
    assert!(polls == expected || K::IN_PLACE && (1..expected).contains(&polls), "{polls} polls instead of {expected}");
}

/// Logs when it is dropped.
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
