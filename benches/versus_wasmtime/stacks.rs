//! Stacks by themselves. wasmtime makes its own stacks inside a store's first call: see `request_new_stack` for those.

use crate::sides::Side;
use crate::{Case, Runner};
use criterion::Bencher;
use wasmtime::Engine;

pub(crate) fn run(runner: &mut Runner) {
    runner.run(&MakeAndDrop);
}

/// A stack of the default size, made and dropped.
struct MakeAndDrop;

impl Case for MakeAndDrop {
    fn name(&self) -> String {
        "stack".into()
    }

    fn natively(&self) -> bool {
        false
    }

    fn bench<S: Side>(&self, _: &Engine, bencher: &mut Bencher<'_>) {
        bencher.iter(|| S::stack().unwrap());
    }
}
