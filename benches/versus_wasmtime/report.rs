//! The lines at the end of a run:
//!
//! `case=<name> backend=<fiber|fiber-direct|send|thread> ours_ns=<x> native_ns=<y> pooled_ns=<z> host_stacks_ns=<v>
//! sync_ns=<w> ratio=<ours/native>` (in one line)
//!
//! `native` is wasmtime's own async with on-demand allocation, `pooled` is the same with the pooling allocator,
//! `host_stacks` is `native` with a pool of the host's stacks, where that makes a difference, and `sync` is plain
//! synchronous wasmtime without async. Times are per call, host call, suspension or request, as the name says. They are
//! the first decile of criterion's samples. On an idle machine it differs little from the median, and on a busy one it
//! still means something. `-` stands for what does not exist. In the cases `…_pooled`, all sides use the pooling
//! allocator, including `native`. The backend is `fiber-direct` if the feature `direct-parking` is on and works. `send`
//! is a `SendFiberStack`, which parks in the same way.
//!
//! For the handoff of the thread backend, there and back, compared with two bounded channels and with a mutex and a
//! condition variable (medians, because the system's scheduler decides whether a wait is short or long):
//!
//! `case=handoff_<two_cores|one_core> backend=thread ours_ns=<x> channels_ns=<y> condvar_ns=<z> ratio=<ours/channels>`

use crate::ROUNDS;
use crate::sides::fiber_name;
use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

/// The cases of this run. criterion leaves their samples in files.
pub(crate) struct Report {
    results: PathBuf,
    started: SystemTime,
    cases: Vec<(String, u32)>,
    handoffs: Vec<&'static str>,
}

impl Report {
    pub(crate) fn new(results: PathBuf) -> Self {
        Self { results, started: SystemTime::now(), cases: Vec::new(), handoffs: Vec::new() }
    }

    pub(crate) fn add(&mut self, case: &str, per_iteration: u32) {
        self.cases.push((case.to_owned(), per_iteration));
    }

    #[cfg(feature = "thread-backend")]
    pub(crate) fn add_handoff(&mut self, name: &'static str) {
        self.handoffs.push(name);
    }

    pub(crate) fn print(&self) {
        for (case, per_iteration) in &self.cases {
            let time = |side: &str| Some(self.time(case, side, 1)? / f64::from(*per_iteration));
            let [native, pooled, host_stacks, sync] = ["native", "pooled", "host_stacks", "sync"].map(time);
            for backend in [fiber_name(), "send", "thread"] {
                if let Some(ours) = time(backend) {
                    println!(
                        "case={case} backend={backend} ours_ns={} native_ns={} pooled_ns={} host_stacks_ns={} sync_ns={} ratio={}",
                        show(Some(ours)),
                        show(native),
                        show(pooled),
                        show(host_stacks),
                        show(sync),
                        native.map_or("-".into(), |native| format!("{:.3}", ours / native)),
                    );
                }
            }
        }
        for name in &self.handoffs {
            let [ours, channels, condvar] = ["thread", "channels", "condvar"].map(|side| self.time(name, side, 5));
            if let Some(ours) = ours {
                println!(
                    "case={name} backend=thread ours_ns={} channels_ns={} condvar_ns={} ratio={}",
                    show(Some(ours)),
                    show(channels),
                    show(condvar),
                    channels.map_or("-".into(), |channels| format!("{:.3}", ours / channels)),
                );
            }
        }
    }

    /// The time of an iteration in this run, in nanoseconds. The argument chooses the decile of all samples. `None` if
    /// the case was filtered out, or if the file is from an earlier run.
    fn time(&self, case: &str, side: &str, decile: usize) -> Option<f64> {
        let mut samples: Vec<f64> = (0..ROUNDS).filter_map(|round| self.samples(case, side, round)).flatten().collect();
        samples.sort_by(f64::total_cmp);
        samples.get(samples.len() * decile / 10).copied()
    }

    fn samples(&self, case: &str, side: &str, round: u32) -> Option<Vec<f64>> {
        let path = self.results.join(case).join(side).join(round.to_string()).join("new/sample.json");
        if fs::metadata(&path).ok()?.modified().ok()? < self.started {
            return None;
        }
        let samples: serde_json::Value = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
        let numbers =
            |key: &str| samples[key].as_array()?.iter().map(serde_json::Value::as_f64).collect::<Option<Vec<_>>>();
        Some(numbers("times")?.iter().zip(numbers("iters")?).map(|(time, iterations)| time / iterations).collect())
    }
}

/// Nanoseconds with the significant digits.
fn show(nanoseconds: Option<f64>) -> String {
    match nanoseconds {
        None => "-".into(),
        Some(ns) if ns < 100.0 => format!("{ns:.2}"),
        Some(ns) => format!("{ns:.0}"),
    }
}
