//! The host functions of a case: they do what its script says, the same way in every mode.

use crate::cases::case::{Action, Case, MUCH_FUEL, Shape};
use crate::cases::driver::Pause;
use crate::cases::mode::Mode;
use crate::cases::random::mix;
use crate::cases::transcript::{Ending, Event, HostError, HostPanic, Log, Value};
use crate::cases::world::{FAR, World};
use std::panic;
use std::sync::Arc;
use wasmtime::{AsContextMut, Caller, ExternRef, Func, FuncType, Linker, Result, Trap, Val, ValType};
use wasmtime_async::suspend_until;

/// How deep host functions may call back into the guest.
const MAX_DEPTH: usize = 3;

/// What an endless recursion costs the step, so that there are few of them: each runs for longer than all the rest.
const COST_OF_OVERFLOW: u64 = 1_000;

/// Notes that a host function ended before its time, unless told otherwise.
struct Unfinished {
    log: Log,
    import: usize,
    finished: bool,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.finished {
            self.log.add(Event::CutShort { import: self.import });
        }
    }
}

/// One run of a host function.
struct Run {
    /// Keeps the case alive.
    case: Arc<Case>,
    import: usize,
    call: usize,
    unfinished: Unfinished,
    /// Where results and arguments come from.
    number: u64,
}

impl Run {
    fn begin<S: 'static>(caller: &mut Caller<'_, World<S>>, import: usize, params: &[Val]) -> Self {
        let arguments: Vec<_> = params.iter().map(|param| Value::new(caller, param)).collect();
        let world = caller.data_mut();
        let number = arguments.iter().fold(world.calls[import] as u64, |sum, argument| {
            mix(sum
                ^ match *argument {
                    Value::I32(n) => u64::from(n.cast_unsigned()),
                    Value::I64(n) => n.cast_unsigned(),
                    Value::F32(bits) => bits.into(),
                    Value::F64(bits) => bits,
                    _ => 0,
                })
        });
        world.log.add(Event::Called { import, depth: world.depth, arguments });
        let call = world.calls[import];
        world.calls[import] += 1;
        let unfinished = Unfinished { log: world.log.clone(), import, finished: false };
        Self { case: Arc::clone(&world.case), import, call, unfinished, number }
    }

    fn actions(&self) -> impl Iterator<Item = Action> + use<> {
        let script = &self.case.imports[self.import].script;
        script[self.call % script.len()].clone().into_iter()
    }

    /// What needs no waiting.
    fn act<S: 'static>(&mut self, caller: &mut Caller<'_, World<S>>, action: Action) -> Result<()> {
        match action {
            Action::Fail(code) => {
                self.unfinished.finished = true;
                return Err(HostError(code).into());
            }
            Action::Panic(code) => panic::panic_any(HostPanic(code)),
            Action::GrowMemory => {
                let memory = caller.get_export("memory").and_then(wasmtime::Extern::into_memory);
                let grown = memory.and_then(|memory| memory.grow(&mut *caller, 1).ok());
                self.unfinished.log.add(Event::Grew(grown));
            }
            Action::WriteMemory(address) => {
                if let Some(memory) = caller.get_export("memory").and_then(wasmtime::Extern::into_memory) {
                    // One that does not fit changes nothing.
                    let _ = memory.write(&mut *caller, address.into(), &self.number.to_le_bytes());
                }
            }
            Action::ReachDeadline if caller.data().may_reach_deadline() => {
                caller.as_context_mut().set_epoch_deadline(0);
            }
            Action::ReachDeadline => {}
            Action::BurnFuel(left) => {
                let left = left.min(caller.get_fuel()?);
                caller.set_fuel(left)?;
            }
            Action::CollectGarbage => caller.gc(None)?,
            Action::Pause { .. } | Action::CallBack { .. } | Action::CallElsewhere { .. } => unreachable!("waits"),
        }
        Ok(())
    }

    /// How often something is pending that was to be so many times.
    fn rounds<S>(&self, caller: &Caller<'_, World<S>>, times: u32) -> u32 {
        let waits = !matches!(self.case.imports[self.import].shape, Shape::Sync);
        if waits && caller.data().may_wait() { times } else { 0 }
    }

    /// A function of the guest, with arguments and room for results.
    fn call_back<S: 'static>(
        &self,
        caller: &mut Caller<'_, World<S>>,
        export: usize,
        params: &[Val],
    ) -> Option<(Func, Vec<Val>, Vec<Val>)> {
        let world = caller.data_mut();
        let func = match params {
            [Val::FuncRef(Some(func))] => *func,
            _ if world.exports.is_empty() => return None,
            _ => world.exports[export % world.exports.len()],
        };
        if world.depth == MAX_DEPTH {
            return None;
        }
        world.depth += 1;
        if !world.may_reach_deadline() {
            caller.as_context_mut().set_epoch_deadline(FAR);
        }
        let (arguments, results) = values(&mut *caller, func, self.number);
        Some((func, arguments, results))
    }

    fn called_back<S: 'static>(
        &mut self,
        caller: &mut Caller<'_, World<S>>,
        action: Action,
        result: Result<()>,
        results: &[Val],
    ) -> Result<()> {
        let Action::CallBack { export, swallow, .. } = action else { unreachable!("called only then") };
        caller.data_mut().depth -= 1;
        let ending = match &result {
            Ok(()) => Ending::Returned(results.iter().map(|value| Value::new(caller, value)).collect()),
            Err(error) => {
                if let Some(wasmtime_async::Error::Cancelled) = error.downcast_ref() {
                    // wasmtime's own async drops the future of a host function whose call is dropped.
                    return result;
                }
                Ending::of_error(error)
            }
        };
        if ending == Ending::Trapped(Trap::StackOverflow) || caller.get_fuel()? > caller.data().budget {
            // An endless recursion is over. How far it came depends on the limit, which is one for each call in wasmtime's
            // own async: it costs the same wherever it ended.
            let budget = caller.data().budget.saturating_sub(COST_OF_OVERFLOW);
            caller.data_mut().budget = budget;
            caller.set_fuel(budget)?;
        }
        self.unfinished.log.add(Event::CalledBack { export, ending });
        if result.is_err() && !swallow {
            self.unfinished.finished = true;
            return result;
        }
        Ok(())
    }

    fn end<S: 'static>(mut self, caller: &mut Caller<'_, World<S>>, params: &[Val], results: &mut [Val]) -> Result<()> {
        for (result, ty) in results.iter_mut().zip(signature(self.import).1) {
            *result = match ty {
                ValType::Ref(_) if self.number.is_multiple_of(3) => params[0],
                ValType::Ref(_) => {
                    Val::ExternRef(Some(ExternRef::new(&mut *caller, low(self.number).cast_unsigned())?))
                }
                other => value(&other, self.number),
            };
        }
        self.unfinished.log.add(Event::Returned { import: self.import });
        self.unfinished.finished = true;
        Ok(())
    }
}

