//! The machine: what each operation does, and what its result must be.

use crate::calls::{Done, Ending, Idle, Kind, Running, Stop};
use crate::host::linker;
use crate::lanes::{calls_within_reach, is_lane, put_back, take};
use crate::lost::check_lost;
use crate::model::{Call, check_ended, model, note};
use crate::random::Random;
use crate::script::{GUEST, new_steps};
use crate::shared::{Shared, World};
use std::sync::{Arc, LazyLock};
use std::task::{Poll, Waker};
use std::thread;
use wasmtime::{Config, Engine, Func, InstancePre, Module};
use wasmtime_async::Store;

pub(crate) static GUESTS: LazyLock<InstancePre<World>> = LazyLock::new(|| {
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

/// Whether a call may be polled here. Each poll of a call on a `SendFiberStack` must be on another thread than the
/// last.
fn may_poll_here(call: i32) -> bool {
    let call = &model().calls[&call];
    call.kind() != Kind::Send || call.polled_on != Some(thread::current().id())
}

/// Does one operation on the current thread.
pub(crate) fn operate(random: &mut Random) {
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
        (12..17, Some(call)) => open(call, random),
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
            // A call that stays where it is polled must be started where the machine can reach it.
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
    model().calls.insert(token, Call::new(shared, run, order, memory));
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
        let given_up = std::mem::take(&mut call.given_up);
        model.moved += usize::from(moved);
        for stop in given_up {
            *model.counts.entry(format!("Nested{stop:?}")).or_default() += 1;
        }
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

fn open(token: i32, random: &mut Random) {
    let (shared, step, which) = {
        let mut model = model();
        let call = model.calls.get_mut(&token).expect("has not ended");
        let step = call.step;
        let Some(which) = call.open(random) else { return };
        (call.shared.clone(), step, which)
    };
    note(format!("open gate {which:?} of call {token}"));
    shared.open(step, which);
    model().calls[&token].check_wakers(token);
}

pub(crate) fn stop(token: i32, order: Stop) {
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
pub(crate) fn abandon(token: i32) {
    note(format!("abandon call {token}"));
    drop(take(token));
    let call = model().calls.remove(&token).expect("has not ended");
    check_ended(token, &call, false);
}

/// Takes stack and store back.
fn ended(token: i32, running: Running, (stack, mut store, ending): Done, expected: &Ending) {
    drop(running);
    assert_eq!(ending, *expected, "the ending of call {token}");
    let call = model().calls.remove(&token).expect("has not ended");
    *model().counts.entry(ending.name()).or_default() += 1;
    if matches!(ending, Ending::Forgotten | Ending::Lost) && call.polled_on.is_some() {
        if ending == Ending::Lost {
            assert_eq!(call.shared.guards(), call.lost_guards(), "values left on the stack of call {token}");
        }
        assert_eq!(call.shared.begun(), call.begun(false), "steps begun by call {token}");
        assert_eq!(call.shared.wrong(), None, "call {token}");
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
