//! What a server does: a store and an instance for each request, many of them in flight on one thread.

use crate::sides::futures::{Order, drive, poll_pending};
use crate::sides::{Host, Instantiated, Linked, Memory, Side};
use crate::{Case, Runner};
use criterion::Bencher;
use std::pin::Pin;
use std::time::{Duration, Instant};
use wasmtime::Engine;

/// How many requests are in flight at once.
const IN_FLIGHT: u32 = 1_000;

/// How many suspended calls are dropped together, between two readings of the clock.
const DROPPED: u32 = 64;

pub(crate) fn run(runner: &mut Runner) {
    let request = Request { name: "request", memory: Memory::No, stack: NewStack::Never, pools: false };
    runner.run(&request);
    runner.run(&Request { name: "request_new_stack", stack: NewStack::Always, ..request });
    runner.run(&Request { name: "request_memory", memory: Memory::OnePage, ..request });
    runner.run(&Request { name: "request_pooled", pools: true, ..request });
    runner.run(&Request { name: "request_memory_pooled", memory: Memory::OnePage, pools: true, ..request });
    for (order, suffix) in [(Order::RoundRobin, "round_robin"), (Order::Random, "random")] {
        runner.run(&Requests { name: format!("requests_1000_{suffix}"), order });
        runner.run(&Resumes { name: format!("resumes_1000_{suffix}"), order });
    }
    runner.run(&DropSuspended);
}

/// When a request gets a stack of its own. (wasmtime's own async always makes one for each store.)
#[derive(Clone, Copy, PartialEq)]
enum NewStack {
    Never,
    Always,
}

/// One request from start to end, with one suspension.
#[derive(Clone, Copy)]
struct Request {
    name: &'static str,
    memory: Memory,
    stack: NewStack,
    pools: bool,
}

impl Case for Request {
    fn name(&self) -> String {
        self.name.into()
    }

    fn pools(&self) -> bool {
        self.pools
    }

    fn makes_stacks(&self) -> bool {
        !self.pools
    }

    fn without_suspending(&self) -> bool {
        true
    }

    fn bench<S: Side>(&self, engine: &Engine, bencher: &mut Bencher<'_>) {
        let linked = Linked::<S>::new(engine, Host::Typed(1), self.memory).unwrap();
        let mut stack = S::stack().unwrap();
        bencher.iter(|| {
            if self.stack == NewStack::Always {
                stack = S::stack().unwrap();
            }
            let result = drive(linked.request(&mut stack)).unwrap();
            assert_eq!(result, 1);
        });
    }
}

/// A thousand requests in flight. One after the other ends and makes room for a new one. Reported per request.
struct Requests {
    name: String,
    order: Order,
}

impl Case for Requests {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn bench<S: Side>(&self, engine: &Engine, bencher: &mut Bencher<'_>) {
        let linked = Linked::<S>::new(engine, Host::Typed(1), Memory::No).unwrap();
        let start = |mut stack| {
            let linked = &linked;
            let mut request = Box::pin(async move {
                let result = linked.request(&mut stack).await.unwrap();
                assert_eq!(result, 1);
                stack
            });
            poll_pending(request.as_mut());
            request
        };
        let mut requests: Vec<_> = (0..IN_FLIGHT).map(|_| start(S::stack().unwrap())).collect();
        let rounds = self.order.rounds(requests.len());
        let mut turns = rounds.iter().flatten().cycle();
        bencher.iter(|| {
            let request = &mut requests[*turns.next().expect("cycles")];
            let stack = drive(request.as_mut());
            *request = start(stack);
        });
    }
}

/// A thousand suspended calls, each with a store and an instance of its own. One after the other is resumed and
/// suspends again. Reported per resume.
struct Resumes {
    name: String,
    order: Order,
}

impl Case for Resumes {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn bench<S: Side>(&self, engine: &Engine, bencher: &mut Bencher<'_>) {
        let linked = Linked::<S>::new(engine, Host::Typed(1), Memory::No).unwrap();
        let mut calls: Vec<_> = (0..IN_FLIGHT).map(|_| linked.suspended(Instantiated::OnStack).unwrap()).collect();
        let rounds = self.order.rounds(calls.len());
        let mut turns = rounds.iter().flatten().cycle();
        bencher.iter(|| poll_pending(calls[*turns.next().expect("cycles")].as_mut()));
    }
}

/// Drops a suspended call. Its stack and its store stay.
struct DropSuspended;

impl Case for DropSuspended {
    fn name(&self) -> String {
        "drop_suspended".into()
    }

    fn per_iteration(&self) -> u32 {
        DROPPED
    }

    fn bench<S: Side>(&self, engine: &Engine, bencher: &mut Bencher<'_>) {
        let linked = Linked::<S>::new(engine, Host::Typed(1), Memory::No).unwrap();
        let mut guests: Vec<_> = (0..DROPPED)
            .map(|_| {
                let mut live = linked.live().unwrap();
                let func = live.func::<i32, i32>("loop").unwrap();
                (live, func)
            })
            .collect();
        bencher.iter_custom(|iterations| {
            let mut taken = Duration::ZERO;
            for _ in 0..iterations {
                let mut calls: Vec<Pin<Box<dyn Future<Output = _>>>> = Vec::new();
                for (live, func) in &mut guests {
                    let mut call = Box::pin(S::call(func, &mut live.stack, &mut live.store, 2));
                    poll_pending(call.as_mut());
                    calls.push(call);
                }
                let start = Instant::now();
                drop(calls);
                taken += start.elapsed();
            }
            taken
        });
    }
}
