//! Calls within calls in other stores, on other stacks: host functions wait for them as for any future.

use crate::common::futures::{cancel, finish, pending, poll_caught, poll_once};
use crate::common::moving::sent;
use crate::common::random::Random;
use crate::support::guest::{assert_overflow, assert_usable, export, export_of, guest, runner, stack, store};
use crate::support::{Code, Host, Kind, matrix};
use futures::future::{BoxFuture, Either, select};
use std::hint::black_box;
use std::panic::resume_unwind;
use std::sync::Mutex;
use std::task::Poll;
use wasmtime::{Caller, Func, Result, Trap};
use wasmtime_async::{AsyncFunc, Carries, FuncExt, Stack, Store};

matrix!(
    four_stores_deep,
    four_stores_deep_in_random_order,
    both_at_once,
    whichever_is_first,
    recursion_on_stacks_in_any_order,
);

/// How the innermost of several calls ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Ending {
    Result,
    Trap,
    Recursion,
    Error,
    Panic,
    Never,
}

pub(crate) const ENDINGS: [Ending; 6] =
    [Ending::Result, Ending::Trap, Ending::Recursion, Ending::Error, Ending::Panic, Ending::Never];

/// Calls a guest in a store and on a stack of its own. Its host function does the same, `depth` times. The two kinds of
/// stack alternate.
fn tower<K: Kind, Next: Kind>(code: Code, depth: i32, ending: Ending) -> BoxFuture<'static, Result<i32>> {
    Box::pin(sent(async move {
        let (mut stack, mut store) = (stack::<K>(), store(code));
        let below = Func::wrap_suspending_send(&mut store, move |n: i32| async move {
            pending(1).await;
            if depth > 0 {
                return Ok(n + tower::<Next, K>(code, depth - 1, ending).await?);
            }
            match ending {
                Ending::Error => wasmtime::bail!("from the bottom"),
                Ending::Panic => resume_unwind(Box::new("from the bottom")),
                Ending::Never => std::future::pending().await,
                Ending::Result | Ending::Trap | Ending::Recursion => Ok(n),
            }
        });
        let text = r#"(module
            (import "" "" (func $below (param i32) (result i32)))
            (func $recurse (param i32) (result i32) (i32.add (i32.const 1) (call $recurse (local.get 0))))
            (func (export "run") (param $bottom i32) (param $ending i32) (result i32)
                (local $n i32)
                (local.set $n (call $below (i32.const 1)))
                (if (i32.and (local.get $bottom) (i32.eq (local.get $ending) (i32.const 1))) (then unreachable))
                (if (i32.and (local.get $bottom) (i32.eq (local.get $ending) (i32.const 2)))
                    (then (drop (call $recurse (i32.const 0)))))
                (local.get $n)))"#;
        let run = runner(&mut store, text, [below])?.get_async(&store).get2::<i32, i32, i32>()?;
        let result = run.call(&mut stack, &mut store, (i32::from(depth == 0), ending as i32)).await;
        assert_usable_here(&mut stack, &mut store).await?;
        result
    }))
}

/// Like `assert_usable`, in the middle of code that may suspend.
pub(crate) async fn assert_usable_here<S: Stack + Carries<Host>>(stack: &mut S, store: &mut Store<Host>) -> Result<()> {
    let wait = Func::wrap_suspending_send(&mut *store, |n: i32| async move {
        pending(2).await;
        n * 2
    });
    let run = wait.get_async(&*store).get1::<i32, i32>()?;
    assert_eq!(run.call(stack, store, (21,)).await?, 42);
    Ok(())
}

/// Polls a tower to its end, or to the point where it waits forever.
pub(crate) struct Climb {
    tower: Option<BoxFuture<'static, Result<i32>>>,
    ending: Ending,
    polls: usize,
}

impl Climb {
    pub(crate) fn new<K: Kind>(code: Code, ending: Ending) -> Self {
        Self::alternating::<K, K>(code, ending)
    }

    pub(crate) fn alternating<K: Kind, Next: Kind>(code: Code, ending: Ending) -> Self {
        Self { tower: Some(tower::<K, Next>(code, 3, ending)), ending, polls: 0 }
    }

