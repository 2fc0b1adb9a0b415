//! Compares this crate's functions with wasmtime-wasi's own, synchronous and async, in one run. The async sides run on tokio's
//! current-thread runtime. All sides take turns in each round. `us` is the time and `cpu_us` the processor time of all threads, in
//! microseconds, per repetition or sleeping guest. Both are medians of the rounds. Ratios are relative to wasmtime-wasi's async.
//!
//! ```sh
//! cargo bench -p wasmtime-async-wasi
//! ```

mod sides;

use rustix::time::{ClockId, clock_gettime};
use sides::{Async, Ours, Side, Sync};
use std::env;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use wasmtime::{Engine, Module, Result};
use wasmtime_async::{FiberStack, SendFiberStack, Stack, ThreadStack, tokio_runtime};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p2::pipe::SinkOutputStream;
use wasmtime_wasi::{FsPerms, WasiCtx};

struct Case {
    name: &'static str,
    function: &'static str,
    parameter: i32,
    guests: usize,
    /// Whether the guests' own thread may read and write files.
    may_block: bool,
}

impl Case {
    /// What the time is divided by.
    fn count(&self) -> f64 {
        let guests = f64::from(u16::try_from(self.guests).expect("is small"));
        if self.function == "sleeps" { guests } else { guests * f64::from(self.parameter) }
    }
}

fn cases(times: i32) -> Vec<Case> {
    let one = |name, function, may_block| Case { name, function, parameter: times, guests: 1, may_block };
    vec![
        one("blocks", "blocks", false),
        Case { name: "blocks_50", function: "blocks", parameter: times / 50, guests: 50, may_block: false },
        one("blocks_on_the_thread", "blocks", true),
        one("prints", "prints", false),
        Case { name: "sleeps_1000", function: "sleeps", parameter: 20, guests: 1000, may_block: false },
    ]
}

fn main() -> Result<()> {
    let quick = env::args().any(|argument| argument == "--quick");
    let (rounds, times) = if quick { (1, 200) } else { (11, 5000) };
    let engine = Engine::default();
    let module = Module::new(&engine, include_str!("guest.wat"))?;
    let sides: Vec<Box<dyn Side>> = vec![
        Box::new(Async::new(&module)?),
        Box::new(Sync::new(&module)?),
        Box::new(Ours::new("fiber", &module, FiberStack::new)?),
        Box::new(Ours::new_send("send", &module, SendFiberStack::new)?),
        Box::new(Ours::new("thread", &module, |size| {
            let mut stack = ThreadStack::new(size)?;
            stack.set_ambient(tokio_runtime);
            Ok(stack)
        })?),
    ];
    let dir = TempDir::new()?;
    for case in cases(times) {
        let mut took = vec![(Vec::new(), Vec::new()); sides.len()];
        for _ in 0..rounds {
            for (side, (times, cpu_times)) in sides.iter().zip(&mut took) {
                // Synchronous guests sleep one after the other, which would take 20 seconds.
                if case.guests == 1 || side.name() != "sync" {
                    let guests = (0..case.guests).map(|_| context(dir.path(), &case)).collect::<Result<_>>()?;
                    let before = cpu_time();
                    times.push(side.time(guests, case.function, case.parameter)?);
                    cpu_times.push(cpu_time().saturating_sub(before));
                }
            }
        }
        let base = median(&mut took[0].0);
        for (side, (times, cpu_times)) in sides.iter().zip(&mut took) {
            if let (Some(base), Some(time), Some(cpu_time)) = (base, median(times), median(cpu_times)) {
                let [us, cpu_us] = [time, cpu_time].map(|time| time.as_secs_f64() * 1e6 / case.count());
                let (case, side, ratio) = (case.name, side.name(), time.as_secs_f64() / base.as_secs_f64());
                println!("case={case} side={side} us={us:.1} cpu_us={cpu_us:.1} ratio={ratio:.2}");
            }
        }
    }
    Ok(())
}

fn context(dir: &Path, case: &Case) -> Result<WasiP1Ctx> {
    let mut wasi = WasiCtx::builder();
    wasi.allow_blocking_current_thread(case.may_block);
    if case.function == "blocks" {
        wasi.preopened_dir(dir, "/dir", FsPerms::ReadWrite)?;
    }
    Ok(wasi.stdout(SinkOutputStream).build_p1())
}

/// The processor time of this process so far.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::ProcessCPUTime).try_into().expect("is not negative")
}

fn median(took: &mut [Duration]) -> Option<Duration> {
    took.sort_unstable();
    took.get(took.len() / 2).copied()
}
