//! The data of a store.

use crate::cases::case::{Case, IMPORTS};
use crate::cases::driver::Timers;
use crate::cases::transcript::Log;
use std::sync::Arc;
use wasmtime::{Func, Module, StoreLimits, StoreLimitsBuilder};

/// An epoch that the run never reaches.
pub(crate) const FAR: u64 = 1 << 40;

/// The data of a store. `S` is the stack that calls run on.
pub(crate) struct World<S> {
    pub(crate) case: Arc<Case>,
    pub(crate) log: Log,
    pub(crate) timers: Timers,
    pub(crate) limits: StoreLimits,
    /// The guest's functions, once it is instantiated.
    pub(crate) exports: Vec<Func>,
    /// A stack for calls by host functions.
    pub(crate) spare: Option<S>,
    /// The module of the other store's guest.
    pub(crate) elsewhere: Module,
    /// How often each host function was called.
    pub(crate) calls: [usize; IMPORTS.len()],
    pub(crate) level: Level,
    /// The most fuel that the step can have left while no endless recursion is in progress.
    pub(crate) budget: u64,
}

/// The calls of the guest by host functions that are in progress.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Level {
    /// How many there are.
    pub(crate) depth: usize,
    /// How many of them are synchronous where this crate makes them so.
    pub(crate) synchronous: usize,
    /// How many of them are joined to something by `Join::ByWakers`.
    pub(crate) by_wakers: usize,
}

/// What a call of the other store's guest needs.
pub(crate) struct Visit<S> {
    /// A stack for the call. The next call uses it again.
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

    /// Whether a guest that reaches its epoch deadline now may notice.
    ///
    /// If such a guest yields, combinators that go by wakers poll it again in the same turn, but only a few times. How
    /// often it was polled before differs between modes.
    pub(crate) fn may_reach_deadline(&self) -> bool {
        self.case.deadline_traps || (self.may_wait() && self.level.by_wakers == 0)
    }

    pub(crate) fn visit(&mut self) -> Visit<S> {
        Visit { spare: self.spare.take(), guest: self.elsewhere.clone(), timers: self.timers.clone() }
    }

    /// Called before each step, because a call that was dropped or panicked did not count down.
    pub(crate) fn begin_step(&mut self) {
        self.level = Level::default();
        self.budget = self.case.fuel;
    }
}
