//! A case: what a guest's host functions do, and how the host calls the guest. It is made from bytes, and can be
//! printed.

use crate::cases::choices::Choices;
use std::fmt;

/// The host functions that any guest may import, as `"host"` `"h0"`, `"h1"` and so on.
pub(crate) const IMPORTS: [&str; 8] = [
    "",
    "(param i32) (result i32)",
    "(param i64 f64) (result i64)",
    "(param i32 i32 i32) (result i32 i64)",
    "(param f32) (result f64)",
    "(param externref i32) (result externref)",
    "(param funcref) (result i32)",
    "(result i64)",
];

/// Enough fuel for a guest that recurses without end to use up its stack.
pub(crate) const MUCH_FUEL: u64 = 2_000_000;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Case {
    /// Whether every kind of stack can suspend the case. Then the only code that waits are async host functions that
    /// the guest of the call has called, or a guest that a host function has called as a future. A guest that was
    /// called back synchronously finds nothing to wait for.
    pub(crate) known_only: bool,
    /// What each host function does.
    pub(crate) imports: Vec<Import>,
    /// How much fuel each step has.
    pub(crate) fuel: u64,
    /// Whether a guest that reaches its epoch deadline traps, instead of yielding.
    pub(crate) deadline_traps: bool,
    /// The pending poll after which the instantiation is dropped, if any.
    pub(crate) cancel_start: Option<u32>,
    pub(crate) steps: Vec<Step>,
}

/// A host function.
#[derive(Debug)]
pub(crate) struct Import {
    pub(crate) shape: Shape,
    /// What each call of the function does. After the last entry, the first one follows again.
    pub(crate) script: Vec<Vec<Action>>,
}

/// How a host function is defined. In wasmtime's own async, all except `Typed` are the same.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape {
    /// Async, with the signature of a closure.
    Typed,
    /// Async, with a signature that is only known at run time.
    Untyped,
    /// Synchronous code that waits by suspending its stack.
    Blocking,
    /// Synchronous code that does not wait itself.
    Sync,
}

/// What a host function does before it returns.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Action {
    /// Is pending this many times.
    Pause { times: u32, wake: Wake },
    /// Returns an error.
    Fail(u32),
    /// Panics.
    Panic(u32),
    /// Calls an export of the guest, synchronously where this crate does so.
    CallBack { export: usize, swallow: bool },
    /// Calls an export of the guest as a future.
    CallWithin(Within),
    /// Calls a guest of another store, which is pending this many times.
    CallElsewhere { pauses: u32 },
    /// Grows the guest's memory by a page.
    GrowMemory,
    /// Writes to the guest's memory.
    WriteMemory(u16),
    /// Moves the guest's epoch deadline to now.
    ReachDeadline,
    /// Collects the store's garbage.
    CollectGarbage,
    /// Leaves little fuel to the guest.
    BurnFuel(u64),
}

/// A call of the guest by its host function, as a future.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Within {
    pub(crate) export: usize,
    pub(crate) swallow: bool,
    /// Whether the call uses Rust types. Only for a few signatures.
    pub(crate) typed: bool,
    pub(crate) beside: Beside,
}

/// What runs at the same time as such a call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Beside {
    Nothing,
    /// A future that is pending this many times, joined to the call.
    Pause {
        times: u32,
        wake: Wake,
        join: Join,
    },
    /// A call of a guest of another store, joined to the call.
    Elsewhere {
        pauses: u32,
    },
    /// A future that is pending this many times. After that, the call is dropped if it has not ended.
    Until {
        times: u32,
        wake: Wake,
    },
}

/// How two futures are joined.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Join {
    /// With a combinator that polls both whenever it is polled, the call first.
    CallFirst,
    CallLast,
    /// With a combinator that polls the future that was woken.
    ByWakers,
}

/// How a pending future wakes its task.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wake {
    /// During the poll.
    AtOnce,
    /// When the driver decides, on the driver's thread.
    Later,
    /// When the driver decides, on another thread.
    Elsewhere,
}

/// A call of the guest by the host.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) export: usize,
    /// The seed of the arguments.
    pub(crate) arguments: u64,
    pub(crate) entry: Entry,
    /// The pending poll after which the call is dropped, if any.
    pub(crate) cancel: Option<u32>,
}

/// How the host calls a guest. In wasmtime's own async, `Closure` is the same as `Untyped`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Entry {
    Untyped,
    /// With Rust types. Only for a few signatures.
    Typed,
    /// With wasmtime's synchronous function, in a closure that runs on the stack.
    Closure,
}

