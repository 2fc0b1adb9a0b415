//! The machine: what there is, what each operation does to it, and what must hold afterwards.

use crate::calls::{Done, Ending, Idle, Order, Running, Stop};
use crate::common::watchdog::watched;
#[cfg(feature = "thread-backend")]
use crate::common::watchdog::{threads, wait_until};
use crate::random::Random;
use crate::script::{Action, Count, GUEST, Shape, Shared, Step, TRAPS, Token, World, linker};
use crate::usage::fiber_mappings;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::env;
use std::future::Future;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::thread;
use wasmtime::{Config, Engine, Func, InstancePre, Module, Store};

/// Threads on which things happen, one at a time.
const LANES: usize = 3;
const OPERATIONS: usize = 120;

/// What is known of a call that has not ended.
struct Call {
    shared: Arc<Shared>,
    run: Func,
    order: Order,
    /// On a fiber stack, and its memory is there.
    memory: bool,
    fiber: bool,
    polled: bool,
    /// The step that it is at.
    step: usize,
    progress: Progress,
    /// Those that it was polled with, the last one last, and how often each must have been woken.
    wakers: Vec<(Arc<Count>, usize)>,
}

/// How far a call is in a step.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    NotBegun,
    /// Suspended, and what it waits for has not happened.
    Waits,
    /// Suspended, and nothing is in the way any more.
    MayGoOn,
}

/// All there is but the calls themselves.
#[derive(Default)]
struct Model {
    /// Stacks, and whether they have memory.
    idle: Vec<(Idle, bool)>,
    stores: Vec<(Store<World>, Func)>,
    calls: BTreeMap<i32, Call>,
    next: i32,
    /// How much is on the stacks of forgotten calls.
    forgotten: Vec<(Arc<Shared>, usize)>,
    forgotten_fibers: usize,
    forgotten_threads: usize,
    trace: Vec<String>,
    counts: BTreeMap<String, usize>,
}

static MODEL: LazyLock<Mutex<Model>> = LazyLock::new(Mutex::default);

static GUESTS: LazyLock<InstancePre<World>> = LazyLock::new(|| {
    // Memories that are smaller than a stack.
    let engine = Engine::new(Config::new().memory_reservation(1 << 20).memory_guard_size(1 << 16));
    let engine = engine.expect("the configuration fits together");
    let module = Module::new(&engine, GUEST).expect("is a module");
    linker(&engine).and_then(|linker| linker.instantiate_pre(&module)).expect("fits together")
});

#[cfg(feature = "thread-backend")]
type ThreadCalls = BTreeMap<i32, Pin<Box<dyn Future<Output = Done> + Send>>>;
type FiberCalls = BTreeMap<i32, Pin<Box<dyn Future<Output = Done>>>>;

/// The calls of thread stacks, which any thread may poll.
#[cfg(feature = "thread-backend")]
static THREAD_CALLS: Mutex<ThreadCalls> = Mutex::new(BTreeMap::new());

thread_local! {
    /// The calls of fiber stacks that were started on this thread.
    static FIBER_CALLS: RefCell<FiberCalls> = const { RefCell::new(BTreeMap::new()) };
    static IS_LANE: Cell<bool> = const { Cell::new(false) };
}

fn model() -> MutexGuard<'static, Model> {
    // Nothing is left half done by a check that fails.
    MODEL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The calls that can be used from here: those that are on a stack and being polled are in nobody's list.
fn calls_within_reach() -> Vec<i32> {
    let calls: Vec<_> = FIBER_CALLS.with_borrow(|calls| calls.keys().copied().collect());
    #[cfg(feature = "thread-backend")]
    let calls = calls.into_iter().chain(THREAD_CALLS.lock().expect("not held in a panic").keys().copied()).collect();
    calls
}

fn take(call: i32) -> Running {
    #[cfg(feature = "thread-backend")]
    if let Some(future) = THREAD_CALLS.lock().expect("not held in a panic").remove(&call) {
        return Running::Thread(future);
    }
    Running::Fiber(FIBER_CALLS.with_borrow_mut(|calls| calls.remove(&call)).expect("is within reach"))
}

fn put_back(call: i32, running: Running) {
    match running {
        Running::Fiber(future) => drop(FIBER_CALLS.with_borrow_mut(|calls| calls.insert(call, future))),
        #[cfg(feature = "thread-backend")]
        Running::Thread(future) => drop(THREAD_CALLS.lock().expect("not held in a panic").insert(call, future)),
    }
}

fn note(text: String) {
    if env::var_os("STATE_MACHINE_TRACE").is_some() {
        eprintln!("{text}");
    }
    let name = text.split(' ').next().unwrap_or_default().to_owned();
    let mut model = model();
    *model.counts.entry(name).or_default() += 1;
    model.trace.push(text);
}

