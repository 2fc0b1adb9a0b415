//! Calls that are forgotten: none of their code runs any more, and none of their memory is reused.
#![expect(unsafe_code, reason = "looks at memory that must still be there")]

use crate::common::futures::{finish, pending, poll_once};
use crate::common::moving::sent;
use crate::common::random::Random;
use crate::support::guest::{ONCE, assert_overflow, assert_usable, runner, stack, store, waits};
use crate::support::{Code, Host, Kind, Log, OnDrop, matrix};
use std::future::{Future, pending as never};
use std::marker::PhantomPinned;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use wasmtime::{AsContext, AsContextMut, Func, Result, Trap};
use wasmtime_async::{Carries, DEFAULT_STACK_SIZE, FuncExt, Stack, Store, suspend_until};

matrix!(
    pinned_memory_is_left_alone,
    nothing_runs,
    every_use_of_the_store_panics,
    the_stack_works_on,
    before_the_first_poll_and_after_the_end,
    others_go_on,
    within_another_call,
);

matrix!(anything: nothing_runs_of_a_closure);

/// Waits forever and publishes its address, like a future that others refer to as long as it is pinned and not dropped.
struct Pinned {
    words: [usize; 64],
    place: Arc<AtomicUsize>,
    _stays: PhantomPinned,
}

impl Pinned {
    fn new(place: &Arc<AtomicUsize>) -> Self {
        Self { words: [0x5afe; 64], place: Arc::clone(place), _stays: PhantomPinned }
    }
}

impl Future for Pinned {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        self.place.store(ptr::from_ref(&self.words).expose_provenance(), Ordering::Relaxed);
        Poll::Pending
    }
}

fn pinned_memory_is_left_alone<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut places = Vec::new();
    for _ in 0..3 {
        let mut store = store(code);
        let place = Arc::new(AtomicUsize::new(0));
        let inner = Arc::clone(&place);
        let wait = Func::wrap_suspending_send(&mut store, move || Pinned::new(&inner));
        let run = runner(&mut store, ONCE, [wait])?;
        let mut call = run.call_on(&mut stack, &mut store, &[], &mut []);
        assert!(poll_once(&mut call).is_pending());
        mem::forget(call);
        places.push(place.load(Ordering::Relaxed));
    }

    // Overwrite whatever can be overwritten, on this stack and on others.
    for stacks in 0..4 {
        for _ in 0..3 {
            let mut store = store(code);
            let recurse = r#"(module (func (export "run") (call 0) (call 0)))"#;
            let run = runner(&mut store, recurse, [])?;
            let call = stack.run_send(&mut store, move |mut store| {
                fill(100);
                run.call(&mut store, &[], &mut [])
            });
            assert_overflow(finish(call));
            assert_usable(&mut stack, &mut store)?;
        }
        if stacks < 2 {
            stack = self::stack::<K>();
        }
    }
    drop(stack);

    for place in places {
        assert_ne!(place, 0);
        let words = ptr::with_exposed_provenance::<[usize; 64]>(place);
        // SAFETY: a value that was pinned, and was not dropped, stays where it is forever.
        let words = unsafe { words.read_volatile() };
        assert_eq!(words, [0x5afe; 64]);
    }
    Ok(())
}

/// Writes to a large part of the stack.
fn fill(frames: usize) -> usize {
    let mut words = [frames; 1024];
    std::hint::black_box(&mut words);
    if frames == 0 { words[0] } else { fill(frames - 1) + words[frames] }
}

/// Data whose destructor logs that it runs.
#[derive(Debug)]
struct Data {
    number: Arc<AtomicI32>,
    _gone: OnDrop,
}

fn data(log: &Log) -> Data {
    Data { number: Arc::new(AtomicI32::new(7)), _gone: log.on_drop("data") }
}

/// A store that contains a call which was forgotten while it waited.
fn lost<K: Kind<Stack: Carries<Data>>>(code: Code, stack: &mut K::Stack, log: &Log) -> Result<Store<Data>> {
    let mut store = Store::new(&code.engine(), data(log));
    let inner = log.clone();
    let wait = Func::wrap_suspending_send(&mut store, move || {
        let log = inner.clone();
        async move {
            let _local = log.on_drop("host function");
            never::<()>().await;
        }
    });
    let run = runner(&mut store, ONCE, [wait])?;
    let mut call = run.call_on(stack, &mut store, &[], &mut []);
    assert!(poll_once(&mut call).is_pending());
    mem::forget(call);
    Ok(store)
}

