//! One run of a host function: the part that is the same in every mode.

use crate::cases::case::{Action, Beside, Case, Join, Shape};
use crate::cases::random::mix;
use crate::cases::transcript::{Ending, Event, HostError, HostPanic, Log, Value};
use crate::cases::values::{low, signature, value, values};
use crate::cases::world::{FAR, Level, World};
use std::panic;
use std::sync::{Arc, LazyLock};
use wasmtime::{AsContextMut, Caller, ExternRef, Func, Result, Trap, Val, ValType};
use wasmtime_async::{DEFAULT_STACK_SIZE, SendFiberStack, Stack};

/// How many levels deep host functions may call back into the guest.
const MAX_DEPTH: usize = 3;

/// What an endless recursion costs the step. It runs for longer than everything else, so there should be few.
const COST_OF_OVERFLOW: u64 = 1_000;

/// Whether every stack lets host functions call their guest as a future here. This has the same requirements as a
/// `SendFiberStack`.
pub(crate) fn nests() -> bool {
    static NESTS: LazyLock<bool> = LazyLock::new(|| SendFiberStack::new(DEFAULT_STACK_SIZE).is_ok());
    *NESTS
}

/// Logs that a host function was left before its end, unless that is switched off.
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

/// See the module's documentation.
pub(crate) struct Run {
    /// Keeps the case alive.
    case: Arc<Case>,
    import: usize,
    call: usize,
    level: Level,
    unfinished: Unfinished,
    /// The seed of results and arguments.
    number: u64,
    /// Whether a nested call was dropped and this host function has not waited since. In native code, a synchronous
    /// call finds no stack then. See `CallWithin`.
    pub(crate) must_wait: bool,
}

/// A call of the guest that is in progress.
pub(crate) struct CallBack {
    export: usize,
    swallow: bool,
    pub(crate) func: Func,
    pub(crate) arguments: Vec<Val>,
    pub(crate) results: Vec<Val>,
}