    /// Returns whether the tower has ended.
    pub(crate) fn poll(&mut self) -> bool {
        self.polls += 1;
        let Some(tower) = &mut self.tower else { return true };
        match (self.ending, poll_caught(tower)) {
            (Ending::Never, Ok(Poll::Pending)) if self.polls == 20 => (),
            (_, Ok(Poll::Pending)) => return false,
            (Ending::Result, Ok(Poll::Ready(Ok(4)))) => (),
            (Ending::Trap, Ok(Poll::Ready(Err(error)))) => {
                assert_eq!(error.downcast_ref(), Some(&Trap::UnreachableCodeReached), "{error:?}");
            }
            (Ending::Recursion, Ok(Poll::Ready(Err(error)))) => {
                assert_eq!(error.downcast_ref(), Some(&Trap::StackOverflow), "{error:?}");
            }
            (Ending::Error, Ok(Poll::Ready(Err(error)))) => {
                assert_eq!(error.root_cause().to_string(), "from the bottom");
            }
            (Ending::Panic, Err(payload)) => {
                assert_eq!(payload.downcast_ref(), Some(&"from the bottom"));
            }
            (ending, poll) => panic!("{ending:?}: {poll:?}"),
        }
        self.tower = None;
        true
    }
}

fn four_stores_deep<K: Kind>(code: Code) -> Result<()> {
    for ending in ENDINGS {
        let mut climb = Climb::new::<K>(code, ending);
        while !climb.poll() {}
    }
    Ok(())
}

fn four_stores_deep_in_random_order<K: Kind>(code: Code) -> Result<()> {
    let mut random = Random::from_environment();
    let mut climbs: Vec<_> = ENDINGS.iter().chain(&ENDINGS).map(|&ending| Climb::new::<K>(code, ending)).collect();
    while !climbs.is_empty() {
        let chosen = random.below(climbs.len());
        if climbs[chosen].poll() {
            climbs.swap_remove(chosen);
        }
    }
    Ok(())
}

/// A guest that calls `wait` and adds its own number.
fn waits_and_adds(store: &mut Store<Host>, polls: usize) -> Result<Func> {
    let wait = Func::wrap_suspending_send(&mut *store, move |n: i32| async move {
        pending(polls).await;
        n * 10
    });
    let text = r#"(module
        (import "" "" (func $wait (param i32) (result i32)))
        (func (export "run") (param i32) (result i32) (i32.add (local.get 0) (call $wait (local.get 0)))))"#;
    runner(store, text, [wait])
}

/// The parts that a call needs.
type Parts<K> = (<K as Kind>::Stack, Store<Host>, AsyncFunc<(i32,), i32>);

/// The parts of two calls that wait for these numbers of polls.
fn two<K: Kind>(code: Code, polls: [usize; 2]) -> Result<[Parts<K>; 2]> {
    let one = |polls: usize| -> Result<_> {
        let mut store = store(code);
        let run = waits_and_adds(&mut store, polls)?.get_async(&store).get1::<i32, i32>()?;
        Ok((stack::<K>(), store, run))
    };
    Ok([one(polls[0])?, one(polls[1])?])
}

/// A host function waits for two calls at once.
fn both_at_once<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let both = Func::wrap_suspending_send(&mut store, move |n: i32| {
        sent(async move {
            let [(mut stack, mut store, run), (mut other_stack, mut other, other_run)] = two::<K>(code, [2, 3])?;
            let (one, two) = futures::join!(
                run.call(&mut stack, &mut store, (n,)),
                other_run.call(&mut other_stack, &mut other, (n + 1,))
            );
            assert_usable_here(&mut other_stack, &mut store).await?;
            Ok::<_, wasmtime::Error>(one? + two?)
        })
    });
    let text = r#"(module
        (import "" "" (func $both (param i32) (result i32)))
        (func (export "run") (param i32) (result i32) (call $both (call $both (local.get 0)))))"#;
    let run = runner(&mut store, text, [both])?.get_async(&store).get1::<i32, i32>()?;
    // Twice three polls for both, and two more.
    for polls in 0..=10 {
        let mut call = run.call(&mut stack, &mut store, (1,));
        for _ in 0..polls {
            assert!(poll_once(&mut call).is_pending());
        }
        if polls == 10 {
            assert_eq!(finish(call)?, 33 * 11 + 34 * 11);
        } else {
            cancel(call);
        }
        assert_usable(&mut stack, &mut store)?;
    }
    Ok(())
}

/// A host function waits for the first of two calls, and drops the other.
fn whichever_is_first<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let first = Func::wrap_suspending_send(&mut store, move |polls: u32, other_polls: u32| {
        sent(async move {
            let polls = [polls as usize, other_polls as usize];
            let [(mut stack, mut store, run), (mut other_stack, mut other, other_run)] = two::<K>(code, polls)?;
            let call = run.call(&mut stack, &mut store, (1,));
            let other_call = other_run.call(&mut other_stack, &mut other, (2,));
            let result = match select(call, other_call).await {
                Either::Left((result, _)) | Either::Right((result, _)) => result,
            };
            assert_usable_here(&mut stack, &mut other).await?;
            assert_usable_here(&mut other_stack, &mut store).await?;
            result
        })
    });
    let first = first.get_async(&store).get2::<u32, u32, i32>()?;
    for (polls, expected) in [((1, 3), 11), ((3, 1), 22), ((0, 2), 11)] {
        assert_eq!(finish(first.call(&mut stack, &mut store, polls))?, expected);
    }
    assert_usable(&mut stack, &mut store)
}

