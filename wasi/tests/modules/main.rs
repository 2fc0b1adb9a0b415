//! WASI for modules, on every kind of stack: each function gives what wasmtime-wasi's own gives, those that wait leave the
//! thread to others, and a dropped call stops the guest wherever it waits.

mod cancelled;
mod command;
#[expect(dead_code, reason = "it is for other tests, too")]
#[path = "../common/mod.rs"]
mod common;
mod guest;
mod pipes;
mod same;
mod stacks;
mod steps;
mod turns;
mod waiting;
