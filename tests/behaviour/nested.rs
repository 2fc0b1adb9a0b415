//! Calls within calls: in the same store, in others, on the same stack and on others.

use crate::common::futures::{finish, pending, poll_caught, poll_once};
use crate::common::random::Random;
use crate::support::guest::{assert_usable, export, guest, runner, stack, store};
use crate::support::{AnyStack, Code, Host, matrix};
use futures::future::LocalBoxFuture;
use std::hint::black_box;
use std::panic::resume_unwind;
use std::sync::Mutex;
use std::task::Poll;
use std::thread as os_thread;
use wasmtime::{AsContextMut, Caller, Engine, Extern, Func, Linker, Result, Store, Trap, TypedFunc, Val};
use wasmtime_async::{Carries, DEFAULT_STACK_SIZE, Error, FuncExt, LinkerExt, suspend_until, yield_now};

matrix!(
    back_into_the_same_store,
    back_with_another_stack_at_hand,
    four_stores_deep,
    four_stores_deep_in_random_order,
    recursion_in_the_same_store,
    recursion_on_stacks_in_any_order,
    recursion_by_way_of_the_host,
    another_store_without_a_stack_of_its_own,
    reentry_after_a_plain_call,
    reentry_after_a_plain_call_of_a_host_function,
    reentry_from_another_stack,
    reentry_through_a_context,
    polled_inside_and_outside_other_calls,
    outlives_the_call_that_started_it,
    idle_stacks_change_threads,
);

/// `wait` and `back` are host functions; `back` calls `inner`, which calls `wait`.
const BACK: &str = r#"(module
    (import "" "wait" (func $wait (param i32) (result i32)))
    (import "" "back" (func $back (param i32) (result i32)))
    (func (export "inner") (param i32) (result i32) (i32.add (call $wait (local.get 0)) (i32.const 1)))
    (func (export "run") (param i32) (result i32)
        (i32.add (call $back (local.get 0)) (call $wait (i32.const 100)))))"#;

fn wait<T: 'static>(store: &mut Store<T>) -> Func {
    Func::wrap_suspending(store, async |n: i32| {
        pending(2).await;
        n * 2
    })
}

fn export_of<T>(caller: &mut Caller<'_, T>, name: &str) -> Func {
    caller.get_export(name).and_then(Extern::into_func).expect("is exported")
}

fn inner_of<T>(caller: &mut Caller<'_, T>) -> TypedFunc<i32, i32> {
    export_of(caller, "inner").typed(caller).expect("has this type")
}

/// The address of a local variable of its caller, more or less.
#[inline(never)]
fn here() -> usize {
    let local = 0_u8;
    black_box(&raw const local).addr()
}

fn back_into_the_same_store<S: AnyStack>(code: Code) -> Result<()> {
    let mut stack = stack::<S>();
    let mut store = store(code);
    let wait = wait(&mut store);
    let backs = [
        // From a synchronous host function, that waits besides.
        Func::wrap(&mut store, |mut caller: Caller<'_, Host>, n: i32| -> Result<i32> {
            yield_now()?;
            let result = inner_of(&mut caller).call(&mut caller, n)?;
            suspend_until(pending(1))?;
            Ok(result)
        }),
        // From an asynchronous one, which blocks its own poll.
        Func::wrap_suspending(&mut store, async |mut caller: Caller<'_, Host>, n: i32| -> Result<i32> {
            pending(1).await;
            let result = inner_of(&mut caller).call(&mut caller, n)?;
            pending(1).await;
            Ok(result)
        }),
    ];
    for back in backs {
        let run = {
            let instance = guest(&mut store, BACK, [wait, back])?;
            export(&mut store, &instance, "run").get_async(&store).get1::<i32, i32>()?
        };
        for n in 0..3 {
            let mut call = run.call(&mut stack, &mut store, (n,));
            // At least: what is pending after a suspension within its poll may be polled again at once.
            for _ in 0..5 {
                assert!(poll_once(&mut call).is_pending());
            }
            assert_eq!(finish(call)?, 2 * n + 1 + 200);
        }
    }
    assert_usable(&mut stack, &mut store)
}

