//! Host code of all kinds that waits, or that calls the guest again, which waits. Waiting would suspend that code.

use crate::{Around, Checked, Ways, assert_usable, checked, finish, pending, poll_once, refused, run, stack};
use std::task::Poll;
use wasmtime::{Caller, Engine, Func, ResourceLimiter, Result, Val};
use wasmtime_async::{Between, Carries, Error, FuncExt, Store, suspend_until};

checked!(
    by_a_synchronous_host_function,
    by_a_closure,
    by_an_async_host_function,
    by_an_async_host_function_before_its_future,
    by_two_host_functions_within_each_other,
    by_a_limiter,
);

fn by_a_synchronous_host_function<S: Checked>() -> Result<()> {
    let mut store = Store::new(&Engine::default(), ());
    let ways = Ways::new(&mut store)?;
    let host =
        Func::wrap(&mut store, move |mut caller: Caller<'_, ()>| ways.try_all(&mut caller, Around::HostFunction));
    let mut stack = stack::<S>();
    run(&mut stack, &mut store, host)?;
    let run = crate::calls_twice(&mut store, host)?;
    assert_eq!(finish(run.call(&mut stack, &mut store, ()))?, 42);
    assert_usable(&mut stack, &mut store)
}

fn by_a_closure<S: Checked>() -> Result<()> {
    let mut store = Store::new(&Engine::default(), ());
    let ways = Ways::new(&mut store)?;
    let mut stack = stack::<S>();
    let mut call = stack.run_send(&mut store, move |mut store| {
        ways.try_all(&mut store, Around::Closure);
        Ok(5)
    });
    assert!(matches!(poll_once(&mut call), Poll::Ready(Ok(5))));
    drop(call);
    assert_usable(&mut stack, &mut store)
}

/// Waits in the middle of a poll, which holds references to what the stack has lent.
fn by_an_async_host_function<S: Checked>() -> Result<()> {
    let mut store = Store::new(&Engine::default(), ());
    let ways = Ways::new(&mut store)?;
    let host = Func::wrap_suspending_boxed(&mut store, move |mut caller: Caller<'_, ()>, (): ()| {
        let ways = ways.clone();
        Box::new(async move {
            for _ in 0..2 {
                assert_eq!(refused(ways.wait.call(&mut caller, &[], &mut [])), Between::Poll);
                assert_eq!(refused(ways.again.call(&mut caller, &[], &mut [])), Between::Poll);
                assert_eq!(refused(suspend_until(pending(1))), Between::HostCode);
                pending(1).await;
            }
        })
    });
    let run = crate::calls(&mut store, host)?;
    let mut stack = stack::<S>();
    let mut call = run.call(&mut stack, &mut store, ());
    for _ in 0..4 {
        assert!(poll_once(&mut call).is_pending());
    }
    assert_eq!(finish(call)?, 42);
    assert_usable(&mut stack, &mut store)
}

/// Before and after the wait for its future, an async host function is synchronous code.
fn by_an_async_host_function_before_its_future<S: Checked>() -> Result<()> {
    struct AtTheEnd<'a>(Caller<'a, ()>, Ways);
    impl Drop for AtTheEnd<'_> {
        fn drop(&mut self) {
            self.1.try_all(&mut self.0, Around::Poll);
        }
    }

    let mut store = Store::new(&Engine::default(), ());
    let ways = Ways::new(&mut store)?;
    let before = ways.clone();
    let host = Func::wrap_suspending_send(&mut store, move |mut caller: Caller<'_, ()>| {
        before.try_all(&mut caller, Around::HostFunction);
        pending(0)
    });
    let mut stack = stack::<S>();
    run(&mut stack, &mut store, host)?;

    let host = Func::wrap_suspending_boxed(&mut store, move |caller: Caller<'_, ()>, (): ()| {
        let at_the_end = AtTheEnd(caller, ways.clone());
        let mut polled = false;
        // This future is dropped, together with what it holds, in the poll in which it is ready.
        Box::new(std::future::poll_fn(move |cx| {
            let _held = &at_the_end;
            cx.waker().wake_by_ref();
            if std::mem::replace(&mut polled, true) { Poll::Ready(()) } else { Poll::Pending }
        }))
    });
    let run = crate::calls(&mut store, host)?;
    let mut call = run.call(&mut stack, &mut store, ());
    for _ in 0..3 {
        assert!(poll_once(&mut call).is_pending());
    }
    assert_eq!(finish(call)?, 42);
    assert_usable(&mut stack, &mut store)
}

fn by_two_host_functions_within_each_other<S: Checked>() -> Result<()> {
    let mut store = Store::new(&Engine::default(), ());
    let ways = Ways::new(&mut store)?;
    let inner =
        Func::wrap(&mut store, move |mut caller: Caller<'_, ()>| ways.try_all(&mut caller, Around::HostFunction));
    let guest = r#"(module (import "" "" (func $inner)) (func (export "outer") (call $inner)))"#;
    let outer = crate::instance(&mut store, guest, &[inner])?.get_typed_func::<(), ()>(&mut store, "outer")?;
    let host = Func::wrap(&mut store, move |mut caller: Caller<'_, ()>| outer.call(&mut caller, ()));
    let mut stack = stack::<S>();
    run(&mut stack, &mut store, host)?;
    assert_usable(&mut stack, &mut store)
}

/// Waits when it is asked, which it must not do.
#[derive(Default)]
struct Waits(Vec<Between>);

impl ResourceLimiter for Waits {
    fn memory_growing(&mut self, _: usize, _: usize, _: Option<usize>) -> Result<bool> {
        if let Err(Error::ForeignFrames { between, .. }) = suspend_until(pending(1)) {
            self.0.push(between);
        }
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, _: usize, _: Option<usize>) -> Result<bool> {
        Ok(true)
    }
}

fn by_a_limiter<S: Checked + Carries<Waits>>() -> Result<()> {
    let mut store = Store::new(&Engine::default(), Waits::default());
    store.limiter(|waits| waits);
    let guest = r#"(module
        (memory 0 9)
        (func (export "grow") (result i32) (memory.grow (i32.const 1))))"#;
    let grow = crate::instance(&mut store, guest, &[])?.get_func(&mut store, "grow").expect("is exported");
    store.data_mut().0.clear();
    let mut stack = stack::<S>();
    let mut results = [Val::I32(-1)];
    let mut call = grow.call_on(&mut stack, &mut store, &[], &mut results);
    assert!(matches!(poll_once(&mut call), Poll::Ready(Ok(()))));
    drop(call);
    assert_eq!(results[0].unwrap_i32(), 0);
    assert_eq!(store.data().0, [Between::HostCode]);
    assert_usable(&mut stack, &mut store)
}
