//! The host functions, which do what the scripts of their calls say.

use crate::machine::perform_inside;
use crate::script::{Action, GO, Token};
use crate::shared::{Guard, Shared, World, gate};
use std::future;
use std::panic::panic_any;
use std::sync::Arc;
use std::task::Poll;
use wasmtime::{Caller, Linker, Result};
use wasmtime_async::{Error, LinkerExt, suspend_until, yield_now};

/// What the call is doing, as its host functions see it.
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

/// Ends a step that waits for nothing.
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

/// Pending once, with its task woken.
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
            gate(&shared, step).await;
        }
        // From within the poll.
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
        Action::Wait => suspend_until(gate(&shared, step)),
        Action::Yield => yield_now(),
        _ => Ok(()),
    };
    if let Err(error) = waited {
        let goes_on = match &error {
            // From now on nothing waits any more.
            Error::Cancelled => matches!(suspend_until(future::pending::<()>()), Err(Error::Cancelled)),
            // What is ready can be had nevertheless.
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
        shared.steps()[usize::try_from(step).expect("steps are counted from 0")].shape as i32
    })?;
    linker.func_wrap_suspending("host", "async", step_async)?;
    linker.func_wrap_suspending_boxed("host", "send", |caller: Caller<'_, World>, (token, step): (i32, i32)| {
        Box::new(step_async(caller, token, step))
    })?;
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
