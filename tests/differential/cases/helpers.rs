//! Threads that poll what may change threads, each time another one than the last time.

use futures::future::BoxFuture;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context, Poll, Waker};
use std::thread::{self, Scope};

/// A future that may change threads.
pub(crate) struct Traveller<'a, T> {
    /// `None` while a helper has it.
    future: Option<BoxFuture<'a, T>>,
    polls: usize,
}

impl<'a, T> Traveller<'a, T> {
    pub(crate) fn new(future: BoxFuture<'a, T>) -> Self {
        Self { future: Some(future), polls: 0 }
    }
}

/// See the module's documentation. Whoever has them waits while they work.
pub(crate) struct Helpers<'a, T>([Helper<'a, T>; 2]);

struct Helper<'a, T> {
    errands: Sender<(BoxFuture<'a, T>, Waker)>,
    results: Receiver<(BoxFuture<'a, T>, thread::Result<Poll<T>>)>,
}

impl<'a, T: Send> Helpers<'a, T> {
    /// Starts the threads, which end when these are dropped.
    pub(crate) fn start<'scope>(scope: &'scope Scope<'scope, '_>) -> Self
    where
        'a: 'scope,
        T: 'scope,
    {
        Self([Helper::start(scope), Helper::start(scope)])
    }

    /// Polls a future on another thread, and goes on with its panic.
    pub(crate) fn poll(&self, traveller: &mut Traveller<'a, T>, waker: Waker) -> Poll<T> {
        let Helper { errands, results } = &self.0[traveller.polls % self.0.len()];
        traveller.polls += 1;
        errands.send((traveller.future.take().expect("comes back each time"), waker)).expect("the thread is there");
        let (future, polled) = results.recv().expect("the thread is there");
        traveller.future = Some(future);
        polled.unwrap_or_else(|payload| panic::resume_unwind(payload))
    }
}

impl<'a, T: Send> Helper<'a, T> {
    fn start<'scope>(scope: &'scope Scope<'scope, '_>) -> Self
    where
        'a: 'scope,
        T: 'scope,
    {
        let (errands, inbox) = channel::<(BoxFuture<'a, T>, Waker)>();
        let (outbox, results) = channel();
        scope.spawn(move || {
            for (mut future, waker) in inbox {
                let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut Context::from_waker(&waker))));
                // Before its task is looked at.
                drop(waker);
                if outbox.send((future, polled)).is_err() {
                    break;
                }
            }
        });
        Self { errands, results }
    }
}
