//! The host functions of a case. They do what its script says, in the same way in every mode.

use crate::cases::case::{Action, Beside, Case, Join, MUCH_FUEL, Shape, Wake, Within};
use crate::cases::course::Run;
use crate::cases::driver::Pause;
use crate::cases::mode::Mode;
use crate::cases::transcript::Event;
use crate::cases::values::signature;
use crate::cases::world::World;
use futures::future::{self, Either, FutureExt, TryFutureExt};
use futures::stream::{FuturesUnordered, StreamExt};
use std::future::Future;
use std::pin::pin;
use wasmtime::{Caller, FuncType, Linker, Result, Trap, Val};
use wasmtime_async::suspend_until;

/// The body of an async host function.
pub(crate) async fn host_call<M: Mode>(
    caller: &mut Caller<'_, World<M::Stack>>,
    import: usize,
    params: &[Val],
    results: &mut [Val],
) -> Result<()> {
    let mut run = Run::begin(caller, import, params);
    for action in run.actions() {
        match action {
            Action::Pause { times, wake } => {
                let rounds = run.rounds(caller, times);
                Pause::new(rounds, wake, &caller.data().timers).await;
                run.resumed(rounds);
            }
            Action::CallBack { export, swallow } => {
                if run.must_wait {
                    Pause::new(1, Wake::Later, &caller.data().timers).await;
                    run.resumed(1);
                }
                let Some(mut call) = run.call_back(caller, (export, swallow), params) else { continue };
                let result = M::call_back(caller, call.func, &call.arguments, &mut call.results).await;
                run.called_back(caller, &call, Some(result))?;
            }
            Action::CallWithin(within) => call_within::<M>(caller, &mut run, within, params).await?,
            Action::CallElsewhere { pauses } => {
                let pauses = run.rounds(caller, pauses);
                call_elsewhere::<M>(caller, &run, pauses).await;
            }
            action => run.act(caller, action)?,
        }
    }
    run.end(caller, params, results)
}

/// The same in synchronous code, which waits by suspending its stack.
pub(crate) fn host_call_blocking<M: Mode>(
    caller: &mut Caller<'_, World<M::Stack>>,
    import: usize,
    params: &[Val],
    results: &mut [Val],
) -> Result<()> {
    let mut run = Run::begin(caller, import, params);
    for action in run.actions() {
        match action {
            Action::Pause { times, wake } => {
                let rounds = run.rounds(caller, times);
                suspend_until(Pause::new(rounds, wake, &caller.data().timers))?;
                run.resumed(rounds);
            }
            Action::CallBack { export, swallow } => {
                if run.must_wait {
                    suspend_until(Pause::new(1, Wake::Later, &caller.data().timers))?;
                    run.resumed(1);
                }
                let Some(mut call) = run.call_back(caller, (export, swallow), params) else { continue };
                let result = call.func.call(&mut *caller, &call.arguments, &mut call.results);
                run.called_back(caller, &call, Some(result))?;
            }
            Action::CallWithin(within) => suspend_until(call_within::<M>(caller, &mut run, within, params))??,
            Action::CallElsewhere { pauses } => {
                let pauses = run.rounds(caller, pauses);
                suspend_until(call_elsewhere::<M>(caller, &run, pauses))?;
            }
            action => run.act(caller, action)?,
        }
    }
    run.end(caller, params, results)
}

/// Calls the guest as a future, with whatever the script wants next to it.
///
/// What runs next to the call does nothing observable until both are over, because which of the two comes first differs
/// between modes. (In this crate, a nested call begins after everything that is joined to it was polled.)
async fn call_within<M: Mode>(
    caller: &mut Caller<'_, World<M::Stack>>,
    run: &mut Run,
    within: Within,
    params: &[Val],
) -> Result<()> {
    let Within { export, swallow, typed, beside } = within;
    let Some(mut call) = run.call_within(caller, (export, swallow), beside, params) else { return Ok(()) };
    let (timers, log) = (caller.data().timers.clone(), caller.data().log.clone());
    let mut visit = matches!(beside, Beside::Elsewhere { .. }).then(|| caller.data_mut().visit());
    let mut elsewhere = None;
    let result = {
        let nested = M::call_within(caller, call.func, &call.arguments, &mut call.results, typed);
        let nested = nested.inspect_err(|error| {
            // The rest may be dropped before it sees the result.
            if let Some(Trap::StackOverflow) = error.downcast_ref() {
                log.add(Event::Overflowed);
            }
        });
        match (beside, &mut visit) {
            (Beside::Pause { times, wake, join }, _) => {
                let pause = Pause::new(times, wake, &timers);
                match join {
                    Join::CallFirst => Some(future::join(nested, pause).await.0),
                    Join::CallLast => Some(future::join(pause, nested).await.1),
                    Join::ByWakers => join_by_wakers(nested, pause).await,
                }
            }
            (Beside::Elsewhere { pauses }, Some(visit)) => {
                let (result, seen) = future::join(nested, M::call_elsewhere(visit, pauses)).await;
                elsewhere = Some(seen);
                Some(result)
            }
            (Beside::Until { times, wake }, _) => {
                match future::select(Pause::new(times, wake, &timers), pin!(nested)).await {
                    Either::Left(((), _nested)) => None,
                    Either::Right((result, _pause)) => Some(result),
                }
            }
            _ => Some(nested.await),
        }
    };
    if let Some(visit) = visit {
        caller.data_mut().spare = visit.spare;
    }
    run.must_wait = result.is_none();
    let goes_on = run.called_back(caller, &call, result);
    if let Some(result) = elsewhere {
        run.log(Event::CalledElsewhere { result });
    }
    goes_on
}

/// Returns the result of the call, once the pause is over, too.
async fn join_by_wakers<T>(call: impl Future<Output = T>, pause: Pause) -> Option<T> {
    let both = [Either::Left(call.map(Some)), Either::Right(pause.map(|()| None))];
    FuturesUnordered::from_iter(both).fold(None, async |sum: Option<T>, one| sum.or(one)).await
}

/// Calls the guest of another store.
async fn call_elsewhere<M: Mode>(caller: &mut Caller<'_, World<M::Stack>>, run: &Run, pauses: u32) {
    let mut visit = caller.data_mut().visit();
    let result = M::call_elsewhere(&mut visit, pauses).await;
    caller.data_mut().spare = visit.spare;
    run.log(Event::CalledElsewhere { result });
}

/// The imports of a guest.
pub(crate) fn linker<M: Mode>(engine: &wasmtime::Engine, case: &Case) -> Result<Linker<World<M::Stack>>> {
    let mut linker = Linker::new(engine);
    for (number, import) in case.imports.iter().enumerate() {
        let (params, results) = signature(number);
        let ty = FuncType::new(engine, params, results);
        match import.shape {
            Shape::Typed => M::define_typed(&mut linker, number)?,
            Shape::Untyped => M::define_untyped(&mut linker, number, ty)?,
            Shape::Blocking | Shape::Sync => M::define_blocking(&mut linker, number, ty)?,
        }
    }
    linker.func_wrap("host", "refuel", |mut caller: Caller<'_, World<M::Stack>>| {
        caller.data_mut().budget = caller.get_fuel()?;
        caller.set_fuel(MUCH_FUEL)
    })?;
    Ok(linker)
}
