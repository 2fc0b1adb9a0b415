//! `wasi:http`, on every kind of stack: guests that send requests, and guests that handle them.

#[expect(dead_code, reason = "it is for other tests, too")]
#[path = "../common/mod.rs"]
mod common;
mod exchange;
mod guests;
mod incoming;
mod outgoing;
mod same;
mod serve;
mod stacks;
mod turns;
