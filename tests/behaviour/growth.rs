//! Memories, tables and instances: how many there may be, where they come from, and what happens to them while a guest
//! is suspended.

use crate::common::futures::{cancel, finish, pending, poll_once};
use crate::support::guest::{assert_usable, export, guest, stack, waits, with};
use crate::support::{Code, Host, Kind, matrix};
use wasmtime::{
    Caller, Engine, Error, Func, InstanceAllocationStrategy, Linker, Memory, MemoryType, Module,
    PoolingAllocationConfig, Ref, ResourceLimiter, Result, StoreLimits, StoreLimitsBuilder, Table, TableType,
};
use wasmtime_async::{Carries, FuncExt, LinkerExt, Store, suspend_until};

matrix!(limits, pooled_instances, memories_that_grow, tables_that_grow);
matrix!(anything: limiters_that_wait);

/// Refuses memory beyond a number of bytes, and counts the requests.
#[derive(Default)]
pub(crate) struct Limiter {
    asked: usize,
    refused: usize,
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> Result<bool> {
        self.asked += 1;
        // The limiter is called on the guest's stack, and may wait.
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

/// Calls `wait` before anything grows.
const GROWS: &str = r#"(module
    (import "" "" (func $wait))
    (memory (export "memory") 1)
    (table 1 funcref)
    (func (export "run") (param i32) (result i32)
        (call $wait) (memory.grow (local.get 0)))
    (func (export "table") (param i32) (result i32)
        (call $wait) (table.grow (ref.null func) (local.get 0))))"#;

fn limiters_that_wait<K: Kind<Stack: Carries<Limiter>>>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = Store::new(&code.engine(), Limiter::default());
    let wait = waits::<K, _>(&mut store, 2);
    let module = Module::new(store.engine(), GROWS)?;
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
    // The first request was made when the memory was created. Growing by nothing makes no request.
    assert_eq!((store.data().asked, store.data().refused), (6, 0));
    // Drops the call while the limiter waits.
    let mut call = run.call(&mut stack, &mut store, (1,));
    for _ in 0..3 {
        assert!(poll_once(&mut call).is_pending());
    }
    cancel(call);
    assert_eq!(store.data().refused, 1);
    Ok(())
}

fn limits<K: Kind<Stack: Carries<StoreLimits>>>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let limits = StoreLimitsBuilder::new().memory_size(1 << 17).trap_on_grow_failure(true).instances(3).build();
    let mut store = Store::new(&code.engine(), limits);
    store.limiter(|limits| limits);
    let wait = waits::<K, _>(&mut store, 2);
    let instance = guest(&mut store, GROWS, [wait])?;
    let run = export(&mut store, &instance, "run").get_async(&store).get1::<i32, i32>()?;
    assert_eq!(finish(run.call(&mut stack, &mut store, (1,)))?, 1);
    let error = finish(run.call(&mut stack, &mut store, (1,))).unwrap_err();
    assert!(format!("{error:?}").contains("forcing trap when growing memory"), "{error:?}");
    assert_usable(&mut stack, &mut store)
}

/// Instances whose memory comes from a pool return it when their stores are dropped, however their calls ended.
fn pooled_instances<K: Kind>(code: Code) -> Result<()> {
    const SLOTS: u32 = 4;
    let mut pool = PoolingAllocationConfig::default();
    pool.total_core_instances(SLOTS).total_memories(SLOTS).total_tables(SLOTS).max_memory_size(1 << 17);
    // Small enough for every target.
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
    linker.func_wrap_suspending_send("", "wait", || pending(1))?;

    let mut stacks: Vec<_> = (0..=SLOTS).map(|_| stack::<K>()).collect();
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
        // The pool has no more.
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

/// Memory that grows and moves while the guest is suspended.
fn memories_that_grow<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    // Reserves nothing, so that the memory has to move.
    let mut store = with(code, |config| {
        config.memory_reservation(0).memory_reservation_for_growth(0).memory_guard_size(0);
    })?;
    let memory = Memory::new(&mut store, MemoryType::new(1, Some(64)))?;
    let grow = Func::wrap_suspending_boxed(&mut store, move |mut caller: Caller<'_, Host>, (pages,): (i32,)| {
        Box::new(async move {
            pending(1).await;
            let before = memory.grow(&mut caller, u64::try_from(pages)?)?;
            pending(1).await;
            // The guest looks at the last byte next.
            let last = memory.data_size(&caller) - 1;
            memory.data_mut(&mut caller)[last] = u8::try_from(before)?;
            Ok::<_, Error>(())
        })
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
    // Each turn grows the memory by two pages. The host writes the previous size.
    assert_eq!(finish(run.call(&mut stack, &mut store, (10,)))?, (0..10).map(|n| 1 + 2 * n).sum::<i32>() + 42);
    assert_eq!(memory.size(&store), 21);
    // The effects of a dropped call remain.
    let mut call = run.call(&mut stack, &mut store, (10,));
    for _ in 0..2 {
        assert!(poll_once(&mut call).is_pending());
    }
    cancel(call);
    assert_eq!(memory.size(&store), 22);
    assert_usable(&mut stack, &mut store)
}

fn tables_that_grow<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = with(code, |_| ())?;
    let table = Table::new(&mut store, TableType::new(wasmtime::RefType::FUNCREF, 0, None), Ref::Func(None))?;
    let grow = Func::wrap_suspending_boxed(&mut store, move |mut caller: Caller<'_, Host>, (n,): (i32,)| {
        Box::new(async move {
            pending(1).await;
            let function = Func::wrap_suspending_send(&mut caller, move || async move {
                pending(1).await;
                n
            });
            let place = table.grow(&mut caller, 1, Ref::Func(Some(function)))?;
            pending(1).await;
            Ok::<_, Error>(i32::try_from(place)?)
        })
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