/// `recurse` has no end. `run` calls it through the host function `back`.
const RECURSES: &str = r#"(module
    (import "" "back" (func $back))
    (func $recurse (export "recurse") (call $recurse) (call $recurse))
    (func (export "run") (call $back)))"#;

/// Roughly the address of a local variable of the caller.
#[inline(never)]
fn here() -> usize {
    let local = 0_u8;
    black_box(&raw const local).addr()
}

/// Two stores, each on a stack of its own, one inside the other. The stacks lie in memory in either order.
fn recursion_on_stacks_in_any_order<K: Kind>(code: Code) -> Result<()> {
    let mut store = store(code);
    let mut placed = Vec::new();
    for _ in 0..4 {
        let mut stack = stack::<K>();
        let address = finish(stack.run_send(&mut store, |_| Ok(here())))?;
        placed.push((address, stack));
    }
    placed.sort_by_key(|(address, _)| *address);
    let [(_, lowest), (_, low), (_, high), (_, highest)] = placed.try_into().ok().expect("there are four");
    recursion_on_two_stacks::<K>(code, lowest, highest)?;
    recursion_on_two_stacks::<K>(code, high, low)
}

fn recursion_on_two_stacks<K: Kind>(code: Code, mut outer: K::Stack, inner: K::Stack) -> Result<()> {
    let mut store = store(code);
    let inner = Mutex::new(Some(inner));
    let back = Func::wrap_suspending_boxed(&mut store, move |mut caller: Caller<'_, Host>, (): ()| {
        let mut stack = inner.lock().expect("is not poisoned").take().expect("is called once");
        Box::new(sent(async move {
            let mut other = self::store(code);
            let nothing = Func::wrap(&mut other, || ());
            let instance = guest(&mut other, RECURSES, [nothing])?;
            let other_recurse = export(&mut other, &instance, "recurse");
            let recurse = export_of(&mut caller, "recurse");
            for _ in 0..2 {
                assert_overflow(other_recurse.call_on(&mut stack, &mut other, &[], &mut []).await);
                pending(1).await;
                assert_overflow(recurse.call(&mut caller, &[], &mut []));
                pending(1).await;
            }
            assert_usable_here(&mut stack, &mut other).await
        }))
    });
    let instance = guest(&mut store, RECURSES, [back])?;
    let (run, recurse) = (export(&mut store, &instance, "run"), export(&mut store, &instance, "recurse"));
    finish(run.call_on(&mut outer, &mut store, &[], &mut []))?;
    assert_overflow(finish(recurse.call_on(&mut outer, &mut store, &[], &mut [])));
    assert_usable(&mut outer, &mut store)
}

/// Different kinds of stacks, one inside the other.
#[cfg(all(fiber_stack, feature = "thread-backend"))]
#[test]
fn kinds_of_stacks_in_turn() {
    use crate::support::{Fiber, Thread, Unchecked};

    crate::common::watchdog::watched(|_| {
        let mut random = Random::from_environment();
        let mut climbs = Vec::new();
        for ending in ENDINGS {
            climbs.extend([
                Climb::alternating::<Fiber, Thread>(Code::Pulley, ending),
                Climb::alternating::<Thread, Fiber>(Code::Pulley, ending),
                Climb::alternating::<Fiber, Unchecked>(Code::Pulley, ending),
                Climb::alternating::<Unchecked, Fiber>(Code::Pulley, ending),
            ]);
            #[cfg(fiber_stack)]
            climbs.extend([
                Climb::alternating::<crate::support::SendFiber, Fiber>(Code::Pulley, ending),
                Climb::alternating::<Thread, crate::support::SendFiber>(Code::Pulley, ending),
            ]);
        }
        while !climbs.is_empty() {
            let chosen = random.below(climbs.len());
            if climbs[chosen].poll() {
                climbs.swap_remove(chosen);
            }
        }
    });
}

/// Two kinds whose calls are `Send`, on alternating threads.
#[cfg(all(fiber_stack, feature = "thread-backend"))]
#[test]
fn kinds_of_stacks_that_change_threads() {
    use crate::support::{SendFiber, Thread};

    crate::common::watchdog::watched(|_| {
        crate::common::moving::moving(|| {
            for ending in ENDINGS {
                let mut climbs = [
                    Climb::alternating::<SendFiber, Thread>(Code::Pulley, ending),
                    Climb::alternating::<Thread, SendFiber>(Code::Pulley, ending),
                ];
                while climbs.iter_mut().map(Climb::poll).filter(|ended| !ended).count() > 0 {}
            }
        });
    });
}
