//! What one call should do, how it should end, and whether it did.

use crate::common::futures::pending;
use crate::common::random::Random;
use crate::support::Kind;
use std::fmt;
use std::pin::Pin;
use wasmtime::{
    Global, GlobalType, Instance, Linker, Module, Mutability, Result, Trap, TypedFunc, Val, ValType, WasmBacktrace,
};
use wasmtime_async::{AsyncFunc, Carries, Error, FuncExt, LinkerExt, Stack, Store, suspend_until};

/// Adds up what it waits for, at each depth, and then ends as it was told.
const GUEST: &str = r#"(module
    (import "host" "wait" (func $wait (param i32) (result i32)))
    (import "host" "through" (func $through (param i32 i32 i32) (result i64)))
    (import "host" "through_async" (func $through_async (param i32 i32 i32) (result i64)))
    (import "host" "end" (func $end (param i32)))
    (type $nothing (func))
    (memory 1)
    (table 2 funcref)
    (elem (i32.const 1) $recurse)
    (global $sum (export "sum") (mut i64) (i64.const 0))

    (func $recurse (param i32) (result i32)
        (i32.add (i32.const 1) (call $recurse (i32.add (local.get 0) (i32.const 1)))))

    (func $is (param $ending i32) (param $other i32) (result i32) (i32.eq (local.get 0) (local.get 1)))
    (func $finish (param $ending i32)
        (if (call $is (local.get 0) (i32.const 1)) (then (unreachable)))
        (if (call $is (local.get 0) (i32.const 2)) (then (drop (i32.div_s (i32.const 1) (i32.const 0)))))
        (if (call $is (local.get 0) (i32.const 3)) (then (drop (i32.div_s (i32.const 0x80000000) (i32.const -1)))))
        (if (call $is (local.get 0) (i32.const 4)) (then (drop (i32.trunc_f32_s (f32.const nan)))))
        (if (call $is (local.get 0) (i32.const 5)) (then (drop (i32.load (i32.const 65536)))))
        (if (call $is (local.get 0) (i32.const 6)) (then (call_indirect (type $nothing) (i32.const 2))))
        (if (call $is (local.get 0) (i32.const 7)) (then (call_indirect (type $nothing) (i32.const 0))))
        (if (call $is (local.get 0) (i32.const 8)) (then (call_indirect (type $nothing) (i32.const 1))))
        (if (call $is (local.get 0) (i32.const 9)) (then (drop (call $recurse (i32.const 0)))))
        (if (call $is (local.get 0) (i32.const 10)) (then (loop (br 0))))
        (if (call $is (local.get 0) (i32.const 11)) (then (loop (br 0)))))

    ;; What it sums up at one depth is in a local variable, from there in memory, and summed up for all depths in a
    ;; global. Returns what is in memory.
    (func $run (export "run") (param $steps i32) (param $depth i32) (param $ending i32) (result i64)
        (local $step i32) (local $answer i64) (local $total i64) (local $below i64)
        (i64.store (i32.mul (local.get $depth) (i32.const 8)) (i64.const 0))
        (loop $next
            (if (i32.lt_s (local.get $step) (local.get $steps)) (then
                (local.set $answer (i64.extend_i32_s (call $wait (local.get $step))))
                (local.set $total (i64.add (local.get $total) (local.get $answer)))
                (global.set $sum (i64.add (global.get $sum) (local.get $answer)))
                (i64.store (i32.mul (local.get $depth) (i32.const 8)) (local.get $total))
                (local.set $step (i32.add (local.get $step) (i32.const 1)))
                (br $next))))
        (if (i32.eqz (local.get $depth))
            (then
                (call $end (local.get $ending))
                (call $finish (local.get $ending)))
            (else
                (local.set $below
                    (if (result i64) (i32.and (local.get $depth) (i32.const 1))
                        (then (call $through
                            (local.get $steps) (i32.sub (local.get $depth) (i32.const 1)) (local.get $ending)))
                        (else (call $through_async
                            (local.get $steps) (i32.sub (local.get $depth) (i32.const 1)) (local.get $ending)))))))
        (i64.add (i64.load (i32.mul (local.get $depth) (i32.const 8))) (local.get $below))))"#;