/// A call with a `Caller` stays on the stack that it is made on, whatever stack it is given.
fn back_with_another_stack_at_hand<S: AnyStack>(code: Code) -> Result<()> {
    let mut stack = stack::<S>();
    let mut store = store(code);
    let log = store.data().log.clone();
    let wait = Func::wrap_suspending(&mut store, async |caller: Caller<'_, Host>, n: i32| {
        caller.data().log.add(here().to_string());
        pending(2).await;
        n * 2
    });
    let back = Func::wrap_suspending(&mut store, async move |mut caller: Caller<'_, Host>, n: i32| -> Result<i32> {
        caller.data().log.add(here().to_string());
        let mut spare = self::stack::<S>();
        let inner = export_of(&mut caller, "inner");
        let mut results = [Val::I32(0)];
        inner.call_on(&mut spare, &mut caller, &[Val::I32(n)], &mut results).await?;
        pending(1).await;
        let typed = inner.get_async(&caller).get1::<i32, i32>()?;
        let second = typed.call(&mut spare, &mut caller, (n,)).await?;
        let third = spare
            .go(&mut caller, |mut store| {
                store.data().log.add(here().to_string());
                suspend_until(pending(1))?;
                typed.as_typed().call(&mut store, (n,))
            })
            .await?;
        // Instantiation, too.
        let module = wasmtime::Module::new(caller.engine(), r#"(module (import "" "wait" (func)) (start 0))"#)?;
        let mut linker = Linker::new(caller.engine());
        linker.func_wrap_suspending("", "wait", async |caller: Caller<'_, Host>| {
            caller.data().log.add(here().to_string());
            pending(1).await;
        })?;
        linker.instantiate_on(&mut spare, &mut caller, &module).await?;
        // The spare one is as good as new, for other stores.
        assert_usable(&mut spare, &mut self::store(code))?;
        Ok(results[0].unwrap_i32() + second + third)
    });
    let instance = guest(&mut store, BACK, [wait, back])?;
    let run = export(&mut store, &instance, "run").get_async(&store).get1::<i32, i32>()?;
    assert_eq!(finish(run.call(&mut stack, &mut store, (5,)))?, 3 * 11 + 200);

    let addresses: Vec<usize> = log.take().iter().map(|address| address.parse().expect("a number")).collect();
    assert_eq!(addresses.len(), 7);
    for address in &addresses {
        assert!(address.abs_diff(addresses[0]) < DEFAULT_STACK_SIZE, "all on one stack: {addresses:x?}");
    }
    assert_usable(&mut stack, &mut store)
}

/// How the innermost of several calls ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ending {
    Result,
    Trap,
    Recursion,
    Error,
    Panic,
    Never,
}

const ENDINGS: [Ending; 6] =
    [Ending::Result, Ending::Trap, Ending::Recursion, Ending::Error, Ending::Panic, Ending::Never];

