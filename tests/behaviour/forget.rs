//! Calls that are forgotten: nothing of theirs runs any more, and nothing of theirs is used for anything else.
#![expect(unsafe_code, reason = "looks at memory that must still be there")]

use crate::common::futures::poll_once;
use crate::support::guest::{assert_usable, runner, stack, store};
use crate::support::{AnyStack, Code, matrix};
use std::future::Future;
use std::marker::PhantomPinned;
use std::mem;
use std::pin::Pin;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use wasmtime::{Func, Result};
use wasmtime_async::{DEFAULT_STACK_SIZE, FuncExt, suspend_until};

matrix!(pinned_memory_is_left_alone, nothing_runs, the_stack_works_on);

/// Waits for ever, having told where it is, as a future does that others refer to as long as it is pinned and not
/// dropped.
struct Pinned {
    words: [usize; 64],
    place: Arc<AtomicUsize>,
    _stays: PhantomPinned,
}

impl Pinned {
    fn new(place: &Arc<AtomicUsize>) -> Self {
        Self { words: [0x5afe; 64], place: Arc::clone(place), _stays: PhantomPinned }
    }
}

impl Future for Pinned {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        self.place.store(ptr::from_ref(&self.words).expose_provenance(), Ordering::Relaxed);
        Poll::Pending
    }
}

fn pinned_memory_is_left_alone<S: AnyStack>(code: Code) -> Result<()> {
    let mut stack = stack::<S>();
    let mut places = Vec::new();
    for _ in 0..3 {
        let mut store = store(code);
        let place = Arc::new(AtomicUsize::new(0));
        let inner = Arc::clone(&place);
        let wait = Func::wrap_suspending(&mut store, async move || Pinned::new(&inner).await);
        let run = runner(&mut store, r#"(module (import "" "" (func)) (func (export "run") (call 0)))"#, [wait])?;
        let mut call = run.call_on(&mut stack, &mut store, &[], &mut []);
        assert!(poll_once(&mut call).is_pending());
        mem::forget(call);
        places.push(place.load(Ordering::Relaxed));
    }

    // Overwrite what can be overwritten, here and on other stacks.
    for stacks in 0..4 {
        for _ in 0..3 {
            let mut store = store(code);
            let recurse = r#"(module (func (export "run") (call 0) (call 0)))"#;
            let run = runner(&mut store, recurse, [])?;
            let mut call = stack.go(&mut store, |mut store| {
                fill(100);
                run.call(&mut store, &[], &mut [])
            });
            assert!(matches!(poll_once(&mut call), Poll::Ready(Err(_))));
            drop(call);
            assert_usable(&mut stack, &mut store)?;
        }
        if stacks < 2 {
            stack = self::stack::<S>();
        }
    }
    drop(stack);

    for place in places {
        assert_ne!(place, 0);
        let words = ptr::with_exposed_provenance::<[usize; 64]>(place);
        // SAFETY: a value that was pinned, and was not dropped, is there as it was for ever.
        let words = unsafe { words.read_volatile() };
        assert_eq!(words, [0x5afe; 64]);
    }
    Ok(())
}

/// Writes to a good part of the stack.
fn fill(frames: usize) -> usize {
    let mut words = [frames; 1024];
    std::hint::black_box(&mut words);
    if frames == 0 { words[0] } else { fill(frames - 1) + words[frames] }
}

fn nothing_runs<S: AnyStack>(code: Code) -> Result<()> {
    let mut stack = stack::<S>();
    let mut store = store(code);
    let log = store.data().log.clone();
    let inner = log.clone();
    let mut call = stack.go(&mut store, move |_| {
        let _local = inner.on_drop("closure");
        Ok(suspend_until(std::future::pending::<()>())?)
    });
    assert!(poll_once(&mut call).is_pending());
    mem::forget(call);
    drop(stack);
    drop(store);
    assert!(log.take().is_empty());
    Ok(())
}

fn the_stack_works_on<S: AnyStack>(code: Code) -> Result<()> {
    let mut stack = stack::<S>();
    for round in 0..20 {
        let mut store = store(code);
        let mut call = stack.go(&mut store, move |_| {
            if round % 2 == 0 {
                suspend_until(std::future::pending::<()>())?;
            }
            Ok(round)
        });
        // Forgotten while it is suspended, after its end, and before its start.
        if round % 3 != 0 {
            assert_eq!(poll_once(&mut call).is_pending(), round % 2 == 0);
        }
        mem::forget(call);
        assert_eq!(stack.size(), DEFAULT_STACK_SIZE);
        assert_usable(&mut stack, &mut self::store(code))?;
    }
    Ok(())
}
