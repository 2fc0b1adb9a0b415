//! Random guests with random host functions, once through wasmtime's own async and once on each kind of this crate's
//! stacks, compiled by Cranelift and interpreted by Pulley, everything interleaved in a random order. What cannot
//! be told apart from outside must be the same: results, traps, errors and panics, the calls of host functions with
//! their arguments, the order in which futures are dropped, how often a call is pending, memories, globals, tables and
//! fuel.
//!
//! Calls on `SendFiberStack`s are polled on another thread each time, all others on one. In half of the cases nothing waits
//! but async host functions, and every kind of stack must come to the same. In the others, host functions wait in ways that
//! stacks which suspend known frames only refuse: there, those must come to the same until they first do so, and go on to
//! the last step.
//!
//! Host functions call their guest synchronously, and by futures of their own: alone, joined to other futures, dropped in the
//! middle, and within such calls. On a `ThreadStack`, where such a call runs in place, a step with something beside the call
//! may be pending more often or less; and where something is dropped in its middle, only what was before must be the same.
//! Neither does the code on a `ThreadStack` wait more than 128 times without giving others a turn.
//!
//! A case that fails is made plainer as long as it fails, then printed, with a line that runs it again.
//!
//! | variable | meaning |
//! |---|---|
//! | `DIFFERENTIAL_SEED` | where all random choices come from; printed by each run |
//! | `DIFFERENTIAL_CASES` | how many cases to run, 2,000 unless set |
//! | `DIFFERENTIAL_SECONDS` | run for so long instead |
//! | `DIFFERENTIAL_JOBS` | how many processes work, one for each processor unless set |
//! | `DIFFERENTIAL_GROUP` | a group of cases to run, as printed when it failed |

#[cfg(all(fiber_stack, not(feature = "loom"), any(target_arch = "x86_64", target_arch = "aarch64")))]
mod cases;
#[cfg(all(fiber_stack, not(feature = "loom"), any(target_arch = "x86_64", target_arch = "aarch64")))]
mod explore;

#[cfg(all(fiber_stack, not(feature = "loom"), any(target_arch = "x86_64", target_arch = "aarch64")))]
fn main() -> std::process::ExitCode {
    explore::main()
}

/// There is no async of wasmtime's own to compare with, or models are to be explored instead.
#[cfg(not(all(fiber_stack, not(feature = "loom"), any(target_arch = "x86_64", target_arch = "aarch64"))))]
fn main() {}
