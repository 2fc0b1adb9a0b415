//! The message says where each shape goes.

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
    linker.func_wrap_suspending("host", "generic", generic)?;
    linker.func_wrap_suspending("host", "boxed", boxed)?;
    linker.func_wrap_suspending("host", "upstream", upstream)?;
    Ok(())
}

fn main() {}
