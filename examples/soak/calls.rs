//! The calls: on which stacks, how many at once, and what has become of them.

use crate::executor::{Task, Timers};
use crate::guest::{ENDINGS, Ending, HostPanic, World, classify};
use crate::random::Random;
use crate::usage::Alive;
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use wasmtime::{Func, InstancePre, Store, Val};
use wasmtime_async::{Carries, FuncExt, Stack};

/// Of address space, in bytes: more than the slack, so that one stack that is left behind shows.
#[cfg(fiber_stack)]
const FIBER_SIZE: usize = 64 << 20;
#[cfg(feature = "thread-backend")]
const THREAD_SIZE: usize = wasmtime_async::DEFAULT_STACK_SIZE;
/// Calls in flight on each executor, by kind of stack.
#[cfg(fiber_stack)]
const FIBERS: usize = 1500;
#[cfg(feature = "thread-backend")]
const THREADS: usize = 60;

/// What all executors share.
pub(crate) struct Soak {
    guest: InstancePre<World>,
    stop: AtomicBool,
    pub(crate) calls: AtomicU64,
    pub(crate) suspensions: AtomicU64,
    pub(crate) in_flight: AtomicU64,
    endings: Mutex<BTreeMap<Ending, u64>>,
    wrong: Mutex<Option<String>>,
    #[cfg(fiber_stack)]
    fibers: Idle<wasmtime_async::FiberStack>,
    #[cfg(feature = "thread-backend")]
    threads: Idle<wasmtime_async::ThreadStack>,
}

impl Soak {
    pub(crate) fn new(guest: InstancePre<World>) -> Self {
        Self {
            guest,
            stop: AtomicBool::new(false),
            calls: AtomicU64::new(0),
            suspensions: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            endings: Mutex::default(),
            wrong: Mutex::default(),
            #[cfg(fiber_stack)]
            fibers: Idle::of_size(FIBER_SIZE),
            #[cfg(feature = "thread-backend")]
            threads: Idle::of_size(THREAD_SIZE),
        }
    }

    pub(crate) fn start(&self) {
        // ORDERING: the executors' threads are started after this.
        self.stop.store(false, Ordering::Relaxed);
    }

