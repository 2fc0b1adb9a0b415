//! The tools that the models use.

use crate::stack::thread::cache::Cache;
use crate::stack::thread::runner::Service;
use crate::sync;
use crate::{Store, ThreadStack};
use loom::sync::{Condvar, Mutex};
use std::future::{Future, poll_fn};
use std::io::{self, Write as _};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};
use wasmtime::Engine;

/// The size of a stack. Threads of a model ignore it.
pub const SIZE: usize = 1 << 20;
/// How long workers wait in a cache where time stands still.
pub const FOREVER: Duration = Duration::from_secs(1);
/// How long workers wait in a cache where the time may be over whenever they look.
pub const OVER: Duration = Duration::ZERO;

static ENGINE: LazyLock<Engine> = LazyLock::new(Engine::default);

/// Explores a model with at most this many preemptions in one execution, and prints how many executions there were.
pub fn model(name: &str, preemptions: Option<usize>, f: impl Fn() + Send + Sync + 'static) {
    // Outside of an execution, which has little room on the stack.
    LazyLock::force(&ENGINE);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.max_branches = 20_000;
    let executions = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&executions);
    let begun = Instant::now();
    builder.check(move || {
        count.fetch_add(1, Ordering::Relaxed);
        f();
    });
    let preemptions = preemptions.map_or("any".to_owned(), |bound| format!("{bound}"));
    let executions = executions.load(Ordering::Relaxed);
    assert!(executions > 1, "nothing was explored");
    // Not with `println`, which the test runner captures.
    let line = format!(
        "model={name} preemptions={preemptions} executions={executions} seconds={}\n",
        begun.elapsed().as_secs()
    );
    io::stdout().write_all(line.as_bytes()).unwrap();
}

/// A cache of workers.
pub fn cache(bound: usize, limit: Duration) -> sync::Arc<Cache<Service>> {
    sync::Arc::new(Cache::new(bound, limit, Service::work))
}

/// A stack with a worker from the cache.
pub fn stack(cache: &sync::Arc<Cache<Service>>) -> ThreadStack {
    ThreadStack::with_cache(SIZE, cache.clone()).unwrap()
}

/// A store whose data loom watches.
pub fn new_store() -> Store<Tracked> {
    Store::new(&ENGINE, Tracked::default())
}

/// A number that two threads must not use at the same time.
#[derive(Debug, Default)]
pub struct Tracked(loom::cell::Cell<i32>);

// SAFETY: none, loom reports a race.
unsafe impl Send for Tracked {}
// SAFETY: none, loom reports a race.
unsafe impl Sync for Tracked {}

impl Tracked {
    pub fn get(&self) -> i32 {
        self.0.get()
    }

    /// Adds to the number, and returns the sum.
    pub fn add(&self, n: i32) -> i32 {
        self.0.set(self.0.get() + n);
        self.0.get()
    }
}

/// A task of an executor. Waking it wakes the thread that waits.
#[derive(Debug)]
pub struct Task(Arc<Flag>);

#[derive(Debug)]
struct Flag {
    woken: Mutex<bool>,
    changed: Condvar,
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        *self.woken.lock().unwrap() = true;
        self.changed.notify_one();
    }
}

impl Task {
    pub fn new() -> Self {
        Self(Arc::new(Flag { woken: Mutex::new(false), changed: Condvar::new() }))
    }

    pub fn poll<F: Future + Unpin>(&self, future: &mut F) -> Poll<F::Output> {
        Pin::new(future).poll(&mut Context::from_waker(&Waker::from(Arc::clone(&self.0))))
    }

    pub fn is_woken(&self) -> bool {
        *self.0.woken.lock().unwrap()
    }

    /// Waits to be woken. If nothing wakes it, that is a deadlock, which loom reports.
    pub fn wait(&self) {
        let mut woken = self.0.woken.lock().unwrap();
        while !*woken {
            woken = self.0.changed.wait(woken).unwrap();
        }
        *woken = false;
    }

    pub fn assert_no_waker_left(&self) {
        assert_eq!(Arc::strong_count(&self.0), 1, "a waker was kept");
    }
}

/// Polls whenever it is woken until the future is ready, and checks that no waker is left.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let task = Task::new();
    let output = {
        let mut future = pin!(future);
        loop {
            if let Poll::Ready(output) = task.poll(&mut future) {
                break output;
            }
            task.wait();
        }
    };
    task.assert_no_waker_left();
    output
}

/// Something that happens once.
#[derive(Debug, Clone)]
pub struct Event(Arc<Mutex<EventState>>);

#[derive(Debug)]
enum EventState {
    Awaited(Option<Waker>),
    Happened,
}

impl Event {
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(EventState::Awaited(None))))
    }

    pub fn set(&self) {
        let was = std::mem::replace(&mut *self.0.lock().unwrap(), EventState::Happened);
        if let EventState::Awaited(Some(waker)) = was {
            waker.wake();
        }
    }

    pub fn wait(&self) -> impl Future<Output = ()> {
        poll_fn(|cx| match &mut *self.0.lock().unwrap() {
            EventState::Awaited(waker) => {
                *waker = Some(cx.waker().clone());
                Poll::Pending
            }
            EventState::Happened => Poll::Ready(()),
        })
    }
}
