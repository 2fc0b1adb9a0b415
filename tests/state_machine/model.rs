//! What must be true of stacks, stores and calls, and what has been seen.

use crate::calls::{Ending, Idle, Kind, Order, Stop};
use crate::random::Random;
use crate::script::{Action, Race, Shape, TRAPS, Token};
use crate::shared::{Count, Shared, Which, World};
use crate::usage::fiber_mappings;
use std::collections::BTreeMap;
use std::env;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use wasmtime::Func;
use wasmtime_async::{Between, Store};

/// What the model knows about a call that has not ended.
pub(crate) struct Call {
    pub(crate) shared: Arc<Shared>,
    pub(crate) run: Func,
    pub(crate) order: Order,
    /// Whether its stack has memory.
    pub(crate) memory: bool,
    /// The thread that polled it last.
    pub(crate) polled_on: Option<ThreadId>,
    /// The current step.
    pub(crate) step: usize,
    pub(crate) progress: Progress,
    /// The gates of the step that are open.
    opened: Vec<Which>,
    /// The waker of the poll in which the step began.
    first_waker: usize,
    /// How calls within it were given up.
    pub(crate) given_up: Vec<Stop>,
    /// The wakers that it was polled with, in order, and how often each must have been woken.
    pub(crate) wakers: Vec<(Arc<Count>, usize)>,
}

/// How far a call has got in a step.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    NotBegun,
    /// Suspended. What it waits for has not happened.
    Waits,
    /// Suspended. Nothing blocks it any more.
    MayGoOn,
}

/// Everything except the calls themselves.
#[derive(Default)]
pub(crate) struct Model {
    /// Stacks, and whether they have memory.
    pub(crate) idle: Vec<(Idle, bool)>,
    pub(crate) stores: Vec<(Store<World>, Func)>,
    pub(crate) calls: BTreeMap<i32, Call>,
    pub(crate) next: i32,
    /// How many values are on the stacks of forgotten calls.
    pub(crate) forgotten: Vec<(Arc<Shared>, usize)>,
    pub(crate) forgotten_fibers: usize,
    pub(crate) forgotten_threads: usize,
    /// How many polls of suspended calls on `SendFiberStack`s there were. Each was on another thread than the last.
    pub(crate) moved: usize,
    pub(crate) trace: Vec<String>,
    pub(crate) counts: BTreeMap<String, usize>,
}

static MODEL: LazyLock<Mutex<Model>> = LazyLock::new(Mutex::default);

pub(crate) fn model() -> MutexGuard<'static, Model> {
    // A check that fails leaves nothing half done.
    MODEL.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn note(text: String) {
    if env::var_os("STATE_MACHINE_TRACE").is_some() {
        eprintln!("{text}");
    }
    let name = text.split(' ').next().unwrap_or_default().to_owned();
    let mut model = model();
    *model.counts.entry(name).or_default() += 1;
    model.trace.push(text);
}