/// Calls a guest, in a store and on a stack of its own, whose host function does the same, `depth` times, with the
/// stacks of the two kinds in turn.
fn tower<S: AnyStack, Next: AnyStack>(code: Code, depth: i32, ending: Ending) -> LocalBoxFuture<'static, Result<i32>> {
    Box::pin(async move {
        let (mut stack, mut store) = (stack::<S>(), store(code));
        let below = Func::wrap_suspending(&mut store, async move |n: i32| -> Result<i32> {
            pending(1).await;
            if depth > 0 {
                return Ok(n + tower::<Next, S>(code, depth - 1, ending).await?);
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
    })
}

/// As `assert_usable`, in the middle of something that may suspend.
async fn assert_usable_here<S: AnyStack>(stack: &mut S, store: &mut Store<Host>) -> Result<()> {
    let wait = wait(store);
    let run = wait.get_async(&*store).get1::<i32, i32>()?;
    assert_eq!(run.call(stack, store, (21,)).await?, 42);
    Ok(())
}

/// Polls a tower to its end, or to where it waits for ever.
struct Climb {
    tower: Option<LocalBoxFuture<'static, Result<i32>>>,
    ending: Ending,
    polls: usize,
}

impl Climb {
    fn new<S: AnyStack>(code: Code, ending: Ending) -> Self {
        Self::alternating::<S, S>(code, ending)
    }

    fn alternating<S: AnyStack, Next: AnyStack>(code: Code, ending: Ending) -> Self {
        Self { tower: Some(tower::<S, Next>(code, 3, ending)), ending, polls: 0 }
    }

    /// Whether that was the end.
    fn poll(&mut self) -> bool {
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

fn four_stores_deep<S: AnyStack>(code: Code) -> Result<()> {
    for ending in ENDINGS {
        let mut climb = Climb::new::<S>(code, ending);
        while !climb.poll() {}
    }
    Ok(())
}

fn four_stores_deep_in_random_order<S: AnyStack>(code: Code) -> Result<()> {
    let mut random = Random::from_environment();
    let mut climbs: Vec<_> = ENDINGS.iter().chain(&ENDINGS).map(|&ending| Climb::new::<S>(code, ending)).collect();
    while !climbs.is_empty() {
        let chosen = random.below(climbs.len());
        if climbs[chosen].poll() {
            climbs.swap_remove(chosen);
        }
    }
    Ok(())
}

/// `recurse` has no end. `run` calls it by way of the host function `back`.
const RECURSES: &str = r#"(module
    (import "" "back" (func $back))
    (func $recurse (export "recurse") (call $recurse) (call $recurse))
    (func (export "inner") (param i32) (result i32) (call $recurse) (i32.const 0))
    (func (export "run") (call $back)))"#;

fn assert_overflow<R: std::fmt::Debug>(result: Result<R>) {
    let error = result.expect_err("recurses without end");
    assert_eq!(error.downcast_ref(), Some(&Trap::StackOverflow), "{error:?}");
}

fn recursion_in_the_same_store<S: AnyStack>(code: Code) -> Result<()> {
    let mut stack = stack::<S>();
    let mut store = store(code);
    let backs = [
        Func::wrap(&mut store, |mut caller: Caller<'_, Host>| -> Result<()> {
            suspend_until(pending(1))?;
            let recurse = export_of(&mut caller, "recurse");
            for _ in 0..3 {
                assert_overflow(recurse.call(&mut caller, &[], &mut []));
                suspend_until(pending(1))?;
            }
            recurse.call(&mut caller, &[], &mut [])
        }),
        Func::wrap_suspending(&mut store, async |mut caller: Caller<'_, Host>| -> Result<()> {
            let mut spare = self::stack::<S>();
            pending(1).await;
            let recurse = export_of(&mut caller, "recurse");
            for _ in 0..3 {
                assert_overflow(recurse.call_on(&mut spare, &mut caller, &[], &mut []).await);
                pending(1).await;
            }
            recurse.call_on(&mut spare, &mut caller, &[], &mut []).await
        }),
    ];
    for back in backs {
        let instance = guest(&mut store, RECURSES, [back])?;
        for name in ["recurse", "run"] {
            let func = export(&mut store, &instance, name);
            assert_overflow(finish(func.call_on(&mut stack, &mut store, &[], &mut [])));
            assert_usable(&mut stack, &mut store)?;
        }
    }
    Ok(())
}

/// Two stores, each on a stack of its own, one inside the other, with the stacks in either order in memory.
fn recursion_on_stacks_in_any_order<S: AnyStack>(code: Code) -> Result<()> {
    let mut store = store(code);
    let mut placed = Vec::new();
    for _ in 0..4 {
        let mut stack = stack::<S>();
        let address = finish(stack.go(&mut store, |_| Ok(here())))?;
        placed.push((address, stack));
    }
    placed.sort_by_key(|(address, _)| *address);
    let [(_, lowest), (_, low), (_, high), (_, highest)] = placed.try_into().ok().expect("there are four");
    recursion_on_two_stacks(code, lowest, highest)?;
    recursion_on_two_stacks(code, high, low)
}

fn recursion_on_two_stacks<S: AnyStack>(code: Code, mut outer: S, inner: S) -> Result<()> {
    let mut store = store(code);
    let inner = Mutex::new(Some(inner));
    let back = Func::wrap_suspending(&mut store, async move |mut caller: Caller<'_, Host>| -> Result<()> {
        let mut stack = inner.lock().expect("is not poisoned").take().expect("is called once");
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
    });
    let instance = guest(&mut store, RECURSES, [back])?;
    let (run, recurse) = (export(&mut store, &instance, "run"), export(&mut store, &instance, "recurse"));
    finish(run.call_on(&mut outer, &mut store, &[], &mut []))?;
    assert_overflow(finish(recurse.call_on(&mut outer, &mut store, &[], &mut [])));
    assert_usable(&mut outer, &mut store)
}

/// guest → host → guest → host → … without end.
fn recursion_by_way_of_the_host<S: AnyStack>(code: Code) -> Result<()> {
    if code == Code::Pulley {
        // Its limit is one of the interpreter's own stack, which the frames of the host are not on: wasmtime does not
        // limit this recursion, on whatever stack.
        return Ok(());
    }
    let mut stack = stack::<S>();
    let mut store = store(code);
    let backs = [
        Func::wrap(&mut store, |mut caller: Caller<'_, Host>| -> Result<()> {
            export_of(&mut caller, "run").call(&mut caller, &[], &mut [])
        }),
        Func::wrap_suspending(&mut store, async |mut caller: Caller<'_, Host>| -> Result<()> {
            pending(1).await;
            export_of(&mut caller, "run").call(&mut caller, &[], &mut [])
        }),
    ];
    for back in backs {
        let run = runner(&mut store, RECURSES, [back])?;
        assert_overflow(finish(run.call_on(&mut stack, &mut store, &[], &mut [])));
        assert_usable(&mut stack, &mut store)?;
    }
    Ok(())
}

