//! The ambient state of a call: it is there while the call's code runs, and no longer.

use crate::common::futures::{finish, pending, poll_once};
use crate::common::moving::elsewhere;
use crate::support::guest::{ONCE, assert_usable, runner, stack, store};
use crate::support::{Code, Kind, matrix};
use std::cell::Cell;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{mem, thread};
use wasmtime::{Func, Result};
use wasmtime_async::{Error, FuncExt, Stack, suspend_until};

matrix!(
    is_there_while_the_call_runs,
    is_there_when_the_call_is_dropped,
    stays_with_the_stack,
    panics_do_not_reach_the_call,
    cannot_suspend,
    each_stack_has_its_own,
);

thread_local!(static TITLE: Cell<u32> = const { Cell::new(0) });

/// Restores the thread's title when it is dropped.
struct Entitled(u32);

impl Drop for Entitled {
    fn drop(&mut self) {
        TITLE.set(self.0);
    }
}

/// Runs something on a thread with a title, and checks that the thread keeps it.
fn titled<R>(title: u32, f: impl FnOnce() -> R) -> R {
    elsewhere(|| {
        let _entitled = Entitled(TITLE.replace(title));
        let result = f();
        assert_eq!(TITLE.get(), title);
        result
    })
}

/// Carries the poller's title over, plus a number.
fn carry(stack: &mut impl Stack, plus: u32) {
    stack.set_ambient(move || {
        let title = TITLE.get() + plus;
        move || Entitled(TITLE.replace(title))
    });
}

/// A host function that notes its title before and after it is suspended, and when it is dropped.
fn notes<T: 'static>(store: &mut wasmtime_async::Store<T>) -> (Func, Arc<AtomicU32>) {
    struct Note(Arc<AtomicU32>);
    impl Note {
        fn add(&self) {
            self.0.store(self.0.load(Ordering::Relaxed) * 100 + TITLE.get(), Ordering::Relaxed);
        }
    }
    impl Drop for Note {
        fn drop(&mut self) {
            self.add();
        }
    }
    let seen = Arc::new(AtomicU32::new(0));
    let inner = Arc::clone(&seen);
    let note = Func::wrap_suspending_send(store, move || {
        let note = Note(Arc::clone(&inner));
        async move {
            note.add();
            pending(1).await;
            note.add();
            pending(1).await;
        }
    });
    (note, seen)
}

fn is_there_while_the_call_runs<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    carry(&mut stack, 1);
    let mut store = store(code);
    let (note, seen) = notes(&mut store);
    let run = runner(&mut store, ONCE, [note])?;
    let mut call = run.call_on(&mut stack, &mut store, &[], &mut []);
    assert!(titled(10, || poll_once(&mut call)).is_pending());
    assert!(titled(20, || poll_once(&mut call)).is_pending());
    assert!(titled(30, || poll_once(&mut call)).is_ready());
    assert_eq!(seen.load(Ordering::Relaxed), 11_21_31);
    drop(call);
    assert_usable(&mut stack, &mut store)
}

fn is_there_when_the_call_is_dropped<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    carry(&mut stack, 1);
    let mut store = store(code);
    let (note, seen) = notes(&mut store);
    let run = runner(&mut store, ONCE, [note])?;
    let mut call = run.call_on(&mut stack, &mut store, &[], &mut []);
    assert!(titled(10, || poll_once(&mut call)).is_pending());
    titled(40, || drop(call));
    assert_eq!(seen.load(Ordering::Relaxed), 11_41);
    assert_usable(&mut stack, &mut store)
}

/// This also holds after a call was forgotten, when the stack must be made again.
fn stays_with_the_stack<K: Kind>(code: Code) -> Result<()> {
    let mut stack = stack::<K>();
    carry(&mut stack, 1);
    for forget in [false, true, false] {
        let mut store = store(code);
        let (note, seen) = notes(&mut store);
        let run = runner(&mut store, ONCE, [note])?;
        let mut call = run.call_on(&mut stack, &mut store, &[], &mut []);
        assert!(poll_once(&mut call).is_pending());
        if forget {
            mem::forget(call);
        } else {
            finish(call)?;
        }
        assert_eq!(seen.load(Ordering::Relaxed), if forget { 1 } else { 1_01_01 });
    }
    carry(&mut stack, 2);
    let mut store = store(code);
    let (note, seen) = notes(&mut store);
    finish(note.call_on(&mut stack, &mut store, &[], &mut []))?;
    assert_eq!(seen.load(Ordering::Relaxed), 2_02_02, "what was set last counts");
    // A new stack has no hook.
    drop(stack);
    let (note, seen) = notes(&mut store);
    finish(note.call_on(&mut self::stack::<K>(), &mut store, &[], &mut []))?;
    assert_eq!(seen.load(Ordering::Relaxed), 0);
    Ok(())
}

fn panics_do_not_reach_the_call<K: Kind>(code: Code) -> Result<()> {
    struct Leave(bool);
    impl Drop for Leave {
        fn drop(&mut self) {
            if self.0 && !thread::panicking() {
                resume_unwind(Box::new("leave"));
            }
        }
    }
    for place in ["capture", "enter", "leave"] {
        let mut stack = stack::<K>();
        stack.set_ambient(move || {
            if place == "capture" {
                resume_unwind(Box::new("capture"));
            }
            move || {
                if place == "enter" {
                    resume_unwind(Box::new("enter"));
                }
                Leave(place == "leave")
            }
        });
        assert_usable(&mut stack, &mut store(code))?;
    }
    Ok(())
}

/// The hook can suspend neither the stack that is entered, nor the stack on which its call is polled.
fn cannot_suspend<K: Kind>(code: Code) -> Result<()> {
    struct Waits;
    impl Drop for Waits {
        fn drop(&mut self) {
            waits();
        }
    }
    fn waits() {
        assert!(matches!(suspend_until(pending(1)), Err(Error::NotOnStack)));
        WAITED.fetch_add(1, Ordering::Relaxed);
    }
    static WAITED: AtomicU32 = AtomicU32::new(0);

    let mut store = store(code);
    let inner = Func::wrap_suspending_send(&mut store, move || {
        let mut stack = stack::<K>();
        stack.set_ambient(|| {
            waits();
            || {
                waits();
                Waits
            }
        });
        std::future::ready(assert_usable(&mut stack, &mut self::store(code)))
    });
    let run = runner(&mut store, ONCE, [inner])?;
    let mut stack = stack::<K>();
    let before = WAITED.load(Ordering::Relaxed);
    finish(run.call_on(&mut stack, &mut store, &[], &mut []))?;
    assert!(WAITED.load(Ordering::Relaxed) > before);
    Ok(())
}

/// A call within a host function of another call.
fn each_stack_has_its_own<K: Kind>(code: Code) -> Result<()> {
    let mut outer = stack::<K>();
    carry(&mut outer, 1);
    let mut store = store(code);
    let inner = move || -> Result<i32> {
        let mut inner = stack::<K>();
        carry(&mut inner, 10);
        let mut store = self::store(code);
        let (note, seen) = notes(&mut store);
        finish(note.call_on(&mut inner, &mut store, &[], &mut []))?;
        Ok(i32::try_from(seen.load(Ordering::Relaxed))?)
    };
    let call = Func::wrap_suspending_send(&mut store, move || std::future::ready(inner()));
    let call = call.get_async(&store).get0::<i32>()?;
    assert_eq!(finish(call.call(&mut outer, &mut store, ()))?, 11_11_11);
    assert_eq!(TITLE.get(), 0);
    Ok(())
}
