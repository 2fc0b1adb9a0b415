//! Runs a group of cases, each in every mode and on every engine, all interleaved, and compares the results.

use crate::cases::case::Case;
use crate::cases::compare::{Leeway, compare, count};
use crate::cases::course::nests;
use crate::cases::driver::{Driven, Left, Timers, Unasked, attempt, drive};
use crate::cases::elsewhere::ELSEWHERE;
use crate::cases::guest::Guest;
use crate::cases::helpers::Traveller;
use crate::cases::host::linker;
use crate::cases::mode::{Mode, Native};
#[cfg(feature = "thread-backend")]
use crate::cases::ours::Thread;
use crate::cases::ours::{Fiber, Ours, SendFiber, Unchecked};
use crate::cases::random::Random;
use crate::cases::transcript::{Ending, Record, State, Value, frames};
use crate::cases::values::values;
use crate::cases::world::{FAR, World};
use futures::FutureExt;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use wasmtime::{AsContextMut, Config, Engine, Error, Instance, Module, RegallocAlgorithm, RootScope, Store, Val};
use wasmtime_async::{DEFAULT_STACK_SIZE, FiberStack, Stack};

/// The stack that a case runs on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum StackKind {
    Fiber,
    Unchecked,
    Send,
    #[cfg(feature = "thread-backend")]
    Thread,
}

impl StackKind {
    pub(crate) const ALL: &[Self] = &[
        Self::Fiber,
        Self::Unchecked,
        Self::Send,
        #[cfg(feature = "thread-backend")]
        Self::Thread,
    ];

    /// The name that it is counted under.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fiber => "fiber",
            Self::Unchecked => "unchecked",
            Self::Send => "send",
            #[cfg(feature = "thread-backend")]
            Self::Thread => "thread",
        }
    }

    /// The differences that are allowed on it.
    fn leeway(self, case: &Case) -> Leeway {
        Leeway {
            may_refuse: matches!(self, Self::Fiber | Self::Send) && !case.known_only,
            in_place: self.is_thread(),
            waits_per_turn: self.is_thread().then_some(128),
        }
    }

    fn is_thread(self) -> bool {
        !matches!(self, Self::Fiber | Self::Unchecked | Self::Send)
    }

    /// Whether this system has such stacks.
    fn is_there(self) -> bool {
        match self {
            Self::Fiber => FiberStack::new(DEFAULT_STACK_SIZE).is_ok(),
            Self::Send => nests(),
            Self::Unchecked => true,
            #[cfg(feature = "thread-backend")]
            Self::Thread => true,
        }
    }
}

/// Cases that run together, and their order.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct Group {
    /// The seed of the order of polls.
    pub(crate) order: u64,
    /// The bytes that the guests are made from, at least one guest.
    pub(crate) guests: Vec<Vec<u8>>,
    /// The bytes that the cases are made from. They use the guests in turn.
    pub(crate) cases: Vec<Vec<u8>>,
}

impl Group {
    /// One or two guests, and a handful of cases.
    pub(crate) fn random(seed: u64) -> Self {
        let mut random = Random(seed);
        let mut some = |count: usize, max_len: usize| {
            let strings = (0..count).map(|_| {
                let len = 100 + random.below(max_len);
                random.bytes(len)
            });
            strings.collect()
        };
        let (guests, cases) = (1 + (seed % 2) as usize, 3 + (seed % 5) as usize);
        Self { guests: some(guests, 1500), cases: some(cases, 400), order: seed }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, bytes) in self.guests.iter().enumerate() {
            writeln!(f, "---- guest {number}\n{}", Guest::new(bytes))?;
        }
        for (number, bytes) in self.cases.iter().enumerate() {
            write!(f, "---- case {number} with guest {}\n{}", number % self.guests.len(), Case::new(bytes))?;
        }
        write!(f, "---- order of polls: {:#x}", self.order)
    }
}

/// An engine, and its name.
struct Target {
    name: &'static str,
    engine: Engine,
    elsewhere: Module,
}

