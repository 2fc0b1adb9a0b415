//! How much memory a suspended call takes, and how many of them a process can have.
//!
//! `cargo bench --bench memory` starts 10,000 calls, each with a store, an instance and a stack of its own, and
//! suspends all of them. Then it reads the process's own figures: resident memory, page tables, mappings. (They do not
//! include a thread's memory in the kernel.) In the case `memory`, the instance was made on a stack, too, as for a
//! request. In `memory_of_call` it was not, because wasmtime's own async does not use a stack either if there is no
//! start function. `sync` is a store with an idle instance.
//!
//! Afterwards it starts calls until no more are possible, up to 200,000 calls or 12 GiB. It starts at most 20,000
//! threads, to leave some to the rest of the system. Each figure comes from a new process. With `-- --quick` or
//! `BENCH_SHORT=1` there are 1,000 calls, and 20,000 at most, with at most 2,000 threads.

#[path = "sides/mod.rs"]
mod sides;

use sides::process::{self, Figures, field, number};
use sides::{ForSide, Host, Instantiated, Linked, Memory, Side, for_side, pooling_for, suspending_sides};
use wasmtime::{Engine, Result};

/// The resident memory at which to stop, in bytes.
const ENOUGH: f64 = 12.0 * 1024.0 * 1024.0 * 1024.0;

fn main() {
    if !cfg!(target_os = "linux") {
        println!("these figures come from Linux's /proc");
        return;
    }
    if let Some(job) = process::job() {
        let count: u32 = job[2].parse().expect("a number");
        let outcome = match job[0].as_str() {
            "idle" => for_side(&job[1], count, &Idle(count)),
            "memory" => for_side(&job[1], count, &SuspendedCalls(count, Instantiated::OnStack)),
            "memory_of_call" => for_side(&job[1], count, &SuspendedCalls(count, Instantiated::Elsewhere)),
            _ => for_side(&job[1], largest_pool(&job[1], count), &Limit(count)),
        };
        if let Err(error) = outcome {
            println!("stopped={error:#}");
        }
        return;
    }
    let short = process::short();
    let count = if short { 1_000 } else { 10_000 };
    report_memory("memory", count);
    report_memory("memory_of_call", count);
    let (most, threads) = if short { (20_000, 2_000) } else { (200_000, 20_000) };
    report_limits(most, threads);
}

/// Prints a line for each figure and backend.
fn report_memory(case: &str, count: u32) {
    let sync = process::run(&format!("idle sync {count}"));
    let measured: Vec<_> =
        suspending_sides().iter().map(|side| (*side, process::run(&format!("{case} {side} {count}")))).collect();
    for (side, lines) in &measured {
        if let Some(reason) = field(lines, "stopped") {
            println!("{case}_{count} of {side} stopped by: {reason}");
        }
    }
    for key in ["bytes", "page_table_bytes", "mappings"] {
        let of = |side: &str| number(&measured.iter().find(|(name, _)| *name == side)?.1, key);
        let (native, pooled) = (of("native"), of("pooled"));
        for (backend, lines) in &measured[2..] {
            let ours = number(lines, key);
            let ratio = ours.zip(native).map(|(ours, native)| ours / native);
            println!(
                "case={case}_{count} backend={backend} ours_{key}={} native_{key}={} pooled_{key}={} sync_{key}={} \
                 ratio={}",
                show(ours, 1),
                show(native, 1),
                show(pooled, 1),
                show(number(&sync, key), 1),
                show(ratio, 3)
            );
        }
    }
}

/// Prints a line for each side. Starts at most this many calls, and this many threads.
fn report_limits(most: u32, threads: u32) {
    for side in suspending_sides() {
        let most = if side == "thread" { most.min(threads) } else { most };
        let lines = process::run(&format!("limit {side} {most}"));
        let mut reason = field(&lines, "stopped").unwrap_or("?").to_owned();
        if let Some(error) = field(&lines, "pool_error") {
            reason = format!("{reason}; a larger pool: {error}");
        }
        println!(
            "case=in_flight_limit backend={side} calls={} gib={} stopped_by=\"{reason}\"",
            field(&lines, "calls").unwrap_or("0"),
            show(number(&lines, "gib"), 2),
        );
    }
}

fn show(value: Option<f64>, decimals: usize) -> String {
    value.map_or("-".into(), |value| format!("{value:.decimals$}"))
}

/// Stores with an instance that is not running.
struct Idle(u32);

impl ForSide for Idle {
    fn run<S: Side>(&self, engine: &Engine) -> Result<()> {
        let linked = Linked::<S>::new(engine, Host::Typed(1), Memory::No)?;
        print_memory_of_each(self.0, || linked.live())
    }
}

/// Suspended calls, each with its store and stack.
struct SuspendedCalls(u32, Instantiated);

impl ForSide for SuspendedCalls {
    fn run<S: Side>(&self, engine: &Engine) -> Result<()> {
        let linked = Linked::<S>::new(engine, Host::Typed(1), Memory::No)?;
        print_memory_of_each(self.0, || linked.suspended(self.1))
    }
}

/// Makes this many, after making one first, so that everything that they share exists.
fn print_memory_of_each<I>(count: u32, make: impl Fn() -> Result<I>) -> Result<()> {
    drop(make()?);
    let before = Figures::read();
    let all = (0..count).map(|_| make()).collect::<Result<Vec<I>>>()?;
    let each = Figures::read().each_since(&before, count);
    println!("bytes={}\npage_table_bytes={}\nmappings={}", each.resident, each.page_tables, each.mappings);
    drop(all);
    Ok(())
}

/// Starts calls until one fails.
struct Limit(u32);

impl ForSide for Limit {
    fn run<S: Side>(&self, engine: &Engine) -> Result<()> {
        let linked = Linked::<S>::new(engine, Host::Typed(1), Memory::No)?;
        let mut calls = Vec::with_capacity(self.0 as usize);
        for count in 1..=self.0 {
            match linked.suspended(Instantiated::OnStack) {
                Ok(call) => calls.push(call),
                Err(error) => {
                    println!("calls={}\nstopped={error:#}", count - 1);
                    break;
                }
            }
            // Printed immediately, in case the process does not survive.
            if count % 1_000 == 0 || count == self.0 {
                let resident = process::resident();
                println!("calls={count}\ngib={}", resident / f64::from(1 << 30));
                if resident > ENOUGH {
                    println!("stopped=the bench, at 12 GiB");
                    break;
                }
            }
        }
        if calls.len() == self.0 as usize {
            println!("stopped=the bench, at this number");
        }
        Ok(())
    }
}

/// The largest pool that wasmtime can make, at most `most`. Means nothing for the other sides.
fn largest_pool(side: &str, most: u32) -> u32 {
    if side != "pooled" || pooling_for(most, 1).is_ok() {
        return most;
    }
    let (mut works, mut fails) = (1, most);
    while fails - works > 100 {
        let middle = works.midpoint(fails);
        match pooling_for(middle, 1) {
            Ok(_) => works = middle,
            Err(error) => {
                fails = middle;
                println!("pool_error={error:#}");
            }
        }
    }
    works
}
