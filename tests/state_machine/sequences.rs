//! Sequences of operations, one after the other, and what they must have shown in the end.

use crate::calls::{Stop, sees_activations};
use crate::common::watchdog::watched;
#[cfg(feature = "thread-backend")]
use crate::common::watchdog::{threads, wait_until};
use crate::lanes::{Lane, calls_within_reach};
use crate::lost::is_lost;
use crate::machine::{GUESTS, abandon, operate, stop};
use crate::model::{check, model};
use crate::random::Random;
use crate::script::Token;
use crate::usage::fiber_mappings;
use std::panic;
use std::sync::LazyLock;
use std::thread;

/// The number of threads that run operations.
const LANES: usize = 3;
const OPERATIONS: usize = 120;

/// How calls can end, and how nested calls are given up. All but the first six need stacks that see activations.
const ENDINGS: [&str; 13] = [
    "Returned",
    "Failed",
    "Panicked",
    "Trapped",
    "Dropped",
    "Forgotten",
    "Refused(HostCode)",
    "Refused(Poll)",
    "Refused(NestedCall)",
    "NotSend",
    "NestedDrop",
    "NestedForget",
    "Lost",
];

/// Runs this many sequences. A full run goes on while it has not seen everything, up to ten times as long. Otherwise its
/// result would depend on its seed.
pub(crate) fn run(seed: u64, sequences: u64) {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if !info.payload().is::<Token>() && !is_lost(info.payload()) {
            report(info);
        }
    }));
    LazyLock::force(&GUESTS);
    assert!(fiber_mappings().is_none_or(|mappings| mappings == 0));
    #[cfg(feature = "thread-backend")]
    let before = threads().len();
    let lanes: Vec<_> = (0..LANES).map(|_| Lane::start()).collect();
    // A short run may miss some.
    let full = sequences >= 100;
    let mut random = Random(seed);
    let mut sequence = 0;
    while sequence < sequences || full && sequence < 10 * sequences && !unseen().is_empty() {
        model().trace.clear();
        let went_well = watched(|at| {
            at.note("machine", format_args!("sequence {sequence} of seed {seed}"));
            one_sequence(&lanes, &mut random)
        });
        if let Err(payload) = went_well {
            println!("sequence {sequence}:");
            model().trace.iter().for_each(|line| println!("  {line}"));
            panic::resume_unwind(payload);
        }
        sequence += 1;
    }
    let unseen = unseen();
    let model = model();
    assert!(!full || unseen.is_empty(), "these were not seen: {unseen:?}, but these: {:?}", model.counts);
    println!(
        "sequences={sequence} {:?} moved={} forgotten_fibers={} forgotten_threads={}",
        model.counts, model.moved, model.forgotten_fibers, model.forgotten_threads
    );
    lanes.into_iter().for_each(Lane::end);
    #[cfg(feature = "thread-backend")]
    watched(|at| {
        at.note("machine", format_args!("waits until there are {} threads", before + model.forgotten_threads));
        // The watchdog's thread is one more.
        wait_until(|| threads().len() == before + model.forgotten_threads + 1);
    });
}

/// Which endings have not been seen, and whether no call has been polled on several threads.
fn unseen() -> Vec<&'static str> {
    let model = model();
    let possible = if sees_activations() { &ENDINGS[..] } else { &ENDINGS[..6] };
    let missing = possible.iter().copied().filter(|ending| !model.counts.contains_key(*ending));
    missing.chain((model.moved == 0 && sees_activations()).then_some("polled on several threads")).collect()
}

fn one_sequence(lanes: &[Lane], random: &mut Random) -> thread::Result<()> {
    for _ in 0..OPERATIONS {
        let mut decisions = Random(random.next());
        lanes[random.below(lanes.len())].go(move || operate(&mut decisions))?;
        lanes[0].go(check)?;
    }
    // Ends the remaining calls, each where it can be ended.
    for lane in lanes {
        let mut decisions = Random(random.next());
        lane.go(move || {
            for call in calls_within_reach() {
                match decisions.below(3) {
                    0 => abandon(call),
                    _ => stop(call, Stop::Drop),
                }
            }
        })?;
    }
    lanes[0].go(|| {
        let (idle, stores) = {
            let mut model = model();
            (std::mem::take(&mut model.idle), std::mem::take(&mut model.stores))
        };
        drop((idle, stores));
        check();
        assert!(model().calls.is_empty(), "calls that nobody has");
    })
}
