//! What the library promises, on every backend, with native code and with Pulley's.
//!
//! Each test is written once, generic over the stack, and [`matrix!`](support::matrix) makes one of it for each
//! combination. Two environment variables set how long it takes:
//!
//! - `MATRIX_CALLS`: how many calls are in flight in the tests that are about many (1000 unless set);
//! - `MATRIX_SEED`: where the random numbers start; the seed of each run is printed.
#![cfg(not(feature = "loom"))]
#![allow(clippy::unnecessary_wraps, reason = "all tests have one signature")]

mod auto_traits;
mod bad_input;
mod cancel;
#[path = "../common/mod.rs"]
mod common;
mod endings;
mod engine_features;
mod forget;
mod functions;
mod guards;
mod interleaved;
mod linker;
mod nested;
mod pool;
mod support;
mod wakers;