/// What runs groups.
pub(crate) struct Bench {
    targets: Vec<Target>,
    stacks: Vec<StackKind>,
}

/// How often each thing was seen, by name.
#[derive(Default, Debug)]
pub(crate) struct Counts(pub(crate) BTreeMap<String, u64>);

impl Counts {
    pub(crate) fn add(&mut self, name: &str, n: usize) {
        *self.0.entry(name.to_owned()).or_default() += n as u64;
    }

    pub(crate) fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }
}

impl Bench {
    pub(crate) fn new() -> Self {
        let target = |name, pulley: bool| {
            let mut config = Config::new();
            config.consume_fuel(true).epoch_interruption(true).max_wasm_stack(256 << 10);
            // The settings that take the least time for guests that hardly run.
            config
                .cranelift_opt_level(wasmtime::OptLevel::None)
                .cranelift_regalloc_algorithm(RegallocAlgorithm::SinglePass)
                .memory_reservation(1 << 20)
                .memory_guard_size(1 << 16)
                .memory_init_cow(false);
            if pulley {
                config.target("pulley64").expect("this build has Pulley");
            }
            let engine = Engine::new(&config).expect("the configuration fits together");
            let elsewhere = Module::new(&engine, ELSEWHERE).expect("is a module");
            Target { name, engine, elsewhere }
        };
        let stacks = StackKind::ALL.iter().copied().filter(|stack| stack.is_there());
        Self { targets: vec![target("Cranelift", false), target("Pulley", true)], stacks: stacks.collect() }
    }

