//! The calls: which stacks they run on, how many there are, and how they end.

use crate::executor::{Local, Shared, Timers, lock};
use crate::guest::{ENDINGS, Ending, HostPanic, Suspends, World, classify};
use crate::random::Random;
use crate::usage::Alive;
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::thread;
use wasmtime::{Func, InstancePre, Val};
#[cfg(feature = "thread-backend")]
use wasmtime_async::ThreadStack;
use wasmtime_async::{Carries, Error, FuncExt, Stack, Store};
#[cfg(fiber_stack)]
use wasmtime_async::{FiberStack, SendFiberStack};

/// Address space in bytes. It is more than the slack, so that a single leaked stack is noticed.
#[cfg(fiber_stack)]
const FIBER_SIZE: usize = 64 << 20;
#[cfg(feature = "thread-backend")]
const THREAD_SIZE: usize = wasmtime_async::DEFAULT_STACK_SIZE;
/// The number of calls in flight: on each executor for calls that stay there, on all executors for shared calls.
#[cfg(fiber_stack)]
const OWN_FIBERS: usize = 500;
#[cfg(fiber_stack)]
const SHARED_FIBERS: usize = 1000;
#[cfg(feature = "thread-backend")]
const OWN_THREADS: usize = 30;
#[cfg(feature = "thread-backend")]
const SHARED_THREADS: usize = 60;

/// The state that all executors share.
pub(crate) struct Soak {
    guest: InstancePre<World>,
    stop: AtomicBool,
    pub(crate) calls: AtomicU64,
    pub(crate) suspensions: AtomicU64,
    /// How many of those ended on another thread than the one where they began.
    pub(crate) moved: AtomicU64,
    pub(crate) in_flight: AtomicU64,
    endings: Mutex<BTreeMap<Ending, u64>>,
    wrong: Mutex<Option<String>>,
    #[cfg(fiber_stack)]
    fibers: Idle<FiberStack>,
    #[cfg(fiber_stack)]
    unchecked_fibers: Idle<FiberStack>,
    #[cfg(fiber_stack)]
    send_fibers: Idle<SendFiberStack>,
    #[cfg(feature = "thread-backend")]
    threads: Idle<ThreadStack>,
}

impl Soak {
    pub(crate) fn new(guest: InstancePre<World>) -> Self {
        Self {
            guest,
            stop: AtomicBool::new(false),
            calls: AtomicU64::new(0),
            suspensions: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            endings: Mutex::default(),
            wrong: Mutex::default(),
            #[cfg(fiber_stack)]
            fibers: Idle::new(Suspends::KnownFrames, || FiberStack::new(FIBER_SIZE)),
            #[cfg(fiber_stack)]
            unchecked_fibers: Idle::new(Suspends::Anything, || {
                // SAFETY: the host functions keep nothing in the thread.
                #[expect(unsafe_code, reason = "a kind of stack to be tried")]
                unsafe {
                    FiberStack::unchecked(FIBER_SIZE)
                }
            }),
            #[cfg(fiber_stack)]
            send_fibers: Idle::new(Suspends::KnownFrames, || SendFiberStack::new(FIBER_SIZE)),
            #[cfg(feature = "thread-backend")]
            threads: Idle::new(Suspends::Anything, || ThreadStack::new(THREAD_SIZE)),
        }
    }

    pub(crate) fn start(&self) {
        // ORDERING: the executors' threads are started after this.
        self.stop.store(false, Ordering::Relaxed);
    }

    pub(crate) fn stop(&self) {
        // ORDERING: a thread that sees this late runs a little longer.
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_over(&self) -> bool {
        // ORDERING: a thread that sees this late runs a little longer.
        self.stop.load(Ordering::Relaxed)
    }

    /// Reports that something went wrong.
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

    /// Makes the tasks of one executor.
    pub(crate) fn own_tasks<'a>(&'a self, timers: &Timers, random: &mut Random) -> Vec<Local<'a>> {
        let mut tasks: Vec<Local<'a>> = Vec::new();
        #[cfg(fiber_stack)]
        for _ in 0..OWN_FIBERS {
            tasks.push(Box::pin(slot(self, &self.fibers, timers.clone(), random.fork())));
            tasks.push(Box::pin(slot(self, &self.unchecked_fibers, timers.clone(), random.fork())));
        }
        #[cfg(feature = "thread-backend")]
        for _ in 0..OWN_THREADS {
            tasks.push(Box::pin(slot(self, &self.threads, timers.clone(), random.fork())));
        }
        tasks
    }

    /// Makes the tasks that all executors share.
    pub(crate) fn shared_tasks<'a>(&'a self, timers: &Timers, random: &mut Random) -> Vec<Shared<'a>> {
        let mut tasks: Vec<Shared<'a>> = Vec::new();
        #[cfg(fiber_stack)]
        for _ in 0..SHARED_FIBERS {
            tasks.push(Box::pin(slot(self, &self.send_fibers, timers.clone(), random.fork())));
        }
        #[cfg(feature = "thread-backend")]
        for _ in 0..SHARED_THREADS {
            tasks.push(Box::pin(slot(self, &self.threads, timers.clone(), random.fork())));
        }
        tasks
    }

    /// The kinds of stacks that exist here.
    pub(crate) fn stacks() -> &'static str {
        match (cfg!(fiber_stack), cfg!(feature = "thread-backend")) {
            (true, true) => "fiber,unchecked,send,thread",
            (true, false) => "fiber,unchecked,send",
            (false, _) => "thread",
        }
    }

    /// Drops what is left when no executor is running.
    pub(crate) fn clear(&self) {
        #[cfg(fiber_stack)]
        {
            lock(&self.fibers.stacks).clear();
            lock(&self.unchecked_fibers.stacks).clear();
            lock(&self.send_fibers.stacks).clear();
        }
        #[cfg(feature = "thread-backend")]
        lock(&self.threads.stacks).clear();
    }
}

