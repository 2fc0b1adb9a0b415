//! Random sequences of operations on a set of stacks, stores and calls, compared with a simple model after each: calls
//! are started, polled here and there and from within each other's host functions, dropped, forgotten; idle stacks,
//! stores and the calls that are `Send` change threads, those on a `SendFiberStack` for each poll; host functions call their
//! guest by futures, to a few levels, and drop or forget those in the middle; everything is used again after every ending,
//! but for the store of a call that was forgotten while it was suspended, or that has forgotten one within.
//!
//! What must hold: a poll brings a call as far as its script says and no further, or to where its stack must not be
//! suspended; what lies on a stack is dropped once, in order, and not at all if its call was forgotten; a wake-up reaches
//! the last waker of its call and no other, and no waker outlives its call; a call sees its own values only; there are as
//! many mappings and threads as there are stacks, those of forgotten calls included.
//!
//! `STATE_MACHINE_SEED` repeats a run, `STATE_MACHINE_RUNS` sets how many sequences there are (100 unless set). With
//! `STATE_MACHINE_TRACE`, each operation is printed as it begins.
#![cfg(all(fiber_stack, not(feature = "loom"), target_os = "linux", target_pointer_width = "64"))]

mod calls;
#[path = "../common/mod.rs"]
mod common;
mod host;
mod lanes;
mod lost;
mod machine;
mod model;
#[path = "../differential/cases/random.rs"]
#[allow(dead_code, reason = "not all of it is needed here")]
mod random;
mod script;
mod sequences;
mod shared;
mod usage;

use common::number;
use std::hash::{BuildHasher, RandomState};

/// The only test of this program: it looks at what the whole process has.
#[test]
fn operations_in_any_order() {
    let seed = number("STATE_MACHINE_SEED").unwrap_or_else(|| RandomState::new().hash_one(()));
    println!("STATE_MACHINE_SEED={seed}");
    sequences::run(seed, number("STATE_MACHINE_RUNS").unwrap_or(100));
}
