//! Models of the thread backend. Within the given bounds, loom explores every way in which the threads can interleave,
//! and every value that the memory model lets them read.
//!
//! The models run the library's own source, from the future of a call down to the baton and the cache of workers. It is
//! compiled a second time here, with loom's primitives in `src/sync.rs` instead of the real ones. (The other backend is
//! in the same file and is compiled, too, but not used.)
//!
//! # What the models detect
//!
//! Each step of the protocol was broken once, by itself, and all twenty models were run. Where many fail,
//! `start_and_finish` is one of them:
//!
//! | step | broken | models that fail |
//! |---|---|---|
//! | `Baton::pass` | the swap is relaxed | 16: data races |
//! | | a load and a store instead of the swap | 18: deadlocks |
//! | | wakes nobody | 18: deadlocks |
//! | `Baton::wake` | does not take the lock | 18: deadlocks |
//! | `Baton::is_turn_of` | the load is relaxed | 16: data races |
//! | `Baton::sleep` | the exchange that fails is relaxed | 16: data races |
//! | | does not say that it sleeps | 18: deadlocks |
//! | | looks last before it takes the lock, or does not look at all | 18: deadlocks |
//! | | does not sleep again after a spurious wake-up | `sleepers_woken_for_no_reason` and 11 more |
//! | `Runner::enter` | passes the baton before it captures the ambient state | `surroundings_are_left_before_control_is` |
//! | | does not wait | 16 |
//! | `leave` | passes the baton before it leaves the ambient state | `surroundings_are_left_before_control_is` |
//! | | enters the ambient state before it waits | `surroundings_are_left_before_control_is` |
//! | | does not wait | 13 |
//! | `Service::work` | does not wait | 16: data races |
//! | drop of a runner | does not pass the baton | 20: deadlocks |
//! | | passes it before it returns the worker | `time_over_in_the_cache` |
//! | | does not return the worker | `worker_reused_by_a_second_stack`, `bound_of_the_cache` |
//! | `Cache::give_back` | has no bound | `bound_of_the_cache`, and 14 whose workers do not end |
//! | | keeps one worker too few | `worker_reused_by_a_second_stack`, `bound_of_the_cache` |
//! | `Cache::hire` | does not take the idle worker that fits | `worker_reused_by_a_second_stack`, `bound_of_the_cache` |
//! | `Cache::serve` | ends when the time is over, wherever its worker is | `time_over_in_the_cache` |
//! | | ends without leaving the cache, or never ends | `time_over_in_the_cache` |
//! | drop of a call | does not tell the call to stop | the four in which a call is dropped while suspended |
//! | `Frame::end` | the cancellation stays | `cancel_while_suspended` |
//! | | the waker stays | the four that check for it |
//! | `Frame::keep_waker` | the first waker stays | `waker_replaced_and_poller_moved` |
#![expect(unsafe_code, reason = "what must not be shared is shared, to see whether loom objects")]
#![allow(dead_code, unused_imports, unreachable_pub, missing_docs, reason = "parts of the library are not used here")]

#[path = "../src/call.rs"]
mod call;
#[path = "../src/error.rs"]
mod error;
#[path = "../src/frame.rs"]
mod frame;
#[path = "../src/limits.rs"]
mod limits;
#[cfg(fiber_stack)]
#[path = "../src/nesting.rs"]
mod nesting;
#[path = "../src/running.rs"]
mod running;
#[path = "../src/stack/mod.rs"]
mod stack;
#[path = "../src/store.rs"]
mod store;
#[path = "../src/suspend.rs"]
mod suspend;
#[path = "../src/sync.rs"]
mod sync;

mod tools;

use error::Error;
use futures::future::FutureExt as _;
use loom::thread;
use stack::available::*;
use stack::{Carries, SendStack, Stack};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use store::{AsStoreMut, Store};
use suspend::{suspend_until, yield_now};
use tools::{Event, FOREVER, OVER, SIZE, Task, Tracked, block_on, cache, model, new_store, stack};
use wasmtime::Result;

// ---- how calls end

#[test]
fn start_and_finish() {
    model("start_and_finish", None, || {
        let cache = cache(0, FOREVER);
        let mut stack = stack(&cache);
        let mut store = new_store();
        let call = stack.run(&mut store, |mut store| Ok(store.data_mut().add(1)));
        assert_eq!(block_on(call).unwrap(), 1);
        assert_eq!(store.data().get(), 1);
    });
}

