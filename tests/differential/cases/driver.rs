//! Polls many tasks one at a time in a random order, and checks that their wakers are handled correctly.
//!
//! Tasks that stay on their thread are polled on the driver's. Each poll of the others is on another thread.

use crate::cases::case::Wake;
use crate::cases::helpers::{Helpers, Traveller};
use crate::cases::random::Random;
use futures::future::LocalBoxFuture;
use std::future::{Future, poll_fn};
use std::panic::{self, AssertUnwindSafe};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;

/// The wakers of futures that wait until the driver fires them. It fires all wakers of a task together, and before the
/// task is polled for another reason. So each turn of a task advances each of its futures by one step, and how often
/// the task is pending does not depend on the order.
#[derive(Clone, Default, Debug)]
pub(crate) struct Timers(Arc<Mutex<Waiting>>);

#[derive(Default, Debug)]
struct Waiting {
    /// Counts the polls of tasks.
    turn: u64,
    /// The task that is being polled, or was polled last.
    task: usize,
    next: u64,
    wakers: Vec<Timer>,
}

#[derive(Debug)]
struct Timer {
    id: u64,
    task: usize,
    waker: Waker,
    wake: Wake,
}

impl Timers {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fires the wakers of a random task.
    fn fire(&self, random: &mut Random) {
        let task = {
            let waiting = self.lock();
            waiting.wakers[random.below(waiting.wakers.len())].task
        };
        self.fire_all_of(task);
    }

    fn fire_all_of(&self, task: usize) {
        let fired: Vec<_> = self.lock().wakers.extract_if(.., |timer| timer.task == task).collect();
        for Timer { waker, wake, .. } in fired {
            match wake {
                Wake::Elsewhere => thread::scope(|scope| {
                    scope.spawn(move || waker.wake());
                }),
                Wake::AtOnce | Wake::Later => waker.wake(),
            }
        }
    }

    fn begin_turn(&self, task: usize) {
        let mut waiting = self.lock();
        waiting.turn += 1;
        waiting.task = task;
    }

    fn is_empty(&self) -> bool {
        self.lock().wakers.is_empty()
    }
}

/// A future that is pending this many times.
#[derive(Debug)]
pub(crate) struct Pause {
    rounds: u32,
    wake: Wake,
    timers: Timers,
    armed: Armed,
}

/// What a future that was pending waits for.
#[derive(Clone, Copy, Debug)]
enum Armed {
    No,
    /// Any later turn of its task.
    NotIn(u64),
    /// Until the waker with this number is fired.
    Timer(u64),
}

impl Pause {
    pub(crate) fn new(rounds: u32, wake: Wake, timers: &Timers) -> Self {
        Self { rounds, wake, timers: timers.clone(), armed: Armed::No }
    }
}

impl Future for Pause {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let timers = self.timers.clone();
        let mut waiting = timers.lock();
        match self.armed {
            // Polled again without having been woken: updates the waker.
            Armed::NotIn(turn) if turn == waiting.turn => {
                drop(waiting);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Armed::Timer(timer) => {
                if let Some(timer) = waiting.wakers.iter_mut().find(|Timer { id, .. }| *id == timer) {
                    timer.waker.clone_from(cx.waker());
                    return Poll::Pending;
                }
            }
            Armed::NotIn(_) | Armed::No => {}
        }
        self.armed = Armed::No;
        if self.rounds == 0 {
            return Poll::Ready(());
        }
        self.rounds -= 1;
        if let Wake::AtOnce = self.wake {
            self.armed = Armed::NotIn(waiting.turn);
            drop(waiting);
            cx.waker().wake_by_ref();
        } else {
            let id = waiting.next;
            waiting.next += 1;
            let timer = Timer { id, task: waiting.task, waker: cx.waker().clone(), wake: self.wake };
            waiting.wakers.push(timer);
            self.armed = Armed::Timer(id);
        }
        Poll::Pending
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        if let Armed::Timer(timer) = self.armed {
            let removed = {
                let mut waiting = self.timers.lock();
                let position = waiting.wakers.iter().position(|Timer { id, .. }| *id == timer);
                position.map(|position| waiting.wakers.swap_remove(position))
            };
            drop(removed);
        }
    }
}

/// Whether the current poll happens although nothing has woken its task.
#[derive(Clone, Default, Debug)]
pub(crate) struct Unasked(Arc<AtomicBool>);

impl Unasked {
    fn get(&self) -> bool {
        // ORDERING: the driver sets this, and tasks read it during a poll that the driver waits for.
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, unasked: bool) {
        // ORDERING: the driver sets this, and tasks read it during a poll that the driver waits for.
        self.0.store(unasked, Ordering::Relaxed);
    }
}

/// How a future ended.
pub(crate) enum Left<T> {
    Returned(T),
    Panicked(Box<dyn std::any::Any + Send>),
    Dropped,
}

