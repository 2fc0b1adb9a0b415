//! Threads that are fibers of the system, for the time of a poll or permanently.
#![expect(unsafe_code, reason = "calls the system's functions for fibers")]

mod coroutines;

use crate::common::futures::{cancel, finish, pending, poll_once};
use crate::support::guest::{ONCE, assert_usable, runner, stack, store, waits};
use crate::support::{Code, Fiber, Kind, Log, OnDrop, SendFiber};
use std::cell::RefCell;
use std::ffi::c_void;
use std::mem;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use wasmtime::{Func, Result};
use wasmtime_async::FuncExt;

unsafe extern "system" {
    safe fn IsThreadAFiber() -> i32;
    fn ConvertThreadToFiber(parameter: *const c_void) -> *mut c_void;
    fn ConvertFiberToThread() -> i32;
    fn CreateFiber(size: usize, root: unsafe extern "system" fn(*mut c_void), parameter: *mut c_void) -> *mut c_void;
    fn SwitchToFiber(fiber: *mut c_void);
    fn DeleteFiber(fiber: *mut c_void);
    fn FlsAlloc(deleted: Option<unsafe extern "system" fn(*const c_void)>) -> u32;
    fn FlsSetValue(index: u32, value: *const c_void) -> i32;
}

fn is_fiber() -> bool {
    IsThreadAFiber() != 0
}

/// Runs a test for each kind of stack, on a thread that ends with the test.
fn each(tests: [fn() -> Result<()>; 2]) -> Result<()> {
    for test in tests {
        thread::spawn(test).join().expect("does not panic")?;
    }
    Ok(())
}

#[test]
fn a_thread_is_one_again_after_each_poll() -> Result<()> {
    fn test<K: Kind>() -> Result<()> {
        let mut stack = stack::<K>();
        assert!(!is_fiber());
        let mut store = store(Code::Pulley);
        let wait = Func::wrap_suspending_send(&mut store, || async {
            assert!(is_fiber());
            pending(2).await;
        });
        let run = runner(&mut store, ONCE, [wait])?;
        for polls in 0..3 {
            let mut call = run.call_on(&mut stack, &mut store, &[], &mut []);
            for _ in 0..polls {
                assert!(poll_once(&mut call).is_pending());
                assert!(!is_fiber());
            }
            cancel(call);
            assert!(!is_fiber());
        }
        finish(run.call_on(&mut stack, &mut store, &[], &mut []))?;
        drop(stack);
        assert!(!is_fiber());
        Ok(())
    }
    each([test::<Fiber>, test::<SendFiber>])
}

/// Another fiber of a thread. It runs a job, and comes back.
fn on_another_fiber(mut f: impl FnMut()) {
    struct Job<'a> {
        f: &'a mut dyn FnMut(),
        back: *mut c_void,
    }

    /// # Safety
    ///
    /// `job` is a valid `Job`.
    unsafe extern "system" fn root(job: *mut c_void) {
        // SAFETY: up to the caller.
        let job = unsafe { &mut *job.cast::<Job<'_>>() };
        (job.f)();
        // SAFETY: that fiber waits for this one.
        unsafe { SwitchToFiber(job.back) };
    }

    // SAFETY: the thread is not a fiber.
    let back = unsafe { ConvertThreadToFiber(ptr::null()) };
    let mut job = Job { f: &mut f, back };
    // SAFETY: the job exists as long as the fiber.
    let other = unsafe { CreateFiber(1 << 20, root, ptr::from_mut(&mut job).cast()) };
    assert!(!back.is_null() && !other.is_null(), "there is memory");
    // SAFETY: this was made above.
    unsafe { SwitchToFiber(other) };
    // SAFETY: it has switched back for good.
    unsafe { DeleteFiber(other) };
    assert!(is_fiber(), "calls leave it at that");
    // SAFETY: the thread is a fiber, and on its first one.
    unsafe { ConvertFiberToThread() };
    assert!(!is_fiber());
}