#[test]
fn suspend_and_resume_several_times() {
    model("suspend_and_resume_several_times", Some(3), || {
        let cache = cache(0, FOREVER);
        let mut stack = stack(&cache);
        let mut store = new_store();
        let mut call = stack.run(&mut store, |mut store| {
            for _ in 0..3 {
                store.data_mut().add(1);
                yield_now()?;
            }
            Ok(store.data().get())
        });
        for _ in 0..3 {
            assert!(Task::new().poll(&mut call).is_pending());
        }
        assert!(matches!(Task::new().poll(&mut call), Poll::Ready(Ok(3))));
    });
}

#[test]
fn two_calls_on_one_stack() {
    model("two_calls_on_one_stack", Some(3), || {
        let cache = cache(0, FOREVER);
        let mut stack = stack(&cache);
        let mut store = new_store();
        for n in 1..=2 {
            let call = stack.run(&mut store, |mut store| {
                yield_now()?;
                Ok(store.data_mut().add(1))
            });
            assert_eq!(block_on(call).unwrap(), n);
        }
    });
}

#[test]
fn event_from_another_thread() {
    model("event_from_another_thread", Some(2), || {
        let cache = cache(0, FOREVER);
        let event = Event::new();
        let setter = thread::spawn({
            let event = event.clone();
            move || event.set()
        });
        let mut stack = stack(&cache);
        let mut store = new_store();
        let call = stack.run(&mut store, move |_| Ok(suspend_until(event.wait())?));
        block_on(call).unwrap();
        setter.join().unwrap();
    });
}

#[test]
fn waker_replaced_and_poller_moved() {
    model("waker_replaced_and_poller_moved", Some(2), || {
        let cache = cache(0, FOREVER);
        let event = Event::new();
        let mut call = {
            let (cache, event) = (cache.clone(), event.clone());
            async move {
                let (mut stack, mut store) = (stack(&cache), new_store());
                stack.run(&mut store, move |_| Ok(suspend_until(event.wait())?)).await
            }
            .boxed()
        };
        let first = Task::new();
        assert!(first.poll(&mut call).is_pending());
        // The event happens before, while, or after the other thread polls with a waker of its own.
        let poller = thread::spawn(move || {
            let second = Task::new();
            while second.poll(&mut call).is_pending() {
                second.wait();
            }
        });
        event.set();
        poller.join().unwrap();
        first.assert_no_waker_left();
    });
}

// ---- cancelling

/// Counts how often it is dropped.
struct Dropped(Arc<Tracked>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.add(1);
    }
}

#[test]
fn cancel_before_the_start() {
    model("cancel_before_the_start", None, || {
        let cache = cache(0, FOREVER);
        let mut stack = stack(&cache);
        let mut store = new_store();
        let drops = Arc::new(Tracked::default());
        let guard = Dropped(drops.clone());
        let call = stack.run(&mut store, move |mut store| {
            drop(guard);
            Ok(store.data_mut().add(1))
        });
        drop(call);
        assert_eq!((drops.get(), store.data().get()), (1, 0));
    });
}

#[test]
fn cancel_while_suspended() {
    model("cancel_while_suspended", Some(3), || {
        let cache = cache(0, FOREVER);
        let mut stack = stack(&cache);
        let mut store = new_store();
        let drops = Arc::new(Tracked::default());
        let (guard, event) = (Dropped(drops.clone()), Event::new());
        let mut call = stack.run(&mut store, move |mut store| -> Result<()> {
            let _guard = guard;
            assert!(matches!(suspend_until(event.wait()), Err(Error::Cancelled)));
            assert!(matches!(yield_now(), Err(Error::Cancelled)));
            store.data_mut().add(1);
            Err(Error::Cancelled.into())
        });
        let task = Task::new();
        assert!(task.poll(&mut call).is_pending());
        drop(call);
        task.assert_no_waker_left();
        assert_eq!((drops.get(), store.data().get()), (1, 1));
        // Nothing of the cancellation is left for the next call.
        let call = stack.run(&mut store, |mut store| {
            yield_now()?;
            Ok(store.data_mut().add(1))
        });
        assert_eq!(block_on(call).unwrap(), 2);
    });
}

