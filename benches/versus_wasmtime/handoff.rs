//! The thread backend's handoff, there and back, compared with the two usual ways to make a thread do something and
//! wait for it. Once with all processors, and once with a single one, in a child process.

use crate::Runner;
use crate::sides::futures::poll_pending;
use crate::sides::process;
use core_affinity::CoreId;
use criterion::{Bencher, BenchmarkId};
use std::env;
use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use wasmtime::Engine;
use wasmtime_async::{DEFAULT_STACK_SIZE, Stack, Store, ThreadStack, yield_now};

const TWO_CORES: &str = "handoff_two_cores";
const ONE_CORE: &str = "handoff_one_core";

pub(crate) fn run(runner: &mut Runner) {
    measure(runner, TWO_CORES);
    runner.report.add_handoff(TWO_CORES);
    let child = process::command("one_core").args(env::args_os().skip(1)).status().expect("a process can run itself");
    assert!(child.success(), "{child}");
    runner.report.add_handoff(ONE_CORE);
}

/// The whole work of the child process.
pub(crate) fn run_child(runner: &mut Runner) {
    // Threads that are started from here on stay on that core, too.
    let pinned = core_affinity::get_core_ids()
        .and_then(|cores| cores.first().copied())
        .is_some_and(|core: CoreId| core_affinity::set_for_current(core));
    if pinned {
        measure(runner, ONE_CORE);
    } else {
        eprintln!("cannot keep this process on one core");
    }
}

fn measure(runner: &mut Runner, name: &str) {
    let mut group = runner.criterion.benchmark_group(name);
    for round in 0..runner.rounds {
        group.bench_function(BenchmarkId::new("thread", round), stack);
        group.bench_function(BenchmarkId::new("channels", round), channels);
        group.bench_function(BenchmarkId::new("condvar", round), condvar);
    }
    group.finish();
}

/// A call that suspends endlessly.
fn stack(bencher: &mut Bencher<'_>) {
    let mut stack = ThreadStack::new(DEFAULT_STACK_SIZE).unwrap();
    let mut store = Store::new(&Engine::default(), ());
    let call = stack.run(&mut store, |_| -> wasmtime::Result<()> {
        loop {
            yield_now()?;
        }
    });
    let mut call = pin!(call);
    bencher.iter(|| poll_pending(call.as_mut()));
}

fn channels(bencher: &mut Bencher<'_>) {
    let (to_worker, at_worker) = crossbeam_channel::bounded(1);
    let (to_poller, at_poller) = crossbeam_channel::bounded(1);
    let worker = thread::spawn(move || {
        while at_worker.recv().is_ok() {
            to_poller.send(()).unwrap();
        }
    });
    bencher.iter(|| {
        to_worker.send(()).unwrap();
        at_poller.recv().unwrap();
    });
    drop(to_worker);
    worker.join().unwrap();
}

fn condvar(bencher: &mut Bencher<'_>) {
    #[derive(Clone, Copy, PartialEq)]
    enum Turn {
        Poller,
        Worker,
        Over,
    }
    let baton = Arc::new((Mutex::new(Turn::Poller), Condvar::new()));
    let worker = thread::spawn({
        let baton = Arc::clone(&baton);
        move || {
            let (turn, passed) = &*baton;
            let mut turn = turn.lock().unwrap();
            loop {
                turn = passed.wait_while(turn, |turn| *turn == Turn::Poller).unwrap();
                if *turn == Turn::Over {
                    break;
                }
                *turn = Turn::Poller;
                passed.notify_one();
            }
        }
    });
    let (turn, passed) = &*baton;
    bencher.iter(|| {
        let mut turn = turn.lock().unwrap();
        *turn = Turn::Worker;
        passed.notify_one();
        drop(passed.wait_while(turn, |turn| *turn == Turn::Worker).unwrap());
    });
    *turn.lock().unwrap() = Turn::Over;
    passed.notify_one();
    worker.join().unwrap();
}