/// Code on a stack calls into another store by wasmtime's own functions. That store's host functions wait by
/// suspending the stack, as everything on it does.
fn another_store_without_a_stack_of_its_own<S: AnyStack>(code: Code) -> Result<()> {
    let mut stack = stack::<S>();
    let mut store = store(code);
    let plain = Func::wrap(&mut store, move |n: i32| -> Result<i32> {
        let mut other = self::store(code);
        let (wait, back) = (wait(&mut other), wait(&mut other));
        let instance = guest(&mut other, BACK, [wait, back])?;
        let run = instance.get_typed_func::<i32, i32>(&mut other, "run")?;
        let nothing = Func::wrap(&mut other, || ());
        let recurses = guest(&mut other, RECURSES, [nothing])?;
        assert_overflow(export(&mut other, &recurses, "recurse").call(&mut other, &[], &mut []));
        run.call(&mut other, n)
    });
    let wait = wait(&mut store);
    let instance = guest(&mut store, BACK, [wait, plain])?;
    let run = export(&mut store, &instance, "run").get_async(&store).get1::<i32, i32>()?;
    let mut call = run.call(&mut stack, &mut store, (3,));
    for _ in 0..6 {
        assert!(poll_once(&mut call).is_pending());
    }
    assert_eq!(finish(call)?, 6 + 200 + 200);
    assert_usable(&mut stack, &mut store)
}

fn assert_reentry<R: std::fmt::Debug>(result: Result<R>) {
    let error = result.expect_err("enters the store on another stack");
    assert!(matches!(error.downcast_ref(), Some(Error::Reentry)), "{error:?}");
    let text = error.downcast_ref::<Error>().expect("it is").to_string();
    assert!(text.contains("already inside a call") && text.contains("call_on"), "{text}");
}

/// Tries all ways to call `inner` on another stack.
fn try_to_reenter<S: AnyStack>(caller: &mut Caller<'_, Host>) -> Result<()> {
    let mut spare = stack::<S>();
    let inner = export_of(caller, "inner");
    assert_reentry(finish(inner.call_on(&mut spare, caller, &[Val::I32(1)], &mut [Val::I32(0)])));
    let typed = inner.get_async(&*caller).get1::<i32, i32>()?;
    assert_reentry(finish(typed.call(&mut spare, caller, (1,))));
    assert_reentry(finish(spare.go(caller, |_| Ok(()))));
    Ok(())
}

/// Wasm that was entered without a stack of this crate calls a host function, which has one at hand.
fn reentry_after_a_plain_call<S: AnyStack>(code: Code) -> Result<()> {
    let mut store = store(code);
    let wait = wait(&mut store);
    let back = Func::wrap(&mut store, |mut caller: Caller<'_, Host>, n: i32| -> Result<i32> {
        try_to_reenter::<S>(&mut caller)?;
        Ok(n)
    });
    let instance = guest(&mut store, BACK, [wait, back])?;
    let run = instance.get_typed_func::<i32, i32>(&mut store, "run")?;
    // It waits after that, and cannot.
    let error = run.call(&mut store, 1).unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(Error::NotOnStack)), "{error:?}");
    assert_usable(&mut stack::<S>(), &mut store)?;

    // Nor does it help that the plain call was made on the stack of another store's call.
    let mut stack = stack::<S>();
    let mut outer = self::store(code);
    let call = stack.go(&mut outer, |_| run.call(&mut store, 1));
    assert_eq!(finish(call)?, 1 + 200);
    assert_usable(&mut stack, &mut outer)?;
    assert_usable(&mut stack, &mut store)
}

/// The same without any wasm on the stack: the host function itself was called, and has the store's stack limit set.
fn reentry_after_a_plain_call_of_a_host_function<S: AnyStack>(code: Code) -> Result<()> {
    let mut store = store(code);
    let nothing = Func::wrap(&mut store, || ());
    let instance = guest(&mut store, RECURSES, [nothing])?;
    let recurse = export(&mut store, &instance, "recurse");
    let inner = export(&mut store, &instance, "inner");
    let back = Func::wrap(&mut store, move |mut caller: Caller<'_, Host>| {
        // All at once, so that some of them lie above this stack and some below.
        let mut spares: [S; 4] = std::array::from_fn(|_| stack());
        for spare in &mut spares {
            assert_reentry(finish(recurse.call_on(spare, &mut caller, &[], &mut [])));
            let typed = inner.get_async(&caller).get1::<i32, i32>().expect("has this type");
            assert_reentry(finish(typed.call(spare, &mut caller, (1,))));
            assert_reentry(finish(spare.go(&mut caller, |_| Ok(()))));
        }
    });
    back.call(&mut store, &[], &mut [])?;
    assert_usable(&mut stack::<S>(), &mut store)
}