impl Run {
    pub(crate) fn begin<S: 'static>(caller: &mut Caller<'_, World<S>>, import: usize, params: &[Val]) -> Self {
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
        world.log.add(Event::Called { import, depth: world.level.depth, arguments });
        let call = world.calls[import];
        world.calls[import] += 1;
        Self {
            case: Arc::clone(&world.case),
            import,
            call,
            level: world.level,
            unfinished: Unfinished { log: world.log.clone(), import, finished: false },
            number,
            must_wait: false,
        }
    }

    /// The actions, one after the other.
    pub(crate) fn actions(&self) -> impl Iterator<Item = Action> + use<> {
        let script = &self.case.imports[self.import].script;
        // If this cannot wait for the guest, or if the stack cannot be suspended here, it calls synchronously.
        let may_call_within = nests() && self.waits() && self.level.synchronous == 0;
        script[self.call % script.len()].clone().into_iter().map(move |action| match action {
            Action::CallWithin(within) if !may_call_within => {
                Action::CallBack { export: within.export, swallow: within.swallow }
            }
            action => action,
        })
    }

    fn waits(&self) -> bool {
        !matches!(self.case.imports[self.import].shape, Shape::Sync)
    }

    pub(crate) fn log(&self, event: Event) {
        self.unfinished.log.add(event);
    }

    /// Does what needs no waiting.
    pub(crate) fn act<S: 'static>(&mut self, caller: &mut Caller<'_, World<S>>, action: Action) -> Result<()> {
        match action {
            Action::Fail(code) => {
                self.unfinished.finished = true;
                return Err(HostError(code).into());
            }
            Action::Panic(code) => panic::panic_any(HostPanic(code)),
            Action::GrowMemory => {
                let memory = caller.get_export("memory").and_then(wasmtime::Extern::into_memory);
                let grown = memory.and_then(|memory| memory.grow(&mut *caller, 1).ok());
                self.log(Event::Grew(grown));
            }
            Action::WriteMemory(address) => {
                if let Some(memory) = caller.get_export("memory").and_then(wasmtime::Extern::into_memory) {
                    // A write that does not fit changes nothing.
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
            Action::Pause { .. } | Action::CallBack { .. } | Action::CallWithin(_) | Action::CallElsewhere { .. } => {
                unreachable!("waits")
            }
        }
        Ok(())
    }

    /// How often something is really pending that should be pending this many times.
    pub(crate) fn rounds<S>(&self, caller: &Caller<'_, World<S>>, times: u32) -> u32 {
        if self.waits() && caller.data().may_wait() { times } else { 0 }
    }

    /// Logs that something was pending this many times, and is ready now.
    pub(crate) fn resumed(&mut self, rounds: u32) {
        self.must_wait &= rounds == 0;
        self.log(Event::Resumed { import: self.import });
    }

    /// Prepares a synchronous call of a function of the guest: its arguments, and space for its results.
    pub(crate) fn call_back<S: 'static>(
        &self,
        caller: &mut Caller<'_, World<S>>,
        (export, swallow): (usize, bool),
        params: &[Val],
    ) -> Option<CallBack> {
        let level = Level { synchronous: self.level.synchronous + 1, ..self.level };
        self.prepare(caller, level, (export, swallow), params)
    }

    /// Prepares the same call as a future.
    pub(crate) fn call_within<S: 'static>(
        &self,
        caller: &mut Caller<'_, World<S>>,
        (export, swallow): (usize, bool),
        beside: Beside,
        params: &[Val],
    ) -> Option<CallBack> {
        let by_wakers = matches!(beside, Beside::Pause { join: Join::ByWakers, .. });
        let level = Level { by_wakers: self.level.by_wakers + usize::from(by_wakers), ..self.level };
        let call = self.prepare(caller, level, (export, swallow), params)?;
        let beside = !matches!(beside, Beside::Nothing);
        self.log(Event::CallsWithin { depth: self.level.depth, beside });
        Some(call)
    }

    fn prepare<S: 'static>(
        &self,
        caller: &mut Caller<'_, World<S>>,
        level: Level,
        (export, swallow): (usize, bool),
        params: &[Val],
    ) -> Option<CallBack> {
        let world = caller.data_mut();
        let func = match params {
            [Val::FuncRef(Some(func))] => *func,
            _ if world.exports.is_empty() => return None,
            _ => world.exports[export % world.exports.len()],
        };
        if self.level.depth == MAX_DEPTH {
            return None;
        }
        world.level = Level { depth: level.depth + 1, ..level };
        if !world.may_reach_deadline() {
            caller.as_context_mut().set_epoch_deadline(FAR);
        }
        let (arguments, results) = values(&mut *caller, func, self.number);
        Some(CallBack { export, swallow, func, arguments, results })
    }

    /// Logs that the guest has ended, or was dropped if there is no result.
    pub(crate) fn called_back<S: 'static>(
        &mut self,
        caller: &mut Caller<'_, World<S>>,
        call: &CallBack,
        result: Option<Result<()>>,
    ) -> Result<()> {
        caller.data_mut().level = self.level;
        let ending = match &result {
            Some(Ok(())) => Ending::Returned(call.results.iter().map(|value| Value::new(&*caller, value)).collect()),
            Some(Err(error)) => {
                if let Some(wasmtime_async::Error::Cancelled) = error.downcast_ref() {
                    // wasmtime's own async drops the future of a host function when its call is dropped.
                    return result.unwrap_or(Ok(()));
                }
                Ending::of_error(error)
            }
            None => Ending::Dropped,
        };
        if ending == Ending::Trapped(Trap::StackOverflow) || caller.get_fuel()? > caller.data().budget {
            // An endless recursion has ended. How deep it got depends on the limit, and wasmtime's own async has one
            // limit per call. So the recursion costs the same wherever it ended.
            let budget = caller.data().budget.saturating_sub(COST_OF_OVERFLOW);
            caller.data_mut().budget = budget;
            caller.set_fuel(budget)?;
        }
        self.log(Event::CalledBack { export: call.export, ending });
        match result {
            Some(Err(error)) if !call.swallow => {
                self.unfinished.finished = true;
                Err(error)
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn end<S: 'static>(
        mut self,
        caller: &mut Caller<'_, World<S>>,
        params: &[Val],
        results: &mut [Val],
    ) -> Result<()> {
        for (result, ty) in results.iter_mut().zip(signature(self.import).1) {
            *result = match ty {
                ValType::Ref(_) if self.number.is_multiple_of(3) => params[0],
                ValType::Ref(_) => {
                    Val::ExternRef(Some(ExternRef::new(&mut *caller, low(self.number).cast_unsigned())?))
                }
                other => value(&other, self.number),
            };
        }
        self.log(Event::Returned { import: self.import });
        self.unfinished.finished = true;
        Ok(())
    }
}
