//! Guests on the stacks that every target has: operating system threads.
//!
//! This also runs where neither this crate nor wasmtime can switch stacks, and where wasmtime has no compiler and
//! interprets its guests. It runs three guests at the same time, on an executor with a single thread:
//!
//! ```sh
//! cargo run --example any_target --features thread-backend
//! ```

use futures::executor::block_on;
use futures::future::try_join_all;
use futures_timer::Delay;
use std::env::consts::ARCH;
use std::time::Duration;
use wasmtime::{Engine, Linker, Module, Result};
use wasmtime_async::{AsyncFunc, DEFAULT_STACK_SIZE, LinkerExt, Stack, Store, ThreadStack};

/// Asks `n` questions, and adds up the answers.
const GUEST: &str = r#"
    (module
        (import "host" "ask" (func $ask (param i32) (result i32)))
        (func (export "sum") (param $n i32) (result i32)
            (local $sum i32)
            (loop $more
                (local.set $sum (i32.add (local.get $sum) (call $ask (local.get $n))))  ;; waits for a timer
                (br_if $more (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
            (local.get $sum)))
"#;

async fn guest(n: i32, engine: &Engine, linker: &Linker<()>, module: &Module) -> Result<i32> {
    let mut store = Store::new(engine, ());
    let mut stack = ThreadStack::new(DEFAULT_STACK_SIZE)?;
    let instance = linker.instantiate_on(&mut stack, &mut store, module).await?;
    let sum = AsyncFunc::from(instance.get_typed_func::<i32, i32>(&mut store, "sum")?);
    sum.call(&mut stack, &mut store, n).await
}

/// Nothing in these futures ties them to a thread, so any executor can run them.
fn movable<F: Future + Send>(future: F) -> F {
    future
}

fn main() -> Result<()> {
    let engine = Engine::default();
    let mut linker = Linker::new(&engine);
    linker.func_wrap_suspending("host", "ask", async |question: i32| -> i32 {
        Delay::new(Duration::from_millis(5)).await;
        question * 10
    })?;
    let module = Module::new(&engine, GUEST)?;
    let how = if engine.is_pulley() { "interpreted" } else { "compiled" };
    println!("guests are {how} on {ARCH}");

    let guests = [3, 4, 5].map(|n| movable(guest(n, &engine, &linker, &module)));
    let sums = block_on(try_join_all(guests))?;
    println!("3 guests on thread stacks: {sums:?}");
    Ok(())
}