/// Polls a future until it ends, or drops it after `cancel` pending polls. Also returns how many polls were pending.
pub(crate) async fn attempt<F: Future>(unasked: &Unasked, cancel: Option<u32>, future: F) -> (Left<F::Output>, u32) {
    let mut future = Some(Box::pin(future));
    let mut pendings = 0;
    let left = poll_fn(|cx| {
        let Some(running) = &mut future else { return Poll::Ready(Left::Dropped) };
        if cancel != Some(pendings) {
            match panic::catch_unwind(AssertUnwindSafe(|| running.as_mut().poll(cx))) {
                Ok(Poll::Ready(output)) => return Poll::Ready(Left::Returned(output)),
                Err(payload) => return Poll::Ready(Left::Panicked(payload)),
                Ok(Poll::Pending) if unasked.get() => return Poll::Pending,
                Ok(Poll::Pending) => pendings += 1,
            }
        }
        if cancel == Some(pendings) {
            future = None;
            // Comes back once more, so that a wake-up by the dropped future does not count for what comes next.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    })
    .await;
    (left, pendings)
}

/// The flag that one of our wakers sets.
#[derive(Default, Debug)]
struct Flag(AtomicBool);

impl std::task::Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // ORDERING: the driver reads this on the same thread, or after it knows that the waking thread is done.
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A task to drive.
pub(crate) enum Driven<'a, T> {
    /// Stays on one thread.
    Stays(LocalBoxFuture<'a, T>),
    /// Moves from thread to thread.
    Moves(Traveller<'a, T>),
}

struct Task<'a, T> {
    number: usize,
    future: Driven<'a, T>,
    output: Option<T>,
    /// The flag of the last waker is the one that counts.
    flags: Vec<Arc<Flag>>,
}

impl<'a, T: Send> Task<'a, T> {
    fn is_woken(&self) -> bool {
        // ORDERING: see `Flag`.
        self.output.is_none() && self.flags.last().is_some_and(|flag| flag.0.load(Ordering::Relaxed))
    }

    fn poll(&mut self, timers: &Timers, helpers: &Helpers<'a, T>, random: &mut Random) {
        timers.begin_turn(self.number);
        if self.flags.is_empty() || random.below(4) == 0 {
            self.flags.push(Arc::default());
        }
        let flag = self.flags.last().expect("has just been pushed");
        // ORDERING: see `Flag`.
        flag.0.store(false, Ordering::Relaxed);
        let waker = Waker::from(flag.clone());
        let polled = match &mut self.future {
            Driven::Stays(future) => future.as_mut().poll(&mut Context::from_waker(&waker)),
            Driven::Moves(traveller) => helpers.poll(traveller, waker),
        };
        if let Poll::Ready(output) = polled {
            self.output = Some(output);
        }
    }
}

/// Polls all tasks until they have ended.
///
/// # Errors
///
/// What was wrong with wakers: a task that nothing would ever wake, or a waker that is still held at the end.
pub(crate) fn drive<'a, T: Send + 'a>(
    futures: impl IntoIterator<Item = Driven<'a, T>>,
    timers: &Timers,
    unasked: &Unasked,
    random: &mut Random,
) -> Result<Vec<T>, String> {
    let tasks = futures.into_iter().enumerate();
    let mut tasks: Vec<_> =
        tasks.map(|(number, future)| Task { number, future, output: None, flags: Vec::new() }).collect();
    thread::scope(|scope| poll_all(&mut tasks, &Helpers::start(scope), timers, unasked, random));
    if let Some(stuck) = tasks.iter().position(|task| task.output.is_none()) {
        return Err(format!("task {stuck} was never woken"));
    }
    let mut outputs = Vec::new();
    for Task { number, future, output, flags } in tasks {
        drop(future);
        if flags.iter().any(|flag| Arc::strong_count(flag) > 1) {
            return Err(format!("somebody still holds a waker of task {number}, which has ended"));
        }
        outputs.extend(output);
    }
    Ok(outputs)
}

/// Polls all tasks until nothing wakes any of them.
fn poll_all<'a, T: Send>(
    tasks: &mut [Task<'a, T>],
    helpers: &Helpers<'a, T>,
    timers: &Timers,
    unasked: &Unasked,
    random: &mut Random,
) {
    let mut unstarted: Vec<_> = (0..tasks.len()).collect();
    loop {
        let woken: Vec<_> = (0..tasks.len()).filter(|task| tasks[*task].is_woken()).collect();
        let waiting = !timers.is_empty();
        if !unstarted.is_empty() && random.below(4) == 0 || woken.is_empty() && !waiting {
            if unstarted.is_empty() {
                break;
            }
            let task = unstarted.swap_remove(random.below(unstarted.len()));
            tasks[task].poll(timers, helpers, random);
        } else if waiting && (woken.is_empty() || random.below(3) == 0) {
            timers.fire(random);
        } else {
            let task = woken[random.below(woken.len())];
            timers.fire_all_of(task);
            tasks[task].poll(timers, helpers, random);
        }
        let any = random.below(tasks.len());
        if random.below(16) == 0 && tasks[any].output.is_none() && !tasks[any].is_woken() && !unstarted.contains(&any) {
            unasked.set(true);
            tasks[any].poll(timers, helpers, random);
            unasked.set(false);
        }
    }
}