fn nothing_runs<K: Kind<Stack: Carries<Data>>>(code: Code) -> Result<()> {
    let log = Log::default();
    let mut stack = stack::<K>();
    let mut store = Store::new(&code.engine(), data(&log));
    let number = Arc::clone(&store.data().number);
    let run = {
        let wait = waits::<K, _>(&mut store, usize::MAX);
        runner(&mut store, ONCE, [wait])?
    };
    let mut call = run.call_on(&mut stack, &mut store, &[], &mut []);
    assert!(poll_once(&mut call).is_pending());
    mem::forget(call);
    let lost = lost::<K>(code, &mut stack, &log)?;
    drop((stack, store, lost));
    assert!(log.take().is_empty());
    // The data is unchanged and still holds its reference to what it shares.
    assert_eq!((Arc::strong_count(&number), number.load(Ordering::Relaxed)), (2, 7));
    Ok(())
}

fn nothing_runs_of_a_closure<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let log = store.data().log.clone();
    let inner = log.clone();
    let mut call = stack.run_send(&mut store, move |_| {
        let _local = inner.on_drop("closure");
        Ok(suspend_until(never::<()>())?)
    });
    assert!(poll_once(&mut call).is_pending());
    mem::forget(call);
    drop(stack);
    drop(store);
    assert!(log.take().is_empty());
    Ok(())
}

/// A way to use a store and a stack.
type Use<S> = (&'static str, fn(Store<Data>, &mut S));

fn every_use_of_the_store_panics<K: Kind<Stack: Carries<Data>>>(code: Code) -> Result<()> {
    let uses: &[Use<K::Stack>] = &[
        ("data", |store, _| _ = store.data().number.load(Ordering::Relaxed)),
        ("data_mut", |mut store, _| _ = store.data_mut()),
        ("engine", |store, _| _ = store.engine()),
        ("as_context", |store, _| _ = store.as_context()),
        ("as_context_mut", |mut store, _| _ = store.as_context_mut()),
        ("a function", |mut store, _| _ = Func::wrap(&mut store, || ())),
        ("garbage collection", |mut store, _| _ = store.gc(None)),
        ("time slices", |mut store, _| store.epoch_deadline_suspend_and_update(1)),
        ("a closure", |mut store, stack| drop(stack.run_send(&mut store, |_| Ok(())))),
        ("into_data", |store, _| drop(store.into_data())),
        ("into_inner", |store, _| drop(store.into_inner())),
        ("into", |store, _| drop(wasmtime::Store::from(store))),
    ];
    let log = Log::default();
    let mut stack = stack::<K>();
    for (name, use_it) in uses {
        let store = lost::<K>(code, &mut stack, &log)?;
        let text = format!("{store:?}");
        assert!(text.contains("lost: true"), "{text}");
        let result = catch_unwind(AssertUnwindSafe(|| use_it(store, &mut stack)));
        let payload = result.expect_err(name);
        let text = payload.downcast_ref::<&str>().copied().or(payload.downcast_ref::<String>().map(String::as_str));
        assert!(text.is_some_and(|text| text.contains("this store is lost") && text.contains("make a new store")));
        assert!(log.take().is_empty(), "{name}");
    }
    // Making a call does not check whether the store is lost. Calling does.
    let mut store = Store::new(&code.engine(), data(&log));
    let wait = waits::<K, _>(&mut store, usize::MAX);
    let run = runner(&mut store, ONCE, [wait])?;
    let mut call = run.call_on(&mut stack, &mut store, &[], &mut []);
    assert!(poll_once(&mut call).is_pending());
    mem::forget(call);
    assert!(catch_unwind(AssertUnwindSafe(|| drop(run.call_on(&mut stack, &mut store, &[], &mut [])))).is_err());
    assert!(catch_unwind(AssertUnwindSafe(|| drop(run.call(&mut store, &[], &mut [])))).is_err());
    assert_usable(&mut stack, &mut Store::new(&code.engine(), data(&log)))
}

fn the_stack_works_on<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let engine = code.engine();
    for round in 0..20 {
        let mut store = Store::new(&engine, Host::default());
        let wait = waits::<K, _>(&mut store, usize::MAX);
        let run = runner(&mut store, ONCE, [wait])?;
        let mut call = run.call_on(&mut stack, &mut store, &[], &mut []);
        for _ in 0..=round % 3 {
            assert!(poll_once(&mut call).is_pending());
        }
        mem::forget(call);
        assert_eq!(stack.size(), DEFAULT_STACK_SIZE);
        // With a store that existed before, or with a new one.
        assert_usable(&mut stack, &mut self::store(code))?;
    }
    Ok(())
}

