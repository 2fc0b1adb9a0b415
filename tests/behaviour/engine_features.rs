//! Other features of wasmtime, used while stacks are suspended in the middle of them.

use crate::common::futures::{CountingWaker, cancel, finish, pending, poll_once, poll_with};
use crate::support::guest::{assert_usable, export, guest, runner, stack, waits, with};
use crate::support::{Code, Host, Kind, matrix};
use std::sync::Arc;
use std::task::{Poll, Waker};
use wasmtime::{Engine, Func, Result, Trap, UpdateDeadline};
use wasmtime_async::{FuncExt, Store, suspend_until};

matrix!(tail_calls, fuel, epochs, epochs_in_time_slices, traps_without_signals);

fn tail_calls<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = with(code, |config| {
        config.wasm_tail_call(true);
    })?;
    let wait = Func::wrap_suspending_send(&mut store, |n: i32| async move {
        pending(usize::from(n % 1000 == 0)).await;
        n - 1
    });
    let text = r#"(module
        (import "" "" (func $wait (param i32) (result i32)))
        (func $run (export "run") (param i32) (result i32)
            (if (i32.eqz (local.get 0)) (then (return (i32.const 7))))
            (return_call $run (call $wait (local.get 0))))
        (func (export "last") (param i32) (result i32) (return_call $wait (local.get 0))))"#;
    let instance = guest(&mut store, text, [wait])?;
    let run = export(&mut store, &instance, "run").get_async(&store).get1::<i32, i32>()?;
    assert_eq!(finish(run.call(&mut stack, &mut store, (20_000,)))?, 7);
    let last = export(&mut store, &instance, "last").get_async(&store).get1::<i32, i32>()?;
    assert_eq!(finish(last.call(&mut stack, &mut store, (1000,)))?, 999);
    Ok(())
}

/// A suspension costs no fuel, and running out of fuel is noticed after one.
fn fuel<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = with(code, |config| {
        config.consume_fuel(true);
    })?;
    let wait = Func::wrap_suspending_send(&mut store, |polls: i32| pending(usize::try_from(polls).unwrap_or(0)));
    let text = r#"(module
        (import "" "" (func $wait (param i32)))
        (func (export "run") (param $times i32) (param $polls i32)
            (loop
                (call $wait (local.get $polls))
                (local.set $times (i32.sub (local.get $times) (i32.const 1)))
                (br_if 0 (local.get $times)))))"#;
    let instance = guest(&mut store, text, [wait])?;
    let run = export(&mut store, &instance, "run").get_async(&store).get2::<i32, i32, ()>()?;
    let mut used = Vec::new();
    for polls in [0, 1, 5] {
        store.set_fuel(10_000)?;
        finish(run.call(&mut stack, &mut store, (50, polls)))?;
        used.push(10_000 - store.get_fuel()?);
    }
    assert!(used[0] > 100, "{used:?}");
    assert_eq!(used, [used[0]; 3]);

    for polls in [0, 1] {
        store.set_fuel(used[0] / 2)?;
        let error = finish(run.call(&mut stack, &mut store, (50, polls))).unwrap_err();
        assert_eq!(error.downcast_ref(), Some(&Trap::OutOfFuel), "{error:?}");
        store.set_fuel(10_000)?;
        assert_usable(&mut stack, &mut store)?;
    }
    Ok(())
}

const SPINS: &str = r#"(module
    (import "" "" (func $wait))
    (func (export "run") (param $times i32) (result i32)
        (local $count i32)
        (call $wait)
        (loop
            (local.set $count (i32.add (local.get $count) (i32.const 1)))
            (local.set $times (i32.sub (local.get $times) (i32.const 1)))
            (br_if 0 (local.get $times)))
        (local.get $count)))"#;

