//! guest → host → guest → host → …, many levels deep, and many such calls at the same time.

use super::{GUEST, RUN, assert_polls, call_back, end, fibers, func, program, wait};
use crate::common::futures::{cancel, finish, pending, poll_once};
use crate::common::moving::sent;
use crate::common::random::Random;
use crate::support::guest::{assert_overflow, assert_usable, stack, store};
use crate::support::{Code, Host, Kind, many, matrix};
use futures::future::{BoxFuture, Either, join, select};
use std::future::{Future, poll_fn};
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use wasmtime::{Caller, Engine, Func, Instance, Module, Result};
use wasmtime_async::{DEFAULT_STACK_SIZE, FuncExt, Store};

matrix!(fifty_levels, by_way_of_other_stores, many_in_random_order, without_end);

fibers!(with_others_on_each_level, without_end_with_much_on_the_stack);

/// The number that each level adds to the result.
fn answer(id: i32, level: i32) -> i32 {
    (id + 1) * (level + 3)
}

/// A host function that calls its guest until 0, and waits before and after. `level` says how often.
fn descends(level: fn(&mut Host, i32) -> usize) -> impl for<'a> Fn(Caller<'a, Host>, (i32,)) -> super::Back<'a> {
    move |mut caller, (n,)| {
        Box::new(async move {
            let before = level(caller.data_mut(), n);
            pending(before).await;
            let next = if n == 0 { "inner" } else { "again" };
            let result = call_back(&mut caller, next, if n == 0 { 2 } else { n - 1 }).await?;
            let after = level(caller.data_mut(), n);
            pending(after).await;
            Ok(result + answer(caller.data().id, n))
        })
    }
}

/// The result of [`descends`].
fn expected(id: i32, depth: i32) -> i32 {
    21 + depth + (0..=depth).map(|level| answer(id, level)).sum::<i32>()
}

fn fifty_levels<K: Kind>(code: Code) -> Result<()> {
    const DEPTH: i32 = 50;
    let mut stack = stack::<K>();
    let mut store = store(code);
    let run = program(&mut store, descends(|_, _| 1))?;
    for depth in [0, 1, 7, DEPTH, 2, DEPTH] {
        let (polls, result) = end(&mut run.call(&mut stack, &mut store, depth));
        assert_eq!(result?, expected(0, depth) + RUN);
        assert_polls::<K>(polls, 2 * (usize::try_from(depth)? + 1) + 2 + 1);
        assert_usable(&mut stack, &mut store)?;
    }
    Ok(())
}

/// Each nested call is alternately one of two joined futures, or the first of two.
fn with_others_on_each_level<K: Kind>(code: Code) -> Result<()> {
    const DEPTH: i32 = 50;
    let mut stack = stack::<K>();
    let mut store = store(code);
    let run = program(&mut store, |mut caller, (n,)| {
        Box::new(async move {
            pending(1).await;
            let next = if n == 0 { "inner" } else { "again" };
            let call = call_back(&mut caller, next, if n == 0 { 2 } else { n - 1 });
            let result = match n % 3 {
                0 => {
                    let (result, ()) = join(call, pending(3)).await;
                    result?
                }
                1 => match select(pin!(call), std::future::pending::<()>()).await {
                    Either::Left((result, _)) => result?,
                    Either::Right(_) => panic!("waits for ever"),
                },
                _ => match select(pin!(pending(200)), pin!(call)).await {
                    Either::Left(((), call)) => call.await?,
                    Either::Right((result, _)) => result?,
                },
            };
            pending(1).await;
            Ok(result + answer(caller.data().id, n))
        })
    })?;
    for depth in [0, 1, 2, DEPTH] {
        assert_eq!(end(&mut run.call(&mut stack, &mut store, depth)).1?, expected(0, depth) + RUN);
        assert_usable(&mut stack, &mut store)?;
    }
    Ok(())
}

/// A nested call, three levels deep. Its innermost host function makes a call on another stack, in another store, which
/// contains the same again, `towers` times.
fn tower<K: Kind>(code: Code, towers: i32) -> BoxFuture<'static, Result<i32>> {
    Box::pin(sent(async move {
        let (mut stack, mut store) = (stack::<K>(), store(code));
        let run = program(&mut store, move |mut caller, (n,)| {
            Box::new(sent(async move {
                pending(1).await;
                let result = match n {
                    0 if towers > 0 => tower::<K>(code, towers - 1).await?,
                    0 => call_back(&mut caller, "inner", 1).await?,
                    _ => call_back(&mut caller, "again", n - 1).await?,
                };
                pending(1).await;
                Ok(result)
            }))
        })?;
        run.call(&mut stack, &mut store, 2).await
    }))
}

