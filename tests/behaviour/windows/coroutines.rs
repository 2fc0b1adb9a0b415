//! Coroutines of another library, which sets the thread's record of the running stack itself. They poll calls, or are
//! suspended within one. Afterwards the record is right again, so that their stack can be extended, and panics be caught.

use super::{each, on_another_fiber};
use crate::common::futures::{finish, pending, poll_once};
use crate::support::guest::{ONCE, assert_usable, runner, stack, store, waits};
use crate::support::{Code, Fiber, Kind, SendFiber, Unchecked};
use corosensei::on_stack;
use corosensei::stack::DefaultStack;
use std::arch::asm;
use std::hint::black_box;
use std::panic::{catch_unwind, resume_unwind};
use wasmtime::{Func, Result, ensure};
use wasmtime_async::{AsyncFunc, FuncExt, suspend_until};

/// What the system records for the thread about the running stack.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Record {
    base: usize,
    allocation: usize,
    /// Whether the limit lies on the stack, and this code above it.
    limit_fits: bool,
}

#[inline(never)]
fn record() -> Record {
    let (base, limit, allocation): (usize, usize, usize);
    // SAFETY: this reads the fields of the thread's block.
    unsafe {
        asm!(
            "mov {}, gs:[0x8]", "mov {}, gs:[0x10]", "mov {}, gs:[0x1478]",
            out(reg) base, out(reg) limit, out(reg) allocation,
            options(nostack, readonly, preserves_flags),
        );
    }
    let here = (&raw const base).addr();
    Record { base, allocation, limit_fits: (allocation..here).contains(&limit) && here < base }
}

/// What code on a stack of the other library saw.
#[derive(Default)]
struct Seen {
    records: Vec<Record>,
    caught: Vec<bool>,
}

impl Seen {
    /// Notes the record, and whether a panic is caught here.
    fn note(&mut self) {
        self.records.push(record());
        // With a wrong record, this would end the process.
        if self.records[0] == record() {
            self.caught.push(catch_unwind(|| resume_unwind(Box::new(1))).is_err());
        }
    }

    /// Does not panic, because this runs on foreign fibers, too.
    fn check(&self, notes: usize) -> Result<()> {
        let Self { records, caught } = self;
        ensure!(records[0].limit_fits && *records == vec![records[0]; notes], "{records:#x?}");
        ensure!(*caught == vec![true; notes], "caught: {caught:?}");
        Ok(())
    }
}

fn on_other_stack<R>(f: impl FnOnce() -> R) -> R {
    on_stack(DefaultStack::new(4 << 20).expect("there is memory"), f)
}

/// Makes, polls and drops calls on such a stack.
fn polls_on_other_stack<K: Kind>() -> Result<()> {
    let before = record();
    let mut seen = Seen::default();
    on_other_stack(|| -> Result<()> {
        seen.note();
        let mut stack = stack::<K>();
        let mut store = store(Code::Pulley);
        let wait = waits::<K, _>(&mut store, 2);
        let run = runner(&mut store, ONCE, [wait])?;
        for polls in [1, 3] {
            let mut call = run.call_on(&mut stack, &mut store, &[], &mut []);
            for _ in 0..polls {
                let _ = poll_once(&mut call);
                seen.note();
            }
            drop(call);
            seen.note();
        }
        drop(stack);
        seen.note();
        Ok(())
    })?;
    ensure!(record() == before, "{before:#x?}, then {:#x?}", record());
    seen.check(8)
}

#[test]
fn on_a_thread() -> Result<()> {
    each([polls_on_other_stack::<Fiber>, polls_on_other_stack::<SendFiber>])
}

#[test]
fn on_a_foreign_fiber() -> Result<()> {
    fn test<K: Kind>() -> Result<()> {
        let mut result = Ok(());
        on_another_fiber(|| result = polls_on_other_stack::<K>());
        result
    }
    each([test::<Fiber>, test::<SendFiber>])
}

#[test]
fn in_a_host_function() -> Result<()> {
    fn test<K: Kind>() -> Result<()> {
        let mut stack = stack::<K>();
        let mut store = store(Code::Pulley);
        let polls = Func::wrap(&mut store, polls_on_other_stack::<K>);
        finish(runner(&mut store, ONCE, [polls])?.call_on(&mut stack, &mut store, &[], &mut []))?;
        assert_usable(&mut stack, &mut store)
    }
    each([test::<Fiber>, test::<SendFiber>])
}

/// Suspends a call in the middle of such a coroutine, which the code on the stack has entered.
#[test]
fn suspended_in_the_middle() -> Result<()> {
    fn test() -> Result<()> {
        let mut stack = stack::<Unchecked>();
        let mut store = store(Code::Pulley);
        let waits = Func::wrap(&mut store, || -> Result<()> {
            on_other_stack(|| {
                let mut seen = Seen::default();
                seen.note();
                suspend_until(pending(2))?;
                seen.note();
                seen.check(2)
            })
        });
        let run = runner(&mut store, ONCE, [waits])?;
        let mut call = run.call_on(&mut stack, &mut store, &[], &mut []);
        assert!(poll_once(&mut call).is_pending());
        finish(call)?;
        assert_usable(&mut stack, &mut store)
    }
    each([test, test])
}

/// Such a coroutine polls or drops a call anywhere on its stack, and uses more of its stack afterwards.
#[test]
fn extended_afterwards() -> Result<()> {
    #[inline(never)]
    fn deeper(frames: usize, f: &mut dyn FnMut()) {
        let used = black_box([0_u64; 8]);
        if frames == 0 {
            f();
        } else {
            deeper(frames - 1, f);
        }
        black_box(used);
    }

    fn test<K: Kind>() -> Result<()> {
        const DEPTHS: usize = 60;
        let mut stack = stack::<K>();
        let mut store = store(Code::Pulley);
        let wait = waits::<K, _>(&mut store, DEPTHS);
        let run = runner(&mut store, ONCE, [wait])?;
        let mut call = run.call_on(&mut stack, &mut store, &[], &mut []);
        on_another_fiber(|| {
            for depth in 0..DEPTHS {
                on_other_stack(|| {
                    deeper(depth, &mut || assert!(poll_once(&mut call).is_pending()));
                    deeper(1000, &mut || ());
                });
                let mut dropped = boxed::<K>();
                assert!(poll_once(&mut dropped).is_pending());
                let mut dropped = Some(dropped);
                on_other_stack(|| {
                    deeper(depth, &mut || drop(dropped.take()));
                    deeper(1000, &mut || ());
                });
            }
        });
        finish(call)
    }
    each([test::<Fiber>, test::<SendFiber>])
}

/// A call that is pending once, with its stack and its store.
fn boxed<K: Kind>() -> K::Boxed {
    let mut store = store(Code::Pulley);
    let wait = Func::wrap_suspending_send(&mut store, |n: i32| async move {
        pending(1).await;
        n
    });
    let run = wait.typed(&store).expect("is its type");
    K::boxed(stack::<K>(), store, AsyncFunc::from(run), 0)
}
