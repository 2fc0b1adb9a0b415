//! Safe code relies on what stacks do, so only this crate implements them.

use wasmtime_async::{Error, Stack};

struct Mine;

impl Stack for Mine {
    fn new(_: usize) -> Result<Self, Error> {
        Ok(Self)
    }

    fn size(&self) -> usize {
        0
    }

    fn set_ambient<E, G>(&mut self, _: impl Fn() -> E + Send + Sync + 'static)
    where
        E: FnOnce() -> G + Send + 'static,
        G: 'static,
    {
    }
}

fn main() {}
