//! How the cost of a resume grows with the number of calls in flight on one thread.
//!
//! `cargo bench --bench in_flight` suspends 1 to 100,000 calls, each with a store, an instance and a stack of its own.
//! It resumes them one after the other and in random order, and prints a line for each number and order. If that many
//! calls are not possible, the line says why. Each figure is the first decile of many blocks of resumes, in a process
//! of its own.
//!
//! It writes the plot to `docs/in-flight.svg`, or with the feature `direct-parking` to `docs/in-flight-direct.svg`. `--
//! --plot <file>` writes it to another file. With `-- --quick` or `BENCH_SHORT=1` the bench stops at 1,000 calls, and
//! only draws a plot if it was given a file.

mod plot;
#[path = "../sides/mod.rs"]
mod sides;

use plot::{Plot, Series};
use sides::futures::{Order, poll_pending};
use sides::process::{self, field, number};
use sides::{ForSide, Host, Instantiated, Linked, Memory, Side, fiber_name, for_side, suspending_sides};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{env, fs};
use wasmtime::{Engine, Result};

/// How many resumes there are between two readings of the clock.
const BLOCK: u32 = 5_000;

const ORDERS: [(Order, &str); 2] = [(Order::RoundRobin, "round_robin"), (Order::Random, "random")];

/// How many threads are started at most.
const THREADS: u32 = 10_000;

fn main() {
    if let Some(job) = process::job() {
        let count: u32 = job[1].parse().expect("a number");
        let time = Duration::from_millis(job[2].parse().expect("a number"));
        if let Err(error) = for_side(&job[0], count, &Resumes { count, time }) {
            println!("stopped={error:#}");
        }
        return;
    }

    let short = process::short();
    let counts: &[u32] = if short { &[1, 10, 100, 1_000] } else { &[1, 10, 100, 1_000, 10_000, 100_000] };
    let milliseconds = if short { 100 } else { 1_000 };
    let mut measured = Vec::new();
    for &count in counts {
        for side in suspending_sides() {
            if side == "thread" && count > THREADS {
                continue;
            }
            measured.push((side, count, process::run(&format!("{side} {count} {milliseconds}"))));
        }
    }

    for (side, count, lines) in &measured {
        for (_, order) in ORDERS {
            let outcome = match number(lines, order) {
                Some(ns) => format!("resume_ns={ns:.1}"),
                None => format!("resume_ns=- stopped_by=\"{}\"", field(lines, "stopped").unwrap_or("?")),
            };
            println!("case=in_flight backend={side} calls={count} order={order} {outcome}");
        }
    }
    let default = (!short).then(|| {
        let name = if fiber_name() == "fiber" { "docs/in-flight.svg" } else { "docs/in-flight-direct.svg" };
        Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
    });
    if let Some(file) = asked_for().or(default) {
        fs::create_dir_all(file.parent().expect("a file has a folder")).expect("the folder can be made");
        fs::write(&file, plot(&measured).svg()).expect("the plot can be written");
        println!("{}", file.display());
    }
}

/// The file after `--plot`.
fn asked_for() -> Option<PathBuf> {
    env::args_os().skip_while(|arg| arg != "--plot").nth(1).map(PathBuf::from)
}

/// This crate and wasmtime's own async, each in both orders.
fn plot(measured: &[(&str, u32, Vec<String>)]) -> Plot {
    let ours = if fiber_name() == "fiber" { "FiberStack" } else { "FiberStack, direct-parking" };
    let series = [(fiber_name(), ours, "#d9730d"), ("native", "wasmtime's own async", "#2f7fc1")];
    let series = series.iter().flat_map(|&(side, label, color)| {
        ORDERS.map(|(order, name)| Series {
            label: format!("{label}, {}", name.replace('_', " ")),
            color,
            dashed: matches!(order, Order::Random),
            points: measured
                .iter()
                .filter(|(of, _, _)| *of == side)
                .filter_map(|(_, count, lines)| Some((f64::from(*count), number(lines, name)?)))
                .collect(),
        })
    });
    Plot {
        title: "One suspension and resume, by calls in flight on one thread",
        x_label: "calls in flight",
        y_label: "nanoseconds",
        series: series.collect(),
    }
}

/// Suspends calls and measures how long a resume takes.
struct Resumes {
    count: u32,
    time: Duration,
}

impl ForSide for Resumes {
    fn run<S: Side>(&self, engine: &Engine) -> Result<()> {
        let linked = Linked::<S>::new(engine, Host::Typed(1), Memory::No)?;
        let mut calls = (0..self.count).map(|_| linked.suspended(Instantiated::OnStack)).collect::<Result<Vec<_>>>()?;
        for (order, name) in ORDERS {
            let rounds = order.rounds(calls.len());
            let mut turns = rounds.iter().flatten().cycle();
            let mut resume = |times: u32| {
                let start = Instant::now();
                for &turn in turns.by_ref().take(times as usize) {
                    poll_pending(calls[turn].as_mut());
                }
                start.elapsed().as_secs_f64() * 1e9 / f64::from(times)
            };
            // Resumes each call once, to warm up.
            resume(self.count);
            let start = Instant::now();
            let mut blocks = Vec::new();
            while start.elapsed() < self.time || blocks.len() < 20 {
                blocks.push(resume(BLOCK));
            }
            blocks.sort_by(f64::total_cmp);
            println!("{name}={}", blocks[blocks.len() / 10]);
        }
        Ok(())
    }
}
