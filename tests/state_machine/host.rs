//! The host functions. They do what the scripts of their calls say.

use crate::calls::Stop;
use crate::machine::perform_inside;
use crate::script::{Action, GO, Token};
use crate::shared::{Guard, Shared, Which, World, gate};
use futures::future::{Either, select};
use std::future::{self, Future};
use std::mem;
use std::panic::panic_any;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use wasmtime::{Caller, Linker, Result};
use wasmtime_async::{AsyncFunc, Error, LinkerExt, suspend_until, yield_now};

/// What the call is doing, from the point of view of its host functions.
fn enter(caller: &Caller<'_, World>, token: i32, step: i32) -> (Arc<Shared>, usize, Action) {
    let shared = Arc::clone(caller.data().0.as_ref().expect("a call was started"));
    let step = usize::try_from(step).expect("steps are counted from 0");
    let begun = shared.begin();
    if (shared.token(), begun) != (token, step) {
        shared.say_wrong(format!("call {} at step {begun} met call {token} at step {step}", shared.token()));
    }
    let action = shared.steps()[step].action;
    (shared, step, action)
}

/// Ends a step that does not wait.
fn act(shared: &Shared, action: Action) -> Result<i32> {
    match action {
        Action::Fail => return Err(Token(shared.token()).into()),
        Action::Panic => panic_any(Token(shared.token())),
        Action::Trap(number) => return Ok(number),
        Action::Inside { decisions } => perform_inside(decisions),
        Action::Go | Action::Wait | Action::Yield => {}
    }
    Ok(GO)
}

/// Pending once, after waking its task.
fn yield_once() -> impl Future<Output = ()> + Send {
    let mut yielded = false;
    future::poll_fn(move |cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
}

async fn step_async(caller: Caller<'_, World>, token: i32, step: i32) -> Result<i32> {
    let (shared, step, action) = enter(&caller, token, step);
    let _below = Guard::new(&shared);
    match action {
        Action::Wait => {
            let _above = Guard::new(&shared);
            gate(&shared, step, Which::Step).await;
        }
        // Yields within the poll.
        Action::Yield if !shared.kind().refuses() => yield_now()?,
        Action::Yield => yield_once().await,
        _ => {}
    }
    let _last = Guard::new(&shared);
    act(&shared, action)
}

fn step_blocking(caller: &Caller<'_, World>, token: i32, step: i32) -> Result<i32> {
    let (shared, step, action) = enter(caller, token, step);
    let _below = Guard::new(&shared);
    let waited = match action {
        Action::Wait => suspend_until(gate(&shared, step, Which::Step)),
        Action::Yield => yield_now(),
        _ => Ok(()),
    };
    if let Err(error) = waited {
        let goes_on = match &error {
            // From now on, every attempt to wait fails.
            Error::Cancelled => matches!(suspend_until(future::pending::<()>()), Err(Error::Cancelled)),
            // A future that is ready still works.
            Error::ForeignFrames { .. } => matches!(suspend_until(future::ready(step)), Ok(n) if n == step),
            _ => false,
        };
        if !goes_on {
            shared.say_wrong(format!("something else came after {error:?}"));
        }
        return Err(error.into());
    }
    act(&shared, action)
}

/// Calls the guest as a future, and waits for it or for a gate of its own.
async fn step_within(mut caller: Caller<'_, World>, token: i32, step: i32, level: i32) -> Result<i32> {
    let shared = Arc::clone(caller.data().0.as_ref().expect("a call was started"));
    let inside = caller.get_export("inside").and_then(wasmtime::Extern::into_func).expect("is exported");
    let inside = AsyncFunc::from(inside.typed::<(i32, i32, i32), i32>(&caller)?);
    let number = usize::try_from(step).expect("steps are counted from 0");
    let race = shared.steps()[number].shape.within().expect("was called for it").race;
    let forgets = race.is_some_and(|race| race.stop == Stop::Forget);
    let _below = if forgets { Guard::loose(&shared) } else { Guard::new(&shared) };
    let nested = Box::pin(inside.call_within(&mut caller, (token, step, level + 1)));
    let Some(race) = race.filter(|race| i32::try_from(race.level) == Ok(level)) else {
        let _above = if forgets { Guard::loose(&shared) } else { Guard::new(&shared) };
        return nested.await;
    };
    match select(pin!(gate(&shared, number, Which::Race)), nested).await {
        Either::Left(((), nested)) => match race.stop {
            Stop::Drop => drop(nested),
            Stop::Forget => mem::forget(nested),
        },
        Either::Right((result, _)) => return result,
    }
    if let Some(decisions) = race.decisions {
        perform_inside(decisions);
    }
    Ok(GO)
}

fn call_inner(caller: &mut Caller<'_, World>, token: i32, step: i32) -> Result<i32> {
    let shared = Arc::clone(caller.data().0.as_ref().expect("a call was started"));
    let _below = Guard::new(&shared);
    let inner = caller.get_export("inner").and_then(wasmtime::Extern::into_func).expect("is exported");
    inner.typed::<(i32, i32), i32>(&*caller)?.call(caller, (token, step))
}

pub(crate) fn linker(engine: &wasmtime::Engine) -> Result<Linker<World>> {
    let mut linker = Linker::new(engine);
    linker.func_wrap("host", "shape", |caller: Caller<'_, World>, _token: i32, step: i32| {
        let shared = caller.data().0.as_ref().expect("a call was started");
        shared.steps()[usize::try_from(step).expect("steps are counted from 0")].shape.number()
    })?;
    linker.func_wrap("host", "levels", |caller: Caller<'_, World>, _token: i32, step: i32| {
        let shared = caller.data().0.as_ref().expect("a call was started");
        let within = shared.steps()[usize::try_from(step).expect("steps are counted from 0")].shape.within();
        i32::try_from(within.expect("asked for no other").levels).expect("there are few")
    })?;
    linker.func_wrap_suspending("host", "async", step_async)?;
    linker.func_wrap_suspending_boxed("host", "send", |caller: Caller<'_, World>, (token, step): (i32, i32)| {
        Box::new(step_async(caller, token, step))
    })?;
    linker.func_wrap_suspending_boxed(
        "host",
        "within",
        |caller: Caller<'_, World>, (token, step, level): (i32, i32, i32)| {
            Box::new(step_within(caller, token, step, level))
        },
    )?;
    linker.func_wrap("host", "blocking", |caller: Caller<'_, World>, token: i32, step: i32| {
        step_blocking(&caller, token, step)
    })?;
    linker.func_wrap("host", "nested", |mut caller: Caller<'_, World>, token: i32, step: i32| {
        call_inner(&mut caller, token, step)
    })?;
    linker.func_wrap_suspending(
        "host",
        "nested-in-poll",
        async |mut caller: Caller<'_, World>, token: i32, step: i32| call_inner(&mut caller, token, step),
    )?;
    Ok(linker)
}
