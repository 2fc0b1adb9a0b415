//! The guest, and what its calls should result in.

use crate::executor::Timers;
use crate::usage::Alive;
use std::error::Error;
use std::fmt;
use std::panic::panic_any;
use wasmtime::{Caller, Engine, Linker, Result, Trap, Val};
use wasmtime_async::LinkerExt;

pub(crate) const GUEST: &str = r#"(module
  (import "host" "wait" (func $wait (param i32)))
  (import "host" "fail" (func $fail))
  (import "host" "panic" (func $panic))
  (import "host" "nest" (func $nest (param i32 i32) (result i32)))
  (memory (export "memory") 1 4)
  (table 1 funcref)
  (func $fall (param i32) (result i32) (i32.add (call $fall (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))

  ;; Waits `rounds` times, then ends in the way that `ending` says.
  (func (export "run") (param $rounds i32) (param $ending i32) (result i32)
    (local $sum i32)
    (loop $again
      (call $wait (local.get $rounds))
      (i32.store (i32.mul (local.get $rounds) (i32.const 4096)) (local.get $sum))
      (local.set $sum (i32.add (local.get $sum) (local.get $rounds)))
      (br_if $again (local.tee $rounds (i32.sub (local.get $rounds) (i32.const 1)))))
    (block $nest (block $fuel (block $fall (block $null (block $bounds (block $zero (block $unreachable
    (block $panic (block $fail (block $return
      (br_table $return $fail $panic $unreachable $zero $bounds $null $fall $fuel $nest (local.get $ending)))
      (return (local.get $sum)))
      (call $fail) (return (i32.const -1)))
      (call $panic) (return (i32.const -1)))
      (unreachable))
      (return (i32.div_u (local.get $sum) (i32.const 0))))
      (return (i32.load (i32.const -4))))
      (call_indirect (i32.const 0)) (return (i32.const -1)))
      (return (call $fall (i32.const 0))))
      (loop $spin (br $spin)) (return (i32.const -1)))
    (call $nest (i32.const 2) (local.get $sum))))"#;

/// How many numbers tell the guest how to end.
pub(crate) const ENDINGS: i32 = 10;

/// The expected endings, by the number that the guest is given.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Ending {
    Returned,
    HostError,
    HostPanic,
    Unreachable,
    DivisionByZero,
    OutOfBounds,
    Null,
    StackOverflow,
    OutOfFuel,
    NestedReturned,
    NestedTrap,
    NestedRefused,
    Dropped,
}

/// What a kind of stack suspends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Suspends {
    /// Guests, but no host functions that have called a guest.
    #[cfg(fiber_stack)]
    KnownFrames,
    Anything,
}

impl Ending {
    pub(crate) const ALL: &[Self] = &[
        Self::Returned,
        Self::HostError,
        Self::HostPanic,
        Self::Unreachable,
        Self::DivisionByZero,
        Self::OutOfBounds,
        Self::Null,
        Self::StackOverflow,
        Self::OutOfFuel,
        Self::NestedReturned,
        Self::NestedTrap,
        #[cfg(fiber_stack)]
        Self::NestedRefused,
        Self::Dropped,
    ];

    pub(crate) fn expected(number: i32, sum: i32, suspends: Suspends) -> Self {
        match number {
            0 => Self::Returned,
            1 => Self::HostError,
            2 => Self::HostPanic,
            3 => Self::Unreachable,
            4 => Self::DivisionByZero,
            5 => Self::OutOfBounds,
            6 => Self::Null,
            7 => Self::StackOverflow,
            8 => Self::OutOfFuel,
            _ if suspends != Suspends::Anything => Self::NestedRefused,
            _ if sum % 2 == 0 => Self::NestedReturned,
            _ => Self::NestedTrap,
        }
    }
}

#[derive(Debug)]
struct HostError;

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a host function failed, as it was told")
    }
}

impl Error for HostError {}

/// The payload of intended panics.
pub(crate) struct HostPanic;

/// The data of a store.
pub(crate) struct World {
    pub(crate) timers: Timers,
    pub(crate) _alive: Alive,
}

pub(crate) fn linker(engine: &Engine) -> Result<Linker<World>> {
    let mut linker = Linker::new(engine);
    linker.func_wrap_suspending_send("host", "wait", |caller: Caller<'_, World>, number: i32| {
        let timers = caller.data().timers.clone();
        async move { timers.wait(number).await }
    })?;
    linker.func_wrap_suspending_boxed("host", "fail", |caller: Caller<'_, World>, (): ()| {
        Box::new(async move {
            caller.data().timers.wait(1).await;
            Result::<()>::Err(HostError.into())
        })
    })?;
    linker.func_wrap("host", "panic", || -> () {
        let _alive = Alive::new();
        panic_any(HostPanic);
    })?;
    // Guest, synchronous host function, guest, async host function.
    linker.func_wrap("host", "nest", |mut caller: Caller<'_, World>, rounds: i32, sum: i32| -> Result<i32> {
        let _alive = Alive::new();
        let run = caller.get_export("run").and_then(wasmtime::Extern::into_func).expect("is exported");
        let ending = if sum % 2 == 0 { 0 } else { 3 };
        run.typed::<(i32, i32), i32>(&caller)?.call(&mut caller, (rounds, ending))
    })?;
    Ok(linker)
}

/// How a call has ended, if that is one of the known ways.
pub(crate) fn classify(result: &Result<()>, expected: Ending, sum: i32, results: &[Val]) -> Option<Ending> {
    let Err(error) = result else {
        let returned = results[0].unwrap_i32();
        return match expected {
            // The result of the nested call, which has two rounds.
            Ending::NestedReturned if returned == 3 => Some(Ending::NestedReturned),
            _ if returned == sum => Some(Ending::Returned),
            _ => None,
        };
    };
    if error.is::<HostError>() {
        return Some(Ending::HostError);
    }
    if let Some(wasmtime_async::Error::ForeignFrames { .. }) = error.downcast_ref() {
        return Some(Ending::NestedRefused);
    }
    Some(match error.downcast_ref::<Trap>()? {
        Trap::UnreachableCodeReached if expected == Ending::NestedTrap => Ending::NestedTrap,
        Trap::UnreachableCodeReached => Ending::Unreachable,
        Trap::IntegerDivisionByZero => Ending::DivisionByZero,
        Trap::MemoryOutOfBounds => Ending::OutOfBounds,
        Trap::IndirectCallToNull => Ending::Null,
        Trap::StackOverflow => Ending::StackOverflow,
        Trap::OutOfFuel => Ending::OutOfFuel,
        _ => return None,
    })
}
