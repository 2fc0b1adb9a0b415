//! A long run: thousands of calls in flight on stacks of all kinds, on two threads. They end and are dropped in every
//! way and at any moment. Calls that are `Send` move between the threads.
//!
//! ```sh
//! cargo run --release --features thread-backend --example soak -- --seconds 120
//! ```
//!
//! Without that feature, it runs without thread stacks.
//!
//! It runs in rounds. After each round, everything is dropped, and the resources of the process are compared with those
//! after the first round: threads, address space (each fiber stack takes 64 MiB, so a single leaked one is noticed),
//! allocated bytes, and the values on host functions' stacks, which count themselves. It ends with `leaks=none`, or
//! fails.

mod calls;
mod executor;
mod guest;
mod random;
mod usage;

use calls::Soak;
use executor::{Tasks, Timers, execute};
use guest::{Ending, GUEST, HostPanic, linker};
use random::Random;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::panic;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};
use usage::{ALIVE, Usage};
use wasmtime::{Config, Engine, Module, Result};

const EXECUTORS: usize = 2;
const ROUNDS: u32 = 6;

/// How much more the process may have than after the first round, in bytes: up to 40 MiB of thread stacks that the C
/// library keeps, and buffers that have grown.
const SLACK_ADDRESSES: u64 = 48 << 20;
const SLACK_ALLOCATED: u64 = 16 << 10;

/// Runs all executors for a while, and prints the state every few seconds.
fn round(soak: &Soak, random: &mut Random, time: Duration, start: Instant) {
    soak.start();
    let end = Instant::now() + time;
    let timers = Timers::default();
    let shared = Tasks::new(soak.shared_tasks(&timers, random), timers);
    thread::scope(|scope| {
        for _ in 0..EXECUTORS {
            let (shared, mut random) = (&shared, random.fork());
            scope.spawn(move || {
                let timers = Timers::default();
                let own = Tasks::new(soak.own_tasks(&timers, &mut random), timers);
                execute(&own, shared, &mut random, || soak.is_over());
                own.end(&mut random).unwrap_or_else(|what| soak.is_wrong(what));
            });
        }
        while Instant::now() < end && !soak.is_over() {
            thread::sleep(Duration::from_secs(3).min(end.saturating_duration_since(Instant::now())));
            println!(
                "t={:.0?} calls={} suspensions={} in_flight={} {} {}",
                start.elapsed(),
                // ORDERING: these are only counts.
                soak.calls.load(Ordering::Relaxed),
                soak.suspensions.load(Ordering::Relaxed),
                soak.in_flight.load(Ordering::Relaxed),
                Usage::now(),
                show(&soak.endings()),
            );
        }
        soak.stop();
    });
    shared.end(random).unwrap_or_else(|what| soak.is_wrong(what));
    soak.clear();
}

fn show(endings: &BTreeMap<Ending, u64>) -> String {
    endings.iter().map(|(ending, count)| format!("{ending:?}={count}")).collect::<Vec<_>>().join(" ")
}

/// Describes what is wrong after a round, compared with the first.
fn leaks(first: Usage, now: Usage) -> Vec<String> {
    let mut leaks = Vec::new();
    let alive = ALIVE.load(Ordering::Relaxed);
    if alive > 0 {
        leaks.push(format!("{alive} stores, wakers and values on stacks"));
    }
    if now.threads > first.threads {
        leaks.push(format!("{} threads", now.threads - first.threads));
    }
    if now.addresses > first.addresses + SLACK_ADDRESSES {
        leaks.push(format!("{} MiB of addresses", (now.addresses - first.addresses) >> 20));
    }
    if now.allocated > first.allocated + SLACK_ALLOCATED {
        leaks.push(format!("{} KiB of memory", (now.allocated - first.allocated) >> 10));
    }
    leaks
}

fn main() -> Result<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    let mut seconds = 30;
    let mut seed = RandomState::new().hash_one(());
    while let Some(argument) = arguments.next() {
        let value = arguments.next().and_then(|value| value.parse().ok());
        match (argument.as_str(), value) {
            ("--seconds", Some(value)) => seconds = value,
            ("--seed", Some(value)) => seed = value,
            _ => {
                eprintln!("usage: soak [--seconds <number>] [--seed <number>]");
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    println!("--seed {seed}");

    let report = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if !info.payload().is::<HostPanic>() {
            report(info);
        }
    }));
    let mut config = Config::new();
    config.consume_fuel(true).memory_reservation(1 << 20).memory_guard_size(1 << 16);
    let engine = Engine::new(&config)?;
    let guest = linker(&engine)?.instantiate_pre(&Module::new(&engine, GUEST)?)?;
    let soak = Soak::new(guest);

    let (start, mut random, mut first) = (Instant::now(), Random(seed), None);
    let threads = Usage::now().threads;
    for number in 1..=ROUNDS {
        round(&soak, &mut random, Duration::from_secs(seconds) / ROUNDS, start);
        if let Some(wrong) = soak.wrong() {
            println!("wrong: {wrong}");
            return Ok(ExitCode::FAILURE);
        }
        let now = Usage::settled(threads);
        println!("after round {number}: {now}");
        let first = *first.get_or_insert(Usage { threads, ..now });
        let leaks = leaks(first, now);
        if !leaks.is_empty() {
            println!("leaks={}", leaks.join(", "));
            return Ok(ExitCode::FAILURE);
        }
    }
    let endings = soak.endings();
    println!("{}", show(&endings));
    if let Some(ending) = Ending::ALL.iter().find(|ending| !endings.contains_key(ending)) {
        println!("wrong: no call ended as {ending:?}");
        return Ok(ExitCode::FAILURE);
    }
    // ORDERING: the threads that count have been joined.
    let [calls, suspensions, moved] =
        [&soak.calls, &soak.suspensions, &soak.moved].map(|count| count.load(Ordering::Relaxed));
    if moved == 0 {
        println!("wrong: no call has changed threads");
        return Ok(ExitCode::FAILURE);
    }
    let (seconds, stacks) = (start.elapsed().as_secs_f64(), Soak::stacks());
    println!("calls={calls} suspensions={suspensions} moved={moved} seconds={seconds:.0} stacks={stacks} leaks=none");
    Ok(ExitCode::SUCCESS)
}