/// Calls the function above when it starts.
pub(super) const STARTER: &str = r#"(module
    (import "guest" "run" (func $run (param i32 i32 i32) (result i64)))
    (import "plan" "steps" (global $steps i32))
    (import "plan" "depth" (global $depth i32))
    (import "plan" "ending" (global $ending i32))
    (global (export "result") (mut i64) (i64.const 0))
    (func $start (global.set 3 (call $run (global.get $steps) (global.get $depth) (global.get $ending))))
    (start $start))"#;

/// How a call should end, unless it is dropped first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Result,
    Trap(Trap),
    HostError,
    HostPanic,
    /// Waits forever, until it is dropped.
    Never,
}

/// The endings, each at the index that the guest knows it by.
pub(super) const ENDINGS: [Ending; 15] = [
    Ending::Result,
    Ending::Trap(Trap::UnreachableCodeReached),
    Ending::Trap(Trap::IntegerDivisionByZero),
    Ending::Trap(Trap::IntegerOverflow),
    Ending::Trap(Trap::BadConversionToInteger),
    Ending::Trap(Trap::MemoryOutOfBounds),
    Ending::Trap(Trap::TableOutOfBounds),
    Ending::Trap(Trap::IndirectCallToNull),
    Ending::Trap(Trap::BadSignature),
    Ending::Trap(Trap::StackOverflow),
    Ending::Trap(Trap::OutOfFuel),
    Ending::Trap(Trap::Interrupt),
    Ending::HostError,
    Ending::HostPanic,
    Ending::Never,
];

/// The error of a host function, or the payload of its panic. It says which call it belongs to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Mine {
    pub(super) id: i32,
}

impl fmt::Display for Mine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an error of store {}", self.id)
    }
}

impl std::error::Error for Mine {}

/// The data of a store.
pub(crate) struct Data {
    pub(super) id: i32,
    pub(super) random: Random,
    /// The sum of all answers that the guest got in this call.
    pub(super) answered: i64,
    /// The guest's function, for host functions that call back.
    pub(super) run: Option<Run>,
}

/// The guest. If its calls of itself may wait there, they go through the host.
pub(super) fn guest<K: Kind>() -> String {
    let guest = GUEST.to_owned();
    if K::ANYTHING {
        guest
    } else {
        guest.replace("call $through_async", "call $run").replace("call $through", "call $run")
    }
}

type Run = TypedFunc<(i32, i32, i32), i64>;
pub(super) type AsyncRun = AsyncFunc<(i32, i32, i32), i64>;

/// The answer that the guest waits for. It is different for each store.
pub(super) fn answer(id: i32, step: i32) -> i32 {
    id.wrapping_mul(0x01f3_5a7d) ^ step
}

/// What one call should do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    way: Way,
    steps: i32,
    depth: i32,
    ending: usize,
    /// The number of polls after which the call is dropped.
    pub(super) drop_after: Option<usize>,
    /// Whether the call is then forgotten instead.
    pub(super) forget: bool,
}

#[derive(Clone, Copy, Debug)]
enum Way {
    Untyped,
    Typed,
    Closure,
    Start,
}

impl Plan {
    pub(super) fn random<K: Kind>(random: &mut Random) -> Self {
        let ending = random.below(ENDINGS.len());
        // Code that waits in a closure suspends the closure.
        let ways = &[Way::Untyped, Way::Typed, Way::Start, Way::Closure][..if K::ANYTHING { 4 } else { 3 }];
        let to_drop = ENDINGS[ending] == Ending::Never || random.one_in(10);
        Self {
            way: *random.pick(ways),
            steps: *random.pick(&[0, 1, 2, 5]),
            depth: *random.pick(&[0, 1, 2, 3]),
            ending,
            drop_after: to_drop.then(|| random.below(20)),
            forget: to_drop && random.one_in(10),
        }
    }

    fn ending(&self) -> Ending {
        ENDINGS[self.ending]
    }

    /// The sum of all answers.
    pub(super) fn expected(&self, id: i32) -> i64 {
        i64::from(self.depth + 1) * (0..self.steps).map(|step| i64::from(answer(id, step))).sum::<i64>()
    }