fn new_store() -> (Store<World>, Func) {
    let mut store = Store::new(GUESTS.module().engine(), World::default());
    let instance = GUESTS.instantiate(&mut store).expect("starts nothing");
    let run = instance.get_func(&mut store, "run").expect("is exported");
    (store, run)
}

fn new_stack(random: &mut Random) -> Idle {
    match random.below(2) {
        #[cfg(feature = "thread-backend")]
        1 => Idle::thread(),
        _ => Idle::fiber(),
    }
}

fn new_steps(random: &mut Random) -> Vec<Step> {
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
    let shapes = [Shape::Async, Shape::Blocking, Shape::Nested, Shape::NestedInPoll];
    actions.into_iter().map(|action| Step { shape: shapes[random.below(shapes.len())], action }).collect()
}

/// Does one operation, on the thread that this runs on.
fn operate(random: &mut Random) {
    let within_reach = calls_within_reach();
    let which = random.below(within_reach.len().max(1));
    let call = within_reach.get(which).copied();
    match (random.below(20), call) {
        (0, _) => {
            let stack = new_stack(random);
            note(format!("new-stack {stack:?}"));
            model().idle.push((stack, true));
        }
        (1, _) => {
            let mut model = model();
            if !model.idle.is_empty() {
                let which = random.below(model.idle.len());
                let stack = model.idle.swap_remove(which);
                drop(model);
                note(format!("drop-stack {stack:?}"));
            }
        }
        (2, _) => {
            let mut model = model();
            if !model.stores.is_empty() {
                let which = random.below(model.stores.len());
                let store = model.stores.swap_remove(which);
                drop(model);
                drop(store);
                note("drop-store".to_owned());
            }
        }
        (3..6, _) if within_reach.len() < 6 => start(random),
        (_, None) => start(random),
        (3..12, Some(call)) => poll(call, random),
        (12..17, Some(call)) => open(call),
        (17, Some(call)) => stop(call, Stop::Drop),
        (18, Some(call)) => stop(call, if random.below(3) == 0 { Stop::Forget } else { Stop::Drop }),
        (_, Some(call)) => abandon(call),
    }
}

/// What a host function does in the middle of a call.
pub(crate) fn perform_inside(decisions: u64) {
    let mut random = Random(decisions);
    for _ in 0..=random.below(2) {
        note("inside".to_owned());
        operate(&mut random);
    }
}

fn start(random: &mut Random) {
    let steps = new_steps(random);
    let idle = {
        let mut model = model();
        let candidates: Vec<_> = (0..model.idle.len())
            // A fiber's call stays where it is polled, which must be where the machine gets at it.
            .filter(|which| IS_LANE.get() || !matches!(model.idle[*which].0, Idle::Fiber(_)))
            .collect();
        let which = random.below(candidates.len().max(1));
        candidates.get(which).map(|which| model.idle.swap_remove(*which))
    };
    let (stack, memory) = match idle {
        Some(stack) => stack,
        None if IS_LANE.get() => (new_stack(random), true),
        None => return,
    };
    let store = {
        let mut model = model();
        let which = random.below(model.stores.len().max(1));
        if model.stores.is_empty() { None } else { Some(model.stores.swap_remove(which)) }
    };
    let (mut store, run) = store.unwrap_or_else(new_store);

    let token = {
        let mut model = model();
        model.next += 1;
        model.next
    };
    note(format!("start call {token} on {stack:?}: {steps:?}"));
    let params = [token, i32::try_from(steps.len()).expect("is small")];
    let shared = Shared::new(token, steps);
    store.data_mut().0 = Some(shared.clone());
    let fiber = matches!(stack, Idle::Fiber(_));
    let (running, order) = Running::start(stack, store, run, params);
    let call = Call {
        shared,
        run,
        order,
        memory,
        fiber,
        polled: false,
        step: 0,
        progress: Progress::NotBegun,
        wakers: Vec::new(),
    };
    model().calls.insert(token, call);
    put_back(token, running);
}

impl Call {
    /// Goes through the script as a poll does. `None` if the call must be pending.
    fn advance(&mut self) -> Option<Ending> {
        let token = Token(self.shared.token());
        loop {
            let Some(step) = self.shared.steps().get(self.step) else { return Some(Ending::Returned(token.0 * 3)) };
            match step.action {
                Action::Fail => return Some(Ending::Failed(token)),
                Action::Panic => return Some(Ending::Panicked(token)),
                Action::Trap(number) => {
                    return Some(Ending::Trapped(TRAPS[usize::try_from(number).expect("is an index")]));
                }
                Action::Wait if self.progress != Progress::MayGoOn => {
                    self.progress = Progress::Waits;
                    return None;
                }
                Action::Yield if self.progress == Progress::NotBegun => {
                    // Yielding wakes the task at once.
                    self.progress = Progress::MayGoOn;
                    self.wakers.last_mut().expect("is being polled").1 += 1;
                    return None;
                }
                Action::Go | Action::Inside { .. } | Action::Wait | Action::Yield => {
                    self.step += 1;
                    self.progress = Progress::NotBegun;
                }
            }
        }
    }

