//! Compares what one stack showed for a case with what wasmtime's own async showed.

use crate::cases::guest::Guest;
use crate::cases::run::Counts;
use crate::cases::transcript::{Ending, Event, Record};
use std::fmt::{self, Write as _};
use wasmtime::Trap;
use wasmtime_async::Between;

/// How a call of the guest by a host function ended.
fn called_back_to(event: &Event) -> Option<&Ending> {
    match event {
        Event::CalledBack { ending, .. } => Some(ending),
        _ => None,
    }
}

/// Whether a host function called the guest.
fn called_back(record: &Record) -> bool {
    let is_call = |event: &Event| matches!(event, Event::CallsWithin { .. } | Event::CalledBack { .. });
    record.events.iter().any(is_call)
}

/// How calls ended, those by host functions first.
fn endings(record: &Record) -> impl Iterator<Item = &Ending> {
    record.events.iter().filter_map(called_back_to).chain([&record.ending])
}

fn overflowed(record: &Record) -> bool {
    endings(record).any(|ending| *ending == Ending::Trapped(Trap::StackOverflow))
        || record.events.contains(&Event::Overflowed)
}

/// What was in the way, each time that something could not be suspended.
fn refusals(record: &Record) -> impl Iterator<Item = Between> {
    endings(record).filter_map(|ending| match ending {
        Ending::Refused(between) => Some(*between),
        _ => None,
    })
}

/// Whether a host function ends here because it, or something that it called, could not be suspended.
fn is_refusal(event: &Event) -> bool {
    matches!(event, Event::CutShort { .. }) || matches!(called_back_to(event), Some(Ending::Refused(_)))
}

/// The differences that are allowed on a stack.
#[derive(Clone, Copy)]
pub(crate) struct Leeway {
    /// The stack suspends only known frames, and others may have to wait.
    pub(crate) may_refuse: bool,
    /// When a host function calls its guest as a future, the call runs within one poll of that future, and suspends the
    /// host function with everything else in it. The rest continues when the call has ended, so such a step may be
    /// pending more or less often. The call cannot be dropped in the middle, and dropping the step after a number of
    /// pending polls may hit a different point.
    pub(crate) in_place: bool,
    /// The stack lets other tasks run after this many waits without a suspension. The call is pending once more there,
    /// and may be dropped.
    pub(crate) waits_per_turn: Option<usize>,
}

/// The largest number of extra pending polls. Host functions wait at most as often as they log what they do.
fn most_turns(record: &Record, leeway: Leeway) -> usize {
    leeway.waits_per_turn.map_or(0, |waits| record.events.len() / waits)
}

/// The first call of the guest as a future with something next to it.
fn first_race(record: &Record) -> Option<usize> {
    record.events.iter().position(|event| matches!(event, Event::CallsWithin { beside: true, .. }))
}

/// Whether the step, or a call within it, was dropped in the middle.
fn was_dropped(record: &Record) -> bool {
    endings(record).any(|ending| *ending == Ending::Dropped)
}

/// How many events, from the first on, the two have in common.
fn alike(native: &Record, ours: &Record) -> usize {
    native.events.iter().zip(&ours.events).take_while(|(native, ours)| native == ours).count()
}