/// The store is in use on one stack, and code on another, further in, has got hold of its context.
fn reentry_from_another_stack<S: AnyStack>(code: Code) -> Result<()> {
    let mut stack = stack::<S>();
    let mut store = store(code);
    let wait = wait(&mut store);
    let back = Func::wrap(&mut store, move |mut caller: Caller<'_, Host>, n: i32| -> Result<i32> {
        let (mut other_stack, mut other_store) = (self::stack::<S>(), self::store(code));
        let call = other_stack.go(&mut other_store, |_| {
            suspend_until(pending(1))?;
            try_to_reenter::<S>(&mut caller)?;
            suspend_until(pending(1))?;
            Ok(n)
        });
        let n = suspend_until(call)??;
        assert_usable(&mut other_stack, &mut other_store)?;
        // Back on its own stack all is well.
        inner_of(&mut caller).call(&mut caller, n)
    });
    let instance = guest(&mut store, BACK, [wait, back])?;
    let run = export(&mut store, &instance, "run").get_async(&store).get1::<i32, i32>()?;
    assert_eq!(finish(run.call(&mut stack, &mut store, (4,)))?, 8 + 1 + 200);
    assert_usable(&mut stack, &mut store)
}

/// What a host function has is no `Caller` but a context, whose type says nothing of where it comes from.
fn reentry_through_a_context<S: AnyStack>(code: Code) -> Result<()> {
    let mut store = store(code);
    let refused = Func::wrap(&mut store, |mut caller: Caller<'_, Host>| {
        let mut context = caller.as_context_mut();
        let mut refused = || assert_reentry(finish(stack::<S>().go(&mut context, |_| Ok(()))));
        // On another thread, too, which knows nothing of what is entered on this one.
        os_thread::scope(|scope| scope.spawn(&mut refused).join()).expect("is refused");
        refused();
    });
    let run = runner(&mut store, RECURSES, [refused])?;
    run.call(&mut store, &[], &mut [])?;

    // On a stack, it is known to be there, but not by other threads.
    let here = Func::wrap(&mut store, |mut caller: Caller<'_, Host>| -> Result<()> {
        let mut context = caller.as_context_mut();
        finish(stack::<S>().go(&mut context, |_| Ok(())))?;
        let elsewhere = || assert_reentry(finish(stack::<S>().go(&mut context, |_| Ok(()))));
        os_thread::scope(|scope| scope.spawn(elsewhere).join()).expect("is refused");
        Ok(())
    });
    let run = runner(&mut store, RECURSES, [here])?;
    let mut stack = stack::<S>();
    finish(run.call_on(&mut stack, &mut store, &[], &mut []))?;

    // That of a store that is not in use is as good as the store.
    assert_eq!(finish(stack.go(&mut store.as_context_mut(), |store| Ok(store.data().id)))?, store.data().id);
    assert_usable(&mut stack, &mut store)
}

/// The data of a store whose host function polls a call.
pub(crate) struct Holder<S: AnyStack> {
    call: Option<S::Boxed>,
    ended: Option<Result<i32>>,
    deeper: Option<Func>,
}

/// Where a call is polled.
#[derive(Clone, Copy, Debug)]
enum Place {
    Outside,
    /// In a host function that a guest called, entered by wasmtime's own functions.
    InPlainCall,
    /// In a host function of a guest on another stack.
    OnStack,
    /// The same, and the guest traps afterwards.
    BeforeTrap,
}

const PLACES: [Place; 4] = [Place::Outside, Place::InPlainCall, Place::OnStack, Place::BeforeTrap];

struct Outer<S: AnyStack> {
    stack: S,
    store: Store<Holder<S>>,
    run: Func,
    traps: Func,
}

