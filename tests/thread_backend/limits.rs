//! How many threads there are, and what happens when the system provides no more.
#![cfg_attr(
    not(target_os = "linux"),
    expect(unused_imports, dead_code, reason = "most tests look at what cannot be seen on other systems")
)]

use crate::Gate;
use crate::common::futures::poll_once;
use crate::common::random::Random;
use crate::common::watchdog::{number_of_threads, threads, wait_until, watched};
use crate::common::{child, number};
use futures::executor::block_on;
use std::cell::RefCell;
use std::process;
use std::sync::mpsc::{RecvError, Sender, channel};
use std::task::Poll;
use std::thread::{self, ThreadId};
use std::time::Duration;
use wasmtime::{Config, Engine, Func, Module};
use wasmtime_async::{
    Call, DEFAULT_STACK_SIZE, Error, FuncExt, Stack, Store, ThreadCache, ThreadStack, suspend_until, yield_now,
};

fn thread_of(stack: &mut ThreadStack) -> ThreadId {
    let mut store = Store::new(&Engine::default(), ());
    block_on(stack.run(&mut store, |_| Ok(thread::current().id()))).unwrap()
}

#[test]
fn sizes_that_cannot_work() {
    for size in [0, 1, 4096, (64 << 10) - 1, usize::MAX, usize::MAX / 2] {
        let error = ThreadStack::new(size).unwrap_err();
        assert!(matches!(error, Error::StackSize { size: told, .. } if told == size), "{error}");
    }
}

#[test]
fn smallest_size_runs_a_closure_that_waits() {
    watched(|at| {
        let mut stack = ThreadStack::new(64 << 10).unwrap();
        let mut store = Store::new(&Engine::new(Config::new().max_wasm_stack(32 << 10)).unwrap(), 1);
        let call = stack.run(&mut store, |store| {
            yield_now()?;
            Ok(*store.data())
        });
        at.note("poller", "polls");
        assert_eq!(block_on(call).unwrap(), 1);
    });
}

#[test]
#[cfg(target_pointer_width = "64")]
fn a_size_that_the_system_has_not_got() {
    watched(|at| {
        let mut stack = ThreadStack::new(DEFAULT_STACK_SIZE).unwrap();
        for size in [usize::MAX >> 8, usize::MAX >> 2] {
            at.note("poller", format_args!("asks for {size} bytes"));
            let error = ThreadStack::new(size).unwrap_err();
            let Error::ThreadSpawn { size: told, source, .. } = &error else { panic!("{error}") };
            assert_eq!(*told, size);
            assert!(source.raw_os_error().is_some(), "{source:?}");
        }
        thread_of(&mut stack);
    });
}

#[test]
fn a_cache_gives_threads_to_the_next_stack_of_their_size() {
    watched(|at| {
        let cache = ThreadCache::new(4, Duration::from_hours(1));
        let (small, large) = (1 << 20, 2 << 20);
        let mut stack = cache.stack(small).unwrap();
        let first = thread_of(&mut stack);
        drop(stack);
        at.note("poller", "another size, another cache, no cache");
        for other in [cache.stack(large), ThreadCache::new(4, Duration::MAX).stack(small), ThreadStack::new(small)] {
            assert_ne!(thread_of(&mut other.unwrap()), first);
        }
        for _ in 0..100 {
            at.note("poller", "the same size");
            let mut stack = cache.clone().stack(small).unwrap();
            assert_eq!(thread_of(&mut stack), first);
        }
        cache.clear();
        assert_ne!(thread_of(&mut cache.stack(small).unwrap()), first);
        assert!(matches!(cache.stack(1), Err(Error::StackSize { size: 1, .. })));
    });
}

/// The threads of stacks in this process. A thread that was just started has no name yet. One that was used has a name.
fn workers() -> usize {
    threads().iter().filter(|thread| thread.name == "wasm-stack").count()
}

/// Waits until the number of workers has fallen to `number`. If that never happens, the watchdog ends the test.
fn wait_for_workers(number: usize) {
    wait_until(|| workers() <= number);
}