/// Compares two transcripts of a case. They may diverge where the stack refused to be suspended, where a call ran in
/// place and something was dropped in the middle, and where a call was dropped while it let other tasks run, if the
/// leeway allows it.
pub(crate) fn compare(
    guest: &Guest,
    native: &[Record],
    all: &[Record],
    leeway: Leeway,
    counts: &mut Counts,
) -> Result<(), String> {
    let same_number = || {
        let (expected, seen) = (native.len(), all.len());
        if expected == seen { Ok(()) } else { Err(format!("{seen} steps instead of {expected}")) }
    };
    for (number, (native, ours)) in native.iter().zip(all).enumerate() {
        let overflow = overflowed(native) || overflowed(ours);
        if overflow && let Guest::Arbitrary(_) = guest {
            // How deep such a guest gets differs by a frame, or more in nested calls, and that changes what it has
            // done.
            counts.add("arbitrary-guests-left-at-an-overflow", 1);
            if called_back(native) || called_back(ours) || native.ending == ours.ending {
                return Ok(());
            }
        }
        if leeway.may_refuse && refusals(ours).next().is_some() {
            for between in all[number..].iter().flat_map(refusals) {
                counts.add(&format!("refused/{between:?}"), 1);
            }
            if !ours.events.get(alike(native, ours)).is_none_or(is_refusal) {
                return Err(format!("step {number}, which was refused:\n{}", difference(native, ours)));
            }
            // Without an instance there are no further steps.
            return if number == 0 { Ok(()) } else { same_number() };
        }
        let race = first_race(native).filter(|_| leeway.in_place);
        if let Some(race) = race
            && (was_dropped(native) || was_dropped(ours))
        {
            counts.add("runs-left-at-a-call-in-place", 1);
            if alike(native, ours) <= race {
                return Err(format!("step {number}, up to a call in place:\n{}", difference(native, ours)));
            }
            return if number == 0 { Ok(()) } else { same_number() };
        }
        if let Some(waits) = leeway.waits_per_turn
            && most_turns(native, leeway) > 0
            && ours.ending == Ending::Dropped
            && native != ours
        {
            counts.add("runs-left-at-a-turn-for-others", 1);
            if alike(native, ours) < waits {
                return Err(format!("step {number}, up to a turn for others:\n{}", difference(native, ours)));
            }
            return if number == 0 { Ok(()) } else { same_number() };
        }
        let mut expected = native.clone();
        if race.is_some() {
            expected.pendings = ours.pendings;
        }
        let extra = ours.pendings.saturating_sub(native.pendings) as usize;
        if (1..=most_turns(native, leeway)).contains(&extra) {
            counts.add("turns-for-others", extra);
            expected.pendings = ours.pendings;
        }
        if overflow {
            expected.fuel = ours.fuel;
            expected.frames.clone_from(&ours.frames);
        }
        if expected != *ours {
            return Err(format!("step {number}:\n{}", difference(&expected, ours)));
        }
    }
    same_number()
}

/// Describes what differs, with the events before it.
fn difference(native: &Record, ours: &Record) -> String {
    let mut text = String::new();
    let mut line = |name: &str, native: &dyn fmt::Debug, ours: &dyn fmt::Debug| {
        let (native, ours) = (format!("{native:?}"), format!("{ours:?}"));
        if native == ours {
            let _ = writeln!(text, "  {name}: {native}");
        } else {
            let _ = writeln!(text, "! {name} in wasmtime's own async: {native}\n! {name} here: {ours}");
        }
    };
    let events = native.events.len().max(ours.events.len());
    for event in 0..events {
        line("event", &native.events.get(event), &ours.events.get(event));
    }
    line("ending", &native.ending, &ours.ending);
    line("frames", &native.frames, &ours.frames);
    line("pending polls", &native.pendings, &ours.pendings);
    line("memories", &native.state.memories, &ours.state.memories);
    line("globals", &native.state.globals, &ours.state.globals);
    line("tables", &native.state.tables, &ours.state.tables);
    line("fuel", &native.fuel, &ours.fuel);
    text
}

pub(crate) fn count(records: &[Record], counts: &mut Counts) {
    for record in records {
        counts.add(&format!("ended/{}", record.ending.kind()), 1);
        counts.add("suspensions", record.pendings as usize);
        if record.pendings > 0 {
            counts.add(&format!("suspended-then/{}", record.ending.kind()), 1);
        }
        counts.add("steps", 1);
        for event in &record.events {
            match event {
                Event::Called { .. } => counts.add("host-calls", 1),
                Event::CalledBack { ending, .. } => {
                    counts.add("nested-calls", 1);
                    counts.add(&format!("nested-ended/{}", ending.kind()), 1);
                    counts.add("nested-futures-dropped", (*ending == Ending::Dropped).into());
                }
                Event::CalledElsewhere { .. } => counts.add("calls-of-other-stores", 1),
                Event::CallsWithin { depth, beside } => {
                    counts.add("nested-futures", 1);
                    counts.add("nested-futures-with-others", (*beside).into());
                    counts.add("nested-futures-within-calls", (*depth > 0).into());
                }
                _ => {}
            }
        }
    }
}
