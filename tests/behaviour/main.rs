//! What the library promises, on every kind of stack, with native code and with Pulley's bytecode.
//!
//! Each test is written once, generic over the kind of stack, and [`matrix!`](support::matrix) makes one test for each
//! combination. Two environment variables set how long it takes:
//!
//! - `MATRIX_CALLS`: how many calls are in flight in the tests with many calls (1000 by default);
//! - `MATRIX_SEED`: the seed of the random numbers. Each run prints its seed.
#![cfg(not(feature = "loom"))]
#![allow(clippy::unnecessary_wraps, reason = "all tests have one signature")]

mod always_ready;
mod ambient;
mod auto_traits;
mod bad_input;
mod cancel;
mod cancel_synchronous;
mod collected;
#[path = "../common/mod.rs"]
mod common;
mod components;
#[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), fiber_stack))]
mod coroutines;
mod endings;
mod engine_features;
mod failures;
mod forget;
mod functions;
mod growth;
mod guards;
mod in_host_functions;
mod interleaved;
mod linker;
mod nested;
mod not_refused;
#[cfg(fiber_stack)]
mod parking;
mod polled_inside;
mod pool;
mod refused;
mod refused_inside_wasmtime;
mod slices;
#[cfg(feature = "tracing")]
mod spans;
mod support;
mod threads;
mod towers;
mod types;
mod until;
mod wakers;
mod wakers_in_nested_polls;
#[cfg(fiber_stack)]
mod wasmtimes_own;
#[cfg(all(windows, fiber_stack))]
mod windows;
#[cfg(not(call_hook))]
mod within;
#[cfg(call_hook)]
mod without_list;
