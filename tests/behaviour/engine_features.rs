//! What else wasmtime offers, with stacks that are suspended in the middle of it.

use crate::common::futures::{CountingWaker, finish, pending, poll_once};
use crate::support::guest::{assert_usable, export, guest, runner, stack};
use crate::support::{AnyStack, Code, Host, matrix};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use wasmtime::component::{Component, Linker as ComponentLinker};
use wasmtime::{
    Caller, Config, Engine, Extern, ExternRef, Func, InstanceAllocationStrategy, Linker, Memory, MemoryType, Module,
    PoolingAllocationConfig, Ref, ResourceLimiter, Result, Rooted, Store, StoreLimits, StoreLimitsBuilder, Table,
    TableType, ThrownException, Trap, UpdateDeadline, Val,
};
use wasmtime_async::{Carries, Error, FuncExt, LinkerExt, StoreExt, suspend_until, yield_now};

matrix!(
    references_on_suspended_stacks_are_roots,
    references_of_many_stores,
    traps_of_collected_types,
    exceptions,
    tail_calls,
    fuel,
    epochs,
    epochs_in_time_slices,
    limits,
    pooled_instances,
    memories_that_grow,
    tables_that_grow,
    components,
    traps_without_signals,
);

fn with(code: Code, configure: impl FnOnce(&mut Config)) -> Result<Store<Host>> {
    let mut config = code.config();
    configure(&mut config);
    Ok(Store::new(&Engine::new(&config)?, Host::default()))
}

fn wait<T: 'static>(store: &mut Store<T>) -> Func {
    Func::wrap_suspending(store, async || pending(2).await)
}

/// Keeps references in local variables while its host functions suspend the stack and collect garbage.
const KEEPS: &str = r#"(module
    (import "" "make" (func $make (param i32) (result externref)))
    (import "" "collect" (func $collect))
    (import "" "through" (func $through (param i32)))
    (import "" "check" (func $check (param externref i32)))
    (func $run (export "run") (param $depth i32)
        (local $one externref) (local $two externref)
        (local.set $one (call $make (local.get $depth)))
        (call $collect)
        (local.set $two (call $make (i32.add (local.get $depth) (i32.const 100))))
        (drop (call $make (i32.const 999)))
        (call $collect)
        (if (local.get $depth) (then (call $through (i32.sub (local.get $depth) (i32.const 1)))))
        (call $collect)
        (call $check (local.get $one) (local.get $depth))
        (call $check (local.get $two) (i32.add (local.get $depth) (i32.const 100)))))"#;

/// Lives as long as it can be reached.
struct Kept {
    number: i32,
    _alive: Arc<()>,
}

fn keeps(store: &mut Store<Host>, alive: &Arc<()>) -> Result<Func> {
    let alive = Arc::clone(alive);
    let make = Func::wrap_suspending(&mut *store, async move |mut caller: Caller<'_, Host>, n: i32| {
        pending(1).await;
        ExternRef::new(&mut caller, Kept { number: n, _alive: Arc::clone(&alive) }).map(Some)
    });
    let collect = Func::wrap_suspending(&mut *store, async |mut caller: Caller<'_, Host>| -> Result<()> {
        caller.gc(None)?;
        pending(1).await;
        caller.gc(None)
    });
    let through = Func::wrap(&mut *store, |mut caller: Caller<'_, Host>, depth: i32| -> Result<()> {
        let run = caller.get_export("run").and_then(Extern::into_func).expect("is exported");
        suspend_until(pending(1))?;
        run.call(&mut caller, &[Val::I32(depth)], &mut [])?;
        caller.gc(None)
    });
    let check = Func::wrap(&mut *store, |caller: Caller<'_, Host>, kept: Option<Rooted<ExternRef>>, n: i32| {
        let data = kept.expect("is not null").data(&caller)?.and_then(|data| data.downcast_ref::<Kept>());
        assert_eq!(data.map(|kept| kept.number), Some(n));
        Ok(())
    });
    runner(store, KEEPS, [make, collect, through, check])
}

