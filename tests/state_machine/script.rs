//! What a call does: a script, the guest that goes through it, and what it leaves behind.

use crate::machine::perform_inside;
use std::panic::panic_any;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Wake, Waker};
use std::{fmt, future};
use wasmtime::{Caller, Linker, Result};
use wasmtime_async::{Error, LinkerExt, suspend_until, yield_now};

/// One step of a call: what its host function does, and how that is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) shape: Shape,
    pub(crate) action: Action,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shape {
    /// An async host function.
    Async,
    /// A synchronous one, which waits by suspending its stack.
    Blocking,
    /// A synchronous one that calls the guest, which calls the async one.
    Nested,
    /// An async one that calls the guest synchronously, which calls the async one: it is suspended within a poll.
    NestedInPoll,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    /// Goes on at once.
    Go,
    /// Waits until its gate is opened.
    Wait,
    /// Lets others go first.
    Yield,
    /// Does some operations of the machine, on other calls, from right where it is.
    Inside { decisions: u64 },
    /// Returns an error.
    Fail,
    /// Panics.
    Panic,
    /// Traps, by this number.
    Trap(i32),
}

/// Traps by number, as the guest makes them.
pub(crate) const TRAPS: [wasmtime::Trap; 5] = [
    wasmtime::Trap::UnreachableCodeReached,
    wasmtime::Trap::MemoryOutOfBounds,
    wasmtime::Trap::IntegerDivisionByZero,
    wasmtime::Trap::IndirectCallToNull,
    wasmtime::Trap::StackOverflow,
];

pub(crate) const GUEST: &str = r#"(module
  (import "host" "shape" (func $shape (param i32 i32) (result i32)))
  (import "host" "async" (func $async (param i32 i32) (result i32)))
  (import "host" "blocking" (func $blocking (param i32 i32) (result i32)))
  (import "host" "nested" (func $nested (param i32 i32) (result i32)))
  (import "host" "nested-in-poll" (func $nested_in_poll (param i32 i32) (result i32)))
  (memory 1)
  (table 1 funcref)
  (func $fall (param i32) (result i32) (i32.add (call $fall (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))
  (func (export "inner") (param i32 i32) (result i32) (call $async (local.get 0) (local.get 1)))
  (func (export "run") (param $token i32) (param $steps i32) (result i32)
    (local $step i32) (local $trap i32)
    (block $over (loop $again
      (br_if $over (i32.eq (local.get $step) (local.get $steps)))
      (block $returned
        (block $in_poll (block $nest (block $block (block $await
          (br_table $await $block $nest $in_poll (call $shape (local.get $token) (local.get $step))))
          (local.set $trap (call $async (local.get $token) (local.get $step))) (br $returned))
          (local.set $trap (call $blocking (local.get $token) (local.get $step))) (br $returned))
          (local.set $trap (call $nested (local.get $token) (local.get $step))) (br $returned))
          (local.set $trap (call $nested_in_poll (local.get $token) (local.get $step))))
      (block $go (block $4 (block $3 (block $2 (block $1 (block $0
        (br_table $0 $1 $2 $3 $4 $go (local.get $trap)))
        (unreachable))
        (drop (i32.load (i32.const -4))) (br $go))
        (drop (i32.div_u (i32.const 1) (i32.const 0))) (br $go))
        (call_indirect (i32.const 0)) (br $go))
        (drop (call $fall (i32.const 0))))
      (local.set $step (i32.add (local.get $step) (i32.const 1)))
      (br $again)))
    (i32.mul (local.get $token) (i32.const 3))))"#;

/// What the guest is told when it is to go on.
const GO: i32 = 5;

/// An error of a host function, or the payload of its panic, with the token of its call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Token(pub(crate) i32);

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "call {} failed", self.0)
    }
}

impl std::error::Error for Token {}

/// A waker that counts how often it was woken.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicUsize);

impl Count {
    pub(crate) fn woken(&self) -> usize {
        // ORDERING: the machine does one thing after another, and waits for other threads to have done theirs.
        self.0.load(Ordering::Relaxed)
    }
}

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        // ORDERING: as above.
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// What a step waits for.
#[derive(Debug, Default)]
struct Gate {
    open: bool,
    waker: Option<Waker>,
}

/// What a call shares with the machine.
#[derive(Debug)]
pub(crate) struct Shared {
    token: i32,
    steps: Vec<Step>,
    gates: Mutex<Vec<Gate>>,
    /// How many steps it has begun.
    begun: AtomicUsize,
    /// What lies on its stack, from the bottom.
    guards: Mutex<Vec<u64>>,
    next_guard: AtomicU64,
    wrong: Mutex<Option<String>>,
}

