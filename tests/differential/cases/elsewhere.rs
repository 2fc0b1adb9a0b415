//! The guest of another store that host functions call.

use crate::cases::case::Wake;
use crate::cases::driver::{Pause, Timers};
use crate::cases::world::FAR;
use wasmtime::{Module, Store};

/// Calls its host function, which waits, twice, and traps if it is given 2.
pub(crate) const ELSEWHERE: &str = r#"(module
  (import "host" "wait" (func $wait (param i32) (result i32)))
  (func (export "run") (param i32) (result i32)
    (if (i32.eq (local.get 0) (i32.const 2)) (then (drop (call $wait (i32.const 1))) (unreachable)))
    (i32.add (call $wait (local.get 0)) (call $wait (local.get 0)))))"#;

/// Its host function.
pub(crate) async fn wait(timers: &Timers, rounds: i32) -> i32 {
    Pause::new(rounds.cast_unsigned(), Wake::Later, timers).await;
    rounds + 10
}

/// Its store.
pub(crate) fn other_store(module: &Module, timers: &Timers) -> Store<Timers> {
    let mut store = Store::new(module.engine(), timers.clone());
    store.set_fuel(1_000).expect("fuel is on");
    store.set_epoch_deadline(FAR);
    store
}
