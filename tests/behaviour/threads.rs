//! Which threads calls run on, and idle stacks and stores that move between threads.

use crate::common::futures::{cancel, finish, pending, poll_caught, poll_once};
use crate::support::guest::{ONCE, assert_overflow, assert_usable, runner, stack, store, waits};
use crate::support::{Code, Host, Kind, matrix};
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use wasmtime::{Caller, Func, Result};
use wasmtime_async::{FuncExt, Stack};

matrix!(idle_stacks_change_threads, threads_of_host_functions);

/// A call on a fiber stack runs on the thread that polls it. If the call is `Send`, each poll is on the next thread.
/// (The matrix does this in all tests of that kind.) A call on a thread stack always runs on the same thread.
fn threads_of_host_functions<K: Kind>(code: Code) -> Result<()> {
    const POLLS: usize = 7;
    /// Notes the thread when it is dropped.
    struct Leaves(Arc<Mutex<Vec<ThreadId>>>);
    impl Drop for Leaves {
        fn drop(&mut self) {
            self.0.lock().expect("is not poisoned").push(thread::current().id());
        }
    }

    let mut stack = stack::<K>();
    let mut store = store(code);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let inner = Arc::clone(&seen);
    let notes = Func::wrap_suspending_boxed(&mut store, move |_: Caller<'_, Host>, (): ()| {
        let leaves = Leaves(Arc::clone(&inner));
        Box::new(async move {
            for _ in 0..POLLS {
                leaves.0.lock().expect("is not poisoned").push(thread::current().id());
                pending(1).await;
            }
        })
    });
    let run = runner(&mut store, ONCE, [notes])?;
    let mut call = run.call_on(&mut stack, &mut store, &[], &mut []);
    for _ in 0..POLLS {
        assert!(poll_once(&mut call).is_pending());
    }
    cancel(call);
    let seen = std::mem::take(&mut *seen.lock().expect("is not poisoned"));
    assert_eq!(seen.len(), POLLS + 1);
    for (one, next) in seen.iter().zip(&seen[1..]) {
        assert_eq!(one != next, K::MOVES, "{seen:?}");
    }
    assert_usable(&mut stack, &mut store)
}

/// A stack and a store move from thread to thread, after each kind of ending.
fn idle_stacks_change_threads<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    let mut store = store(code);
    let recurse = runner(&mut store, r#"(module (func (export "run") (call 0) (call 0)))"#, [])?;
    let wait = waits::<K, _>(&mut store, 2);
    let run = runner(&mut store, ONCE, [wait])?;
    for round in 0..8 {
        (stack, store) = thread::spawn(move || -> Result<_> {
            assert_usable(&mut stack, &mut store)?;
            match round % 4 {
                0 => assert_overflow(finish(recurse.call_on(&mut stack, &mut store, &[], &mut []))),
                1 => {
                    let mut call = run.call_on(&mut stack, &mut store, &[], &mut []);
                    assert!(poll_once(&mut call).is_pending());
                }
                2 => {
                    let mut call = stack.run_send(&mut store, |_| -> Result<()> { resume_unwind(Box::new(1)) });
                    assert!(poll_caught(&mut call).is_err());
                }
                _ => {
                    let mut forgotten = self::store(code);
                    let wait = waits::<K, _>(&mut forgotten, 9);
                    let mut call = wait.call_on(&mut stack, &mut forgotten, &[], &mut []);
                    assert!(poll_once(&mut call).is_pending());
                    std::mem::forget(call);
                }
            }
            Ok((stack, store))
        })
        .join()
        .expect("does not panic")?;
    }
    assert_usable(&mut stack, &mut store)
}

/// The thread of a forgotten call stays, with everything in its thread-local variables.
#[cfg(feature = "thread-backend")]
#[test]
fn threads_stay() -> Result<()> {
    use crate::common::watchdog::{this_thread, thread_of_id, watched};
    use crate::support::OnDrop;
    use std::cell::RefCell;
    use std::future::pending as never;
    use std::mem;
    use wasmtime_async::{DEFAULT_STACK_SIZE, ThreadStack};

    thread_local!(static HELD: RefCell<Option<OnDrop>> = const { RefCell::new(None) });

    watched(|_| {
        let mut stack = ThreadStack::new(DEFAULT_STACK_SIZE)?;
        let mut store = store(Code::Pulley);
        let (log, id) = (store.data().log.clone(), Arc::new(Mutex::new(None)));
        let (inner, inner_id) = (log.clone(), Arc::clone(&id));
        let wait = Func::wrap_suspending(&mut store, async move || {
            *inner_id.lock().expect("is not poisoned") = this_thread();
            HELD.set(Some(inner.on_drop("a variable of the thread")));
            never::<()>().await;
        });
        let run = runner(&mut store, ONCE, [wait])?;
        let mut call = run.call_on(&mut stack, &mut store, &[], &mut []);
        assert!(poll_once(&mut call).is_pending());
        mem::forget(call);
        assert_usable(&mut stack, &mut self::store(Code::Pulley))?;
        drop((stack, store));
        assert!(log.take().is_empty());
        // On systems that list threads.
        let id = id.lock().expect("is not poisoned").take();
        assert!(id.is_none_or(|id| thread_of_id(&id).is_some()));
        Ok(())
    })
}
