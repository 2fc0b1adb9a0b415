//! Polls on other threads. The calls on some stacks are `Send`, and must give the same result wherever they continue.
#![expect(
    unsafe_code,
    reason = "generic code cannot show that calls are `Send`, and a thread does not know that it is waited for"
)]

use std::cell::RefCell;
use std::future::Future;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::mpsc::{Sender, channel};
use std::task::{Context, Poll};
use std::thread;

/// How many threads take turns. They all exist at the same time, so their variables have different addresses.
const THREADS: usize = 3;

thread_local!(static OTHERS: RefCell<Option<Others>> = const { RefCell::new(None) });

/// The threads that work for this one.
struct Others {
    tasks: [Sender<Task<'static>>; THREADS],
    next: usize,
}

type Task<'a> = Box<dyn FnOnce() + Send + 'a>;

/// Runs a test whose calls change threads. What the test passes to [`elsewhere`] runs on a few other threads in turn.
pub(crate) fn moving<R>(test: impl FnOnce() -> R) -> R {
    /// Ends the threads, because the scope waits for them.
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            OTHERS.take();
        }
    }

    thread::scope(|scope| {
        let tasks = [(); THREADS].map(|()| {
            let (sender, tasks) = channel::<Task<'static>>();
            scope.spawn(move || tasks.iter().for_each(|task| task()));
            sender
        });
        OTHERS.set(Some(Others { tasks, next: 0 }));
        let _end = End;
        test()
    })
}

/// In a [`moving`] test, runs this on another thread than the last time. Everywhere else, runs it right here. That
/// includes code that already runs elsewhere, so that a poll inside a host function stays inside it.
pub(crate) fn elsewhere<R>(f: impl FnOnce() -> R) -> R {
    let next = OTHERS.with_borrow_mut(|others| {
        let others = others.as_mut()?;
        others.next = (others.next + 1) % THREADS;
        Some(others.tasks[others.next].clone())
    });
    let Some(next) = next else { return f() };
    let (sender, ended) = channel();
    let f = Sent(f);
    let task: Task<'_> = Box::new(move || {
        let result = catch_unwind(AssertUnwindSafe(f.into_inner()));
        sender.send(Sent(result)).expect("is waited for");
    });
    // SAFETY: this waits until the task has ended, and nothing of what it was given remains.
    let task = unsafe { mem::transmute::<Task<'_>, Task<'static>>(task) };
    next.send(task).expect("the thread is there until the test ends");
    ended.recv().expect("panics are caught").into_inner().unwrap_or_else(|payload| resume_unwind(payload))
}

/// Makes a future that holds calls on some kind of stack `Send`, for host functions that need this.
pub(crate) fn sent<F: Future>(future: F) -> impl Future<Output = F::Output> + Send {
    Sent(future)
}

/// See [`elsewhere`] and [`sent`].
struct Sent<T>(T);

impl<T> Sent<T> {
    fn into_inner(self) -> T {
        self.0
    }
}

// SAFETY: in tests whose calls change threads, everything held is `Send`, or one thread after another uses it. The
// calls are `Send` by their types, as `tests/behaviour/auto_traits.rs` proves. With other stacks, everything stays on
// one thread.
unsafe impl<T> Send for Sent<T> {}

impl<F: Future> Future for Sent<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        // SAFETY: the future is pinned together with this, and is never moved out of a pinned one.
        unsafe { self.map_unchecked_mut(|this| &mut this.0) }.poll(cx)
    }
}