#[test]
fn cancel_racing_the_end() {
    model("cancel_racing_the_end", Some(2), || {
        let cache = cache(0, FOREVER);
        let event = Event::new();
        let setter = thread::spawn({
            let event = event.clone();
            move || event.set()
        });
        let mut stack = stack(&cache);
        let mut store = new_store();
        let drops = Arc::new(Tracked::default());
        let guard = Dropped(drops.clone());
        let mut call = stack.run(&mut store, move |mut store| -> Result<()> {
            let _guard = guard;
            let outcome = suspend_until(event.wait());
            store.data_mut().add(if outcome.is_ok() { 1 } else { 10 });
            Ok(outcome?)
        });
        let task = Task::new();
        let ended = task.poll(&mut call).is_ready() || task.is_woken() && task.poll(&mut call).is_ready();
        drop(call);
        assert_eq!((drops.get(), store.data().get()), (1, if ended { 1 } else { 10 }));
        setter.join().unwrap();
        task.assert_no_waker_left();
    });
}

// ---- panics (all with `resume_unwind`, which does not print)

#[test]
fn panic_on_the_worker() {
    model("panic_on_the_worker", Some(3), || {
        let cache = cache(0, FOREVER);
        let mut stack = stack(&cache);
        let mut store = new_store();
        let mut call = stack.run(&mut store, |mut store| -> Result<()> {
            yield_now()?;
            store.data_mut().add(1);
            resume_unwind(Box::new(37));
        });
        assert!(Task::new().poll(&mut call).is_pending());
        let payload = catch_unwind(AssertUnwindSafe(|| Task::new().poll(&mut call).is_ready())).unwrap_err();
        assert_eq!(payload.downcast_ref(), Some(&37));
        drop(call);
        assert_eq!(block_on(stack.run(&mut store, |mut store| Ok(store.data_mut().add(1)))).unwrap(), 2);
    });
}

#[test]
fn panic_on_the_worker_while_cancelled() {
    model("panic_on_the_worker_while_cancelled", Some(3), || {
        let cache = cache(0, FOREVER);
        let mut stack = stack(&cache);
        let mut store = new_store();
        let mut call = stack.run(&mut store, |mut store| -> Result<()> {
            let outcome = yield_now();
            store.data_mut().add(1);
            resume_unwind(Box::new(outcome.is_err()));
        });
        assert!(Task::new().poll(&mut call).is_pending());
        let payload = catch_unwind(AssertUnwindSafe(|| drop(call))).unwrap_err();
        assert_eq!(payload.downcast_ref(), Some(&true));
        assert_eq!(block_on(stack.run(&mut store, |mut store| Ok(store.data_mut().add(1)))).unwrap(), 2);
    });
}

#[test]
fn panic_on_the_poller() {
    model("panic_on_the_poller", Some(3), || {
        let cache = cache(0, FOREVER);
        let mut stack = stack(&cache);
        let mut store = new_store();
        let payload = catch_unwind(AssertUnwindSafe(|| {
            let mut call = stack.run(&mut store, |mut store| {
                let outcome = yield_now();
                store.data_mut().add(if outcome.is_ok() { 1 } else { 10 });
                Ok(outcome?)
            });
            assert!(Task::new().poll(&mut call).is_pending());
            resume_unwind(Box::new(37));
        }))
        .unwrap_err();
        assert_eq!(payload.downcast_ref(), Some(&37));
        assert_eq!(store.data().get(), 10);
        assert_eq!(block_on(stack.run(&mut store, |mut store| Ok(store.data_mut().add(1)))).unwrap(), 11);
    });
}

// ---- stacks within stacks, and ambient state

#[test]
fn worker_polls_a_call_on_another_stack() {
    model("worker_polls_a_call_on_another_stack", Some(1), || {
        let cache = cache(0, FOREVER);
        let (mut outer, mut inner) = (stack(&cache), stack(&cache));
        let (mut outer_store, mut inner_store) = (new_store(), new_store());
        let call = outer.run(&mut outer_store, move |mut store| {
            store.data_mut().add(1);
            let call = inner.run(&mut inner_store, |mut store| {
                yield_now()?;
                Ok(store.data_mut().add(1))
            });
            // Suspends the outer stack as well.
            let n = suspend_until(call)??;
            Ok(store.data_mut().add(n))
        });
        assert_eq!(block_on(call).unwrap(), 2);
    });
}

