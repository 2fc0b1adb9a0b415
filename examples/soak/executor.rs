//! Runs many tasks, and polls woken ones in a random order, so that a lost wake-up is noticed.

use crate::random::Random;
use crate::usage::Alive;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// Wakers that an executor will fire.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timers(Arc<Mutex<Vec<Waker>>>);

impl Timers {
    /// Waits until an executor has fired the waker. Every third number wakes at once.
    pub(crate) async fn wait(&self, number: i32) {
        let _alive = Alive::new();
        let mut waited = number % 3 == 0;
        poll_fn(|cx| {
            if waited {
                return Poll::Ready(());
            }
            waited = true;
            lock(&self.0).push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// The tasks that have been woken.
#[derive(Default)]
struct Woken(Mutex<Vec<usize>>);

struct TaskWaker {
    task: usize,
    queued: AtomicBool,
    woken: Arc<Woken>,
    _alive: Alive,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // ORDERING: pairs with the one in `Tasks::poll`, which polls afterwards.
        if !self.queued.swap(true, Ordering::AcqRel) {
            lock(&self.woken.0).push(self.task);
        }
    }
}

/// A task that stays with its executor.
pub(crate) type Local<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;
/// A task that all executors poll.
pub(crate) type Shared<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Tasks that only wait for their timers.
pub(crate) struct Tasks<F> {
    futures: Vec<Mutex<Option<F>>>,
    wakers: Vec<Arc<TaskWaker>>,
    woken: Arc<Woken>,
    timers: Timers,
}

impl<F: Future<Output = ()> + Unpin> Tasks<F> {
    pub(crate) fn new(futures: Vec<F>, timers: Timers) -> Self {
        let woken = Arc::<Woken>::default();
        let wakers: Vec<_> = (0..futures.len())
            .map(|task| {
                let woken = woken.clone();
                Arc::new(TaskWaker { task, queued: AtomicBool::new(false), woken, _alive: Alive::new() })
            })
            .collect();
        wakers.iter().for_each(Wake::wake_by_ref);
        Self { futures: futures.into_iter().map(|future| Mutex::new(Some(future))).collect(), wakers, woken, timers }
    }

    /// Fires a timer, polls a task, or both, if there is anything to do.
    fn step(&self, random: &mut Random) {
        let task = random.take(&mut lock(&self.woken.0));
        let fires = task.is_none() || random.below(2) == 0;
        let timer = if fires { random.take(&mut lock(&self.timers.0)) } else { None };
        if let Some(timer) = timer {
            timer.wake();
        }
        if let Some(task) = task {
            self.poll(task);
        }
    }

    fn poll(&self, task: usize) {
        // If a task is woken while another executor polls it, it is polled once more afterwards.
        let mut future = lock(&self.futures[task]);
        let waker = &self.wakers[task];
        // ORDERING: pairs with the one in `TaskWaker::wake_by_ref`, so that the poll sees what was done before the
        // wake-up.
        waker.queued.swap(false, Ordering::AcqRel);
        let waker = Waker::from(waker.clone());
        if let Some(pinned) = &mut *future
            && Pin::new(pinned).poll(&mut Context::from_waker(&waker)).is_ready()
        {
            *future = None;
        }
    }

    /// Drops the remaining tasks in a random order, when no executor polls them any more.
    ///
    /// # Errors
    ///
    /// If a task has not ended, and is neither woken nor waits for a timer.
    pub(crate) fn end(self, random: &mut Random) -> Result<(), &'static str> {
        let woken = lock(&self.woken.0);
        let timers = std::mem::take(&mut *lock(&self.timers.0));
        let is_lost = |(task, future): (usize, &Mutex<Option<F>>)| {
            let waker = Waker::from(self.wakers[task].clone());
            lock(future).is_some() && !woken.contains(&task) && !timers.iter().any(|timer| timer.will_wake(&waker))
        };
        let lost = self.futures.iter().enumerate().any(is_lost);
        drop(woken);
        let mut futures = self.futures;
        while let Some(future) = random.take(&mut futures) {
            drop(future);
        }
        if lost { Err("a wake-up was lost") } else { Ok(()) }
    }
}

/// Runs the tasks of one executor, and the shared ones, until it is time to stop. ([`Tasks::end`] detects lost
/// wake-ups.)
pub(crate) fn execute(
    own: &Tasks<Local<'_>>,
    shared: &Tasks<Shared<'_>>,
    random: &mut Random,
    is_over: impl Fn() -> bool,
) {
    while !is_over() {
        if random.below(2) == 0 { own.step(random) } else { shared.step(random) }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
