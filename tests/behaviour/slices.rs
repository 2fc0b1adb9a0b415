//! Time slices that wait for a future.

use crate::common::futures::{CountingWaker, cancel, finish, pending, poll_caught, poll_once};
use crate::support::guest::{assert_usable, runner, stack};
use crate::support::{Code, Host, Kind, matrix};
use crate::wakers::poll_with;
use futures::future::{Either, ready, select};
use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use wasmtime::{Engine, Func, Result, Trap};
use wasmtime_async::{AsyncFunc, Error, FuncExt, Store};

matrix!(
    waits_for_any_future,
    goes_on_when_ready,
    cancelled_in_a_slice,
    panics_in_a_slice,
    not_on_a_stack,
    turns_under_tokio,
);

#[cfg(unix)]
matrix!(checked: sockets_are_looked_at_under_tokio);

type Spinner = (Store<Host>, AsyncFunc<i32, i32>, Arc<AtomicUsize>);

/// A guest that advances the epoch in each turn of its loop. It waits between slices of `delta` turns. Also returns how
/// many slices have begun. The guest ends after the given number of turns, or never if that is 0.
fn spinner<F>(code: Code, delta: u64, mut wait: impl FnMut() -> F + Send + Sync + 'static) -> Result<Spinner>
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut store = Store::new(&Engine::new(code.config().epoch_interruption(true))?, Host::default());
    let slices = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&slices);
    store.set_epoch_deadline(delta);
    store.epoch_deadline_wait_and_update(delta, move || {
        counter.fetch_add(1, Ordering::Relaxed);
        wait()
    });
    let clock = store.engine().clone();
    let tick = Func::wrap(&mut store, move || clock.increment_epoch());
    let text = r#"(module
        (import "" "" (func $tick))
        (func (export "run") (param $times i32) (result i32)
            (local $count i32)
            (loop
                (call $tick)
                (local.set $count (i32.add (local.get $count) (i32.const 1)))
                (local.set $times (i32.sub (local.get $times) (i32.const 1)))
                (br_if 0 (local.get $times)))
            (local.get $count)))"#;
    let run = runner(&mut store, text, [tick])?.get_async(&store).typed::<i32, i32>()?;
    Ok((store, run, slices))
}

fn far(store: &mut Store<Host>) {
    store.set_epoch_deadline(1 << 40);
}

fn waits_for_any_future<K: Kind>(code: Code) -> Result<()> {
    let (mut store, run, slices) = spinner(code, 4, || pending(2))?;
    let mut stack = stack::<K>();
    let waker = CountingWaker::new();
    let mut call = run.call(&mut stack, &mut store, 10);
    // Slices of four turns: there are two ends of a slice, and the future is pending twice at each.
    for polls in 1..=4 {
        assert!(poll_with(&mut call, &waker).is_pending());
        assert_eq!(waker.woken(), polls, "by the future alone");
        assert_eq!(slices.load(Ordering::Relaxed), polls.div_ceil(2));
    }
    assert_eq!(finish(call)?, 10);
    far(&mut store);
    assert_usable(&mut stack, &mut store)
}

fn goes_on_when_ready<K: Kind>(code: Code) -> Result<()> {
    let (mut store, run, slices) = spinner(code, 1, || ready(()))?;
    let mut stack = stack::<K>();
    let mut call = run.call(&mut stack, &mut store, 100);
    assert!(matches!(poll_once(&mut call), Poll::Ready(Ok(100))));
    drop(call);
    assert!(slices.load(Ordering::Relaxed) >= 99);
    far(&mut store);
    assert_usable(&mut stack, &mut store)
}

fn cancelled_in_a_slice<K: Kind>(code: Code) -> Result<()> {
    let log = crate::support::Log::default();
    let waits = log.clone();
    let (mut store, run, slices) = spinner(code, 1, move || {
        let local = waits.on_drop("future dropped");
        async move {
            let _local = local;
            pending(usize::MAX).await;
        }
    })?;
    let mut stack = stack::<K>();
    for polls in [1, 3] {
        store.set_epoch_deadline(1);
        let mut call = run.call(&mut stack, &mut store, 0);
        for _ in 0..polls {
            assert!(poll_once(&mut call).is_pending());
        }
        assert!(log.take().is_empty());
        cancel(call);
        assert_eq!(log.take(), ["future dropped"]);
    }
    assert_eq!(slices.load(Ordering::Relaxed), 2, "the guest has no further turn");
    far(&mut store);
    assert_usable(&mut stack, &mut store)
}

