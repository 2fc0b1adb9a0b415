//! Runs random guests with random host functions, once through wasmtime's own async and once on each kind of this
//! crate's stacks, compiled by Cranelift and interpreted by Pulley, all interleaved in a random order. Everything that
//! can be observed from outside must be the same: results, traps, errors and panics, the calls of host functions with
//! their arguments, the order in which futures are dropped, how often a call is pending, memories, globals, tables and
//! fuel.
//!
//! Each poll of a call on a `SendFiberStack` is on another thread than the last. All other calls stay on one thread. In
//! half of the cases, only async host functions wait, and every kind of stack must give the same result. In the other
//! half, host functions wait in ways that stacks refuse if they suspend only known frames. Those stacks must behave the
//! same until their first refusal, and must still run to the last step.
//!
//! Host functions call their guest synchronously and as futures: alone, joined to other futures, dropped in the middle,
//! and within such calls. A `ThreadStack` runs such a call in place. So a step in which something runs next to the call
//! may be pending more or less often, and if something is dropped in the middle, only what came before must be the
//! same. Code on a `ThreadStack` also lets other tasks run after 128 waits.
//!
//! A case that fails is simplified as long as it still fails, and is then printed with a line that runs it again.
//!
//! | variable | meaning |
//! |---|---|
//! | `DIFFERENTIAL_SEED` | the seed of all random choices; each run prints it |
//! | `DIFFERENTIAL_CASES` | how many cases to run; by default 2,000, and more while a kind is rare |
//! | `DIFFERENTIAL_SECONDS` | run for this time instead |
//! | `DIFFERENTIAL_JOBS` | how many processes work, by default one for each processor |
//! | `DIFFERENTIAL_GROUP` | a group of cases to run, as printed when it failed |

#[cfg(all(fiber_stack, not(feature = "loom"), any(target_arch = "x86_64", target_arch = "aarch64")))]
mod cases;
#[cfg(all(fiber_stack, not(feature = "loom"), any(target_arch = "x86_64", target_arch = "aarch64")))]
mod explore;

#[cfg(all(fiber_stack, not(feature = "loom"), any(target_arch = "x86_64", target_arch = "aarch64")))]
fn main() -> std::process::ExitCode {
    explore::main()
}

/// On this target there is no async of wasmtime's own to compare with, or the build is for exploring models.
#[cfg(not(all(fiber_stack, not(feature = "loom"), any(target_arch = "x86_64", target_arch = "aarch64"))))]
fn main() {}
