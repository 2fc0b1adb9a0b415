//! Host functions, called from a loop in the guest: ready at once, and pending.

use crate::sides::futures::{arc_waker, drive_with};
use crate::sides::{Host, Linked, Memory, Side};
use crate::{Case, Runner};
use criterion::Bencher;
use std::task::Waker;
use wasmtime::Engine;

/// How many times the guest calls the host function in one iteration.
const CALLS: u32 = 1_000;

pub(crate) fn run(runner: &mut Runner) {
    let noop = Waker::noop().clone();
    let cases = [
        ("ready_typed", Host::Typed(0), noop.clone()),
        ("ready_untyped", Host::Untyped(0), noop.clone()),
        ("ready_caller", Host::WithCaller(0), noop.clone()),
        ("pending1_typed", Host::Typed(1), noop.clone()),
        ("pending1_untyped", Host::Untyped(1), noop.clone()),
        ("pending1_caller", Host::WithCaller(1), noop.clone()),
        ("pending1_waker", Host::Waking, arc_waker()),
        ("pending10_typed", Host::Typed(10), noop),
    ];
    for (name, host, waker) in cases {
        runner.run(&HostCalls { name, host, waker, func: "loop" });
    }
    // The host function calls a handler of the guest, which calls the host function.
    for (name, host) in [("nested_ready", Host::Typed(0)), ("nested_pending", Host::Typed(1))] {
        runner.run(&HostCalls { name, host, waker: Waker::noop().clone(), func: "nested" });
    }
}

/// Reported per host call if the future is ready at once, otherwise per suspension.
struct HostCalls {
    name: &'static str,
    host: Host,
    waker: Waker,
    /// The guest's export to call.
    func: &'static str,
}

impl HostCalls {
    /// How many times each host call suspends.
    fn suspensions(&self) -> u32 {
        match self.host {
            Host::Typed(times) | Host::Untyped(times) | Host::WithCaller(times) => times,
            Host::Waking => 1,
        }
    }
}

impl Case for HostCalls {
    fn name(&self) -> String {
        self.name.into()
    }

    fn per_iteration(&self) -> u32 {
        CALLS * self.suspensions().max(1)
    }

    fn without_suspending(&self) -> bool {
        self.suspensions() == 0
    }

    fn bench<S: Side>(&self, engine: &Engine, bencher: &mut Bencher<'_>) {
        let mut live = Linked::<S>::new(engine, self.host, Memory::No).unwrap().live().unwrap();
        live.set_handler();
        let func = live.func::<i32, i32>(self.func).unwrap();
        let calls = i32::try_from(CALLS).unwrap();
        bencher.iter(|| {
            let sum = drive_with(&self.waker, S::call(&func, &mut live.stack, &mut live.store, calls)).unwrap();
            assert_eq!(sum, calls * (calls + 1) / 2);
        });
    }
}