fn references_on_suspended_stacks_are_roots<S: AnyStack>(code: Code) -> Result<()> {
    let mut stack = stack::<S>();
    let mut store = with(code, |_| ())?;
    let alive = Arc::new(());
    let run = keeps(&mut store, &alive)?;
    for depth in 0..4 {
        finish(run.call_on(&mut stack, &mut store, &[Val::I32(depth)], &mut []))?;
        store.gc(None)?;
        // The host function's closure has one.
        assert_eq!(Arc::strong_count(&alive), 2, "all are collected at the end");
    }
    // Dropped in the middle.
    for polls in 1..8 {
        let params = [Val::I32(1)];
        let mut call = run.call_on(&mut stack, &mut store, &params, &mut []);
        for _ in 0..polls {
            assert!(poll_once(&mut call).is_pending());
        }
        drop(call);
        store.gc(None)?;
        assert_eq!(Arc::strong_count(&alive), 2);
    }
    assert_usable(&mut stack, &mut store)
}

fn references_of_many_stores<S: AnyStack>(code: Code) -> Result<()> {
    let task = |depth: i32| -> Pin<Box<dyn Future<Output = Result<()>>>> {
        Box::pin(async move {
            let mut stack = stack::<S>();
            let mut store = with(code, |_| ())?;
            let alive = Arc::new(());
            let run = keeps(&mut store, &alive)?;
            run.call_on(&mut stack, &mut store, &[Val::I32(depth)], &mut []).await?;
            store.gc(None)?;
            assert_eq!(Arc::strong_count(&alive), 2);
            Ok(())
        })
    };
    let mut tasks: Vec<_> = (0..8).map(|n| task(n % 4)).collect();
    while !tasks.is_empty() {
        tasks.reverse();
        tasks.retain_mut(|task| match poll_once(task) {
            Poll::Pending => true,
            Poll::Ready(result) => {
                result.expect("does not fail");
                false
            }
        });
    }
    Ok(())
}

fn traps_of_collected_types<S: AnyStack>(code: Code) -> Result<()> {
    let mut stack = stack::<S>();
    let mut store = with(code, |config| {
        config.wasm_function_references(true).wasm_gc(true);
    })?;
    let wait = wait(&mut store);
    let text = r#"(module
        (type $pair (struct (field i32) (field i32)))
        (type $bytes (array (mut i8)))
        (type $nothing (func))
        (import "" "" (func $wait))
        (func $make (result (ref $pair)) (struct.new $pair (i32.const 1) (i32.const 2)))
        (func (export "null struct") (local $pair (ref null $pair))
            (call $wait) (drop (struct.get $pair 0 (local.get $pair))))
        (func (export "null function") (local $nothing (ref null $nothing))
            (call $wait) (call_ref $nothing (local.get $nothing)))
        (func (export "not null") (local $pair (ref null $pair))
            (call $wait) (drop (ref.as_non_null (local.get $pair))))
        (func (export "cast") (local $any anyref)
            (local.set $any (call $make))
            (call $wait) (drop (ref.cast (ref $bytes) (local.get $any))))
        (func (export "array") (local $bytes (ref null $bytes))
            (local.set $bytes (array.new $bytes (i32.const 0) (i32.const 9)))
            (call $wait) (array.set $bytes (local.get $bytes) (i32.const 9) (i32.const 1)))
        (func (export "fine") (result i32) (local $pair (ref null $pair))
            (local.set $pair (call $make))
            (call $wait) (struct.get $pair 1 (local.get $pair))))"#;
    let instance = guest(&mut store, text, [wait])?;
    for (name, expected) in [
        ("null struct", Trap::NullReference),
        ("null function", Trap::IndirectCallToNull),
        ("not null", Trap::NullReference),
        ("cast", Trap::CastFailure),
        ("array", Trap::ArrayOutOfBounds),
    ] {
        let func = export(&mut store, &instance, name);
        let error = finish(func.call_on(&mut stack, &mut store, &[], &mut [])).unwrap_err();
        let trap = error.downcast_ref::<Trap>();
        assert!(
            trap == Some(&expected) || name == "null function" && trap == Some(&Trap::NullReference),
            "{name}: {error:?}"
        );
        assert_usable(&mut stack, &mut store)?;
    }
    let fine = export(&mut store, &instance, "fine").get_async(&store).get0::<i32>()?;
    assert_eq!(finish(fine.call(&mut stack, &mut store, ()))?, 2);
    Ok(())
}