impl<S: AnyStack + Carries<Holder<S>>> Outer<S> {
    fn new(engine: &Engine) -> Result<Self> {
        let mut store = Store::new(engine, Holder::<S> { call: None, ended: None, deeper: None });
        let poll = Func::wrap(&mut store, |mut caller: Caller<'_, Holder<S>>| -> Result<()> {
            // Once deeper, for two activations of the same store.
            if let Some(deeper) = caller.data_mut().deeper.take() {
                return deeper.call(&mut caller, &[], &mut []);
            }
            let data = caller.data_mut();
            let call = data.call.as_mut().expect("there is one to poll");
            if let Poll::Ready(result) = poll_once(call) {
                data.ended = Some(result);
            }
            Ok(())
        });
        let text = r#"(module
            (import "" "" (func $poll))
            (func (export "run") (call $poll))
            (func (export "traps") (call $poll) unreachable))"#;
        let instance = guest(&mut store, text, [poll])?;
        let (run, traps) = (export(&mut store, &instance, "run"), export(&mut store, &instance, "traps"));
        Ok(Self { stack: stack(), store, run, traps })
    }

    fn poll(&mut self, place: Place) -> Option<Result<i32>> {
        match place {
            Place::Outside => {
                let call = self.store.data_mut().call.as_mut().expect("there is one to poll");
                if let Poll::Ready(result) = poll_once(call) {
                    return Some(result);
                }
            }
            Place::InPlainCall => {
                self.store.data_mut().deeper = Some(self.run);
                self.run.call(&mut self.store, &[], &mut []).expect("polls");
            }
            Place::OnStack => {
                finish(self.run.call_on(&mut self.stack, &mut self.store, &[], &mut [])).expect("polls");
            }
            Place::BeforeTrap => {
                let result = finish(self.traps.call_on(&mut self.stack, &mut self.store, &[], &mut []));
                assert_eq!(result.unwrap_err().downcast_ref(), Some(&Trap::UnreachableCodeReached));
            }
        }
        self.store.data_mut().ended.take()
    }
}

/// A guest that waits twice and then ends in the way that it was asked for.
fn waits_and_ends<S: AnyStack>(code: Code, ending: i32) -> Result<S::Boxed> {
    let mut store = store(code);
    let wait = Func::wrap_suspending(&mut store, async || pending(1).await);
    let text = r#"(module
        (import "" "" (func $wait))
        (func $recurse (param i32) (result i32) (i32.add (i32.const 1) (call $recurse (local.get 0))))
        (func (export "run") (param i32) (result i32)
            (call $wait)
            (call $wait)
            (if (i32.eq (local.get 0) (i32.const 1)) (then unreachable))
            (if (i32.eq (local.get 0) (i32.const 2)) (then (return (call $recurse (i32.const 0)))))
            (i32.const 42)))"#;
    let run = runner(&mut store, text, [wait])?.get_async(&store).typed::<i32, i32>()?;
    Ok(stack::<S>().boxed(store, run, ending))
}

fn check_end(ending: i32, result: &Result<i32>) {
    match (ending, result) {
        (0, Ok(42)) => (),
        (1, Err(error)) => assert_eq!(error.downcast_ref(), Some(&Trap::UnreachableCodeReached), "{error:?}"),
        (2, Err(error)) => assert_eq!(error.downcast_ref(), Some(&Trap::StackOverflow), "{error:?}"),
        (ending, result) => panic!("{ending} ended in {result:?}"),
    }
}

/// Each of a call's three polls in each of the places.
fn polled_inside_and_outside_other_calls<S: AnyStack + Carries<Holder<S>>>(code: Code) -> Result<()> {
    let mut outer = Outer::<S>::new(&code.engine())?;
    for first in PLACES {
        for second in PLACES {
            for third in PLACES {
                let ending = third as i32 % 3;
                outer.store.data_mut().call = Some(waits_and_ends::<S>(code, ending)?);
                assert!(outer.poll(first).is_none());
                assert!(outer.poll(second).is_none());
                let end = outer.poll(third).unwrap_or_else(|| panic!("not ended: {first:?}, {second:?}, {third:?}"));
                check_end(ending, &end);
            }
            // Dropped instead.
            outer.store.data_mut().call = Some(waits_and_ends::<S>(code, 0)?);
            assert!(outer.poll(first).is_none());
            outer.store.data_mut().call = None;
        }
    }
    assert_usable(&mut outer.stack, &mut outer.store)
}