impl Shared {
    pub(crate) fn new(token: i32, steps: Vec<Step>) -> Arc<Self> {
        let gates = Mutex::new(steps.iter().map(|_| Gate::default()).collect());
        let begun = AtomicUsize::new(0);
        Arc::new(Self {
            token,
            steps,
            gates,
            begun,
            guards: Mutex::default(),
            next_guard: AtomicU64::new(0),
            wrong: Mutex::default(),
        })
    }

    /// Opens the gate that the call waits at.
    pub(crate) fn open(&self, step: usize) {
        let waker = {
            let gate = &mut self.gates.lock().expect("not held in a panic")[step];
            gate.open = true;
            gate.waker.take()
        };
        waker.expect("the call waits at this gate").wake();
    }

    pub(crate) fn token(&self) -> i32 {
        self.token
    }

    pub(crate) fn steps(&self) -> &[Step] {
        &self.steps
    }

    pub(crate) fn begun(&self) -> usize {
        // ORDERING: see `Count`.
        self.begun.load(Ordering::Relaxed)
    }

    /// How many values lie on the stack of the call.
    pub(crate) fn guards(&self) -> usize {
        self.guards.lock().expect("not held in a panic").len()
    }

    pub(crate) fn wrong(&self) -> Option<String> {
        self.wrong.lock().expect("not held in a panic").clone()
    }

    fn say_wrong(&self, text: String) {
        *self.wrong.lock().expect("not held in a panic") = Some(text);
    }
}

/// Something on the stack of a call, which is dropped when those above it have been.
struct Guard {
    shared: Arc<Shared>,
    number: u64,
}

impl Guard {
    fn new(shared: &Arc<Shared>) -> Self {
        // ORDERING: see `Count`.
        let number = shared.next_guard.fetch_add(1, Ordering::Relaxed);
        shared.guards.lock().expect("not held in a panic").push(number);
        Self { shared: Arc::clone(shared), number }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let last = self.shared.guards.lock().expect("not held in a panic").pop();
        if last != Some(self.number) {
            self.shared.say_wrong(format!("{} was dropped when {last:?} was the last", self.number));
        }
    }
}

/// The data of a store: the call that it is used for.
#[derive(Default)]
pub(crate) struct World(pub(crate) Option<Arc<Shared>>);

/// What the call is doing, as its host functions see it.
fn enter(caller: &Caller<'_, World>, token: i32, step: i32) -> (Arc<Shared>, usize, Action) {
    let shared = Arc::clone(caller.data().0.as_ref().expect("a call was started"));
    let step = usize::try_from(step).expect("steps are counted from 0");
    // ORDERING: see `Count`.
    let begun = shared.begun.fetch_add(1, Ordering::Relaxed);
    if (shared.token, begun) != (token, step) {
        shared.say_wrong(format!("call {} at step {begun} met call {token} at step {step}", shared.token));
    }
    let action = shared.steps[step].action;
    (shared, step, action)
}

async fn gate(shared: &Shared, step: usize) {
    /// Forgets the waker of whoever waits no more.
    struct Waiting<'a>(&'a Shared, usize);
    impl Drop for Waiting<'_> {
        fn drop(&mut self) {
            self.0.gates.lock().expect("not held in a panic")[self.1].waker = None;
        }
    }

    let _waiting = Waiting(shared, step);
    future::poll_fn(|cx| {
        let gate = &mut shared.gates.lock().expect("not held in a panic")[step];
        if gate.open {
            return Poll::Ready(());
        }
        gate.waker = Some(cx.waker().clone());
        Poll::Pending
    })
    .await;
}

/// Ends a step that waits for nothing.
fn act(shared: &Shared, action: Action) -> Result<i32> {
    match action {
        Action::Fail => return Err(Token(shared.token).into()),
        Action::Panic => panic_any(Token(shared.token)),
        Action::Trap(number) => return Ok(number),
        Action::Inside { decisions } => perform_inside(decisions),
        Action::Go | Action::Wait | Action::Yield => {}
    }
    Ok(GO)
}

async fn step_async(caller: Caller<'_, World>, token: i32, step: i32) -> Result<i32> {
    let (shared, step, action) = enter(&caller, token, step);
    let _below = Guard::new(&shared);
    match action {
        Action::Wait => {
            let _above = Guard::new(&shared);
            gate(&shared, step).await;
        }
        Action::Yield => yield_now()?,
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
        // Cancelled. From now on nothing waits any more.
        let again = suspend_until(future::pending::<()>());
        if !matches!((&error, again), (Error::Cancelled, Err(Error::Cancelled))) {
            shared.say_wrong("waited after it was cancelled".to_owned());
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
        shared.steps[usize::try_from(step).expect("steps are counted from 0")].shape as i32
    })?;
    linker.func_wrap_suspending("host", "async", step_async)?;
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