fn epochs<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = with(code, |config| {
        config.epoch_interruption(true);
    })?;
    store.set_epoch_deadline(1);
    let engine = store.engine().clone();
    // Epochs pass while the guest waits.
    let tick = Func::wrap_suspending_send(&mut store, move || {
        let engine = engine.clone();
        async move {
            pending(1).await;
            engine.increment_epoch();
            pending(1).await;
        }
    });
    let run = runner(&mut store, SPINS, [tick])?.get_async(&store).get1::<i32, i32>()?;
    let error = finish(run.call(&mut stack, &mut store, (5,))).unwrap_err();
    assert_eq!(error.downcast_ref(), Some(&Trap::Interrupt), "{error:?}");
    store.set_epoch_deadline(2);
    assert_eq!(finish(run.call(&mut stack, &mut store, (5,)))?, 5);

    // A custom callback that waits for a future where that is allowed, and one that fails.
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|mut store| {
        suspend_until(pending(if K::ANYTHING { 3 } else { 0 }))?;
        store.data_mut().id += 1;
        if store.data().id < 3 { Ok(UpdateDeadline::Continue(1)) } else { wasmtime::bail!("enough") }
    });
    for id in 1..3 {
        assert_eq!(finish(run.call(&mut stack, &mut store, (5,)))?, 5);
        assert_eq!(store.data().id, id);
    }
    let error = finish(run.call(&mut stack, &mut store, (5,))).unwrap_err();
    assert_eq!(error.root_cause().to_string(), "enough");
    store.set_epoch_deadline(100);
    assert_usable(&mut stack, &mut store)
}

/// Each turn of the loop advances the epoch.
const TICKS: &str = r#"(module
    (import "" "" (func $tick))
    (func (export "run") (param $times i32) (result i32)
        (local $count i32)
        (loop
            (call $tick)
            (local.set $count (i32.add (local.get $count) (i32.const 1)))
            (local.set $times (i32.sub (local.get $times) (i32.const 1)))
            (br_if 0 (local.get $times)))
        (local.get $count)))"#;

fn epochs_in_time_slices<K: Kind>(code: Code) -> Result<()> {
    let engine = Engine::new(code.config().epoch_interruption(true))?;
    let spinner = |store: &mut Store<Host>, delta: u64| -> Result<_> {
        store.set_epoch_deadline(delta);
        store.epoch_deadline_suspend_and_update(delta);
        let ticking = engine.clone();
        let tick = Func::wrap(&mut *store, move || ticking.increment_epoch());
        runner(store, TICKS, [tick])?.get_async(&*store).get1::<i32, i32>()
    };
    let mut stack = stack::<K>();
    let mut store = Store::new(&engine, Host::default());
    let run = spinner(&mut store, 4)?;

    // A slice lasts four turns. Then the task is woken for the next slice.
    let waker = CountingWaker::new();
    let poller = Waker::from(Arc::clone(&waker));
    let mut call = run.call(&mut stack, &mut store, (22,));
    for slices in 1..=5 {
        assert!(poll_with(&mut call, &poller).is_pending());
        assert_eq!(waker.woken(), slices);
    }
    assert_eq!(finish(call)?, 22);
    // Drops the call while the guest believes that it is running.
    store.set_epoch_deadline(4);
    let mut call = run.call(&mut stack, &mut store, (22,));
    assert!(poll_once(&mut call).is_pending());
    cancel(call);

    // Two guests that never wait take turns on one thread.
    let mut other_stack = self::stack::<K>();
    let mut other = Store::new(&engine, Host::default());
    let other_run = spinner(&mut other, 1)?;
    store.set_epoch_deadline(4);
    let mut for_ever = other_run.call(&mut other_stack, &mut other, (0,));
    let mut call = run.call(&mut stack, &mut store, (22,));
    let mut turns = 0;
    let result = loop {
        assert!(poll_once(&mut for_ever).is_pending());
        turns += 1;
        if let Poll::Ready(result) = poll_once(&mut call) {
            break result?;
        }
    };
    assert_eq!(result, 22);
    assert!(turns >= 5, "{turns}");
    Ok(())
}

/// Engines whose guests check for traps in code, like engines without signal handlers.
fn traps_without_signals<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = with(code, |config| {
        config.signals_based_traps(false);
    })?;
    let wait = waits::<K, _>(&mut store, 2);
    let text = r#"(module
        (import "" "" (func $wait))
        (memory 1)
        (func $recurse (export "recurse") (call $wait) (call $deeper) (call $deeper))
        (func $deeper (call $deeper) (call $deeper))
        (func (export "load") (call $wait) (drop (i32.load (i32.const -4))))
        (func (export "divide") (call $wait) (drop (i32.div_u (i32.const 1) (i32.const 0)))))"#;
    let instance = guest(&mut store, text, [wait])?;
    for (name, expected) in
        [("recurse", Trap::StackOverflow), ("load", Trap::MemoryOutOfBounds), ("divide", Trap::IntegerDivisionByZero)]
    {
        let func = export(&mut store, &instance, name);
        let error = finish(func.call_on(&mut stack, &mut store, &[], &mut [])).unwrap_err();
        assert_eq!(error.downcast_ref(), Some(&expected), "{error:?}");
        assert_usable(&mut stack, &mut store)?;
    }
    Ok(())
}