    pub(super) fn call<'a, S: Stack + Carries<Data>>(
        self,
        stack: &'a mut S,
        store: &'a mut Store<Data>,
        guest: &Instance,
        run: &'a AsyncRun,
        starter: &'a Module,
    ) -> Pin<Box<dyn Future<Output = Result<i64>> + 'a>> {
        let ending = i32::try_from(self.ending).expect("few endings");
        let params = (self.steps, self.depth, ending);
        match self.way {
            Way::Typed => Box::pin(run.call(stack, store, params)),
            Way::Untyped => Box::pin(async move {
                let params = [params.0, params.1, params.2].map(Val::I32);
                let mut results = [Val::I64(0)];
                run.as_typed().func().call_on(stack, store, &params, &mut results).await?;
                Ok(results[0].unwrap_i64())
            }),
            Way::Closure => {
                let run = run.as_typed().clone();
                Box::pin(stack.run_send(store, move |mut store| {
                    let result = run.call(&mut store, params);
                    // Whatever the result, the stack can wait again, unless the call was dropped.
                    match suspend_until(pending(1)) {
                        Ok(()) | Err(Error::Cancelled) => result,
                        Err(error) => Err(error.into()),
                    }
                }))
            }
            Way::Start => {
                let mut linker = Linker::new(store.engine());
                for (name, value) in [("steps", params.0), ("depth", params.1), ("ending", params.2)] {
                    let ty = GlobalType::new(ValType::I32, Mutability::Const);
                    let global = Global::new(&mut *store, ty, Val::I32(value)).expect("the type is right");
                    linker.define(&mut *store, "plan", name, global).expect("is new");
                }
                linker.instance(&mut *store, "guest", *guest).expect("is new");
                Box::pin(async move {
                    let instance = linker.instantiate_on(stack, store, starter).await?;
                    Ok(instance.get_global(&mut *store, "result").expect("is exported").get(store).unwrap_i64())
                })
            }
        }
    }

    /// Checks how the call ended, and returns a name for it.
    pub(super) fn check(&self, outcome: &Outcome, id: i32) -> &'static str {
        match (self.ending(), outcome) {
            (_, Outcome::Unstarted) => "dropped before the start",
            (_, Outcome::Dropped) => "dropped",
            (_, Outcome::Forgotten) => "forgotten",
            (Ending::Result, Outcome::Ended(Ok(result))) => {
                assert_eq!(*result, self.expected(id), "{self:?}");
                "result"
            }
            (Ending::Trap(expected), Outcome::Ended(Err(error))) => {
                assert_eq!(error.downcast_ref(), Some(&expected), "{self:?}: {error:?}");
                assert!(error.is::<WasmBacktrace>(), "{self:?}: {error:?}");
                // The name lives as long as the program.
                trap_name(expected)
            }
            (Ending::HostError, Outcome::Ended(Err(error))) => {
                assert_eq!(error.downcast_ref(), Some(&Mine { id }), "{self:?}: {error:?}");
                assert!(error.is::<WasmBacktrace>(), "{self:?}: {error:?}");
                "host error"
            }
            (Ending::HostPanic, Outcome::Panicked(payload)) => {
                assert_eq!(payload.downcast_ref(), Some(&Mine { id }), "{self:?}");
                "host panic"
            }
            (_, outcome) => panic!("{self:?} of store {id} ended in {outcome:?}"),
        }
    }
}

fn trap_name(trap: Trap) -> &'static str {
    match trap {
        Trap::UnreachableCodeReached => "unreachable",
        Trap::IntegerDivisionByZero => "division by zero",
        Trap::IntegerOverflow => "integer overflow",
        Trap::BadConversionToInteger => "bad conversion",
        Trap::MemoryOutOfBounds => "out of memory's bounds",
        Trap::TableOutOfBounds => "out of table's bounds",
        Trap::IndirectCallToNull => "null call",
        Trap::BadSignature => "bad signature",
        Trap::StackOverflow => "stack overflow",
        Trap::OutOfFuel => "out of fuel",
        Trap::Interrupt => "interrupt",
        other => panic!("not among the endings: {other:?}"),
    }
}

/// How a call has ended.
#[derive(Debug)]
pub(super) enum Outcome {
    Ended(Result<i64>),
    Panicked(Box<dyn std::any::Any + Send>),
    /// Dropped before it was polled.
    Unstarted,
    Dropped,
    Forgotten,
}

impl Outcome {
    pub(super) fn is_dropped(&self) -> bool {
        matches!(self, Outcome::Unstarted | Outcome::Dropped | Outcome::Forgotten)
    }
}
