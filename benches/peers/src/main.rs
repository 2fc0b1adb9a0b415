//! This crate, wasmtime's own async and Wasmer's async with the same guest in one run: a host function that is ready at
//! once, one that is pending once, and a request (new store, new instance, one call that suspends once).
//!
//! Prints one line per case: `case=<name> backend=<fiber|fiber-direct> ours_ns=<x> native_ns=<y> wasmer_ns=<z>
//! ratio=<ours/wasmer>`. Times are first deciles of many blocks, measured in turn.

#[path = "../../sides/mod.rs"]
mod sides;
mod wasmer_side;

use sides::futures::drive;
use sides::{Fiber, Host, Linked, Memory, Native, Side, fiber_name, on_demand};
use std::time::{Duration, Instant};
use wasmer_side::WasmerGuest;

/// How many times the guest calls the host function in a call.
const CALLS: i32 = 1_000;

/// How many times each side has its turn.
const ROUNDS: u32 = 5;

/// How long a turn is, and how long a block within it is at least.
const TURN: Duration = Duration::from_millis(300);
const BLOCK: Duration = Duration::from_micros(300);

fn main() {
    let calls = f64::from(CALLS);
    report("ready_typed", calls, [&mut host_calls::<Fiber>(0), &mut host_calls::<Native>(0), &mut wasmer_calls(0)]);
    report("pending1_typed", calls, [&mut host_calls::<Fiber>(1), &mut host_calls::<Native>(1), &mut wasmer_calls(1)]);
    let wasmer = WasmerGuest::new();
    report(
        "request",
        1.0,
        [&mut requests::<Fiber>(), &mut requests::<Native>(), &mut || assert_eq!(drive(wasmer.request(1)), 1)],
    );
}

/// Measures three sides in turn, and prints the line.
fn report(case: &str, per_iteration: f64, mut sides: [&mut dyn FnMut(); 3]) {
    let mut samples = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        for (side, samples) in sides.iter_mut().zip(&mut samples) {
            measure(side, samples);
        }
    }
    let [ours, native, wasmer] = samples.map(|mut samples| {
        samples.sort_by(f64::total_cmp);
        samples[samples.len() / 10] / per_iteration
    });
    println!(
        "case={case} backend={} ours_ns={ours:.1} native_ns={native:.1} wasmer_ns={wasmer:.1} ratio={:.3}",
        fiber_name(),
        ours / wasmer
    );
}

/// One turn. Returns nanoseconds per iteration, for many blocks.
fn measure(iteration: &mut dyn FnMut(), samples: &mut Vec<f64>) {
    let turn = Instant::now();
    while turn.elapsed() < TURN {
        let start = Instant::now();
        let mut iterations = 0;
        while start.elapsed() < BLOCK {
            // Enough iterations that reading the clock does not matter.
            for _ in 0..8 {
                iteration();
            }
            iterations += 8;
        }
        samples.push(start.elapsed().as_secs_f64() * 1e9 / f64::from(iterations));
    }
}

/// A loop of calls of a host function that is pending this many times.
fn host_calls<S: Side>(pending: u32) -> impl FnMut() {
    let linked = Linked::<S>::new(&on_demand(), Host::Typed(pending), Memory::No).unwrap();
    let mut live = linked.live().unwrap();
    let func = live.func::<i32, i32>("loop").unwrap();
    move || {
        let sum = drive(S::call(&func, &mut live.stack, &mut live.store, CALLS)).unwrap();
        assert_eq!(sum, CALLS * (CALLS + 1) / 2);
    }
}

/// The same under Wasmer.
fn wasmer_calls(pending: u32) -> impl FnMut() {
    let live = WasmerGuest::new().live(pending);
    move || assert_eq!(drive(live.call(CALLS)), CALLS * (CALLS + 1) / 2)
}

/// Requests on a stack that is reused.
fn requests<S: Side>() -> impl FnMut() {
    let linked = Linked::<S>::new(&on_demand(), Host::Typed(1), Memory::No).unwrap();
    let mut stack = S::stack().unwrap();
    move || assert_eq!(drive(linked.request(&mut stack)).unwrap(), 1)
}