/// Makes one call after the other, on stacks that any executor may use next.
async fn slot<S: Stack + Carries<World>>(soak: &Soak, idle: &Idle<S>, timers: Timers, mut random: Random) {
    while !soak.is_over() {
        let mut stack = idle.take(&mut random);
        let alive = Alive::new();
        let mut store = Store::new(soak.guest.module().engine(), World { timers: timers.clone(), _alive: alive });
        store.set_fuel(1 << 40).expect("fuel is on");
        let instance = soak.guest.instantiate(&mut store).expect("starts nothing");
        let run = instance.get_func(&mut store, "run").expect("is exported");
        // Each store is used for a few calls.
        for _ in 0..=random.below(4) {
            call(soak, (&mut stack, idle.suspends), &mut store, run, &mut random).await;
            if soak.is_over() {
                return;
            }
        }
        // Some stacks are dropped, so that new ones are made.
        if random.below(32) > 0 {
            idle.put_back(stack);
        }
    }
}

/// Idle stacks of one kind.
struct Idle<S> {
    suspends: Suspends,
    new: fn() -> Result<S, Error>,
    stacks: Mutex<Vec<S>>,
}

impl<S: Stack> Idle<S> {
    /// Starts without stacks.
    fn new(suspends: Suspends, new: fn() -> Result<S, Error>) -> Self {
        Self { suspends, new, stacks: Mutex::default() }
    }

    /// Returns a stack that any thread may have used, or a new one.
    fn take(&self, random: &mut Random) -> S {
        let idle = random.take(&mut lock(&self.stacks));
        idle.unwrap_or_else(|| (self.new)().expect("there is memory for a stack"))
    }

    fn put_back(&self, stack: S) {
        lock(&self.stacks).push(stack);
    }
}

/// Counts a call as long as it exists.
struct InFlight<'a>(&'a AtomicU64);

impl<'a> InFlight<'a> {
    fn new(count: &'a AtomicU64) -> Self {
        // ORDERING: this is only a count.
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        // ORDERING: this is only a count.
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn call<S: Stack + Carries<World>>(
    soak: &Soak,
    (stack, suspends): (&mut S, Suspends),
    store: &mut Store<World>,
    run: Func,
    random: &mut Random,
) {
    let (rounds, number) = (1 + random.small(8), random.small(ENDINGS));
    // The costly endings are rarer.
    let number = if matches!(number, 2 | 7) && random.below(4) > 0 { 0 } else { number };
    let sum = rounds * (rounds + 1) / 2;
    let drop_after = (random.below(5) == 0).then(|| random.below(4));
    store.set_fuel(if number == 8 { 3_000 } else { 1 << 40 }).expect("fuel is on");

    let mut results = [Val::I32(0)];
    let params = [Val::I32(rounds), Val::I32(number)];
    let in_flight = InFlight::new(&soak.in_flight);
    let mut future = Some(Box::pin(run.call_on(stack, store, &params, &mut results)));
    let (mut pendings, mut moved) = (0, 0);
    let mut thread = None;
    let outcome = poll_fn(|cx| {
        if drop_after == Some(pendings) {
            future = None;
            return Poll::Ready(None);
        }
        moved += u64::from(thread.replace(thread::current().id()).is_some_and(|last| Some(last) != thread));
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
    // ORDERING: these are only counts.
    soak.calls.fetch_add(1, Ordering::Relaxed);
    soak.suspensions.fetch_add(pendings, Ordering::Relaxed);
    soak.moved.fetch_add(moved, Ordering::Relaxed);

    let expected = Ending::expected(number, sum, suspends);
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