    /// How many steps it has begun.
    fn begun(&self, ended: bool) -> usize {
        let ending = ended && self.step < self.shared.steps().len();
        self.step + usize::from(self.progress != Progress::NotBegun || ending)
    }

    fn check_wakers(&self, token: i32) {
        for (number, (waker, woken)) in self.wakers.iter().enumerate() {
            assert_eq!(waker.woken(), *woken, "wake-ups of waker {number} of call {token}");
        }
    }
}

fn poll(token: i32, random: &mut Random) {
    let mut running = take(token);
    let (waker, expected) = {
        let mut model = model();
        let call = model.calls.get_mut(&token).expect("has not ended");
        if call.wakers.is_empty() || random.below(2) == 0 {
            call.wakers.push((Arc::default(), 0));
        }
        let waker = call.wakers.last().expect("has just been pushed").0.clone();
        call.polled = true;
        call.memory = true;
        let expected = call.advance();
        (waker, expected)
    };
    note(format!("poll call {token}, which must come to {expected:?}"));
    let waker = Waker::from(waker);
    let polled = running.poll(&waker);
    drop(waker);
    match (polled, expected) {
        (Poll::Pending, None) => {
            let model = model();
            let call = &model.calls[&token];
            assert_eq!(call.shared.begun(), call.begun(false), "steps begun by call {token}");
            call.check_wakers(token);
            drop(model);
            put_back(token, running);
        }
        (Poll::Ready(done), Some(expected)) => ended(token, running, done, &expected),
        (Poll::Pending, Some(expected)) => panic!("call {token} is pending instead of {expected:?}"),
        (Poll::Ready((.., ending)), None) => panic!("call {token} came to {ending:?} instead of being pending"),
    }
}

fn open(token: i32) {
    let (shared, step) = {
        let mut model = model();
        let call = model.calls.get_mut(&token).expect("has not ended");
        if call.progress != Progress::Waits {
            return;
        }
        call.progress = Progress::MayGoOn;
        call.wakers.last_mut().expect("was polled").1 += 1;
        (call.shared.clone(), call.step)
    };
    note(format!("open the gate of call {token}"));
    shared.open(step);
    model().calls[&token].check_wakers(token);
}

fn stop(token: i32, order: Stop) {
    note(format!("{order:?} call {token}"));
    let mut running = take(token);
    *model().calls[&token].order.lock().expect("not held in a panic") = Some(order);
    let expected = match order {
        Stop::Drop => Ending::Dropped,
        Stop::Forget => Ending::Forgotten,
    };
    let Poll::Ready(done) = running.poll(Waker::noop()) else { panic!("call {token} did not take its order") };
    ended(token, running, done, &expected);
}

/// Drops a call with its stack and its store.
fn abandon(token: i32) {
    note(format!("abandon call {token}"));
    drop(take(token));
    let call = model().calls.remove(&token).expect("has not ended");
    check_ended(token, &call, false);
}

/// What must be true of a call that has ended and was not forgotten.
fn check_ended(token: i32, call: &Call, by_itself: bool) {
    assert_eq!(call.shared.guards(), 0, "values left on the stack of call {token}");
    assert_eq!(call.shared.begun(), call.begun(by_itself), "steps begun by call {token}");
    call.check_wakers(token);
    for (number, (waker, _)) in call.wakers.iter().enumerate() {
        assert_eq!(Arc::strong_count(waker), 1, "clones of waker {number} of call {token}, which has ended");
    }
    assert_eq!(call.shared.wrong(), None, "call {token}");
}

/// Takes back stack and store.
fn ended(token: i32, running: Running, (stack, mut store, ending): Done, expected: &Ending) {
    drop(running);
    assert_eq!(ending, *expected, "the ending of call {token}");
    let call = model().calls.remove(&token).expect("has not ended");
    let forgotten = ending == Ending::Forgotten && call.polled;
    *model().counts.entry(format!("{ending:?}").split('(').next().unwrap_or_default().to_owned()).or_default() += 1;
    store.data_mut().0 = None;
    if forgotten {
        // A store whose call was forgotten is not used again.
        drop(store);
        let mut model = model();
        *(if call.fiber { &mut model.forgotten_fibers } else { &mut model.forgotten_threads }) += 1;
        model.forgotten.push((call.shared.clone(), call.shared.guards()));
        model.idle.push((stack, false));
        return;
    }
    let by_itself = !matches!(ending, Ending::Dropped | Ending::Forgotten);
    check_ended(token, &call, by_itself);
    let mut model = model();
    model.idle.push((stack, call.memory));
    model.stores.push((store, call.run));
}

