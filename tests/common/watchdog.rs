//! Ends the process when a test hangs, and prints where each side was.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Far more time than any test takes, even interpreted and emulated.
const LIMIT: Duration = Duration::from_mins(10);

/// Where the sides of a test are, as they have noted it.
#[derive(Clone, Default)]
pub(crate) struct Whereabouts(Arc<Mutex<BTreeMap<String, String>>>);

impl Whereabouts {
    /// Notes where a side is.
    pub(crate) fn note(&self, side: impl fmt::Display, place: impl fmt::Display) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(side.to_string(), place.to_string());
    }
}

/// Runs a test. If it takes too long, prints the last note of each side and what the system knows about the threads of
/// the process, and aborts.
pub(crate) fn watched<R>(test: impl FnOnce(&Whereabouts) -> R) -> R {
    let whereabouts = Whereabouts::default();
    let name = thread::current().name().unwrap_or("a test").to_owned();
    let (done, watch) = channel::<()>();
    let notes = whereabouts.clone();
    let (begins, begun) = channel::<()>();
    thread::spawn(move || {
        drop(begins);
        if let Err(RecvTimeoutError::Timeout) = watch.recv_timeout(LIMIT) {
            // Not by `eprintln`, whose output the test harness keeps to itself.
            let _ = writeln!(io::stderr(), "{name} hangs after {} s\n{}", LIMIT.as_secs(), report(&notes));
            process::abort();
        }
    });
    // A thread that begins needs memory, and a test may use up all there is.
    let _ended = begun.recv();
    let result = test(&whereabouts);
    drop(done);
    result
}

/// Waits for a condition that the system does not announce. For use in a watched test.
pub(crate) fn wait_until(condition: impl Fn() -> bool) {
    while !condition() {
        thread::yield_now();
    }
}

fn report(notes: &Whereabouts) -> String {
    let mut report = String::new();
    for (side, place) in notes.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        let _ = writeln!(report, "  {side}: {place}");
    }
    // Threads may come and go all the time, so an exact list could be a long time in coming.
    for thread in listed() {
        let _ = writeln!(report, "  {thread:?}");
    }
    report
}

/// A thread of this process.
#[derive(Debug)]
pub(crate) struct Thread {
    /// The system's name for it.
    pub(crate) id: String,
    pub(crate) name: String,
    /// `R` for running, `S` for asleep, and others.
    pub(crate) state: char,
    /// How much processor time it has used, in ticks.
    pub(crate) ticks: u64,
    /// What it sleeps in, on systems that tell.
    _waits_in: String,
}

/// The threads of this process, on systems that list them.
///
/// Linux may leave out a thread that is still there if another one ends while the list is read. Its count of threads is
/// exact, so a list of a different length is read again.
pub(crate) fn threads() -> Vec<Thread> {
    loop {
        let before = number_of_threads();
        let threads = listed();
        if before.is_none_or(|number| number == threads.len()) && before == number_of_threads() {
            return threads;
        }
    }
}

/// How many threads this process has, on systems that tell.
pub(crate) fn number_of_threads() -> Option<usize> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("Threads:"))?.trim().parse().ok()
}

fn listed() -> Vec<Thread> {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return Vec::new() };
    tasks.filter_map(|task| thread_of_id(task.ok()?.file_name().to_str()?)).collect()
}

/// One thread of this process, on systems that list them. `None` if it has ended.
pub(crate) fn thread_of_id(id: &str) -> Option<Thread> {
    let path = Path::new("/proc/self/task").join(id);
    let stat = fs::read_to_string(path.join("stat")).ok()?;
    let (name, fields) = stat.split_once('(')?.1.rsplit_once(") ")?;
    let fields: Vec<_> = fields.split(' ').collect();
    Some(Thread {
        id: id.to_owned(),
        name: name.to_owned(),
        state: fields.first()?.chars().next()?,
        ticks: fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?,
        _waits_in: fs::read_to_string(path.join("wchan")).unwrap_or_default(),
    })
}

/// The system's name for the calling thread, on systems that tell.
pub(crate) fn this_thread() -> Option<String> {
    Some(fs::read_link("/proc/thread-self").ok()?.file_name()?.to_str()?.to_owned())
}
