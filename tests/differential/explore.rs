//! Runs random groups of cases until there were enough, and reports the first one that fails.

mod reduce;
mod worker;

use crate::cases::course::nests;
use crate::cases::random::mix;
use crate::cases::run::{Bench, Counts, Group, StackKind};
use crate::cases::transcript::quiet_host_panics;
use reduce::reduce;
use std::env;
use std::hash::{BuildHasher, RandomState};
use std::process::{ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use wasmtime_async::Between;
use worker::{Verdict, Worker};

/// How a step can end. A full run must have seen each of these.
const KINDS: [&str; 15] = [
    "returned",
    "host-error",
    "host-panic",
    "dropped",
    "StackOverflow",
    "MemoryOutOfBounds",
    "TableOutOfBounds",
    "IndirectCallToNull",
    "BadSignature",
    "IntegerOverflow",
    "IntegerDivisionByZero",
    "BadConversionToInteger",
    "UnreachableCodeReached",
    "Interrupt",
    "OutOfFuel",
];
/// What can keep a stack from being suspended that suspends only known frames. A full run must have seen these, too,
/// where wasmtime's list can be read.
const REFUSALS: [Between; 4] = [Between::Closure, Between::HostCode, Between::Poll, Between::NestedCall];
/// What else a full run must have done there.
const DEEDS: [&str; 4] =
    ["nested-futures", "nested-futures-dropped", "nested-futures-with-others", "nested-futures-within-calls"];
/// The minimum number for each.
const EACH: u64 = 21;
/// How long to wait for a group, which takes a second at most. After this time it is a hang, even on a machine that
/// stood still for a while.
const PATIENCE: Duration = Duration::from_mins(10);

pub(crate) fn main() -> ExitCode {
    if worker::work() {
        return ExitCode::SUCCESS;
    }
    // Handles `cargo test -- --list` and the like.
    if env::args().any(|argument| argument == "--list") {
        return ExitCode::SUCCESS;
    }
    if let Ok(line) = env::var("DIFFERENTIAL_GROUP") {
        return replay(&line);
    }
    let seed = number("DIFFERENTIAL_SEED").unwrap_or_else(|| RandomState::new().hash_one(()));
    println!("DIFFERENTIAL_SEED={seed}");
    match explore(seed) {
        Ok(counts) => summary(&counts),
        Err((group, text)) => {
            println!("made plainer, in at most 3 minutes, from:\n{text}");
            let (group, text) = reduce(group, text);
            println!("{group}\n{text}\nmismatches=1, to be seen again by\nDIFFERENTIAL_GROUP='{}'", group.encode());
            ExitCode::FAILURE
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    let value = env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} must be a number, not {value:?}")))
}

/// Whether this run must have seen everything.
fn full() -> bool {
    number("DIFFERENTIAL_CASES").is_none() && number("DIFFERENTIAL_SECONDS").is_none()
}

/// Runs groups in several processes, one after the other in each, until there were enough.
///
/// A full run goes on while anything is rare, up to ten times as long. Otherwise its result would depend on its seed.
fn explore(seed: u64) -> Result<Counts, (Group, String)> {
    let enough = number("DIFFERENTIAL_CASES").unwrap_or(2000);
    let full = full();
    let seconds = number("DIFFERENTIAL_SECONDS");
    let jobs = number("DIFFERENTIAL_JOBS").unwrap_or(thread::available_parallelism().map_or(1, |n| n.get() as u64));
    let start = Instant::now();
    let next = AtomicU64::new(0);
    let state = Mutex::new((Counts::default(), None));
    let job = || {
        let mut worker = Worker::start(Stdio::inherit());
        loop {
            {
                let (counts, failed) = &*state.lock().expect("no job panics");
                let cases = counts.get("cases");
                let over = match seconds {
                    Some(n) => start.elapsed() >= Duration::from_secs(n),
                    None => cases >= enough && (!full || cases >= 10 * enough || rare(counts).is_empty()),
                };
                if over || failed.is_some() {
                    break;
                }
            }
            // ORDERING: this only hands out numbers.
            let group = Group::random(mix(seed.wrapping_add(next.fetch_add(1, Ordering::Relaxed))));
            let verdict = worker.ask(&group, PATIENCE);
            let (counts, failed) = &mut *state.lock().expect("no job panics");
            match verdict {
                Verdict::Same(group) => {
                    group.0.iter().for_each(|(name, n)| counts.add(name, usize::try_from(*n).expect("fits")));
                    if seconds.is_some() && counts.get("cases") % 5000 < 8 {
                        println!("after {:.0?}: {} cases", start.elapsed(), counts.get("cases"));
                    }
                }
                Verdict::Different(text) => {
                    *failed = Some((group, text));
                    break;
                }
            }
        }
    };
    thread::scope(|scope| (0..jobs).for_each(|_| drop(scope.spawn(job))));
    let (counts, failed) = state.into_inner().expect("no job panics");
    failed.map_or(Ok(counts), Err)
}

/// What a full run must see more often.
fn rare(counts: &Counts) -> Vec<String> {
    let (refusals, deeds): (&[_], &[_]) = if nests() { (&REFUSALS, &DEEDS) } else { (&[], &[]) };
    let kinds = KINDS.iter().map(|kind| format!("ended/{kind}"));
    kinds
        .chain(deeds.iter().map(|deed| (*deed).to_owned()))
        .chain(refusals.iter().map(|between| format!("refused/{between:?}")))
        .filter(|kind| counts.get(kind) < EACH)
        .collect()
}

/// Prints what was seen, and fails if that was too little.
fn summary(counts: &Counts) -> ExitCode {
    let list = |prefix: &str| {
        let matching = counts.0.iter().filter_map(|(name, n)| Some(format!("{}={n}", name.strip_prefix(prefix)?)));
        matching.collect::<Vec<_>>().join(" ")
    };
    let runs = |stack: StackKind| counts.get(&format!("stack/{}", stack.name()));
    println!("of nested calls: {}", list("nested-ended/"));
    println!("after having been suspended: {}", list("suspended-then/"));
    let totals: Vec<_> =
        counts.0.iter().filter(|(name, _)| !name.contains('/')).map(|(name, n)| format!("{name}={n}")).collect();
    println!("{}", totals.join(" "));
    println!("refused: {}", list("refused/"));
    let stacks = StackKind::ALL.iter().map(|stack| format!("{}:{}", stack.name(), runs(*stack)));
    let stacks = stacks.collect::<Vec<_>>().join(",");
    let (cases, steps) = (counts.get("cases"), counts.get("steps"));
    let futures = DEEDS[..2].iter().map(|deed| format!("{deed}={}", counts.get(deed))).collect::<Vec<_>>().join(" ");
    println!("cases={cases} steps={steps} {} {futures} stacks={stacks} mismatches=0", list("ended/"));
    let rare = rare(counts);
    if full() && !rare.is_empty() {
        println!("fewer than {EACH} of these were seen: {rare:?}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Runs one group in this process, where a debugger can see it.
fn replay(line: &str) -> ExitCode {
    quiet_host_panics();
    let group = Group::decode(line).expect("a group as it was printed");
    println!("{group}");
    match Bench::new().run(&group, &mut Counts::default()) {
        Ok(()) => {
            println!("mismatches=0");
            ExitCode::SUCCESS
        }
        Err(text) => {
            println!("{text}\nmismatches=1");
            ExitCode::FAILURE
        }
    }
}
