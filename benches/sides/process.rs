//! Measurements that need a new process each: the program runs itself again, with a job.

use std::process::{Command, Stdio};
use std::{env, fs};

/// The environment variable that carries a job to a child process.
const JOB: &str = "WASMTIME_ASYNC_BENCH_JOB";

/// The job that this process was started for, in words. `None` if this is the first process.
pub(crate) fn job() -> Option<Vec<String>> {
    Some(env::var(JOB).ok()?.split(' ').map(str::to_owned).collect())
}

/// Returns a command that runs this program again, with a job.
pub(crate) fn command(job: &str) -> Command {
    let mut command = Command::new(env::current_exe().expect("a process knows its program"));
    command.env(JOB, job);
    command
}

/// Runs this program again, with a job. Returns the lines that it printed. If it failed, the last line says how.
pub(crate) fn run(job: &str) -> Vec<String> {
    let output = command(job).stderr(Stdio::inherit()).output().expect("a process can run itself");
    let mut lines: Vec<String> = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
    if !output.status.success() {
        lines.push(format!("stopped={}", output.status));
    }
    lines
}

/// Whether to measure less, and faster: because it was asked for, or because `cargo test` runs this.
pub(crate) fn short() -> bool {
    let args: Vec<String> = env::args().collect();
    env::var_os("BENCH_SHORT").is_some()
        || args.iter().any(|arg| arg == "--quick")
        || !args.iter().any(|arg| arg == "--bench")
}

/// What the kernel reports about this process.
#[derive(Clone, Copy)]
pub(crate) struct Figures {
    /// Resident memory, in bytes.
    pub(crate) resident: f64,
    /// Page tables, in bytes.
    pub(crate) page_tables: f64,
    /// The number of mappings.
    pub(crate) mappings: f64,
}

impl Figures {
    pub(crate) fn read() -> Self {
        let lines = fs::read_to_string("/proc/self/maps").expect("there is /proc").lines().count();
        Self {
            resident: kib("/proc/self/smaps_rollup", "Rss:") * 1024.0,
            page_tables: kib("/proc/self/status", "VmPTE:") * 1024.0,
            mappings: f64::from(u32::try_from(lines).expect("fits")),
        }
    }

    /// The difference to an earlier reading, divided by this count.
    pub(crate) fn each_since(&self, before: &Self, count: u32) -> Self {
        let count = f64::from(count);
        Self {
            resident: (self.resident - before.resident) / count,
            page_tables: (self.page_tables - before.page_tables) / count,
            mappings: (self.mappings - before.mappings) / count,
        }
    }
}

/// Resident memory in bytes. Reading it takes a few microseconds, however many mappings there are.
pub(crate) fn resident() -> f64 {
    kib("/proc/self/status", "VmRSS:") * 1024.0
}

/// A line in kilobytes in one of the kernel's files.
fn kib(path: &str, key: &str) -> f64 {
    let text = fs::read_to_string(path).expect("there is /proc");
    let line = text.lines().find_map(|line| line.strip_prefix(key)).expect("the kernel tells");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// The number after `key=` in a child's lines.
pub(crate) fn number(lines: &[String], key: &str) -> Option<f64> {
    field(lines, key)?.parse().ok()
}

/// The rest of the last line that begins with `key=`.
pub(crate) fn field<'a>(lines: &'a [String], key: &str) -> Option<&'a str> {
    lines.iter().rev().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
}