#[test]
fn a_call_goes_on_wherever_it_is_polled() -> Result<()> {
    fn test<K: Kind>() -> Result<()> {
        let mut stacks = [stack::<K>(), stack::<K>()];
        let mut stores = [store(Code::Pulley), store(Code::Pulley)];
        let mut runs = Vec::new();
        for store in &mut stores {
            let wait = waits::<K, _>(store, 4);
            runs.push(runner(store, ONCE, [wait])?);
        }
        let mut calls: Vec<_> = stacks
            .iter_mut()
            .zip(&mut stores)
            .zip(&runs)
            .map(|((stack, store), run)| run.call_on(stack, store, &[], &mut []))
            .collect();
        // On a thread, then on a foreign fiber, then on a thread again.
        assert!(poll_once(&mut calls[0]).is_pending());
        on_another_fiber(|| {
            for call in &mut calls {
                assert!(poll_once(call).is_pending());
            }
            assert!(is_fiber());
            // A stack can be made, used and dropped there, too.
            assert_usable(&mut self::stack::<K>(), &mut store(Code::Pulley)).expect("works there");
        });
        for call in calls {
            finish(call)?;
        }
        // A call is dropped there.
        on_another_fiber(|| {
            let mut stack = self::stack::<K>();
            let mut store = store(Code::Pulley);
            let wait = waits::<K, _>(&mut store, 2);
            let mut call = wait.call_on(&mut stack, &mut store, &[], &mut []);
            assert!(poll_once(&mut call).is_pending());
        });
        Ok(())
    }
    each([test::<Fiber>, test::<SendFiber>])
}

/// The first variable of a thread that has a destructor is set on a fiber here.
#[test]
fn variables_of_a_thread_are_dropped_with_it() -> Result<()> {
    thread_local!(static HELD: RefCell<Vec<OnDrop>> = const { RefCell::new(Vec::new()) });

    fn test<K: Kind>(log: &Log) -> Result<()> {
        let mut store = store(Code::Pulley);
        let inner = log.clone();
        let hold = Func::wrap(&mut store, move || {
            HELD.with_borrow_mut(|held| held.push(inner.on_drop("a variable of the thread")));
        });
        let run = runner(&mut store, ONCE, [hold])?;
        let mut stack = stack::<K>();
        finish(run.call_on(&mut stack, &mut store, &[], &mut []))?;
        drop((stack, store));
        assert!(log.take().is_empty(), "dropped with a stack");
        Ok(())
    }
    for test in [test::<Fiber>, test::<SendFiber>] {
        let log = Log::default();
        let inner = log.clone();
        thread::spawn(move || test(&inner)).join().expect("does not panic")?;
        assert_eq!(log.take(), ["a variable of the thread"]);
    }
    Ok(())
}

/// When a fiber is deleted, the system notifies the code that has stored something for it.
#[test]
fn fibers_go_with_their_stack() -> Result<()> {
    static DELETED: AtomicUsize = AtomicUsize::new(0);

    unsafe extern "system" fn note(_: *const c_void) {
        DELETED.fetch_add(1, Ordering::Relaxed);
    }

    fn test<K: Kind>() -> Result<()> {
        // SAFETY: this has no requirement.
        let index = unsafe { FlsAlloc(Some(note)) };
        assert_ne!(index, u32::MAX);
        DELETED.store(0, Ordering::Relaxed);
        let mut stack = stack::<K>();
        for forgets in [false, false, true] {
            let mut store = store(Code::Pulley);
            let marks = Func::wrap_suspending_send(&mut store, move || async move {
                // SAFETY: any value is allowed.
                assert_ne!(unsafe { FlsSetValue(index, ptr::dangling()) }, 0);
                pending(1).await;
            });
            let run = runner(&mut store, ONCE, [marks])?;
            let mut call = run.call_on(&mut stack, &mut store, &[], &mut []);
            assert!(poll_once(&mut call).is_pending());
            if forgets {
                mem::forget(call);
            } else {
                finish(call)?;
            }
        }
        drop(mem::replace(&mut stack, self::stack::<K>()));
        assert_eq!(DELETED.load(Ordering::Relaxed), 0, "a fiber with a call on it");
        let mut store = store(Code::Pulley);
        let marks = Func::wrap(&mut store, move || {
            // SAFETY: any value is allowed.
            assert_ne!(unsafe { FlsSetValue(index, ptr::dangling()) }, 0);
        });
        finish(marks.call_on(&mut stack, &mut store, &[], &mut []))?;
        assert_eq!(DELETED.load(Ordering::Relaxed), 0);
        // On a thread that did not make it, and was not a fiber.
        thread::spawn(|| drop(stack)).join().expect("does not panic");
        assert_eq!(DELETED.load(Ordering::Relaxed), 1);
        Ok(())
    }
    each([test::<Fiber>, test::<SendFiber>])
}