/// Several calls that are polled first by one call and go on when that has ended, all at once.
fn outlives_the_call_that_started_it<S: AnyStack + Carries<Holder<S>>>(code: Code) -> Result<()> {
    let engine = code.engine();
    let mut random = Random::from_environment();
    let mut waiting = Vec::new();
    for _ in 0..8 {
        for ending in 0..3 {
            let mut outer = Outer::<S>::new(&engine)?;
            outer.store.data_mut().call = Some(waits_and_ends::<S>(code, ending)?);
            assert!(outer.poll(*random.pick(&PLACES)).is_none());
            waiting.push((ending, outer.store.data_mut().call.take()));
        }
    }
    let mut outer = Outer::<S>::new(&engine)?;
    while !waiting.is_empty() {
        let chosen = random.below(waiting.len());
        let (ending, call) = &mut waiting[chosen];
        outer.store.data_mut().call = call.take();
        let end = outer.poll(*random.pick(&PLACES));
        *call = outer.store.data_mut().call.take();
        if let Some(result) = end {
            check_end(*ending, &result);
            waiting.swap_remove(chosen);
        }
    }
    Ok(())
}

/// A stack and a store go from thread to thread, after each kind of ending.
fn idle_stacks_change_threads<S: AnyStack>(code: Code) -> Result<()> {
    let mut stack = stack::<S>();
    let mut store = store(code);
    let nothing = Func::wrap(&mut store, || ());
    let instance = guest(&mut store, RECURSES, [nothing])?;
    let recurse = export(&mut store, &instance, "recurse");
    let wait = wait(&mut store);
    let waits = guest(&mut store, BACK, [wait, wait])?;
    let run = export(&mut store, &waits, "run");
    for round in 0..8 {
        (stack, store) = os_thread::spawn(move || -> Result<_> {
            assert_usable(&mut stack, &mut store)?;
            match round % 4 {
                0 => assert_overflow(finish(recurse.call_on(&mut stack, &mut store, &[], &mut []))),
                1 => {
                    let params = [Val::I32(1)];
                    let mut results = [Val::I32(0)];
                    let mut call = run.call_on(&mut stack, &mut store, &params, &mut results);
                    assert!(poll_once(&mut call).is_pending());
                }
                2 => {
                    let mut call = stack.go(&mut store, |_| -> Result<()> { resume_unwind(Box::new(1)) });
                    assert!(poll_caught(&mut call).is_err());
                }
                _ => {
                    let mut forgotten = self::store(code);
                    let mut call = stack.go(&mut forgotten, |_| Ok(suspend_until(pending(9))?));
                    assert!(poll_once(&mut call).is_pending());
                    std::mem::forget(call);
                }
            }
            Ok((stack, store))
        })
        .join()
        .expect("does not panic")?;
    }
    assert_usable(&mut stack, &mut store)
}

/// wasmtime's own async and this crate's, one inside the other.
#[cfg(fiber_stack)]
mod with_wasmtimes_own {
    use super::*;
    use wasmtime::{Instance, Module};

    matrix!(stacks_on_its_fibers, its_fibers_on_stacks, suspended_on_its_fibers);

    /// `run` of a guest whose imports are wasmtime's own async functions, among others.
    async fn async_runner(store: &mut Store<Host>, text: &str, imports: &[Func]) -> Result<Func> {
        let module = Module::new(store.engine(), text)?;
        let imports: Vec<_> = imports.iter().copied().map(Extern::from).collect();
        let instance = Instance::new_async(&mut *store, &module, &imports).await?;
        Ok(export(store, &instance, "run"))
    }

    fn stacks_on_its_fibers<S: AnyStack>(code: Code) -> Result<()> {
        let mut store = store(code);
        let wait = Func::wrap_async(&mut store, |_: Caller<'_, Host>, (): ()| Box::new(pending(1)));
        let call = Func::wrap(&mut store, move || -> Result<()> {
            for ending in ENDINGS {
                let mut climb = Climb::new::<S>(code, ending);
                while !climb.poll() {}
            }
            Ok(())
        });
        let text = r#"(module
            (import "" "" (func $wait))
            (import "" "" (func $call))
            (func (export "run") (call $wait) (call $call) (call $wait)))"#;
        let run = finish(Box::pin(async_runner(&mut store, text, &[wait, call])))?;
        let mut future = Box::pin(run.call_async(&mut store, &[], &mut []));
        assert!(poll_once(&mut future).is_pending());
        assert!(poll_once(&mut future).is_pending());
        assert!(matches!(poll_once(&mut future), Poll::Ready(Ok(()))));
        Ok(())
    }

