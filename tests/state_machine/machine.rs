//! The machine: what each operation does, and what must come of it.

use crate::calls::{Done, Ending, Idle, Kind, Running, Stop, sees_activations};
use crate::common::watchdog::watched;
#[cfg(feature = "thread-backend")]
use crate::common::watchdog::{threads, wait_until};
use crate::host::linker;
use crate::lanes::{Lane, calls_within_reach, is_lane, put_back, take};
use crate::model::{Call, Progress, check, check_ended, model, note};
use crate::random::Random;
use crate::script::{GUEST, Token, new_steps};
use crate::shared::{Shared, World};
use crate::usage::fiber_mappings;
use std::any::Any;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};
use std::task::{Poll, Waker};
use std::thread;
use wasmtime::{Config, Engine, Func, InstancePre, Module};
use wasmtime_async::Store;

/// Threads on which things happen, one at a time.
const LANES: usize = 3;
const OPERATIONS: usize = 120;

/// How calls can end, the last two where the stacks see activations.
const ENDINGS: [&str; 10] = [
    "Returned",
    "Failed",
    "Panicked",
    "Trapped",
    "Dropped",
    "Forgotten",
    "Refused(HostCode)",
    "Refused(Poll)",
    "Refused(NestedCall)",
    "NotSend",
];

static GUESTS: LazyLock<InstancePre<World>> = LazyLock::new(|| {
    // Memories that are smaller than a stack.
    let engine = Engine::new(Config::new().memory_reservation(1 << 20).memory_guard_size(1 << 16));
    let engine = engine.expect("the configuration fits together");
    let module = Module::new(&engine, GUEST).expect("is a module");
    linker(&engine).and_then(|linker| linker.instantiate_pre(&module)).expect("fits together")
});

fn new_store() -> (Store<World>, Func) {
    let mut store = Store::new(GUESTS.module().engine(), World::default());
    let instance = GUESTS.instantiate(&mut store).expect("starts nothing");
    let run = instance.get_func(&mut store, "run").expect("is exported");
    (store, run)
}

fn new_stack(random: &mut Random) -> Idle {
    Idle::new(Kind::all()[random.below(Kind::all().len())])
}

/// Whether a call may be polled here. Those on a `SendFiberStack` are each time polled on another thread.
fn may_poll_here(call: i32) -> bool {
    let call = &model().calls[&call];
    call.kind() != Kind::Send || call.polled_on != Some(thread::current().id())
}

/// Does one operation, on the thread that this runs on.
fn operate(random: &mut Random) {
    let operation = random.below(20);
    let within_reach = calls_within_reach();
    let is_poll = (3..12).contains(&operation);
    let calls: Vec<_> = within_reach.iter().copied().filter(|call| !is_poll || may_poll_here(*call)).collect();
    let call = calls.get(random.below(calls.len().max(1))).copied();
    match (operation, call) {
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
    let idle = {
        let mut model = model();
        let candidates: Vec<_> = (0..model.idle.len())
            // A call that stays where it is polled must be where the machine gets at it.
            .filter(|which| is_lane() || !model.idle[*which].0.kind().stays())
            .collect();
        let which = random.below(candidates.len().max(1));
        candidates.get(which).map(|which| model.idle.swap_remove(*which))
    };
    let (stack, memory) = match idle {
        Some(stack) => stack,
        None if is_lane() => (new_stack(random), true),
        None => return,
    };
    let steps = new_steps(random, stack.kind());
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
    let shared = Shared::new(token, stack.kind(), steps);
    store.data_mut().0 = Some(shared.clone());
    let (running, order) = Running::start(stack, store, run, params);
    let call =
        Call { shared, run, order, memory, polled_on: None, step: 0, progress: Progress::NotBegun, wakers: Vec::new() };
    model().calls.insert(token, call);
    put_back(token, running);
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
        let before = call.polled_on.replace(thread::current().id());
        call.memory = true;
        let expected = call.advance();
        let moved = call.kind() == Kind::Send && before.is_some_and(|before| before != thread::current().id());
        model.moved += usize::from(moved);
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

/// Takes back stack and store.
fn ended(token: i32, running: Running, (stack, mut store, ending): Done, expected: &Ending) {
    drop(running);
    assert_eq!(ending, *expected, "the ending of call {token}");
    let call = model().calls.remove(&token).expect("has not ended");
    *model().counts.entry(ending.name()).or_default() += 1;
    if ending == Ending::Forgotten && call.polled_on.is_some() {
        check_lost(store, &call.shared);
        let mut model = model();
        *(if call.kind().is_fiber() { &mut model.forgotten_fibers } else { &mut model.forgotten_threads }) += 1;
        model.forgotten.push((call.shared.clone(), call.shared.guards()));
        model.idle.push((stack, false));
        return;
    }
    store.data_mut().0 = None;
    let by_itself = !matches!(ending, Ending::Dropped | Ending::Forgotten);
    check_ended(token, &call, by_itself);
    let mut model = model();
    model.idle.push((stack, call.memory));
    model.stores.push((store, call.run));
}

/// What must be true of a store whose call was forgotten while it was suspended.
fn check_lost(mut store: Store<World>, shared: &Arc<Shared>) {
    let before = (shared.guards(), Arc::strong_count(shared));
    let panicked = catch_unwind(AssertUnwindSafe(|| store.data_mut().0 = None));
    assert!(panicked.is_err_and(|payload| is_lost(&*payload)), "a lost store can be used");
    assert!(format!("{store:?}").contains("lost: true"), "{store:?}");
    // Runs nothing, and leaves the data.
    drop(store);
    assert_eq!((shared.guards(), Arc::strong_count(shared)), before, "a lost store was dropped");
}

/// Whether this is the payload of the panic about a lost store.
fn is_lost(payload: &(dyn Any + Send)) -> bool {
    payload.downcast_ref::<&str>().is_some_and(|text| text.starts_with("this store is lost"))
}

/// Runs so many sequences.
pub(crate) fn run(seed: u64, sequences: u64) {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if !info.payload().is::<Token>() && !is_lost(info.payload()) {
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
    // Few sequences may go without.
    if sequences >= 100 {
        let possible = if sees_activations() { &ENDINGS[..] } else { &ENDINGS[..8] };
        let missing: Vec<_> = possible.iter().filter(|ending| !model.counts.contains_key(**ending)).collect();
        assert!(missing.is_empty(), "no call ended as {missing:?}: {:?}", model.counts);
        assert!(model.moved > 0 || !sees_activations(), "no call was polled on several threads");
    }
    println!(
        "sequences={sequences} {:?} moved={} forgotten_fibers={} forgotten_threads={}",
        model.counts, model.moved, model.forgotten_fibers, model.forgotten_threads
    );
    lanes.into_iter().for_each(Lane::end);
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