/// The half of a number that fits.
#[expect(clippy::cast_possible_truncation, reason = "any bits will do")]
fn low(number: u64) -> i32 {
    number as i32
}

/// Small numbers, which lead guests further than large ones.
fn value(ty: &ValType, number: u64) -> Val {
    let number = mix(number) % 100;
    #[expect(clippy::cast_precision_loss, reason = "is below 100")]
    match ty {
        ValType::I32 => Val::I32(low(number)),
        ValType::I64 => Val::I64(number.cast_signed()),
        ValType::F32 => (number as f32).into(),
        ValType::F64 => (number as f64).into(),
        other => other.default_value().unwrap_or(Val::I32(0)),
    }
}

/// Arguments for a function, and room for its results.
pub(crate) fn values(mut store: impl AsContextMut, func: Func, number: u64) -> (Vec<Val>, Vec<Val>) {
    let ty = func.ty(&mut store);
    let arguments = ty.params().enumerate().map(|(place, ty)| value(&ty, number.wrapping_add(place as u64))).collect();
    let results = ty.results().map(|ty| value(&ty, 0)).collect();
    (arguments, results)
}

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
                Pause::new(run.rounds(caller, times), wake, &caller.data().timers).await;
                run.unfinished.log.add(Event::Resumed { import });
            }
            Action::CallBack { export, .. } => {
                let Some((func, arguments, mut outcome)) = run.call_back(caller, export, params) else { continue };
                let result = M::call_back(caller, func, &arguments, &mut outcome).await;
                run.called_back(caller, action, result, &outcome)?;
            }
            Action::CallElsewhere { pauses } => {
                let pauses = run.rounds(caller, pauses);
                let result = M::call_elsewhere(caller, pauses).await;
                run.unfinished.log.add(Event::CalledElsewhere { result });
            }
            action => run.act(caller, action)?,
        }
    }
    run.end(caller, params, results)
}

/// The same as synchronous code, which waits by suspending its stack.
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
                let pause = Pause::new(run.rounds(caller, times), wake, &caller.data().timers);
                suspend_until(pause)?;
                run.unfinished.log.add(Event::Resumed { import });
            }
            Action::CallBack { export, .. } => {
                let Some((func, arguments, mut outcome)) = run.call_back(caller, export, params) else { continue };
                let result = func.call(&mut *caller, &arguments, &mut outcome);
                run.called_back(caller, action, result, &outcome)?;
            }
            Action::CallElsewhere { pauses } => {
                let pauses = run.rounds(caller, pauses);
                let result = suspend_until(M::call_elsewhere(caller, pauses))?;
                run.unfinished.log.add(Event::CalledElsewhere { result });
            }
            action => run.act(caller, action)?,
        }
    }
    run.end(caller, params, results)
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

/// What `IMPORTS` says, for wasmtime.
fn signature(import: usize) -> (Vec<ValType>, Vec<ValType>) {
    let (externref, funcref) = (ValType::EXTERNREF, ValType::FUNCREF);
    match import {
        0 => (vec![], vec![]),
        1 => (vec![ValType::I32], vec![ValType::I32]),
        2 => (vec![ValType::I64, ValType::F64], vec![ValType::I64]),
        3 => (vec![ValType::I32; 3], vec![ValType::I32, ValType::I64]),
        4 => (vec![ValType::F32], vec![ValType::F64]),
        5 => (vec![externref.clone(), ValType::I32], vec![externref]),
        6 => (vec![funcref], vec![ValType::I32]),
        _ => (vec![], vec![ValType::I64]),
    }
}
