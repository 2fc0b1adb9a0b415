//! What a call does: a script, and the guest that runs it.

use crate::calls::{Kind, Stop, sees_activations};
use crate::random::Random;
use std::fmt;

/// One step of a call: what its host function does, and how it does that.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) shape: Shape,
    pub(crate) action: Action,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shape {
    /// An async host function.
    Async,
    /// An async host function that was registered as `Send`.
    Send,
    /// A synchronous host function, which waits by suspending its stack.
    Blocking,
    /// A synchronous host function that calls the guest, which calls the async one.
    Nested,
    /// An async host function that calls the guest synchronously, which calls the async one. It is suspended within a
    /// poll.
    NestedInPoll,
    /// A host function that calls the guest as a future. That guest calls another such function, and so on, down to the
    /// one that is `Send`.
    Within(Within),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Within {
    /// How many host functions wait for the guest.
    pub(crate) levels: usize,
    /// What one of them does if the last one waits at its gate.
    pub(crate) race: Option<Race>,
}

/// A host function with a gate of its own. When it sees that the gate is open, it gives up on the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Race {
    /// Which one, counted from the outermost.
    pub(crate) level: usize,
    /// What happens to the future.
    pub(crate) stop: Stop,
    /// What it does then, on other calls.
    pub(crate) decisions: Option<u64>,
}

impl Shape {
    /// The number that the guest knows it by.
    pub(crate) fn number(self) -> i32 {
        match self {
            Self::Async => 0,
            Self::Send => 1,
            Self::Blocking => 2,
            Self::Nested => 3,
            Self::NestedInPoll => 4,
            Self::Within(_) => 5,
        }
    }

    pub(crate) fn within(self) -> Option<Within> {
        if let Self::Within(within) = self { Some(within) } else { None }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    /// Continues at once.
    Go,
    /// Waits until its gate is open.
    Wait,
    /// Lets others go first.
    Yield,
    /// Does some operations of the machine on other calls, right here.
    Inside { decisions: u64 },
    /// Returns an error.
    Fail,
    /// Panics.
    Panic,
    /// Traps with this number.
    Trap(i32),
}

/// The traps that the guest makes, by number.
pub(crate) const TRAPS: [wasmtime::Trap; 5] = [
    wasmtime::Trap::UnreachableCodeReached,
    wasmtime::Trap::MemoryOutOfBounds,
    wasmtime::Trap::IntegerDivisionByZero,
    wasmtime::Trap::IndirectCallToNull,
    wasmtime::Trap::StackOverflow,
];

pub(crate) const GUEST: &str = r#"(module
  (import "host" "shape" (func $shape (param i32 i32) (result i32)))
  (import "host" "levels" (func $levels (param i32 i32) (result i32)))
  (import "host" "async" (func $async (param i32 i32) (result i32)))
  (import "host" "send" (func $send (param i32 i32) (result i32)))
  (import "host" "blocking" (func $blocking (param i32 i32) (result i32)))
  (import "host" "nested" (func $nested (param i32 i32) (result i32)))
  (import "host" "nested-in-poll" (func $nested_in_poll (param i32 i32) (result i32)))
  (import "host" "within" (func $within (param i32 i32 i32) (result i32)))
  (memory 1)
  (table 1 funcref)
  (func $fall (param i32) (result i32) (i32.add (call $fall (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))
  (func $act (param $trap i32) (result i32)
    (block $go (block $4 (block $3 (block $2 (block $1 (block $0
      (br_table $0 $1 $2 $3 $4 $go (local.get $trap)))
      (unreachable))
      (drop (i32.load (i32.const -4))) (br $go))
      (drop (i32.div_u (i32.const 1) (i32.const 0))) (br $go))
      (call_indirect (i32.const 0)) (br $go))
      (drop (call $fall (i32.const 0))))
    (local.get $trap))
  (func (export "inner") (param i32 i32) (result i32) (call $async (local.get 0) (local.get 1)))
  (func (export "inside") (param $token i32) (param $step i32) (param $level i32) (result i32)
    (if (i32.lt_u (local.get $level) (call $levels (local.get $token) (local.get $step)))
      (then (return (call $within (local.get $token) (local.get $step) (local.get $level)))))
    (call $act (call $send (local.get $token) (local.get $step))))
  (func $take (param $token i32) (param $step i32) (result i32)
    (block $within_calls (block $in_poll (block $nest (block $block (block $await_send (block $await
      (br_table $await $await_send $block $nest $in_poll $within_calls
        (call $shape (local.get $token) (local.get $step))))
      (return (call $async (local.get $token) (local.get $step))))
      (return (call $send (local.get $token) (local.get $step))))
      (return (call $blocking (local.get $token) (local.get $step))))
      (return (call $nested (local.get $token) (local.get $step))))
      (return (call $nested_in_poll (local.get $token) (local.get $step))))
    (call $within (local.get $token) (local.get $step) (i32.const 0)))
  (func (export "run") (param $token i32) (param $steps i32) (result i32)
    (local $step i32)
    (block $over (loop $again
      (br_if $over (i32.eq (local.get $step) (local.get $steps)))
      (drop (call $act (call $take (local.get $token) (local.get $step))))
      (local.set $step (i32.add (local.get $step) (i32.const 1)))
      (br $again)))
    (i32.mul (local.get $token) (i32.const 3))))"#;

/// Tells the guest to continue.
pub(crate) const GO: i32 = 5;

/// An error of a host function, or the payload of its panic. It contains the token of its call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Token(pub(crate) i32);

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "call {} failed", self.0)
    }
}

impl std::error::Error for Token {}

/// Makes a script for a call on a stack of this kind.
pub(crate) fn new_steps(random: &mut Random, kind: Kind) -> Vec<Step> {
    let mut actions: Vec<_> = (0..random.below(6))
        .map(|_| match random.below(10) {
            0 => Action::Go,
            1..6 => Action::Wait,
            6 => Action::Yield,
            _ => Action::Inside { decisions: random.next() },
        })
        .collect();
    match random.below(6) {
        0 => actions.push(Action::Fail),
        1 => actions.push(Action::Panic),
        2 | 3 => actions.push(Action::Trap(i32::try_from(random.below(TRAPS.len())).expect("is small"))),
        _ => {}
    }
    let steps = actions.into_iter().map(|action| Step { shape: new_shape(random, kind, action), action });
    steps.collect()
}

fn new_shape(random: &mut Random, kind: Kind, action: Action) -> Shape {
    let waits = matches!(action, Action::Wait | Action::Yield);
    // Most calls should get further than the point where they are refused.
    let refused = !kind.refuses() || !waits || random.below(8) == 0;
    let shapes: &[_] = if refused {
        &[Shape::Async, Shape::Blocking, Shape::Nested, Shape::NestedInPoll, Shape::Send]
    } else {
        &[Shape::Send]
    };
    let may_nest = sees_activations() || kind.calls_in_place();
    if !may_nest || random.below(shapes.len() + 1) < shapes.len() {
        return shapes[random.below(shapes.len())];
    }
    let levels = 1 + random.below(3);
    let race = (action == Action::Wait && random.below(4) > 0).then(|| Race {
        level: random.below(levels),
        stop: if random.below(4) == 0 { Stop::Forget } else { Stop::Drop },
        decisions: (random.below(2) == 0).then(|| random.next()),
    });
    Shape::Within(Within { levels, race })
}