/// These calls have nothing suspended, so nothing is lost except what they held.
fn before_the_first_poll_and_after_the_end<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let log = store.data().log.clone();
    let wait = waits::<K, _>(&mut store, 1);
    let run = runner(&mut store, ONCE, [wait])?;
    for polls in [0, 2] {
        let local = log.on_drop("what the closure captured");
        mem::forget(stack.run_send(&mut store, move |_| {
            drop(local);
            Ok(())
        }));
        let mut call = run.call_on(&mut stack, &mut store, &[], &mut []);
        for poll in 1..=polls {
            assert_eq!(poll_once(&mut call).is_ready(), poll == 2);
        }
        mem::forget(call);
        assert_eq!(store.data().id, 0);
        assert_usable(&mut stack, &mut store)?;
    }
    assert!(log.take().is_empty());
    Ok(())
}

/// Calls that were suspended before others were forgotten, or after that, end correctly in any order.
fn others_go_on<K: Kind>(code: Code) -> Result<()> {
    const CALLS: usize = 6;
    let mut random = Random::from_environment();
    let engine = code.engine();
    for _ in 0..20 {
        let mut calls = Vec::new();
        for id in 0..CALLS {
            let mut store = Store::new(&engine, Host::default());
            let wait = Func::wrap_suspending_send(&mut store, |n: i32| async move {
                pending(3).await;
                n + 1
            });
            let text = r#"(module
                (import "" "" (func $wait (param i32) (result i32)))
                (func (export "run") (param i32) (result i32)
                    (local.set 0 (call $wait (call $wait (local.get 0))))
                    (if (i32.eq (local.get 0) (i32.const 1)) (then unreachable))
                    (local.get 0)))"#;
            let run = runner(&mut store, text, [wait])?.get_async(&store).typed::<i32, i32>()?;
            // Every second call ends in a trap.
            let param = if id % 2 == 0 { i32::try_from(id)? } else { -1 };
            calls.push((param, K::boxed(stack::<K>(), store, run, param)));
        }
        let mut order: Vec<_> = (0..CALLS * 4).map(|n| n % CALLS).collect();
        random.shuffle(&mut order);
        for n in order {
            assert!(poll_once(&mut calls[n].1).is_pending());
        }
        let mut forgotten = 0;
        while !calls.is_empty() {
            let (param, mut call) = calls.swap_remove(random.below(calls.len()));
            if forgotten < CALLS / 2 && random.one_in(2) {
                forgotten += 1;
                mem::forget(call);
                continue;
            }
            assert!(poll_once(&mut call).is_pending());
            match finish(call) {
                Ok(result) => assert_eq!(result, param + 2),
                Err(error) => assert_eq!((param, error.downcast_ref()), (-1, Some(&Trap::UnreachableCodeReached))),
            }
        }
    }
    Ok(())
}

/// A host function forgets a call on another stack and continues. Then its own call is forgotten, or ends.
fn within_another_call<K: Kind>(code: Code) -> Result<()> {
    let (log, mut stack) = (Log::default(), stack::<K>());
    for ends in [true, false] {
        let mut store = store(code);
        let inner_log = log.clone();
        let forgets = Func::wrap_suspending_send(&mut store, move || {
            let log = inner_log.clone();
            sent(async move {
                let (mut stack, mut store) = (self::stack::<K>(), self::store(code));
                let wait = waits::<K, _>(&mut store, usize::MAX);
                let run = runner(&mut store, ONCE, [wait])?;
                let mut call = run.call_on(&mut stack, &mut store, &[], &mut []);
                assert!(poll_once(&mut call).is_pending());
                mem::forget(call);
                pending(1).await;
                assert_usable(&mut stack, &mut self::store(code))?;
                log.add("went on");
                pending(1).await;
                Ok(())
            })
        });
        let run = runner(&mut store, ONCE, [forgets])?;
        let mut call = run.call_on(&mut stack, &mut store, &[], &mut []);
        for _ in 0..2 {
            assert!(poll_once(&mut call).is_pending());
        }
        assert_eq!(log.take(), ["went on"]);
        if ends {
            finish(call)?;
            assert_usable(&mut stack, &mut store)?;
        } else {
            mem::forget(call);
        }
        assert_usable(&mut stack, &mut self::store(code))?;
    }
    Ok(())
}
