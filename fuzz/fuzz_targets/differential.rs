//! Runs the cases of `tests/differential`, made from the fuzzer's input.
//!
//! ```sh
//! cargo +nightly fuzz run differential -- -max_len=4096 -timeout=60
//! ```
//!
//! A failing input prints the guest, the host functions and the first difference.
#![no_main]

#[path = "../../tests/differential/cases/mod.rs"]
#[allow(dead_code, reason = "not all of it is needed here")]
mod cases;

use cases::run::{Bench, Counts, Group};
use cases::transcript::quiet_host_panics;
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static BENCH: LazyLock<Bench> = LazyLock::new(Bench::new);

/// The first bytes decide the order of polls, and how the other bytes are divided between a guest and its cases.
fn group(data: &[u8]) -> Option<Group> {
    let (order, data) = data.split_first_chunk()?;
    let ([cases, guest_len @ ..], data) = data.split_first_chunk::<3>()?;
    let guest_len = usize::from(u16::from_le_bytes(*guest_len)).min(data.len());
    let (guest, cases_data) = data.split_at(guest_len);
    let case_len = cases_data.len() / (1 + usize::from(cases % 4));
    Some(Group {
        order: u64::from_le_bytes(*order),
        guests: vec![guest.to_vec()],
        cases: cases_data.chunks(case_len.max(1)).take(4).map(<[u8]>::to_vec).collect(),
    })
}

fuzz_target!(
    init: {
        // Comes before the fuzzer's own hook, which would take every panic for a failure.
        quiet_host_panics();
    },
    |data: &[u8]| {
        let Some(group) = group(data) else { return };
        if let Err(difference) = BENCH.run(&group, &mut Counts::default()) {
            panic!("{group}\n{difference}");
        }
    }
);