fn by_way_of_other_stores<K: Kind>(code: Code) -> Result<()> {
    for towers in 0..4 {
        assert_eq!(end(&mut tower::<K>(code, towers)).1?, 11 + (towers + 1) * (2 + RUN));
    }
    // Drops the call at various points.
    for polls in (0..20).step_by(3) {
        let mut tower = tower::<K>(code, 2);
        for _ in 0..polls {
            if poll_once(&mut tower).is_ready() {
                break;
            }
        }
        cancel(tower);
    }
    Ok(())
}

/// Calls of random depths that wait for random times, all in flight together.
fn many_in_random_order<K: Kind>(code: Code) -> Result<()> {
    const DEPTHS: usize = 6;
    const WASM_STACK: usize = 128 << 10;
    let mut config = code.config();
    config.max_wasm_stack(WASM_STACK);
    let engine = Engine::new(&config)?;
    let module = Module::new(&engine, GUEST)?;
    let mut random = Random::from_environment();
    let mut calls = Vec::new();
    for id in 0..i32::try_from(many())? {
        let mut store = Store::new(&engine, Host { id, ..Host::default() });
        let wait = wait(&mut store);
        let waits = |host: &mut Host, n: i32| usize::try_from(host.id.wrapping_add(n).rem_euclid(3)).expect("is small");
        let back = Func::wrap_suspending_boxed(&mut store, descends(waits));
        let instance = Instance::new(&mut store, &module, &[wait.into(), back.into()])?;
        let run = instance.get_func(&mut store, "run").expect("is exported").get_async(&store).typed()?;
        let depth = i32::try_from(random.below(DEPTHS))?;
        let stack = K::stack_of(DEFAULT_STACK_SIZE / 4)?;
        calls.push((expected(id, depth) + RUN, K::boxed(stack, store, run, depth)));
    }
    // All calls begin before any of them resumes.
    for (_, call) in &mut calls {
        assert!(poll_once(call).is_pending());
    }
    while !calls.is_empty() {
        let chosen = random.below(calls.len());
        if random.one_in(50) {
            // Drops the call in the middle.
            cancel(calls.swap_remove(chosen).1);
            continue;
        }
        let (expected, call) = &mut calls[chosen];
        if let Poll::Ready(result) = poll_once(call) {
            assert_eq!(result?, *expected);
            _ = calls.swap_remove(chosen);
        }
    }
    Ok(())
}

/// Recursion through nested calls ends in a trap, however deep it is.
fn without_end<K: Kind>(code: Code) -> Result<()> {
    if K::IN_PLACE && code == Code::Pulley {
        // Nothing limits this, as with wasmtime's own calls, whose frames are not on the interpreter's stack.
        return Ok(());
    }
    let mut stack = stack::<K>();
    let mut store = store(code);
    let run = program(&mut store, |mut caller, (n,)| {
        Box::new(async move {
            caller.data_mut().id += 1;
            call_back(&mut caller, "again", n).await
        })
    })?;
    for _ in 0..2 {
        store.data_mut().id = 0;
        assert_overflow(finish(run.call(&mut stack, &mut store, 0)));
        assert!(store.data().id > 10, "{}", store.data().id);
        assert_usable(&mut stack, &mut store)?;
    }
    Ok(())
}

/// Polls while this much of the stack is in use.
#[inline(never)]
#[expect(clippy::large_stack_arrays, reason = "is to use up the stack")]
fn poll_with_much<F: Future + Unpin>(future: &mut F, cx: &mut Context<'_>) -> Poll<F::Output> {
    let mut much = [0_u8; 32 << 10];
    black_box(&mut much);
    let poll = Pin::new(future).poll(cx);
    black_box(&mut much);
    poll
}

/// The host functions' futures are polled on a stack of their own, which also has an end.
fn without_end_with_much_on_the_stack<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let run = program(&mut store, |mut caller, (n,)| {
        Box::new(async move {
            let waits = caller.data().id % 3;
            caller.data_mut().id += 1;
            pending(usize::try_from(waits)?).await;
            let again = func(&mut caller, "again");
            let mut call = again.call_within(&mut caller, n);
            poll_fn(|cx| poll_with_much(&mut call, cx)).await
        })
    })?;
    for _ in 0..2 {
        store.data_mut().id = 0;
        assert_overflow(finish(run.call(&mut stack, &mut store, 0)));
        assert!(store.data().id > 5, "{}", store.data().id);
        assert_usable(&mut stack, &mut store)?;
    }
    Ok(())
}
