//! Three guests that sleep at once on one thread.
//!
//! To a guest, `sleep` is a function that returns later, as in any blocking program. To the thread, it is a future.

use futures::executor::block_on;
use futures::future::try_join_all;
use futures_timer::Delay;
use std::time::{Duration, Instant};
use wasmtime::{Engine, Linker, Module, Result, Store};
use wasmtime_async::{DEFAULT_SIZE, DefaultStack, FuncExt, LinkerExt, Stack};

const GUEST: &str = r#"
    (module
        (import "host" "sleep" (func $sleep (param i32)))
        (func (export "nap") (param $ms i32) (result i32)
            (call $sleep (local.get $ms))   ;; the stack is suspended here
            (local.get $ms)))
"#;

async fn guest(number: usize, engine: &Engine, linker: &Linker<usize>, module: &Module) -> Result<i32> {
    let mut store = Store::new(engine, number);
    let mut stack = DefaultStack::new(DEFAULT_SIZE)?;
    let instance = linker.instantiate_on(&mut stack, &mut store, module).await?;
    let nap = instance.get_func(&mut store, "nap").expect("the guest exports it");
    let nap = nap.get_async(&store).get1::<i32, i32>()?;

    println!("guest {number} goes to sleep");
    let slept = nap.call(&mut stack, &mut store, (100,)).await?;
    println!("guest {number} wakes up");
    Ok(slept)
}

fn main() -> Result<()> {
    let engine = Engine::default();
    let mut linker = Linker::new(&engine);
    linker.func_wrap_suspending("host", "sleep", async |ms: u32| Delay::new(Duration::from_millis(ms.into())).await)?;
    let module = Module::new(&engine, GUEST)?;

    let start = Instant::now();
    let slept = block_on(try_join_all((1..=3).map(|number| guest(number, &engine, &linker, &module))))?;
    let [ms, ..] = slept[..] else { unreachable!("three guests ran") };
    println!("{} guests slept {ms} ms each on 1 thread in {} ms", slept.len(), start.elapsed().as_millis());
    Ok(())
}
