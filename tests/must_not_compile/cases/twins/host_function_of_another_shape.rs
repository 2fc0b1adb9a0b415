//! As the message says.

use std::future::Future;
use std::pin::Pin;
use wasmtime::{Caller, Linker, Result};
use wasmtime_async::LinkerExt;

type Boxed = Box<dyn Fn(i32) -> Pin<Box<dyn Future<Output = i32>>> + Send + Sync>;

fn upstream(_: Caller<'_, ()>, (a,): (i32,)) -> Box<dyn Future<Output = i32> + Send + '_> {
    Box::new(async move { a })
}

fn define<F, Fut>(linker: &mut Linker<()>, generic: F, boxed: Boxed) -> Result<()>
where
    F: Fn(i32) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = i32>,
{
    linker.func_wrap_suspending("host", "generic", async move |a: i32| generic(a).await)?;
    linker.func_wrap_suspending("host", "boxed", async move |a: i32| boxed(a).await)?;
    linker.func_wrap_suspending("host", "panics", async |a: i32| -> i32 { panic!("{a}") })?;
    linker.func_wrap_suspending_boxed("host", "upstream", upstream)?;
    Ok(())
}

pub(crate) fn main() {
    let mut linker = Linker::new(&wasmtime::Engine::default());
    define(&mut linker, |a| async move { a }, Box::new(|a| Box::pin(async move { a }))).unwrap();
}