    /// Runs a group.
    ///
    /// # Errors
    ///
    /// A description of what was not the same as in wasmtime's own async.
    pub(crate) fn run(&self, group: &Group, counts: &mut Counts) -> Result<(), String> {
        let timers = Timers::default();
        let unasked = Unasked::default();
        let guests: Vec<_> = group.guests.iter().map(|bytes| Guest::new(bytes)).collect();
        let mut modules = Vec::new();
        for guest in &guests {
            counts.add(if let Guest::Arbitrary(_) = guest { "arbitrary-guests" } else { "deep-guests" }, 1);
            for target in &self.targets {
                let module = Module::new(&target.engine, guest.bytes());
                modules.push(module.map_err(|error| format!("the generator made an invalid module: {error:?}"))?);
            }
        }
        let cases: Vec<_> = group.cases.iter().map(|bytes| Arc::new(Case::new(bytes))).collect();
        let mut tasks = Vec::new();
        for (number, case) in cases.iter().enumerate() {
            for (which, target) in self.targets.iter().enumerate() {
                let module = &modules[number % guests.len() * self.targets.len() + which];
                let task = Task { case, target, module, timers: &timers, unasked: &unasked };
                tasks.push(Driven::Stays(task.steps::<Native>().boxed_local()));
                tasks.extend(self.stacks.iter().map(|stack| task.on(*stack)));
            }
        }
        let transcripts = drive(tasks, &timers, &unasked, &mut Random(group.order))?;
        let mut transcripts = transcripts.into_iter();
        for (number, case) in cases.iter().enumerate() {
            counts.add("cases", 1);
            counts.add("known-only-cases", case.known_only.into());
            let guest = &guests[number % guests.len()];
            for target in &self.targets {
                let native = transcripts.next().expect("one for each task");
                count(&native, counts);
                for stack in &self.stacks {
                    let (ours, name) = (transcripts.next().expect("one for each task"), stack.name());
                    let leeway = stack.leeway(case);
                    compare(guest, &native, &ours, leeway, counts)
                        .map_err(|text| format!("case {number} on {}, stack {name}: {text}", target.name))?;
                    counts.add(&format!("stack/{name}"), 1);
                }
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
struct Task<'a> {
    case: &'a Arc<Case>,
    target: &'a Target,
    module: &'a Module,
    timers: &'a Timers,
    unasked: &'a Unasked,
}

impl<'a> Task<'a> {
    fn on(self, stack: StackKind) -> Driven<'a, Vec<Record>> {
        match stack {
            StackKind::Fiber => Driven::Stays(self.steps::<Ours<Fiber>>().boxed_local()),
            StackKind::Unchecked => Driven::Stays(self.steps::<Ours<Unchecked>>().boxed_local()),
            StackKind::Send => Driven::Moves(Traveller::new(self.steps::<Ours<SendFiber>>().boxed())),
            #[cfg(feature = "thread-backend")]
            StackKind::Thread => Driven::Stays(self.steps::<Ours<Thread>>().boxed_local()),
        }
    }

    async fn steps<M: Mode>(self) -> Vec<Record> {
        let Self { case, target, module, timers, unasked } = self;
        let linker = linker::<M>(&target.engine, case).expect("the names are free");
        let mut store = Store::new(&target.engine, World::new(case, timers, &target.elsewhere));
        store.limiter(|world| &mut world.limits);
        let mut store = M::Store::from(store);
        if !case.deadline_traps {
            M::yield_at_deadline(&mut store);
        }
        let mut stack = M::stack();
        let mut records = Vec::new();

        begin(&mut store, case);
        let entry = case.steps[0].entry;
        let instantiate = M::instantiate(&mut stack, &mut store, &linker, module, entry);
        let (left, pendings) = attempt(unasked, case.cancel_start, instantiate).await;
        let (instance, end) = End::new(left);
        records.push(record(&mut store, instance, end, &[], pendings));
        let Some(instance) = instance else { return records };
        let funcs: Vec<_> = instance.exports(&mut store).filter_map(wasmtime::Export::into_func).collect();
        if funcs.is_empty() {
            return records;
        }
        store.as_context_mut().data_mut().exports.clone_from(&funcs);

        for step in &case.steps {
            begin(&mut store, case);
            let func = funcs[step.export % funcs.len()];
            let (params, mut results) = values(&mut store, func, step.arguments);
            let call = M::call(&mut stack, &mut store, func, &params, &mut results, step.entry);
            let (left, pendings) = attempt(unasked, step.cancel, call).await;
            let (_, end) = End::new(left);
            records.push(record(&mut store, Some(instance), end, &results, pendings));
        }
        records
    }
}

fn begin<S: 'static>(store: &mut impl AsContextMut<Data = World<S>>, case: &Case) {
    let mut store = store.as_context_mut();
    store.data_mut().begin_step();
    store.set_fuel(case.fuel).expect("fuel is on");
    store.set_epoch_deadline(FAR);
}

/// How a step ended, without its results.
enum End {
    Returned,
    Failed(Error),
    Other(Ending),
}

impl End {
    fn new<T>(left: Left<wasmtime::Result<T>>) -> (Option<T>, Self) {
        match left {
            Left::Returned(Ok(value)) => (Some(value), Self::Returned),
            Left::Returned(Err(error)) => (None, Self::Failed(error)),
            Left::Panicked(payload) => (None, Self::Other(Ending::of_panic(payload))),
            Left::Dropped => (None, Self::Other(Ending::Dropped)),
        }
    }
}

fn record<S: 'static>(
    store: &mut impl AsContextMut<Data = World<S>>,
    instance: Option<Instance>,
    end: End,
    results: &[Val],
    pendings: u32,
) -> Record {
    let mut store = RootScope::new(store);
    let (ending, frames) = match end {
        End::Returned => {
            (Ending::Returned(results.iter().map(|value| Value::new(&store, value)).collect()), Vec::new())
        }
        End::Failed(error) => (Ending::of_error(&error), frames(&error)),
        End::Other(ending) => (ending, Vec::new()),
    };
    let state = instance.map(|instance| State::new(&mut store, instance)).unwrap_or_default();
    let context = wasmtime::AsContext::as_context(&store);
    let fuel = context.get_fuel().expect("fuel is on");
    Record { ending, frames, pendings, events: context.data().log.take(), state, fuel }
}
