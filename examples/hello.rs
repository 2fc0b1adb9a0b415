//! Three guests sleep at the same time on one thread.
//!
//! To a guest, `sleep` is a function that returns later, as in any blocking program. To the thread, it is a future.

use futures::executor::block_on;
use futures::future::try_join_all;
use futures_timer::Delay;
use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};
use wasmtime::{Caller, Engine, Linker, Module, Result};
use wasmtime_async::{AsyncFunc, DEFAULT_STACK_SIZE, DefaultStack, LinkerExt, Stack, Store};

const GUEST: &str = r#"
    (module
        (import "host" "sleep" (func $sleep (param i32)))
        (func (export "nap") (param $ms i32) (result i32)
            (call $sleep (local.get $ms))   ;; the stack is suspended here
            (local.get $ms)))
"#;

/// The threads on which guests have slept. This is the data of the stores.
type Threads = Arc<Mutex<HashSet<ThreadId>>>;

async fn guest(number: usize, linker: &Linker<Threads>, module: &Module, threads: &Threads) -> Result<i32> {
    let mut store = Store::new(module.engine(), threads.clone());
    let mut stack = DefaultStack::new(DEFAULT_STACK_SIZE)?;
    let instance = linker.instantiate_on(&mut stack, &mut store, module).await?;
    let nap = AsyncFunc::from(instance.get_typed_func::<i32, i32>(&mut store, "nap")?);

    println!("guest {number} goes to sleep");
    let slept = nap.call(&mut stack, &mut store, 100).await?;
    println!("guest {number} wakes up");
    Ok(slept)
}

fn main() -> Result<()> {
    let engine = Engine::default();
    let mut linker = Linker::new(&engine);
    linker.func_wrap_suspending("host", "sleep", async |caller: Caller<'_, Threads>, ms: u32| {
        caller.data().lock().expect("nothing panics").insert(thread::current().id());
        Delay::new(Duration::from_millis(ms.into())).await;
    })?;
    let module = Module::new(&engine, GUEST)?;

    let threads = Threads::default();
    let start = Instant::now();
    let slept = block_on(try_join_all((1..=3).map(|number| guest(number, &linker, &module, &threads))))?;
    let time = start.elapsed().as_millis();
    let threads = threads.lock().expect("nothing panics").len();
    let [ms, ..] = slept[..] else { unreachable!("three guests ran") };
    println!("{} guests slept {ms} ms each on {threads} thread in {time} ms", slept.len());
    Ok(())
}
