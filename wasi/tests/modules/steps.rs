//! What a guest does, step by step, and what comes of it: on wasmtime-wasi's own functions, and on this crate's.

use crate::guest::{ENGINE, Version, guest};
use crate::stacks::{Guest, Kind};
use wasmtime::{Instance, Store, Val};
use wasmtime_wasi::p1::WasiP1Ctx;

/// One step.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// The host writes into the guest's memory.
    Write(usize, Vec<u8>),
    /// The guest calls a function.
    Call(&'static str, Vec<Val>),
    /// The host wipes what differs from run to run: times, numbers of files.
    Wipe(usize, usize),
}

/// What came of a step.
#[derive(Debug, PartialEq)]
pub(crate) enum Outcome {
    Errno(i32),
    Trap(String),
    Memory(Vec<u8>),
}

/// A call, with parameters that Rust numbers become.
macro_rules! call {
    ($name:ident $($parameter:expr),*) => {
        $crate::steps::Step::Call(stringify!($name), vec![$(wasmtime::Val::from($parameter)),*])
    };
}
pub(crate) use call;

pub(crate) fn run_upstream(version: Version, wasi: WasiP1Ctx, steps: &[Step]) -> Vec<Outcome> {
    let mut store = Store::new(&ENGINE, wasi);
    let instance = version.upstream(&ENGINE).instantiate(&mut store, guest(version)).unwrap();
    let call = |store: &mut Store<WasiP1Ctx>, instance: &Instance, name: &str, parameters: &[Val]| {
        let function = instance.get_func(&mut *store, name).unwrap();
        let mut results = vec![Val::I32(0); function.ty(&*store).results().len()];
        function.call(store, parameters, &mut results)?;
        Ok(results.first().map_or(0, Val::unwrap_i32))
    };
    let mut outcomes = Vec::new();
    for step in steps {
        let memory = instance.get_memory(&mut store, "memory").unwrap();
        match step {
            Step::Write(at, bytes) => memory.write(&mut store, *at, bytes).unwrap(),
            Step::Wipe(at, len) => memory.data_mut(&mut store)[*at..at + len].fill(0),
            Step::Call(name, parameters) => outcomes.push(outcome(call(&mut store, &instance, name, parameters))),
        }
    }
    let memory = instance.get_memory(&mut store, "memory").unwrap();
    outcomes.push(Outcome::Memory(memory.data(&store).to_vec()));
    outcomes
}

pub(crate) async fn run_ours<S: Kind>(version: Version, wasi: WasiP1Ctx, steps: &[Step]) -> Vec<Outcome> {
    let mut guest = Guest::<S>::new(version, wasi);
    let mut outcomes = Vec::new();
    for step in steps {
        match step {
            Step::Write(at, bytes) => guest.write(*at, bytes),
            Step::Wipe(at, len) => guest.write(*at, &vec![0; *len]),
            Step::Call(name, parameters) => outcomes.push(outcome(guest.call(name, parameters).await)),
        }
    }
    outcomes.push(Outcome::Memory(guest.read::<65536>(0).to_vec()));
    outcomes
}

fn outcome(result: wasmtime::Result<i32>) -> Outcome {
    match result {
        Ok(errno) => Outcome::Errno(errno),
        Err(error) => Outcome::Trap(error.root_cause().to_string()),
    }
}
