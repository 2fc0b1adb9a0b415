//! The data of a store.

use crate::cases::case::{Case, IMPORTS};
use crate::cases::driver::Timers;
use crate::cases::transcript::Log;
use std::sync::Arc;
use wasmtime::{Func, Module, StoreLimits, StoreLimitsBuilder};

/// One epoch is as long as the whole run.
pub(crate) const FAR: u64 = 1 << 40;

/// The data of a store. `S` is what calls run on.
pub(crate) struct World<S> {
    pub(crate) case: Arc<Case>,
    pub(crate) log: Log,
    pub(crate) timers: Timers,
    pub(crate) limits: StoreLimits,
    /// The guest's functions, once it is instantiated.
    pub(crate) exports: Vec<Func>,
    /// A stack for calls by host functions.
    pub(crate) spare: Option<S>,
    /// The guest of another store.
    pub(crate) elsewhere: Module,
    /// How often each host function was called.
    pub(crate) calls: [usize; IMPORTS.len()],
    pub(crate) level: Level,
    /// The most that the step's fuel can be when no endless recursion is going on.
    pub(crate) budget: u64,
}

/// In which calls of the guest by host functions it is.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Level {
    /// How many there are.
    pub(crate) depth: usize,
    /// How many of them are synchronous where that is this crate's way.
    pub(crate) synchronous: usize,
    /// How many of them are joined to something by `Join::ByWakers`.
    pub(crate) by_wakers: usize,
}

/// What it takes to call the guest of another store.
pub(crate) struct Visit<S> {
    /// A stack to make the call on, left for the next one.
    pub(crate) spare: Option<S>,
    pub(crate) guest: Module,
    pub(crate) timers: Timers,
}

impl<S> World<S> {
    pub(crate) fn new(case: &Arc<Case>, timers: &Timers, elsewhere: &Module) -> Self {
        Self {
            case: Arc::clone(case),
            log: Log::default(),
            timers: timers.clone(),
            limits: StoreLimitsBuilder::new().memory_size(1 << 20).table_elements(1000).build(),
            exports: Vec::new(),
            spare: None,
            elsewhere: elsewhere.clone(),
            calls: [0; IMPORTS.len()],
            level: Level::default(),
            budget: 0,
        }
    }

    /// Whether a host function that is called now may be pending.
    pub(crate) fn may_wait(&self) -> bool {
        !(self.case.known_only && self.level.synchronous > 0)
    }

    /// Whether a guest that reaches its epoch deadline now may find out.
    ///
    /// One that yields is polled again in the same turn by what goes by wakers, but no more than a few times, and how often it
    /// was polled before is not the same everywhere.
    pub(crate) fn may_reach_deadline(&self) -> bool {
        self.case.deadline_traps || (self.may_wait() && self.level.by_wakers == 0)
    }

    pub(crate) fn visit(&mut self) -> Visit<S> {
        Visit { spare: self.spare.take(), guest: self.elsewhere.clone(), timers: self.timers.clone() }
    }

    /// Before each step: a call that was dropped or panicked has not counted down.
    pub(crate) fn begin_step(&mut self) {
        self.level = Level::default();
        self.budget = self.case.fuel;
    }
}