fn panics_in_a_slice<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    for (polls, message) in [(0, "in the closure"), (1, "in the future")] {
        let (mut store, run, _) = spinner(code, 1, move || {
            assert!(polls != 0, "in the closure");
            async move {
                pending(1).await;
                panic!("in the future");
            }
        })?;
        let mut call = run.call(&mut stack, &mut store, 0);
        for _ in 0..polls {
            assert!(poll_once(&mut call).is_pending());
        }
        let payload = poll_caught(&mut call).expect_err("panics");
        assert_eq!(payload.downcast_ref(), Some(&message));
        drop(call);
        // The panic has removed the time slices.
        store.set_epoch_deadline(1);
        let error = finish(run.call(&mut stack, &mut store, 0)).expect_err("comes to its deadline");
        assert_eq!(error.downcast_ref(), Some(&Trap::Interrupt), "{error:?}");
        far(&mut store);
        assert_usable(&mut stack, &mut store)?;
    }
    Ok(())
}

fn not_on_a_stack<K: Kind>(code: Code) -> Result<()> {
    let (mut store, run, _) = spinner(code, 1, || pending(1))?;
    let error = run.as_typed().call(&mut store, 5).expect_err("is on no stack");
    assert!(matches!(error.downcast_ref(), Some(Error::NotOnStack)), "{error:?}");
    far(&mut store);
    assert_usable(&mut stack::<K>(), &mut store)
}

fn local<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("there are files left");
    tokio::task::LocalSet::new().block_on(&runtime, future)
}

/// Next to a guest that spins, another task of the same thread gets its turns.
fn turns_under_tokio<K: Kind>(code: Code) -> Result<()> {
    let (mut store, run, slices) = spinner(code, 1, tokio::task::yield_now)?;
    let mut stack = stack::<K>();
    let turns = Rc::new(Cell::new(0));
    local(async {
        let counter = Rc::clone(&turns);
        let other = tokio::task::spawn_local(async move {
            for _ in 0..20 {
                counter.set(counter.get() + 1);
                tokio::task::yield_now().await;
            }
        });
        // The guest never ends, and is dropped when the other task has ended.
        let result = select(other, run.call(&mut stack, &mut store, 0)).await;
        assert!(matches!(result, Either::Left((Ok(()), _))));
    });
    assert_eq!(turns.get(), 20);
    let slices = slices.load(Ordering::Relaxed);
    assert!((10..=40).contains(&slices), "{slices} slices beside 20 turns of the other task");
    far(&mut store);
    assert_usable(&mut stack, &mut store)
}

/// The runtime looks at its sockets after each slice, not after sixty of them. The sockets are local, because what is
/// written to such a socket has arrived when the write returns, however busy the system is.
#[cfg(all(fiber_stack, unix))]
fn sockets_are_looked_at_under_tokio<K: Kind>(code: Code) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;
    use tokio::io::AsyncReadExt as _;

    let (store, run, slices) = spinner(code, 1, tokio::task::yield_now)?;
    let stack = stack::<K>();
    local(async {
        // An ordinary task.
        let guest = tokio::task::spawn_local(K::boxed(stack, store, run, 0));
        for _ in 0..10 {
            // A new socket each time, because the runtime does not look at one again that it knows to be ready.
            let (mut writer, reader) = UnixStream::pair()?;
            writer.write_all(&[7])?;
            reader.set_nonblocking(true)?;
            assert_eq!(tokio::net::UnixStream::from_std(reader)?.read_u8().await?, 7);
        }
        let slices = slices.load(Ordering::Relaxed);
        println!("{slices} slices while 10 bytes came");
        assert!((1..=200).contains(&slices), "{slices} slices while 10 bytes came");
        guest.abort();
        assert!(guest.await.expect_err("never ends").is_cancelled());
        Ok(())
    })
}
