//! Runs random sequences of operations on a set of stacks, stores and calls, and compares them with a simple model
//! after each operation. Calls are started, polled on various threads and from within each other's host functions,
//! dropped, and forgotten. Idle stacks, stores and the calls that are `Send` change threads. Calls on a
//! `SendFiberStack` do so at each poll. Host functions call their guest as futures, a few levels deep, and drop or
//! forget those in the middle. After every ending everything is used again, except the store of a call that was
//! forgotten while it was suspended, or in which a nested call was forgotten.
//!
//! These must hold: A poll advances a call as far as its script says, or to where its stack must not be suspended, and
//! no further. Values on a stack are dropped once and in order, and not at all if their call was forgotten. A wake-up
//! reaches the last waker of its call and no other, and no waker outlives its call. A call sees only its own values.
//! There are as many mappings and threads as there are stacks, including those of forgotten calls.
//!
//! `STATE_MACHINE_SEED` repeats a run. `STATE_MACHINE_RUNS` sets the number of sequences. It is 100 by
//! default. From 100 on, more follow until each kind of ending was seen. With `STATE_MACHINE_TRACE`, each operation is
//! printed when it begins.
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

/// The only test of this program, because it looks at the resources of the whole process.
#[test]
fn operations_in_any_order() {
    let seed = number("STATE_MACHINE_SEED").unwrap_or_else(|| RandomState::new().hash_one(()));
    println!("STATE_MACHINE_SEED={seed}");
    sequences::run(seed, number("STATE_MACHINE_RUNS").unwrap_or(100));
}