/// Exceptions that are thrown and caught with suspensions before, between and after, through frames of the host.
fn exceptions<S: AnyStack>(code: Code) -> Result<()> {
    let mut stack = stack::<S>();
    let mut store = with(code, |config| {
        config.wasm_function_references(true).wasm_gc(true).wasm_exceptions(true);
    })?;
    let wait = wait(&mut store);
    let through = Func::wrap(&mut store, |mut caller: Caller<'_, Host>| -> Result<()> {
        let throws = caller.get_export("throws").and_then(Extern::into_func).expect("is exported");
        suspend_until(pending(1))?;
        let result = throws.call(&mut caller, &[], &mut []);
        suspend_until(pending(1))?;
        result
    });
    let text = r#"(module
        (import "" "" (func $wait))
        (import "" "" (func $through))
        (tag $ball (param i32))
        (func $throws (export "throws") (call $wait) (throw $ball (i32.const 42)))
        (func (export "run") (result i32)
            (call $wait)
            (block $caught (result i32)
                (try_table (catch $ball $caught) (call $throws))
                (i32.const 0))
            (call $wait))
        (func (export "deep") (result i32)
            (block $caught (result i32)
                (try_table (catch $ball $caught) (call $through))
                (i32.const 0))
            (call $wait))
        (func (export "uncaught") (call $throws)))"#;
    let instance = guest(&mut store, text, [wait, through])?;
    for name in ["run", "deep"] {
        let func = export(&mut store, &instance, name).get_async(&store).get0::<i32>()?;
        for _ in 0..3 {
            assert_eq!(finish(func.call(&mut stack, &mut store, ()))?, 42, "{name}");
        }
    }
    let uncaught = export(&mut store, &instance, "uncaught");
    let error = finish(uncaught.call_on(&mut stack, &mut store, &[], &mut [])).unwrap_err();
    assert!(error.is::<ThrownException>(), "{error:?}");
    assert!(store.take_pending_exception().is_some());
    assert_usable(&mut stack, &mut store)
}

