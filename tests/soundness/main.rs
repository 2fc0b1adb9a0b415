//! Safe programs that would be undefined behaviour if a stack were suspended in the middle of them. They get the right
//! error, and everything else continues.
//!
//! Each test is written once, and [`checked!`] makes one for each kind of stack that suspends only known frames.
#![cfg(all(fiber_stack, not(feature = "loom")))]
#![forbid(unsafe_code)]
#![allow(clippy::unnecessary_wraps, reason = "all tests have one signature")]

mod destructors;
mod forgotten;
mod guests;
mod locks;
mod other_stacks;
mod send;
mod thread_locals;
mod threads;
mod wakers;
mod wasmtimes_own;
#[path = "../common/watchdog.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod watchdog;

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use wasmtime::{AsContextMut, Engine, Func, Instance, Module, Result};
use wasmtime_async::{
    AsyncFunc, Between, Carries, DEFAULT_STACK_SIZE, Error, FiberStack, FuncExt, SendFiberStack, Stack, Store,
    suspend_until, yield_now,
};

/// A stack that suspends only known frames.
trait Checked: Stack + Carries<()> + Send + 'static {}
impl Checked for FiberStack {}
impl Checked for SendFiberStack {}

/// Makes tests from functions `fn name<S: Checked>() -> wasmtime::Result<()>`.
macro_rules! checked {
    ($($test:ident),+ $(,)?) => {
        mod fiber_stack {
            $crate::checked!(@tests wasmtime_async::FiberStack, $($test),+);
        }

        mod send_fiber_stack {
            $crate::checked!(@tests wasmtime_async::SendFiberStack, $($test),+);
        }
    };
    (@tests $stack:ty, $($test:ident),+) => {
        $(
            #[test]
            fn $test() -> wasmtime::Result<()> {
                $crate::watchdog::watched(|_| {
                    // On a new thread, whose thread-local variables are unused.
                    let test = std::thread::spawn(super::$test::<$stack>);
                    test.join().unwrap_or_else(|payload| std::panic::resume_unwind(payload))
                })
            }
        )+
    };
}
use checked;

fn stack<S: Checked>() -> S {
    S::new(DEFAULT_STACK_SIZE).expect("there is memory")
}

/// Pending for `times` polls. Each of them wakes the task.
fn pending(mut times: usize) -> impl Future<Output = ()> + Send {
    poll_fn(move |cx| {
        if times == 0 {
            return Poll::Ready(());
        }
        times -= 1;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
}

/// Polls once, with a waker that does nothing.
fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Polls until the future is ready.
fn finish<F: Future + Unpin>(mut future: F) -> F::Output {
    loop {
        if let Poll::Ready(output) = poll_once(&mut future) {
            return output;
        }
    }
}

/// Instantiates a module with these functions as imports, in this order.
fn instance(store: &mut impl AsContextMut<Data: 'static>, text: &str, imports: &[Func]) -> Result<Instance> {
    let module = Module::new(store.as_context().engine(), text)?;
    let imports: Vec<_> = imports.iter().map(|func| (*func).into()).collect();
    Instance::new(store, &module, &imports)
}

/// A guest that calls `host` and then waits twice. This detects whether `host` was suspended, and whether its attempts
/// have changed the stack.
fn calls<T: 'static>(store: &mut Store<T>, host: Func) -> Result<AsyncFunc<(), i32>> {
    guest(store, host, "(call $host) (call $wait (call $wait (i32.const 40)))")
}

/// The same, but `host` is also called between the two waits, after the first suspension of the call.
fn calls_twice<T: 'static>(store: &mut Store<T>, host: Func) -> Result<AsyncFunc<(), i32>> {
    guest(store, host, "(call $host) (call $wait (i32.const 40)) (call $host) (call $wait)")
}