impl Case {
    /// Makes a case from any bytes.
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let mut choices = Choices::new(bytes);
        let known_only = !choices.one_in(2);
        let lazy = choices.one_in(4);
        let fuel = if choices.one_in(8) { 50 + choices.below(1_000) as u64 } else { 5_000 };
        let deadline_traps = choices.one_in(4);
        let cancel_start = cancel(&mut choices);
        let steps = (0..choices.within(1..=4)).map(|_| step(&mut choices, known_only)).collect();
        let imports = IMPORTS.iter().map(|_| import(&mut choices, known_only, lazy)).collect();
        Self { known_only, imports, fuel, deadline_traps, cancel_start, steps }
    }
}

fn cancel(choices: &mut Choices<'_>) -> Option<u32> {
    choices.one_in(6).then(|| u32::try_from(choices.below(6)).expect("is small"))
}

fn import(choices: &mut Choices<'_>, known_only: bool, lazy: bool) -> Import {
    let shapes = [Shape::Typed, Shape::Untyped, Shape::Sync, Shape::Blocking];
    let shape = choices.pick(if known_only { &shapes[..3] } else { &shapes });
    let calls = choices.within(1..=4);
    let script = (0..calls)
        .map(|_| {
            let actions = choices.below(if lazy { 2 } else { 4 });
            (0..actions).map(|_| action(choices)).collect()
        })
        .collect();
    Import { shape, script }
}

fn action(choices: &mut Choices<'_>) -> Action {
    let small = |choices: &mut Choices<'_>, end| u32::try_from(choices.below(end)).expect("is small");
    match choices.below(40) {
        0..11 => Action::Pause { times: small(choices, 4), wake: wake(choices) },
        32.. => Action::CallWithin(within(choices)),
        11..18 => Action::CallBack { export: choices.below(8), swallow: choices.below(2) == 1 },
        18..20 => Action::CallElsewhere { pauses: small(choices, 3) },
        20..22 => Action::GrowMemory,
        22..24 => Action::WriteMemory(choices.0.arbitrary().unwrap_or(0)),
        24..28 => Action::ReachDeadline,
        28 => Action::CollectGarbage,
        29 => Action::BurnFuel(choices.below(100) as u64),
        30 => Action::Fail(small(choices, 100)),
        _ => Action::Panic(small(choices, 100)),
    }
}

fn wake(choices: &mut Choices<'_>) -> Wake {
    choices.pick(&[Wake::AtOnce, Wake::Later, Wake::Later, Wake::Elsewhere])
}

fn within(choices: &mut Choices<'_>) -> Within {
    // Pending at least once, so that the call begins.
    let times = |choices: &mut Choices<'_>| u32::try_from(choices.within(1..=4)).expect("is small");
    let beside = match choices.below(8) {
        0 | 1 => Beside::Nothing,
        2 | 3 => {
            let join = choices.pick(&[Join::CallFirst, Join::CallLast, Join::ByWakers]);
            Beside::Pause { times: times(choices), wake: wake(choices), join }
        }
        4 => Beside::Elsewhere { pauses: times(choices) - 1 },
        _ => Beside::Until { times: times(choices), wake: wake(choices) },
    };
    Within { export: choices.below(8), swallow: choices.below(2) == 1, typed: choices.below(2) == 1, beside }
}

fn step(choices: &mut Choices<'_>, known_only: bool) -> Step {
    let entries = [Entry::Untyped, Entry::Typed, Entry::Closure];
    Step {
        export: choices.below(16),
        arguments: choices.bits(),
        entry: choices.pick(if known_only { &entries[..2] } else { &entries }),
        cancel: cancel(choices),
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.known_only {
            writeln!(
                f,
                "only async host functions wait, and none that a guest calls which was called back synchronously"
            )?;
        }
        for (number, (import, signature)) in self.imports.iter().zip(IMPORTS).enumerate() {
            if import.script.iter().any(|call| !call.is_empty()) {
                writeln!(f, "h{number} {signature}: {:?}, calls in turn: {:?}", import.shape, import.script)?;
            }
        }
        writeln!(
            f,
            "fuel of each step: {}; at its epoch deadline the guest {}",
            self.fuel,
            if self.deadline_traps { "traps" } else { "yields" }
        )?;
        writeln!(f, "instantiate, drop after pending polls: {:?}", self.cancel_start)?;
        for Step { export, arguments, entry, cancel } in &self.steps {
            writeln!(
                f,
                "call exported function {export} (modulo their number), arguments from {arguments:#x}, {entry:?}, \
                 drop after pending polls: {cancel:?}"
            )?;
        }
        Ok(())
    }
}
