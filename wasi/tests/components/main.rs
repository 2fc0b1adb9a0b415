//! WASI for components, on every kind of stack: programs do what they do on wasmtime-wasi's own functions, leave the thread to
//! others while they wait, and stop wherever they wait when their call is dropped.

mod cancelled;
#[path = "../common/mod.rs"]
mod common;
mod functions;
mod guests;
mod programs;
mod stacks;
mod waiting;