fn guest<T: 'static>(store: &mut Store<T>, host: Func, run: &str) -> Result<AsyncFunc<(), i32>> {
    let wait = Func::wrap_suspending_send(&mut *store, |n: i32| async move {
        pending(1).await;
        n + 1
    });
    let text = format!(
        r#"(module
            (import "" "" (func $host))
            (import "" "" (func $wait (param i32) (result i32)))
            (func (export "run") (result i32) {run}))"#
    );
    let instance = instance(store, &text, &[host, wait])?;
    Ok(AsyncFunc::from(instance.get_typed_func::<(), i32>(store, "run")?))
}

/// Runs a guest that waits twice and calls `host`, which does not suspend it.
fn run<S: Checked + Carries<T>, T: 'static>(stack: &mut S, store: &mut Store<T>, host: Func) -> Result<()> {
    let run = calls(store, host)?;
    let mut call = run.call(stack, store, ());
    for _ in 0..2 {
        assert!(poll_once(&mut call).is_pending());
    }
    let Poll::Ready(result) = poll_once(&mut call) else { panic!("it was suspended by something else") };
    assert_eq!(result?, 42);
    Ok(())
}

/// Checks that calls on this stack, with this store, end correctly.
fn assert_usable<S: Checked + Carries<T>, T: 'static>(stack: &mut S, store: &mut Store<T>) -> Result<()> {
    let nothing = Func::wrap(&mut *store, || ());
    run(stack, store, nothing)?;
    run(stack, store, nothing)
}

/// What kept the stack from being suspended.
fn refused<E: Into<wasmtime::Error>>(outcome: Result<(), E>) -> Between {
    let error = outcome.map_err(Into::into).expect_err("the stack was suspended");
    match error.downcast_ref() {
        Some(Error::ForeignFrames { between, .. }) => *between,
        _ => panic!("another error: {error:?}"),
    }
}

/// What code in the middle of something is part of.
#[derive(Clone, Copy)]
enum Around {
    HostFunction,
    /// The closure of `Stack::run`.
    Closure,
    /// The poll of a host function's future.
    Poll,
}

/// All ways to wait that code in the middle of something has.
#[derive(Clone)]
struct Ways {
    /// An async host function.
    wait: Func,
    /// A guest's function that calls `wait`.
    again: Func,
    /// A module whose start function is `wait`.
    starts: Module,
}

impl Ways {
    fn new(store: &mut impl AsContextMut<Data: 'static>) -> Result<Self> {
        let wait = Func::wrap_suspending_send(&mut *store, || pending(1));
        let guest = r#"(module (import "" "" (func $wait)) (func (export "again") (call $wait)))"#;
        let again = instance(store, guest, &[wait])?.get_func(&mut *store, "again").expect("is exported");
        let starts = r#"(module (import "" "" (func $wait)) (start $wait))"#;
        Ok(Self { wait, again, starts: Module::new(store.as_context().engine(), starts)? })
    }

    /// Tries all ways in synchronous code of a call, and checks that each is refused for the right reason.
    fn try_all(&self, store: &mut impl AsContextMut<Data: 'static>, around: Around) {
        let expect = |outcome: Result<()>, between| {
            let first = match around {
                Around::HostFunction => between,
                Around::Closure => Between::Closure,
                Around::Poll if between == Between::HostCode => between,
                Around::Poll => Between::Poll,
            };
            assert_eq!(refused(outcome), first);
        };
        expect(suspend_until(pending(1)).map_err(Into::into), Between::HostCode);
        expect(yield_now().map_err(Into::into), Between::HostCode);
        expect(Self::in_another_store(store.as_context().engine()), Between::OtherStore);
        expect(self.wait.call(&mut *store, &[], &mut []), Between::NestedCall);
        expect(self.again.call(&mut *store, &[], &mut []), Between::NestedCall);
        let started = Instance::new(&mut *store, &self.starts, &[self.wait.into()]);
        expect(started.map(drop), Between::NestedCall);
        // If there is nothing to wait for, waiting works everywhere.
        suspend_until(pending(0)).expect("is ready at once");
    }

    fn in_another_store(engine: &Engine) -> Result<()> {
        let mut other = wasmtime::Store::new(engine, ());
        let wait = Func::wrap_suspending_send(&mut other, || pending(1));
        wait.call(&mut other, &[], &mut [])
    }
}