#[test]
fn surroundings_are_left_before_control_is() {
    /// The ambient state of a worker, while it exists.
    struct Inside(Arc<Tracked>);
    impl Drop for Inside {
        fn drop(&mut self) {
            self.0.add(-1);
        }
    }

    model("surroundings_are_left_before_control_is", Some(3), || {
        let cache = cache(0, FOREVER);
        let mut stack = stack(&cache);
        let mut store = new_store();
        let (polls, inside) = (Arc::new(Tracked::default()), Arc::new(Tracked::default()));
        stack.set_ambient({
            let (polls, inside) = (polls.clone(), inside.clone());
            move || {
                polls.add(1);
                let inside = inside.clone();
                move || {
                    inside.add(1);
                    Inside(inside)
                }
            }
        });
        let seen = inside.clone();
        let mut call = stack.run(&mut store, move |_| {
            assert_eq!(seen.get(), 1);
            yield_now()?;
            assert_eq!(seen.get(), 1);
            Ok(())
        });
        assert!(Task::new().poll(&mut call).is_pending());
        assert_eq!((polls.get(), inside.get()), (1, 0));
        assert!(Task::new().poll(&mut call).is_ready());
        assert_eq!((polls.get(), inside.get()), (2, 0));
    });
}

// ---- workers

/// Returns which worker a stack has.
fn worker_of(stack: &mut ThreadStack) -> thread::ThreadId {
    block_on(stack.run(&mut new_store(), |_| Ok(thread::current().id()))).unwrap()
}

#[test]
fn worker_reused_by_a_second_stack() {
    model("worker_reused_by_a_second_stack", Some(3), || {
        let cache = cache(1, FOREVER);
        let mut first = stack(&cache);
        let worker = worker_of(&mut first);
        // Even if the worker is still busy with the last step of its first service.
        drop(first);
        let mut second = stack(&cache);
        assert_eq!(worker_of(&mut second), worker);
        drop(second);
        cache.clear();
    });
}

#[test]
fn stack_dropped_while_another_is_made() {
    model("stack_dropped_while_another_is_made", Some(2), || {
        let cache = cache(1, FOREVER);
        let first = stack(&cache);
        let other = thread::spawn({
            let cache = cache.clone();
            move || {
                worker_of(&mut stack(&cache));
            }
        });
        drop(first);
        other.join().unwrap();
        cache.clear();
    });
}

#[test]
fn stack_never_used() {
    model("stack_never_used", None, || {
        let cache = cache(1, FOREVER);
        drop(stack(&cache));
        cache.clear();
    });
}

#[test]
fn bound_of_the_cache() {
    model("bound_of_the_cache", Some(1), || {
        let cache = cache(1, FOREVER);
        sync::threads_started();
        let (first, second) = (stack(&cache), stack(&cache));
        let other = thread::spawn(move || drop(first));
        drop(second);
        other.join().unwrap();
        // One of the two workers was kept, the other was not.
        let (third, fourth) = (stack(&cache), stack(&cache));
        assert_eq!(sync::threads_started(), 3);
        drop((third, fourth));
        cache.clear();
    });
}

#[test]
fn time_over_in_the_cache() {
    model("time_over_in_the_cache", Some(3), || {
        // Nothing clears the cache. The workers must end by themselves, but not while they are needed.
        let cache = cache(1, OVER);
        drop(stack(&cache));
        worker_of(&mut stack(&cache));
    });
}

#[test]
fn no_thread_to_be_had() {
    model("no_thread_to_be_had", None, || {
        let cache = cache(1, FOREVER);
        let refused = ThreadStack::with_cache(usize::MAX, cache.clone());
        assert!(matches!(refused, Err(Error::ThreadSpawn { size: usize::MAX, .. })));
        drop(stack(&cache));
        cache.clear();
    });
}

#[test]
fn sleepers_woken_for_no_reason() {
    model("sleepers_woken_for_no_reason", Some(3), || {
        sync::wake_for_no_reason(2);
        let cache = cache(0, FOREVER);
        let mut stack = stack(&cache);
        let mut store = new_store();
        let call = stack.run(&mut store, |mut store| {
            yield_now()?;
            Ok(store.data_mut().add(1))
        });
        assert_eq!(block_on(call).unwrap(), 1);
    });
}
