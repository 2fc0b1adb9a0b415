//! Threads that poll tasks that may change threads. Each poll of a task is on another thread than the last.

use futures::future::BoxFuture;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context, Poll, Waker};
use std::thread::{self, Scope};

/// A task that may change threads.
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

/// See the module's documentation. The owner waits while the helpers work.
pub(crate) struct Helpers<'a, T>([Helper<'a, T>; 2]);

struct Helper<'a, T> {
    errands: Sender<(BoxFuture<'a, T>, Waker)>,
    results: Receiver<(BoxFuture<'a, T>, thread::Result<Poll<T>>)>,
}

impl<'a, T: Send> Helpers<'a, T> {
    /// Starts the threads. They end when this is dropped.
    pub(crate) fn start<'scope>(scope: &'scope Scope<'scope, '_>) -> Self
    where
        'a: 'scope,
        T: 'scope,
    {
        Self([Helper::start(scope), Helper::start(scope)])
    }

    /// Polls a future on another thread, and propagates its panic.
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
                // Drops the waker before the driver looks at its task.
                drop(waker);
                if outbox.send((future, polled)).is_err() {
                    break;
                }
            }
        });
        Self { errands, results }
    }
}
