//! Runs many tasks on one thread, in random order, so that a lost wake-up shows.

use crate::random::Random;
use crate::usage::Alive;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// Wakers that wait to be fired by their executor.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timers(Arc<Mutex<Vec<Waker>>>);

impl Timers {
    fn with<R>(&self, f: impl FnOnce(&mut Vec<Waker>) -> R) -> R {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until its executor has fired it, or at once for every third number.
    pub(crate) async fn wait(&self, number: i32) {
        let _alive = Alive::new();
        let mut waited = number % 3 == 0;
        poll_fn(|cx| {
            if waited {
                return Poll::Ready(());
            }
            waited = true;
            self.with(|wakers| wakers.push(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

/// Which tasks of an executor have been woken.
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
        // ORDERING: what happened before is seen by whoever locks the list.
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.woken.0.lock().unwrap_or_else(PoisonError::into_inner).push(self.task);
        }
    }
}

/// A task that borrows.
pub(crate) type Task<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Runs tasks that wait for nothing but these timers, woken ones in a random order, until it is time to stop. Then drops
/// them as they are.
///
/// # Errors
///
/// If no task is woken, and there is no timer left that could wake one.
pub(crate) fn execute(
    tasks: Vec<Task<'_>>,
    timers: &Timers,
    random: &mut Random,
    is_over: impl Fn() -> bool,
) -> Result<(), &'static str> {
    let mut tasks: Vec<_> = tasks.into_iter().map(Some).collect();
    let woken = Arc::<Woken>::default();
    let wakers: Vec<_> = (0..tasks.len())
        .map(|task| {
            let waker = TaskWaker { task, queued: AtomicBool::new(false), woken: woken.clone(), _alive: Alive::new() };
            Arc::new(waker)
        })
        .collect();
    wakers.iter().for_each(Wake::wake_by_ref);

    let mut outcome = Ok(());
    while outcome.is_ok() && !is_over() {
        let task = random.take(&mut woken.0.lock().unwrap_or_else(PoisonError::into_inner));
        let timer = if task.is_none() || random.below(2) == 0 { timers.with(|all| random.take(all)) } else { None };
        if task.is_none() && timer.is_none() {
            outcome = Err("a wake-up was lost");
        }
        if let Some(waker) = timer {
            waker.wake();
        }
        let Some(task) = task else { continue };
        // ORDERING: only this thread clears it, and it polls after that.
        wakers[task].queued.store(false, Ordering::Relaxed);
        let waker = Waker::from(wakers[task].clone());
        if let Some(future) = &mut tasks[task]
            && future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready()
        {
            tasks[task] = None;
        }
    }
    // With calls in flight.
    while let Some(task) = random.take(&mut tasks) {
        drop(task);
    }
    timers.with(Vec::clear);
    outcome
}