    pub(crate) fn stop(&self) {
        // ORDERING: whoever sees it late goes on a little longer.
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_over(&self) -> bool {
        // ORDERING: as above.
        self.stop.load(Ordering::Relaxed)
    }

    /// Something did not come out as it should.
    pub(crate) fn is_wrong(&self, what: impl Into<String>) {
        *lock(&self.wrong) = Some(what.into());
        self.stop();
    }

    pub(crate) fn wrong(&self) -> Option<String> {
        lock(&self.wrong).take()
    }

    /// How many calls have ended in each way so far.
    pub(crate) fn endings(&self) -> BTreeMap<Ending, u64> {
        lock(&self.endings).clone()
    }

    /// What one executor is to do.
    pub(crate) fn slots<'a>(&'a self, timers: &'a Timers, random: &mut Random) -> Vec<Task<'a>> {
        let mut tasks: Vec<Task<'a>> = Vec::new();
        #[cfg(fiber_stack)]
        for _ in 0..FIBERS {
            tasks.push(Box::pin(slot(self, &self.fibers, timers, random.fork())));
        }
        #[cfg(feature = "thread-backend")]
        for _ in 0..THREADS {
            tasks.push(Box::pin(slot(self, &self.threads, timers, random.fork())));
        }
        tasks
    }

    /// Drops what is left when no executor is running.
    pub(crate) fn clear(&self) {
        #[cfg(fiber_stack)]
        lock(&self.fibers.stacks).clear();
        #[cfg(feature = "thread-backend")]
        {
            lock(&self.threads.stacks).clear();
            wasmtime_async::ThreadStack::end_cached_threads();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One call after another, on stacks that come from and go to whichever executor.
async fn slot<S: Stack + Carries<World>>(soak: &Soak, idle: &Idle<S>, timers: &Timers, mut random: Random) {
    while !soak.is_over() {
        let mut stack = idle.take(&mut random);
        let alive = Alive::new();
        let mut store = Store::new(soak.guest.module().engine(), World { timers: timers.clone(), _alive: alive });
        store.set_fuel(1 << 40).expect("fuel is on");
        let instance = soak.guest.instantiate(&mut store).expect("starts nothing");
        let run = instance.get_func(&mut store, "run").expect("is exported");
        // Stores are used for a few calls.
        for _ in 0..=random.below(4) {
            call(soak, &mut stack, &mut store, run, &mut random).await;
            if soak.is_over() {
                return;
            }
        }
        // Some stacks go, so that new ones are made.
        if random.below(32) > 0 {
            idle.put_back(stack);
        }
    }
}

/// Stacks of one kind that no call is on.
struct Idle<S> {
    size: usize,
    stacks: Mutex<Vec<S>>,
}

impl<S: Stack> Idle<S> {
    /// None yet.
    fn of_size(size: usize) -> Self {
        Self { size, stacks: Mutex::default() }
    }

    /// One that any thread may have used, or a new one.
    fn take(&self, random: &mut Random) -> S {
        let idle = random.take(&mut lock(&self.stacks));
        idle.unwrap_or_else(|| S::new(self.size).expect("there is memory for a stack"))
    }

    fn put_back(&self, stack: S) {
        lock(&self.stacks).push(stack);
    }
}

/// Counts a call for as long as it is there.
struct InFlight<'a>(&'a AtomicU64);

impl<'a> InFlight<'a> {
    fn new(count: &'a AtomicU64) -> Self {
        // ORDERING: a count.
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        // ORDERING: as above.
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn call<S: Stack + Carries<World>>(
    soak: &Soak,
    stack: &mut S,
    store: &mut Store<World>,
    run: Func,
    random: &mut Random,
) {
    let (rounds, number) = (1 + random.small(8), random.small(ENDINGS));
    // The costly ones less often.
    let number = if matches!(number, 2 | 7) && random.below(4) > 0 { 0 } else { number };
    let sum = rounds * (rounds + 1) / 2;
    let drop_after = (random.below(5) == 0).then(|| random.below(4));
    store.set_fuel(if number == 8 { 3_000 } else { 1 << 40 }).expect("fuel is on");

    let mut results = [Val::I32(0)];
    let params = [Val::I32(rounds), Val::I32(number)];
    let in_flight = InFlight::new(&soak.in_flight);
    let mut future = Some(Box::pin(run.call_on(stack, store, &params, &mut results)));
    let mut pendings = 0;
    let outcome = poll_fn(|cx| {
        if drop_after == Some(pendings) {
            future = None;
            return Poll::Ready(None);
        }
        let call = future.as_mut().expect("is polled until it is ready");
        match catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(cx))) {
            Ok(Poll::Ready(result)) => Poll::Ready(Some(Ok(result))),
            Err(payload) => Poll::Ready(Some(Err(payload))),
            Ok(Poll::Pending) => {
                pendings += 1;
                Poll::Pending
            }
        }
    })
    .await;
    drop((future, in_flight));
    // ORDERING: counts.
    soak.calls.fetch_add(1, Ordering::Relaxed);
    soak.suspensions.fetch_add(pendings, Ordering::Relaxed);

    let expected = Ending::expected(number, sum);
    let ending = match outcome {
        None => Some(Ending::Dropped),
        Some(Err(payload)) => payload.is::<HostPanic>().then_some(Ending::HostPanic),
        Some(Ok(result)) => classify(&result, expected, sum, &results),
    };
    match ending {
        Some(ending) if ending == Ending::Dropped || ending == expected => {
            *lock(&soak.endings).entry(ending).or_default() += 1;
        }
        _ => soak.is_wrong(format!("rounds={rounds} ending={number}: {ending:?} instead of {expected:?}")),
    }
}