    fn its_fibers_on_stacks<S: AnyStack>(code: Code) -> Result<()> {
        let mut stack = stack::<S>();
        let mut store = store(code);
        let call = Func::wrap_suspending(&mut store, async move || -> Result<()> {
            let mut store = self::store(code);
            let nothing = Func::wrap(&mut store, || ());
            let recurses = guest(&mut store, RECURSES, [nothing])?;
            let recurse = export(&mut store, &recurses, "recurse");
            let wait = Func::wrap_async(&mut store, |_: Caller<'_, Host>, (): ()| Box::new(pending(2)));
            let text = r#"(module (import "" "" (func)) (func (export "run") (call 0)))"#;
            let run = async_runner(&mut store, text, &[wait]).await?;
            run.call_async(&mut store, &[], &mut []).await?;
            assert_overflow(recurse.call_async(&mut store, &[], &mut []).await);
            run.call_async(&mut store, &[], &mut []).await
        });
        let text = r#"(module
            (import "" "" (func $call))
            (func (export "run") (call $call)))"#;
        let run = runner(&mut store, text, [call])?;
        // Two at once, in turn.
        let mut other_stack = self::stack::<S>();
        let mut other = self::store(code);
        let mut call = run.call_on(&mut stack, &mut store, &[], &mut []);
        let mut other_call = other_stack.go(&mut other, |_| {
            for _ in 0..6 {
                yield_now()?;
            }
            Ok(())
        });
        for _ in 0..4 {
            assert!(poll_once(&mut call).is_pending());
            assert!(poll_once(&mut other_call).is_pending());
        }
        finish(call)?;
        finish(other_call)?;
        assert_usable(&mut stack, &mut store)
    }

    /// On one of this crate's stacks runs one of wasmtime's fibers, and code on that waits: all of it is suspended.
    fn suspended_on_its_fibers<S: AnyStack>(code: Code) -> Result<()> {
        let task = |ending: i32| -> LocalBoxFuture<'static, Result<i32>> {
            Box::pin(async move {
                let mut stack = stack::<S>();
                let mut store = store(code);
                let calls = Func::wrap_suspending(&mut store, async move || -> Result<i32> {
                    let mut store = self::store(code);
                    let wait = Func::wrap_suspending(&mut store, async || pending(2).await);
                    let own = Func::wrap_async(&mut store, |_: Caller<'_, Host>, (): ()| Box::new(pending(1)));
                    let text = r#"(module
                        (import "" "" (func $wait))
                        (import "" "" (func $own))
                        (func $recurse (param i32) (result i32) (i32.add (i32.const 1) (call $recurse (local.get 0))))
                        (func (export "run") (param i32) (result i32)
                            (call $wait) (call $own) (call $wait)
                            (if (i32.eq (local.get 0) (i32.const 1)) (then unreachable))
                            (if (i32.eq (local.get 0) (i32.const 2)) (then (return (call $recurse (i32.const 0)))))
                            (call $own) (call $wait)
                            (i32.const 42)))"#;
                    let run = async_runner(&mut store, text, &[wait, own]).await?;
                    let mut results = [Val::I32(0)];
                    run.call_async(&mut store, &[Val::I32(ending)], &mut results).await?;
                    Ok(results[0].unwrap_i32())
                });
                let text = r#"(module
                    (import "" "" (func $calls (result i32)))
                    (func (export "run") (result i32) (call $calls)))"#;
                let run = runner(&mut store, text, [calls])?.get_async(&store).get0::<i32>()?;
                let result = run.call(&mut stack, &mut store, ()).await;
                assert_usable_here(&mut stack, &mut store).await?;
                result
            })
        };
        let mut random = Random::from_environment();
        let mut tasks: Vec<_> = (0..12).map(|n| (n % 3, task(n % 3))).collect();
        while !tasks.is_empty() {
            let chosen = random.below(tasks.len());
            let (ending, task) = &mut tasks[chosen];
            if let Poll::Ready(result) = poll_once(task) {
                check_end(*ending, &result);
                drop(tasks.swap_remove(chosen));
            } else if random.one_in(30) {
                drop(tasks.swap_remove(chosen));
            }
        }
        Ok(())
    }
}

/// The two kinds of stack, one inside the other.
#[cfg(all(fiber_stack, feature = "thread-backend"))]
#[test]
fn fiber_and_thread_stacks_in_turn() {
    use wasmtime_async::{FiberStack, ThreadStack};

    crate::common::watchdog::watched(|_| {
        let mut random = Random::from_environment();
        let mut climbs = Vec::new();
        for ending in ENDINGS {
            climbs.push(Climb::alternating::<FiberStack, ThreadStack>(Code::Pulley, ending));
            climbs.push(Climb::alternating::<ThreadStack, FiberStack>(Code::Pulley, ending));
        }
        while !climbs.is_empty() {
            let chosen = random.below(climbs.len());
            if climbs[chosen].poll() {
                climbs.swap_remove(chosen);
            }
        }
    });
}
