//! This crate compared with wasmtime's own async and with plain synchronous wasmtime: the same guest and the same
//! engine settings, in one run.
//!
//! `cargo bench --bench versus_wasmtime` measures `FiberStack` and `SendFiberStack` in about fifteen minutes. The
//! feature `thread-backend` adds `ThreadStack` and its handoff, and takes another ten minutes. Without the feature
//! `direct-parking`, calls are parked by fibers. With `-- --quick`, or with the environment variable `BENCH_SHORT=1`,
//! it takes less than five minutes, with more noise. At the end it prints one line for each case and backend, see
//! [`report`]. Only ratios within one run mean anything.

mod calls;
#[cfg(feature = "thread-backend")]
mod handoff;
#[cfg(unix)]
mod host_stacks;
mod hosts;
mod report;
mod requests;
#[path = "../sides/mod.rs"]
mod sides;
mod stacks;

use criterion::{Bencher, BenchmarkId, Criterion};
use report::Report;
use sides::{Side, on_demand, pooling};
use std::env;
use std::path::Path;
use std::time::Duration;
use wasmtime::Engine;

/// How many times each side is measured, at most.
const ROUNDS: u32 = 4;

/// Something that is measured for every side.
trait Case {
    fn name(&self) -> String;

    /// How many of the reported events happen in one iteration.
    fn per_iteration(&self) -> u32 {
        1
    }

    /// Whether all sides use the pooling allocator.
    fn pools(&self) -> bool {
        false
    }

    /// Whether wasmtime's own async makes a stack each time, so that a pool of the host's stacks makes a difference.
    fn makes_stacks(&self) -> bool {
        false
    }

    /// Whether plain synchronous wasmtime can do it.
    fn without_suspending(&self) -> bool {
        false
    }

    /// Whether wasmtime's own async can do it.
    fn natively(&self) -> bool {
        true
    }

    fn bench<S: Side>(&self, engine: &Engine, bencher: &mut Bencher<'_>);
}

/// Measures cases and remembers them for the report.
struct Runner {
    rounds: u32,
    criterion: Criterion,
    report: Report,
    on_demand: Engine,
    pooling: Engine,
    #[cfg(unix)]
    host_stacks: Engine,
}

impl Runner {
    /// Measures the case for every side in turn, several times over, so that other work on the machine affects all
    /// sides.
    fn run(&mut self, case: &impl Case) {
        let name = case.name();
        self.report.add(&name, case.per_iteration());
        let mut group = self.criterion.benchmark_group(name);
        for round in 0..self.rounds {
            let id = |side| BenchmarkId::new(side, round);
            let engine = if case.pools() { &self.pooling } else { &self.on_demand };
            if case.without_suspending() {
                group.bench_function(id("sync"), |b| case.bench::<sides::Plain>(engine, b));
            }
            if case.natively() {
                group.bench_function(id("native"), |b| case.bench::<sides::Native>(engine, b));
                if !case.pools() {
                    group.bench_function(id("pooled"), |b| case.bench::<sides::Native>(&self.pooling, b));
                }
                #[cfg(unix)]
                if case.makes_stacks() {
                    group.bench_function(id("host_stacks"), |b| case.bench::<sides::Native>(&self.host_stacks, b));
                }
            }
            group.bench_function(id(sides::fiber_name()), |b| case.bench::<sides::Fiber>(engine, b));
            group.bench_function(id("send"), |b| case.bench::<sides::SendFiber>(engine, b));
            #[cfg(feature = "thread-backend")]
            group.bench_function(id("thread"), |b| case.bench::<sides::Thread>(engine, b));
        }
        group.finish();
    }
}

fn main() {
    let results = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("criterion");
    let short = env::var_os("BENCH_SHORT").is_some();
    let (rounds, warm_up, measurement, samples) = if short { (2, 20, 100, 40) } else { (ROUNDS, 200, 600, 100) };
    let mut runner = Runner {
        rounds,
        criterion: Criterion::default()
            .warm_up_time(Duration::from_millis(warm_up))
            .measurement_time(Duration::from_millis(measurement))
            .sample_size(samples)
            .nresamples(2_000)
            .output_directory(&results)
            .configure_from_args(),
        report: Report::new(results),
        on_demand: on_demand(),
        pooling: pooling(),
        #[cfg(unix)]
        host_stacks: host_stacks::engine(),
    };
    #[cfg(feature = "thread-backend")]
    if sides::process::job().is_some() {
        handoff::run_child(&mut runner);
        return;
    }
    calls::run(&mut runner);
    hosts::run(&mut runner);
    requests::run(&mut runner);
    stacks::run(&mut runner);
    #[cfg(feature = "thread-backend")]
    handoff::run(&mut runner);

    runner.criterion.final_summary();
    runner.report.print();
}