fn tail_calls<S: AnyStack>(code: Code) -> Result<()> {
    let mut stack = stack::<S>();
    let mut store = with(code, |config| {
        config.wasm_tail_call(true);
    })?;
    let wait = Func::wrap_suspending(&mut store, async |n: i32| {
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

/// A suspension costs no fuel, and the lack of it is noticed after one.
fn fuel<S: AnyStack>(code: Code) -> Result<()> {
    let mut stack = stack::<S>();
    let mut store = with(code, |config| {
        config.consume_fuel(true);
    })?;
    let wait = Func::wrap_suspending(&mut store, async |polls: i32| pending(usize::try_from(polls).unwrap_or(0)).await);
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

fn epochs<S: AnyStack>(code: Code) -> Result<()> {
    let mut stack = stack::<S>();
    let mut store = with(code, |config| {
        config.epoch_interruption(true);
    })?;
    store.set_epoch_deadline(1);
    let engine = store.engine().clone();
    // Time passes while it waits.
    let tick = Func::wrap_suspending(&mut store, async move || {
        pending(1).await;
        engine.increment_epoch();
        pending(1).await;
    });
    let run = runner(&mut store, SPINS, [tick])?.get_async(&store).get1::<i32, i32>()?;
    let error = finish(run.call(&mut stack, &mut store, (5,))).unwrap_err();
    assert_eq!(error.downcast_ref(), Some(&Trap::Interrupt), "{error:?}");
    store.set_epoch_deadline(2);
    assert_eq!(finish(run.call(&mut stack, &mut store, (5,)))?, 5);

    // A callback of one's own, that waits for a future, and one that fails.
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|mut store| {
        suspend_until(pending(3))?;
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

/// Each turn of the loop takes an epoch.
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

fn epochs_in_time_slices<S: AnyStack>(code: Code) -> Result<()> {
    let engine = Engine::new(code.config().epoch_interruption(true))?;
    let spinner = |store: &mut Store<Host>, delta: u64| -> Result<_> {
        store.set_epoch_deadline(delta);
        store.epoch_deadline_suspend_and_update(delta);
        let ticking = engine.clone();
        let tick = Func::wrap(&mut *store, move || ticking.increment_epoch());
        runner(store, TICKS, [tick])?.get_async(&*store).get1::<i32, i32>()
    };
    let mut stack = stack::<S>();
    let mut store = Store::new(&engine, Host::default());
    let run = spinner(&mut store, 4)?;

    // A slice of four turns, then the task is woken for the next.
    let waker = CountingWaker::new();
    let poller = Waker::from(Arc::clone(&waker));
    let mut call = run.call(&mut stack, &mut store, (22,));
    for slices in 1..=5 {
        assert!(Pin::new(&mut call).poll(&mut Context::from_waker(&poller)).is_pending());
        assert_eq!(waker.woken(), slices);
    }
    assert_eq!(finish(call)?, 22);
    // Dropped while it runs, as far as it knows.
    store.set_epoch_deadline(4);
    let mut call = run.call(&mut stack, &mut store, (22,));
    assert!(poll_once(&mut call).is_pending());
    drop(call);

    // Two that never wait take turns on one thread.
    let mut other_stack = self::stack::<S>();
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

/// Refuses memory beyond a number of bytes, and counts what it was asked.
#[derive(Default)]
pub(crate) struct Limiter {
    asked: usize,
    refused: usize,
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> Result<bool> {
        self.asked += 1;
        // It is asked on the guest's stack, and may wait.
        if suspend_until(pending(1)).is_err() {
            self.refused += 1;
            return Ok(false);
        }
        Ok(desired <= 3 << 16)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> Result<bool> {
        Ok(desired <= 10)
    }
}

fn limits<S: AnyStack + Carries<Limiter> + Carries<StoreLimits>>(code: Code) -> Result<()> {
    let text = r#"(module
        (import "" "" (func $wait))
        (memory (export "memory") 1)
        (table 1 funcref)
        (func (export "run") (param i32) (result i32)
            (call $wait) (memory.grow (local.get 0)))
        (func (export "table") (param i32) (result i32)
            (call $wait) (table.grow (ref.null func) (local.get 0))))"#;
    let mut stack = stack::<S>();

    let mut store = Store::new(&code.engine(), Limiter::default());
    let wait = wait(&mut store);
    let module = Module::new(store.engine(), text)?;
    let mut linker = Linker::new(store.engine());
    linker.define(&mut store, "", "", wait)?;
    store.limiter(|limiter| limiter);
    let instance = finish(linker.instantiate_on(&mut stack, &mut store, &module))?;
    let run = export(&mut store, &instance, "run").get_async(&store).get1::<i32, i32>()?;
    for (pages, before) in [(1, 1), (2, -1), (1, 2), (1, -1), (100, -1), (0, 3)] {
        assert_eq!(finish(run.call(&mut stack, &mut store, (pages,)))?, before, "{pages} more");
    }
    let table = export(&mut store, &instance, "table").get_async(&store).get1::<i32, i32>()?;
    for (elements, before) in [(9, 1), (1, -1)] {
        assert_eq!(finish(table.call(&mut stack, &mut store, (elements,)))?, before);
    }
    // The first when it was made; nothing is asked for growth by nothing.
    assert_eq!((store.data().asked, store.data().refused), (6, 0));
    // Dropped while the limiter waits.
    let mut call = run.call(&mut stack, &mut store, (1,));
    for _ in 0..3 {
        assert!(poll_once(&mut call).is_pending());
    }
    drop(call);
    assert_eq!(store.data().refused, 1);

    let limits = StoreLimitsBuilder::new().memory_size(1 << 17).trap_on_grow_failure(true).instances(3).build();
    let mut store = Store::new(&code.engine(), limits);
    store.limiter(|limits| limits);
    let wait = self::wait(&mut store);
    let instance = guest(&mut store, text, [wait])?;
    let run = export(&mut store, &instance, "run").get_async(&store).get1::<i32, i32>()?;
    assert_eq!(finish(run.call(&mut stack, &mut store, (1,)))?, 1);
    let error = finish(run.call(&mut stack, &mut store, (1,))).unwrap_err();
    assert!(format!("{error:?}").contains("forcing trap when growing memory"), "{error:?}");
    assert_usable(&mut stack, &mut store)
}

/// Instances whose memory comes from a pool: given back when their stores go, however their calls ended.
fn pooled_instances<S: AnyStack>(code: Code) -> Result<()> {
    const SLOTS: u32 = 4;
    let mut pool = PoolingAllocationConfig::default();
    pool.total_core_instances(SLOTS).total_memories(SLOTS).total_tables(SLOTS).max_memory_size(1 << 17);
    // Small enough for any target.
    let mut config = code.config();
    config.memory_reservation(1 << 18).memory_guard_size(1 << 16);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    let engine = Engine::new(&config)?;
    let module = Module::new(
        &engine,
        r#"(module
            (import "" "wait" (func $wait))
            (memory (export "memory") 1)
            (table 3 funcref)
            (data (i32.const 0) "fresh")
            (func $start (call $wait))
            (start $start)
            (func (export "run") (result i32)
                (i32.store (i32.const 1000) (i32.add (i32.load (i32.const 1000)) (i32.const 1)))
                (call $wait)
                (memory.fill (i32.const 0) (i32.const 7) (i32.const 5))
                (i32.load (i32.const 1000))))"#,
    )?;
    let mut linker = Linker::<Host>::new(&engine);
    linker.func_wrap_suspending("", "wait", async || pending(1).await)?;

    let mut stacks: Vec<S> = (0..=SLOTS).map(|_| stack()).collect();
    for round in 0..5 {
        let mut stores: Vec<_> = (0..SLOTS).map(|_| Store::new(&engine, Host::default())).collect();
        let mut runs = Vec::new();
        for (store, stack) in stores.iter_mut().zip(&mut stacks) {
            let instance = finish(linker.instantiate_on(stack, store, &module))?;
            let memory = instance.get_memory(&mut *store, "memory").expect("is exported");
            assert_eq!(&memory.data(&*store)[..5], b"fresh");
            assert!(memory.data(&*store)[5..].iter().all(|&byte| byte == 0));
            runs.push(export(store, &instance, "run").get_async(&*store).get0::<i32>()?);
        }
        // No more in the pool.
        let (_, last) = stacks.split_at_mut(stores.len());
        let mut one_more = Store::new(&engine, Host::default());
        let error = finish(linker.instantiate_on(&mut last[0], &mut one_more, &module)).unwrap_err();
        assert!(format!("{error:?}").contains("maximum concurrent"), "{error:?}");

        let mut calls: Vec<_> = runs
            .iter()
            .zip(&mut stores)
            .zip(&mut stacks)
            .map(|((run, store), stack)| run.call(stack, store, ()))
            .collect();
        for call in &mut calls {
            assert!(poll_once(call).is_pending());
        }
        if round % 2 == 0 {
            for call in calls.into_iter().rev() {
                assert_eq!(finish(call)?, 1);
            }
        }
    }
    let mut store = Store::new(&engine, Host::default());
    finish(linker.instantiate_on(&mut stacks[0], &mut store, &module))?;
    Ok(())
}

/// Memory that grows, and moves, while the guest is suspended.
fn memories_that_grow<S: AnyStack>(code: Code) -> Result<()> {
    let mut stack = stack::<S>();
    // Nothing reserved, so that it has to move.
    let mut store = with(code, |config| {
        config.memory_reservation(0).memory_reservation_for_growth(0).memory_guard_size(0);
    })?;
    let memory = Memory::new(&mut store, MemoryType::new(1, Some(64)))?;
    let grow = Func::wrap_suspending(&mut store, async move |mut caller: Caller<'_, Host>, pages: i32| -> Result<()> {
        pending(1).await;
        let before = memory.grow(&mut caller, u64::try_from(pages)?)?;
        pending(1).await;
        // Where the guest looks next: the last byte.
        let last = memory.data_size(&caller) - 1;
        memory.data_mut(&mut caller)[last] = u8::try_from(before)?;
        Ok(())
    });
    let module = Module::new(
        store.engine(),
        r#"(module
            (import "" "memory" (memory 1 64))
            (import "" "grow" (func $grow (param i32)))
            (func (export "run") (param $times i32) (result i32)
                (local $sum i32)
                (i32.store (i32.const 100) (i32.const 42))
                (loop
                    (call $grow (i32.const 1))
                    (drop (memory.grow (i32.const 1)))
                    (local.set $sum (i32.add (local.get $sum) (i32.load8_u
                        (i32.sub (i32.shl (i32.sub (memory.size) (i32.const 1)) (i32.const 16)) (i32.const 1)))))
                    (i32.store8 (i32.sub (i32.shl (memory.size) (i32.const 16)) (i32.const 1)) (i32.const 1))
                    (local.set $times (i32.sub (local.get $times) (i32.const 1)))
                    (br_if 0 (local.get $times)))
                (i32.add (local.get $sum) (i32.load (i32.const 100)))))"#,
    )?;
    let mut linker = Linker::new(store.engine());
    linker.define(&mut store, "", "memory", memory)?;
    linker.define(&mut store, "", "grow", grow)?;
    let instance = linker.instantiate(&mut store, &module)?;
    let run = export(&mut store, &instance, "run").get_async(&store).get1::<i32, i32>()?;
    // Grown by two a turn; the host writes how large it was.
    assert_eq!(finish(run.call(&mut stack, &mut store, (10,)))?, (0..10).map(|n| 1 + 2 * n).sum::<i32>() + 42);
    assert_eq!(memory.size(&store), 21);
    // What a dropped call did stays done.
    let mut call = run.call(&mut stack, &mut store, (10,));
    for _ in 0..2 {
        assert!(poll_once(&mut call).is_pending());
    }
    drop(call);
    assert_eq!(memory.size(&store), 22);
    assert_usable(&mut stack, &mut store)
}

fn tables_that_grow<S: AnyStack>(code: Code) -> Result<()> {
    let mut stack = stack::<S>();
    let mut store = with(code, |_| ())?;
    let table = Table::new(&mut store, TableType::new(wasmtime::RefType::FUNCREF, 0, None), Ref::Func(None))?;
    let grow = Func::wrap_suspending(&mut store, async move |mut caller: Caller<'_, Host>, n: i32| -> Result<i32> {
        pending(1).await;
        let function = Func::wrap_suspending(&mut caller, async move || {
            pending(1).await;
            n
        });
        let place = table.grow(&mut caller, 1, Ref::Func(Some(function)))?;
        pending(1).await;
        Ok(i32::try_from(place)?)
    });
    let module = Module::new(
        store.engine(),
        r#"(module
            (import "" "table" (table 0 funcref))
            (import "" "grow" (func $grow (param i32) (result i32)))
            (type $number (func (result i32)))
            (func (export "run") (param $times i32) (result i32)
                (local $sum i32)
                (loop
                    (local.set $sum (i32.add (local.get $sum)
                        (call_indirect (type $number) (call $grow (local.get $times)))))
                    (local.set $times (i32.sub (local.get $times) (i32.const 1)))
                    (br_if 0 (local.get $times)))
                (local.get $sum)))"#,
    )?;
    let mut linker = Linker::new(store.engine());
    linker.define(&mut store, "", "table", table)?;
    linker.define(&mut store, "", "grow", grow)?;
    let instance = linker.instantiate(&mut store, &module)?;
    let run = export(&mut store, &instance, "run").get_async(&store).get1::<i32, i32>()?;
    assert_eq!(finish(run.call(&mut stack, &mut store, (20,)))?, 210);
    assert_eq!(table.size(&store), 20);
    assert_usable(&mut stack, &mut store)
}

/// Components, called by wasmtime's synchronous functions, whose host functions wait.
fn components<S: AnyStack>(code: Code) -> Result<()> {
    let mut stacks = [stack::<S>(), stack::<S>()];
    let engine = code.engine();
    let component = Component::new(
        &engine,
        r#"(component
            (import "greet" (func $greet (param "name" string) (result string)))
            (core module $memory
                (memory (export "memory") 1)
                (global $next (mut i32) (i32.const 1024))
                (func (export "realloc") (param i32 i32 i32 i32) (result i32)
                    (local $place i32)
                    (local.set $place (global.get $next))
                    (global.set $next (i32.add (global.get $next) (local.get 3)))
                    (local.get $place)))
            (core instance $memory (instantiate $memory))
            (core func $greet (canon lower (func $greet)
                (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
            (core module $guest
                (import "" "memory" (memory 1))
                (import "" "greet" (func $greet (param i32 i32 i32)))
                (func (export "run") (param i32 i32) (result i32)
                    (call $greet (local.get 0) (local.get 1) (i32.const 16))
                    (if (i32.eqz (local.get 1)) (then unreachable))
                    (i32.const 16)))
            (core instance $guest (instantiate $guest
                (with "" (instance (export "memory" (memory $memory "memory")) (export "greet" (func $greet))))))
            (func (export "run") (param "name" string) (result string)
                (canon lift (core func $guest "run")
                    (memory (core memory $memory "memory")) (realloc (core func $memory "realloc")))))"#,
    )?;
    let mut linker = ComponentLinker::<Host>::new(&engine);
    linker.root().func_wrap("greet", |mut store, (name,): (String,)| {
        store.data_mut().id += 1;
        let n = store.data().id;
        suspend_until(pending(2))?;
        match name.as_str() {
            "error" => wasmtime::bail!("from the host"),
            "never" => suspend_until(std::future::pending::<()>())?,
            _ => yield_now()?,
        }
        Ok((format!("hello {name} {n}"),))
    })?;

    let mut stores: [_; 2] = std::array::from_fn(|_| Store::new(&engine, Host::default()));
    let mut tasks = Vec::new();
    for ((stack, store), name) in stacks.iter_mut().zip(&mut stores).zip(["anna", "ben"]) {
        let (linker, component) = (&linker, &component);
        tasks.push(stack.go(store, move |mut store| {
            let instance = linker.instantiate(&mut store, component)?;
            let run = instance.get_typed_func::<(&str,), (String,)>(&mut store, "run")?;
            let (first,) = run.call(&mut store, (name,))?;
            let (second,) = run.call(&mut store, (&first,))?;
            Ok((run, second))
        }));
    }
    for _ in 0..6 {
        for task in tasks.iter_mut().rev() {
            assert!(poll_once(task).is_pending());
        }
    }
    let mut runs = Vec::new();
    for (task, name) in tasks.into_iter().zip(["anna", "ben"]) {
        let (run, greeting) = finish(task)?;
        assert_eq!(greeting, format!("hello hello {name} 1 2"));
        runs.push(run);
    }

    // A trap, an error of the host and a drop, after each of which the component is not to be entered again.
    let [stack, _] = &mut stacks;
    for name in ["", "error", "never"] {
        let mut store = Store::new(&engine, Host::default());
        let instance = finish(stack.go(&mut store, |mut store| linker.instantiate(&mut store, &component)))?;
        let run = instance.get_typed_func::<(&str,), (String,)>(&mut store, "run")?;
        let mut call = stack.go(&mut store, |mut store| run.call(&mut store, (name,)));
        for _ in 0..2 {
            assert!(poll_once(&mut call).is_pending());
        }
        match name {
            "never" => {
                assert!(poll_once(&mut call).is_pending());
                drop(call);
            }
            "error" => {
                let error = finish(call).unwrap_err();
                assert_eq!(error.root_cause().to_string(), "from the host");
            }
            _ => {
                let error = finish(call).unwrap_err();
                assert_eq!(error.downcast_ref(), Some(&Trap::UnreachableCodeReached), "{error:?}");
            }
        }
        assert_usable(stack, &mut store)?;
    }
    // Off a stack it is an error as everywhere.
    let error = runs[0].call(&mut stores[0], ("x",)).unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(Error::NotOnStack)), "{error:?}");
    Ok(())
}

/// Engines that find out about traps by checks in the guest's code, as those without signal handlers do.
fn traps_without_signals<S: AnyStack>(code: Code) -> Result<()> {
    let mut stack = stack::<S>();
    let mut store = with(code, |config| {
        config.signals_based_traps(false);
    })?;
    let wait = wait(&mut store);
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
