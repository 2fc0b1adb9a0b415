//! Compares what was seen of a case on one stack with what was seen in wasmtime's own async.

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

fn called_back(record: &Record) -> bool {
    record.events.iter().any(|event| called_back_to(event).is_some())
}

/// How calls ended, those by host functions first.
fn endings(record: &Record) -> impl Iterator<Item = &Ending> {
    record.events.iter().filter_map(called_back_to).chain([&record.ending])
}

fn overflowed(record: &Record) -> bool {
    endings(record).any(|ending| *ending == Ending::Trapped(Trap::StackOverflow))
}

/// What was in the way whenever something could not be suspended.
fn refusals(record: &Record) -> impl Iterator<Item = Between> {
    endings(record).filter_map(|ending| match ending {
        Ending::Refused(between) => Some(*between),
        _ => None,
    })
}

/// Whether a host function ends here because it, or what it called, could not be suspended.
fn is_refusal(event: &Event) -> bool {
    matches!(event, Event::CutShort { .. }) || matches!(called_back_to(event), Some(Ending::Refused(_)))
}

/// Compares two transcripts of a case. Where the stack refused to be suspended, if it may, they go different ways.
pub(crate) fn compare(
    guest: &Guest,
    native: &[Record],
    all: &[Record],
    may_refuse: bool,
    counts: &mut Counts,
) -> Result<(), String> {
    let same_number = || {
        let (expected, seen) = (native.len(), all.len());
        if expected == seen { Ok(()) } else { Err(format!("{seen} steps instead of {expected}")) }
    };
    for (number, (native, ours)) in native.iter().zip(all).enumerate() {
        let overflow = overflowed(native) || overflowed(ours);
        if overflow && let Guest::Arbitrary(_) = guest {
            // How deep such a guest gets differs by a frame, or more in nested calls, and it shows in what it has done.
            counts.add("arbitrary-guests-left-at-an-overflow", 1);
            if called_back(native) || called_back(ours) || native.ending == ours.ending {
                return Ok(());
            }
        }
        if may_refuse && refusals(ours).next().is_some() {
            for between in all[number..].iter().flat_map(refusals) {
                counts.add(&format!("refused/{between:?}"), 1);
            }
            let alike = native.events.iter().zip(&ours.events).take_while(|(native, ours)| native == ours).count();
            if !ours.events.get(alike).is_none_or(is_refusal) {
                return Err(format!("step {number}, which was refused:\n{}", difference(native, ours)));
            }
            // Without an instance, there is no more.
            return if number == 0 { Ok(()) } else { same_number() };
        }
        let mut expected = native.clone();
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

/// What differs, with the events before.
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
                }
                Event::CalledElsewhere { .. } => counts.add("calls-of-other-stores", 1),
                _ => {}
            }
        }
    }
}