/// What must be true whenever nothing is running.
fn check() {
    let model = model();
    for (shared, guards) in &model.forgotten {
        assert_eq!(shared.guards(), *guards, "values on the stack of a forgotten call");
    }
    for (token, call) in &model.calls {
        call.check_wakers(*token);
        assert_eq!(call.shared.wrong(), None, "call {token}");
    }
    let idle = model.idle.iter().filter(|(stack, memory)| *memory && matches!(stack, Idle::Fiber(_))).count();
    let running = model.calls.values().filter(|call| call.fiber && call.memory).count();
    if let Some(mappings) = fiber_mappings() {
        assert_eq!(
            mappings,
            idle + running + model.forgotten_fibers,
            "mappings: {idle} idle stacks, {running} calls, {} forgotten",
            model.forgotten_fibers
        );
    }
}

/// Something to be done by a lane, and whether it went well.
type Errand = Box<dyn FnOnce() + Send>;

struct Lane {
    errands: Sender<Errand>,
    results: Receiver<thread::Result<()>>,
    thread: thread::JoinHandle<()>,
}

impl Lane {
    fn start() -> Self {
        let (errands, inbox) = channel::<Errand>();
        let (outbox, results) = channel();
        let thread = thread::spawn(move || {
            IS_LANE.set(true);
            for errand in inbox {
                if outbox.send(catch_unwind(AssertUnwindSafe(errand))).is_err() {
                    break;
                }
            }
        });
        Self { errands, results, thread }
    }

    /// Does something on this lane's thread, and waits for it.
    fn go(&self, errand: impl FnOnce() + Send + 'static) -> thread::Result<()> {
        self.errands.send(Box::new(errand)).expect("the lane is there");
        self.results.recv().expect("the lane is there")
    }
}

/// Runs so many sequences.
pub(crate) fn run(seed: u64, sequences: u64) {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if !info.payload().is::<Token>() {
            report(info);
        }
    }));
    LazyLock::force(&GUESTS);
    assert!(fiber_mappings().is_none_or(|mappings| mappings == 0));
    #[cfg(feature = "thread-backend")]
    let before = threads().len();
    let lanes: Vec<_> = (0..LANES).map(|_| Lane::start()).collect();
    let mut random = Random(seed);
    for sequence in 0..sequences {
        model().trace.clear();
        let went_well = watched(|at| {
            at.note("machine", format_args!("sequence {sequence} of seed {seed}"));
            one_sequence(&lanes, &mut random)
        });
        if let Err(payload) = went_well {
            println!("sequence {sequence}:");
            model().trace.iter().for_each(|line| println!("  {line}"));
            panic::resume_unwind(payload);
        }
    }
    let model = model();
    for ending in ["Returned", "Failed", "Panicked", "Trapped", "Dropped", "Forgotten"] {
        // Few sequences may go without.
        assert!(model.counts.contains_key(ending) || sequences < 100, "no call ended as {ending}: {:?}", model.counts);
    }
    println!(
        "sequences={sequences} {:?} forgotten_fibers={} forgotten_threads={}",
        model.counts, model.forgotten_fibers, model.forgotten_threads
    );
    for lane in lanes {
        drop(lane.errands);
        lane.thread.join().expect("went well");
    }
    #[cfg(feature = "thread-backend")]
    {
        wasmtime_async::ThreadStack::end_cached_threads();
        watched(|at| {
            at.note("machine", format_args!("waits until there are {} threads", before + model.forgotten_threads));
            // The watchdog's own is one more.
            wait_until(|| threads().len() == before + model.forgotten_threads + 1);
        });
    }
}

fn one_sequence(lanes: &[Lane], random: &mut Random) -> thread::Result<()> {
    for _ in 0..OPERATIONS {
        let mut decisions = Random(random.next());
        lanes[random.below(lanes.len())].go(move || operate(&mut decisions))?;
        lanes[0].go(check)?;
    }
    // Ends what is left, each call where it can be ended.
    for lane in lanes {
        let mut decisions = Random(random.next());
        lane.go(move || {
            for call in calls_within_reach() {
                match decisions.below(3) {
                    0 => abandon(call),
                    _ => stop(call, Stop::Drop),
                }
            }
        })?;
    }
    lanes[0].go(|| {
        let (idle, stores) = {
            let mut model = model();
            (std::mem::take(&mut model.idle), std::mem::take(&mut model.stores))
        };
        drop((idle, stores));
        check();
        assert!(model().calls.is_empty(), "calls that nobody has");
    })
}