#[test]
#[cfg(target_os = "linux")]
fn a_thousand_suspended_at_once() {
    if !child::alone() {
        return;
    }
    watched(|at| {
        let count = usize::try_from(number("THREAD_CALLS").unwrap_or(1000)).unwrap();
        let mut random = Random::from_environment();
        let engine = Engine::default();
        let guest = r#"(module
            (import "" "wait" (func $wait (param i32) (result i32)))
            (func (export "sum") (param $n i32) (result i32)
                (local $sum i32)
                (loop $more
                    (local.set $sum (i32.add (local.get $sum) (call $wait (local.get $n))))
                    (br_if $more (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
                (local.get $sum)))"#;
        let module = Module::new(&engine, guest).unwrap();

        assert_eq!(workers(), 0);
        let mut places: Vec<_> = (0..count)
            .map(|n| {
                at.note("poller", format_args!("makes stack {n}"));
                let mut store = Store::new(&engine, 0);
                let wait = Func::wrap_suspending(&mut store, async |n: i32| {
                    let mut polled = false;
                    std::future::poll_fn(|_| {
                        if std::mem::replace(&mut polled, true) { Poll::Ready(n) } else { Poll::Pending }
                    })
                    .await
                });
                let instance = wasmtime::Instance::new(&mut store, &module, &[wait.into()]).unwrap();
                let sum = instance.get_func(&mut store, "sum").unwrap().get_async(&store).get1::<i32, i32>().unwrap();
                (ThreadStack::new(1 << 20).unwrap(), store, sum)
            })
            .collect();

        let mut calls: Vec<_> = places
            .iter_mut()
            .enumerate()
            .map(|(n, (stack, store, sum))| {
                let waits = i32::try_from(1 + n % 5).unwrap();
                (n, waits, sum.call(stack, store, (waits,)))
            })
            .collect();
        for (n, _, call) in &mut calls {
            at.note("poller", format_args!("first poll of {n}"));
            assert!(poll_once(call).is_pending());
        }
        assert_eq!(workers(), count);
        // A third of the calls is dropped while suspended, between the others. The rest resume in random order.
        let mut resumed = 0;
        let mut ended = 0;
        while !calls.is_empty() {
            random.shuffle(&mut calls);
            calls.retain_mut(|(n, waits, call)| {
                if *n % 3 == 0 && random.below(3) == 0 {
                    at.note("poller", format_args!("drop of {n}"));
                    return false;
                }
                at.note("poller", format_args!("poll of {n}"));
                resumed += 1;
                match poll_once(call) {
                    Poll::Pending => true,
                    Poll::Ready(sum) => {
                        assert_eq!(sum.unwrap(), *waits * (*waits + 1) / 2);
                        ended += 1;
                        false
                    }
                }
            });
        }
        assert!(ended >= count * 2 / 3 && resumed > count, "{ended} ended, {resumed} resumed");
        assert_eq!(workers(), count, "the calls have ended, the stacks are still there");

        at.note("poller", "drops the stacks");
        drop(calls);
        drop(places);
        wait_for_workers(0);
        println!("calls={count} resumed={resumed} threads afterwards={}", number_of_threads().unwrap());
    });
}

#[test]
#[cfg(target_os = "linux")]
fn a_cache_keeps_as_many_threads_as_it_was_told() {
    if !child::alone() {
        return;
    }
    watched(|at| {
        let cache = ThreadCache::new(3, Duration::MAX);
        let mut stacks: Vec<_> = (0..5).map(|_| cache.stack(DEFAULT_STACK_SIZE).unwrap()).collect();
        for stack in &mut stacks {
            thread_of(stack);
        }
        drop(stacks);
        at.note("main", "waits for two threads to end");
        wait_for_workers(3);
        assert_eq!(workers(), 3);
        thread_of(&mut cache.stack(DEFAULT_STACK_SIZE).unwrap());
        assert_eq!(workers(), 3, "the stack took one of them");
    });
}

/// The threads of a cache end after the time it was told, even if nothing else refers to the cache any more.
#[test]
#[cfg(target_os = "linux")]
fn cached_threads_end_by_themselves() {
    thread_local! {
        /// Dropped when the thread ends.
        static END: RefCell<Option<Sender<()>>> = const { RefCell::new(None) };
    }
    if !child::alone() {
        return;
    }
    watched(|at| {
        let (ends, ended) = channel();
        let mut store = Store::new(&Engine::default(), ());
        let cache = ThreadCache::new(3, Duration::from_millis(50));
        let mut stacks: Vec<_> = (0..3).map(|_| cache.stack(DEFAULT_STACK_SIZE).unwrap()).collect();
        for stack in &mut stacks {
            let ends = ends.clone();
            let call = stack.run(&mut store, |_| {
                END.set(Some(ends));
                Ok(())
            });
            block_on(call).unwrap();
        }
        drop((stacks, ends, cache));
        at.note("main", "waits for them to end");
        assert_eq!(ended.recv(), Err(RecvError));
        wait_for_workers(0);
    });
}

#[test]
#[cfg(target_os = "linux")]
fn idle_threads_sleep() {
    if !child::alone() {
        return;
    }
    watched(|at| {
        let engine = Engine::default();
        let cache = ThreadCache::new(2, Duration::MAX);
        let mut idle: Vec<_> = (0..4).map(|_| cache.stack(DEFAULT_STACK_SIZE).unwrap()).collect();
        let mut places: Vec<_> =
            (0..4).map(|_| (ThreadStack::new(DEFAULT_STACK_SIZE).unwrap(), Store::new(&engine, ()))).collect();
        let mut calls: Vec<_> =
            places.iter_mut().map(|(stack, store)| stack.run(store, |_| Ok(yield_now()?))).collect();
        for call in &mut calls {
            assert!(poll_once(call).is_pending());
        }
        for stack in &mut idle {
            thread_of(stack);
        }
        drop(idle.split_off(2));
        // Two on idle stacks, two in the cache, and four whose call is suspended.
        let all_asleep = || {
            let threads = threads();
            let workers = threads.iter().filter(|thread| thread.name == "wasm-stack");
            assert_eq!(workers.clone().count(), 8);
            workers.clone().all(|thread| thread.state == 'S').then(|| workers.map(|thread| thread.ticks).sum::<u64>())
        };
        let ticks =
            || threads().iter().filter(|thread| thread.name != "wasm-stack").map(|thread| thread.ticks).sum::<u64>();
        // A thread may sleep for a moment, and run again, before it sleeps for good.
        at.note("poller", "works until all have been asleep for that long");
        loop {
            let before = all_asleep();
            // A fifth of a second of work for this thread.
            let begun = ticks();
            while ticks() < begun + 20 {}
            if before.is_some() && all_asleep() == before {
                break;
            }
        }
    });
}

#[test]
#[cfg(target_os = "linux")]
fn a_forgotten_call_keeps_its_thread() {
    if !child::alone() {
        return;
    }
    watched(|at| {
        let mut stack = ThreadStack::new(DEFAULT_STACK_SIZE).unwrap();
        let first = thread_of(&mut stack);
        let engine = Engine::default();
        for n in 1..=3 {
            let mut store = Store::new(&engine, ());
            let mut call: Call<'_, _, _, _> = stack.run(&mut store, |_| Ok(yield_now()?));
            at.note("poller", format_args!("forgets call {n}"));
            assert!(poll_once(&mut call).is_pending());
            std::mem::forget(call);
            drop(store);
            at.note("poller", format_args!("uses the stack after {n}"));
            assert_ne!(thread_of(&mut stack), first);
            assert_eq!(workers(), n + 1);
        }
        drop(stack);
        wait_for_workers(3);
        assert_eq!(workers(), 3);
    });
}

/// Exits the process with calls in every state.
#[test]
fn process_exits_with_calls_suspended() {
    if !child::alone() {
        return;
    }
    let engine = Engine::default();
    let gate = Gate::default();
    watched(|at| {
        for n in 0..20 {
            at.note("poller", format_args!("call {n}"));
            let stack = Box::leak(Box::new(ThreadStack::new(DEFAULT_STACK_SIZE).unwrap()));
            let store = Box::leak(Box::new(Store::new(&engine, ())));
            let gate = gate.clone();
            let mut call = stack.run(store, move |_| Ok(suspend_until(gate.wait())?));
            assert!(poll_once(&mut call).is_pending());
            std::mem::forget(call);
        }
        // And an idle stack, a worker in a cache, and a call that another thread polls and that is running.
        std::mem::forget(ThreadStack::new(DEFAULT_STACK_SIZE).unwrap());
        drop(ThreadCache::new(1, Duration::MAX).stack(DEFAULT_STACK_SIZE).unwrap());
        let busy = Gate::default();
        let (said, engine) = (busy.clone(), engine.clone());
        thread::spawn(move || {
            let mut store = Store::new(&engine, ());
            let mut stack = ThreadStack::new(DEFAULT_STACK_SIZE).unwrap();
            let _never = block_on(stack.run(&mut store, move |_| {
                said.open();
                loop {
                    thread::park();
                }
                #[expect(unreachable_code, reason = "tells the type")]
                Ok(())
            }));
        });
        at.note("poller", "waits for the other poller");
        block_on(busy.wait());
    });
}

/// A host function may end the process from its stack's thread.
#[test]
fn process_exits_from_a_stack() {
    if !child::is_child() {
        let output = child::run(|_| ());
        assert_eq!(output.status.code(), Some(77), "{output:?}");
        return;
    }
    watched(|_| {
        let mut stack = ThreadStack::new(DEFAULT_STACK_SIZE).unwrap();
        let mut store = Store::new(&Engine::default(), ());
        let f = Func::wrap(&mut store, || -> () { process::exit(77) });
        let _never = block_on(f.call_on(&mut stack, &mut store, &[], &mut []));
    });
}