impl Call {
    pub(crate) fn new(shared: Arc<Shared>, run: Func, order: Order, memory: bool) -> Self {
        Self {
            shared,
            run,
            order,
            memory,
            polled_on: None,
            step: 0,
            progress: Progress::NotBegun,
            opened: Vec::new(),
            first_waker: 0,
            given_up: Vec::new(),
            wakers: Vec::new(),
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        self.shared.kind()
    }

    /// How the call ends if a step of this shape wants to wait, if it ends.
    fn refusal(&self, shape: Shape) -> Option<Ending> {
        if !self.kind().refuses() {
            return None;
        }
        match shape {
            Shape::Send | Shape::Within(_) => None,
            Shape::Async => (self.kind() == Kind::Send).then_some(Ending::NotSend),
            Shape::Blocking => Some(Ending::Refused(Between::HostCode)),
            Shape::Nested => Some(Ending::Refused(Between::NestedCall)),
            Shape::NestedInPoll => Some(Ending::Refused(Between::Poll)),
        }
    }

    /// Goes through the script as a poll does. Returns `None` if the call must be pending.
    pub(crate) fn advance(&mut self) -> Option<Ending> {
        let token = Token(self.shared.token());
        loop {
            let Some(step) = self.shared.steps().get(self.step) else { return Some(Ending::Returned(token.0 * 3)) };
            if let (Action::Wait | Action::Yield, Some(ending)) = (step.action, self.refusal(step.shape)) {
                // An async host function wakes the task before the stack refuses.
                let woken = step.action == Action::Yield && step.shape != Shape::Blocking;
                self.wakers.last_mut().expect("is being polled").1 += usize::from(woken);
                return Some(ending);
            }
            match step.action {
                Action::Fail => return Some(Ending::Failed(token)),
                Action::Panic => return Some(Ending::Panicked(token)),
                Action::Trap(number) => {
                    return Some(Ending::Trapped(TRAPS[usize::try_from(number).expect("is an index")]));
                }
                Action::Wait if self.progress != Progress::MayGoOn => {
                    if self.progress == Progress::NotBegun {
                        self.first_waker = self.wakers.len() - 1;
                    }
                    self.progress = Progress::Waits;
                    return None;
                }
                Action::Wait if let Some(race) = self.won_race() => {
                    self.given_up.push(race.stop);
                    match race.stop {
                        Stop::Drop => self.end_step(),
                        Stop::Forget => return Some(Ending::Lost),
                    }
                }
                Action::Yield if self.progress == Progress::NotBegun => {
                    // Yielding wakes the task at once.
                    self.progress = Progress::MayGoOn;
                    self.wakers.last_mut().expect("is being polled").1 += 1;
                    return None;
                }
                Action::Go | Action::Inside { .. } | Action::Wait | Action::Yield => {
                    self.end_step();
                }
            }
        }
    }

    fn end_step(&mut self) {
        self.step += 1;
        self.progress = Progress::NotBegun;
        self.opened.clear();
    }

    fn race(&self) -> Option<Race> {
        self.shared.steps().get(self.step)?.shape.within()?.race
    }

    /// The race of this step, if its gate is open and is looked at first. A call that runs in place must have ended
    /// before.
    fn won_race(&self) -> Option<Race> {
        self.race().filter(|_| self.opened.contains(&Which::Race) && !self.kind().calls_in_place())
    }

    /// Opens one of the gates that the call waits at, if there is one.
    pub(crate) fn open(&mut self, random: &mut Random) -> Option<Which> {
        if self.progress == Progress::NotBegun || self.shared.steps()[self.step].action != Action::Wait {
            return None;
        }
        let mut closed = vec![Which::Step];
        closed.extend(self.race().map(|_| Which::Race));
        closed.retain(|which| !self.opened.contains(which));
        let which = *closed.get(random.below(closed.len().max(1)))?;
        self.opened.push(which);
        let in_place = self.kind().calls_in_place();
        if which == Which::Step || !in_place {
            self.progress = Progress::MayGoOn;
        }
        // A future next to a call that runs in place is not polled again, so it has the waker of its first poll.
        let waker = if which == Which::Race && in_place { self.first_waker } else { self.wakers.len() - 1 };
        self.wakers[waker].1 += 1;
        Some(which)
    }

    /// How many values are left forever when the call within the race of this step is forgotten.
    pub(crate) fn lost_guards(&self) -> usize {
        let within = self.shared.steps()[self.step].shape.within().expect("it has a race");
        let race = within.race.expect("is lost by it");
        // Two for each host function that was called, except for that one.
        2 * (within.levels - race.level)
    }

    /// How many steps have begun.
    pub(crate) fn begun(&self, ended: bool) -> usize {
        let ending = ended && self.step < self.shared.steps().len();
        self.step + usize::from(self.progress != Progress::NotBegun || ending)
    }

    pub(crate) fn check_wakers(&self, token: i32) {
        for (number, (waker, woken)) in self.wakers.iter().enumerate() {
            assert_eq!(waker.woken(), *woken, "wake-ups of waker {number} of call {token}");
        }
    }
}

/// Checks what must be true of a call that has ended and was not forgotten.
pub(crate) fn check_ended(token: i32, call: &Call, by_itself: bool) {
    assert_eq!(call.shared.guards(), 0, "values left on the stack of call {token}");
    assert_eq!(call.shared.begun(), call.begun(by_itself), "steps begun by call {token}");
    call.check_wakers(token);
    for (number, (waker, _)) in call.wakers.iter().enumerate() {
        assert_eq!(Arc::strong_count(waker), 1, "clones of waker {number} of call {token}, which has ended");
    }
    assert_eq!(call.shared.wrong(), None, "call {token}");
}

/// Checks what must be true whenever nothing is running.
pub(crate) fn check() {
    let model = model();
    for (shared, guards) in &model.forgotten {
        assert_eq!(shared.guards(), *guards, "values on the stack of a forgotten call");
    }
    for (token, call) in &model.calls {
        call.check_wakers(*token);
        assert_eq!(call.shared.wrong(), None, "call {token}");
    }
    let idle = model.idle.iter().filter(|(stack, memory)| *memory && stack.kind().is_fiber()).count();
    let running = model.calls.values().filter(|call| call.kind().is_fiber() && call.memory).count();
    if let Some(mappings) = fiber_mappings() {
        assert_eq!(
            mappings,
            idle + running + model.forgotten_fibers,
            "mappings: {idle} idle stacks, {running} calls, {} forgotten",
            model.forgotten_fibers
        );
    }
}
