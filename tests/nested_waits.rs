//! An async host function whose future, in the middle of a poll, calls the guest and is suspended there: the poll began
//! with one poller and goes on with another, or with none.
#![cfg(not(feature = "loom"))]

use futures::task::noop_waker_ref;
use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use wasmtime::{AsContextMut, Caller, Engine, Func, Instance, Module, Store};
use wasmtime_async::{Carries, DEFAULT_SIZE, Error, FuncExt, Stack, yield_now};

/// What host functions share with the test.
#[derive(Clone, Default)]
struct World {
    /// The waker of the future that waits last.
    waker: Arc<Mutex<Option<Waker>>>,
    /// What that wait came to.
    result: Arc<Mutex<Option<Result<(), Error>>>>,
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A guest whose `outer` calls the host, which calls `inner`, which calls the host, which yields.
fn guest(store: &mut Store<World>, outer: Func) -> (Func, Func) {
    let module = r#"(module
        (import "" "outer" (func $outer))
        (import "" "inner" (func $inner))
        (func (export "outer") (call $outer))
        (func (export "inner") (call $inner)))"#;
    let module = Module::new(store.engine(), module).unwrap();
    let inner = Func::wrap(&mut *store, || -> wasmtime::Result<()> { Ok(yield_now()?) });
    let instance = Instance::new(&mut *store, &module, &[outer.into(), inner.into()]).unwrap();
    let mut export = |name| instance.get_func(&mut *store, name).unwrap();
    (export("outer"), export("inner"))
}

fn call_inner(mut caller: Caller<'_, World>) -> wasmtime::Result<()> {
    let inner = caller.get_export("inner").and_then(wasmtime::Extern::into_func).unwrap();
    inner.call(caller.as_context_mut(), &[], &mut [])
}

fn goes_on_with_the_waker_of_the_last_poll<S: Stack + Carries<World>>() {
    let mut store = Store::new(&Engine::default(), World::default());
    let world = store.data().clone();
    let outer = Func::wrap_suspending(&mut store, async |caller: Caller<'_, World>| {
        let waker = Arc::clone(&caller.data().waker);
        call_inner(caller)?;
        // Waits for the test, in the same poll in which it was suspended by way of `inner`.
        poll_fn(|cx| {
            *waker.lock().unwrap() = Some(cx.waker().clone());
            Poll::<wasmtime::Result<()>>::Pending
        })
        .await
    });
    let (outer, _) = guest(&mut store, outer);
    let mut stack = S::new(DEFAULT_SIZE).unwrap();
    let mut call = pin!(outer.call_on(&mut stack, &mut store, &[], &mut []));

    let (first, second) = (Arc::<Count>::default(), Arc::<Count>::default());
    for count in [&first, &second] {
        assert!(call.as_mut().poll(&mut Context::from_waker(&Waker::from(count.clone()))).is_pending());
    }
    assert_eq!(first.0.load(Ordering::Relaxed), 1, "woken by `yield_now`");
    world.waker.lock().unwrap().take().expect("the future waits").wake();
    assert_eq!(second.0.load(Ordering::Relaxed), 1, "the last poller is woken");
    assert_eq!(first.0.load(Ordering::Relaxed), 1, "the first one is not woken again");
}

fn does_not_suspend_after_it_was_cancelled<S: Stack + Carries<World>>() {
    let mut store = Store::new(&Engine::default(), World::default());
    let world = store.data().clone();
    let outer = Func::wrap_suspending(&mut store, async |caller: Caller<'_, World>| {
        let result = Arc::clone(&caller.data().result);
        let cancelled = call_inner(caller).unwrap_err();
        *result.lock().unwrap() = Some(Err(cancelled.downcast().unwrap()));
        // Pays no heed, and waits once more, in the same poll.
        pending::<()>().await;
    });
    let (outer, inner) = guest(&mut store, outer);
    let mut stack = S::new(DEFAULT_SIZE).unwrap();
    {
        let mut call = pin!(outer.call_on(&mut stack, &mut store, &[], &mut []));
        assert!(call.as_mut().poll(&mut Context::from_waker(noop_waker_ref())).is_pending());
    }
    assert!(matches!(*world.result.lock().unwrap(), Some(Err(Error::Cancelled))));
    // The call has ended, so that stack and store can be used.
    futures::executor::block_on(inner.call_on(&mut stack, &mut store, &[], &mut [])).unwrap();
    assert_eq!(Arc::strong_count(&world.result), 2, "the future was dropped");
}

macro_rules! on_each_stack {
    ($($test:ident),*) => {
        #[cfg(fiber_stack)]
        mod fiber {
            $(#[test]
            fn $test() {
                super::$test::<wasmtime_async::FiberStack>();
            })*
        }

        #[cfg(feature = "thread-backend")]
        mod thread {
            $(#[test]
            fn $test() {
                super::$test::<wasmtime_async::ThreadStack>();
            })*
        }
    };
}
on_each_stack!(goes_on_with_the_waker_of_the_last_poll, does_not_suspend_after_it_was_cancelled);
