//! Calls of a guest function that returns at once.

use crate::sides::futures::drive;
use crate::sides::{Host, Linked, Memory, Side};
use crate::{Case, Runner};
use criterion::Bencher;
use std::hint::black_box;
use wasmtime::{Engine, Val};

pub(crate) fn run(runner: &mut Runner) {
    runner.run(&Typed0);
    runner.run(&Typed6);
    runner.run(&Untyped { name: "call0_untyped", func: "nop0", params: vec![], results: 0 });
    let params = vec![Val::I32(1), Val::I64(2), Val::F32(3), Val::F64(4), Val::I32(5), Val::I64(6)];
    runner.run(&Untyped { name: "call6_untyped", func: "nop6", params, results: 1 });
}

struct Typed0;

impl Case for Typed0 {
    fn name(&self) -> String {
        "call0_typed".into()
    }

    fn without_suspending(&self) -> bool {
        true
    }

    fn bench<S: Side>(&self, engine: &Engine, bencher: &mut Bencher<'_>) {
        let mut live = Linked::<S>::new(engine, Host::Typed(0), Memory::No).unwrap().live().unwrap();
        let func = live.func::<(), ()>("nop0").unwrap();
        bencher.iter(|| drive(S::call(&func, &mut live.stack, &mut live.store, ())).unwrap());
    }
}

struct Typed6;

impl Case for Typed6 {
    fn name(&self) -> String {
        "call6_typed".into()
    }

    fn without_suspending(&self) -> bool {
        true
    }

    fn bench<S: Side>(&self, engine: &Engine, bencher: &mut Bencher<'_>) {
        let mut live = Linked::<S>::new(engine, Host::Typed(0), Memory::No).unwrap().live().unwrap();
        let func = live.func::<(i32, i64, f32, f64, i32, i64), i64>("nop6").unwrap();
        bencher.iter(|| {
            let params = black_box((1, 2, 3.0, 4.0, 5, 6));
            drive(S::call(&func, &mut live.stack, &mut live.store, params)).unwrap()
        });
    }
}

struct Untyped {
    name: &'static str,
    func: &'static str,
    params: Vec<Val>,
    results: usize,
}

impl Case for Untyped {
    fn name(&self) -> String {
        self.name.into()
    }

    fn without_suspending(&self) -> bool {
        true
    }

    fn bench<S: Side>(&self, engine: &Engine, bencher: &mut Bencher<'_>) {
        let mut live = Linked::<S>::new(engine, Host::Typed(0), Memory::No).unwrap().live().unwrap();
        let func = live.untyped(self.func);
        let mut results = vec![Val::I32(0); self.results];
        bencher.iter(|| {
            let call = S::call_untyped(&func, &mut live.stack, &mut live.store, black_box(&self.params), &mut results);
            drive(call).unwrap();
        });
    }
}
