//! A long run: thousands of calls in flight on fiber stacks and thread stacks, on two threads, that end and are dropped
//! in every way and at any moment. `cargo run --release --example soak -- --seconds 120`
//!
//! It goes in rounds. After each, everything is dropped, and what the process has is compared with what it had after the
//! first: threads, address space (of which each fiber stack takes 64 MiB, so that one that is left behind shows), bytes
//! allocated, and what host functions have on their stacks, which counts itself. Ends with `leaks=none`, or in failure.
#![expect(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::future::{Future, poll_fn};
use std::hash::{BuildHasher, RandomState};
use std::panic::{self, AssertUnwindSafe, catch_unwind, panic_any};
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};
use wasmtime::{Caller, Config, Engine, Func, InstancePre, Linker, Module, Result, Store, Trap, Val};
use wasmtime_async::{Carries, FiberStack, FuncExt, LinkerExt, Stack};

/// Of address space, in bytes: more than the slack, so that one stack that is left behind shows.
const FIBER_SIZE: usize = 64 << 20;
#[cfg(feature = "thread-backend")]
const THREAD_SIZE: usize = wasmtime_async::DEFAULT_SIZE;
const EXECUTORS: usize = 2;
/// Calls in flight on each executor, by kind of stack.
const FIBERS: usize = 1500;
#[cfg(feature = "thread-backend")]
const THREADS: usize = 60;
const ROUNDS: u32 = 6;

/// What the process may have more of than after the first round, in bytes: threads' stacks that the C library keeps, up
/// to 40 MiB, and buffers that have grown.
const SLACK_ADDRESSES: u64 = 48 << 20;
const SLACK_ALLOCATED: u64 = 16 << 10;

const GUEST: &str = r#"(module
  (import "host" "wait" (func $wait (param i32)))
  (import "host" "fail" (func $fail))
  (import "host" "panic" (func $panic))
  (import "host" "nest" (func $nest (param i32 i32) (result i32)))
  (memory (export "memory") 1 4)
  (table 1 funcref)
  (func $fall (param i32) (result i32) (i32.add (call $fall (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))

  ;; Waits `rounds` times, then ends in the way that `ending` says.
  (func (export "run") (param $rounds i32) (param $ending i32) (result i32)
    (local $sum i32)
    (loop $again
      (call $wait (local.get $rounds))
      (i32.store (i32.mul (local.get $rounds) (i32.const 4096)) (local.get $sum))
      (local.set $sum (i32.add (local.get $sum) (local.get $rounds)))
      (br_if $again (local.tee $rounds (i32.sub (local.get $rounds) (i32.const 1)))))
    (block $nest (block $fuel (block $fall (block $null (block $bounds (block $zero (block $unreachable
    (block $panic (block $fail (block $return
      (br_table $return $fail $panic $unreachable $zero $bounds $null $fall $fuel $nest (local.get $ending)))
      (return (local.get $sum)))
      (call $fail) (return (i32.const -1)))
      (call $panic) (return (i32.const -1)))
      (unreachable))
      (return (i32.div_u (local.get $sum) (i32.const 0))))
      (return (i32.load (i32.const -4))))
      (call_indirect (i32.const 0)) (return (i32.const -1)))
      (return (call $fall (i32.const 0))))
      (loop $spin (br $spin)) (return (i32.const -1)))
    (call $nest (i32.const 2) (local.get $sum))))"#;

const ENDINGS: i32 = 10;

/// What it is expected to come to, by the number that the guest is given.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Ending {
    Returned,
    HostError,
    HostPanic,
    Unreachable,
    DivisionByZero,
    OutOfBounds,
    Null,
    StackOverflow,
    OutOfFuel,
    NestedReturned,
    NestedTrap,
    Dropped,
}

impl Ending {
    fn expected(number: i32, sum: i32) -> Self {
        match number {
            0 => Self::Returned,
            1 => Self::HostError,
            2 => Self::HostPanic,
            3 => Self::Unreachable,
            4 => Self::DivisionByZero,
            5 => Self::OutOfBounds,
            6 => Self::Null,
            7 => Self::StackOverflow,
            8 => Self::OutOfFuel,
            _ if sum % 2 == 0 => Self::NestedReturned,
            _ => Self::NestedTrap,
        }
    }
}

#[derive(Debug)]
struct HostError;

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a host function failed, as it was told")
    }
}

impl Error for HostError {}

/// The payload of panics that are meant.
struct HostPanic;

/// Things that must be dropped, counted by being there.
static ALIVE: AtomicU64 = AtomicU64::new(0);

struct Alive;

impl Alive {
    fn new() -> Self {
        // ORDERING: a count, read when all threads that change it have been joined.
        ALIVE.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        // ORDERING: as above.
        ALIVE.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts the bytes that are allocated and have not been given back.
struct Counting;

static ALLOCATED: AtomicU64 = AtomicU64::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: all is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // ORDERING: a count, read when all threads that change it have been joined.
        ALLOCATED.fetch_add(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: up to the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // ORDERING: as above.
        ALLOCATED.fetch_sub(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: up to the caller.
        unsafe { System.dealloc(ptr, layout) }
    }
}

/// The data of a store.
struct World {
    timers: Timers,
    _alive: Alive,
}

/// Wakers that wait to be fired by their executor.
#[derive(Clone, Default)]
struct Timers(Arc<Mutex<Vec<Waker>>>);

impl Timers {
    fn with<R>(&self, f: impl FnOnce(&mut Vec<Waker>) -> R) -> R {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Waits until its executor has fired it, or at once for every third number.
async fn wait(timers: &Timers, number: i32) {
    let _alive = Alive::new();
    let mut waited = number % 3 == 0;
    poll_fn(|cx| {
        if waited {
            return Poll::Ready(());
        }
        waited = true;
        timers.with(|wakers| wakers.push(cx.waker().clone()));
        Poll::Pending
    })
    .await;
}

fn linker(engine: &Engine) -> Result<Linker<World>> {
    let mut linker = Linker::new(engine);
    linker.func_wrap_suspending("host", "wait", async |caller: Caller<'_, World>, number: i32| {
        wait(&caller.data().timers, number).await;
    })?;
    linker.func_wrap_suspending("host", "fail", async |caller: Caller<'_, World>| {
        wait(&caller.data().timers, 1).await;
        Result::<()>::Err(HostError.into())
    })?;
    linker.func_wrap("host", "panic", || -> () {
        let _alive = Alive::new();
        panic_any(HostPanic);
    })?;
    // Guest, synchronous host function, guest, async host function.
    linker.func_wrap("host", "nest", |mut caller: Caller<'_, World>, rounds: i32, sum: i32| -> Result<i32> {
        let _alive = Alive::new();
        let run = caller.get_export("run").and_then(wasmtime::Extern::into_func).expect("is exported");
        let ending = if sum % 2 == 0 { 0 } else { 3 };
        run.typed::<(i32, i32), i32>(&caller)?.call(&mut caller, (rounds, ending))
    })?;
    Ok(linker)
}

/// Pseudo-random numbers (`SplitMix64`).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % end
    }

    fn small(&mut self, end: i32) -> i32 {
        i32::try_from(self.below(end.unsigned_abs().into())).expect("is below an i32")
    }
}

/// What all executors share.
struct Soak {
    guest: InstancePre<World>,
    stop: AtomicBool,
    calls: AtomicU64,
    suspensions: AtomicU64,
    in_flight: AtomicU64,
    endings: Mutex<BTreeMap<Ending, u64>>,
    wrong: Mutex<Option<String>>,
    fibers: Idle<FiberStack>,
    #[cfg(feature = "thread-backend")]
    threads: Idle<wasmtime_async::ThreadStack>,
}

impl Soak {
    fn is_over(&self) -> bool {
        // ORDERING: whoever sees it late goes on a little longer.
        self.stop.load(Ordering::Relaxed)
    }
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
        let mut stacks = self.lock();
        if stacks.is_empty() {
            drop(stacks);
            return S::new(self.size).expect("there is memory for a stack");
        }
        let which = usize::try_from(random.below(stacks.len() as u64)).expect("is below a usize");
        stacks.swap_remove(which)
    }

    fn put_back(&self, stack: S) {
        self.lock().push(stack);
    }

    fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<S>> {
        self.stacks.lock().unwrap_or_else(PoisonError::into_inner)
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
    // ORDERING: a count.
    soak.in_flight.fetch_add(1, Ordering::Relaxed);
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
    drop(future);
    // ORDERING: counts.
    soak.in_flight.fetch_sub(1, Ordering::Relaxed);
    soak.calls.fetch_add(1, Ordering::Relaxed);
    soak.suspensions.fetch_add(pendings, Ordering::Relaxed);

    let expected = Ending::expected(number, sum);
    let ending = match outcome {
        None => Some(Ending::Dropped),
        Some(Err(payload)) => payload.is::<HostPanic>().then_some(Ending::HostPanic),
        Some(Ok(result)) => classify(&result, expected, sum, &results),
    };
    if ending == Some(Ending::Dropped) || ending == Some(expected) {
        *soak.endings.lock().unwrap_or_else(PoisonError::into_inner).entry(ending.unwrap_or(expected)).or_default() +=
            1;
    } else {
        let text = format!("rounds={rounds} ending={number}: {ending:?} instead of {expected:?}");
        *soak.wrong.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
        soak.stop.store(true, Ordering::Relaxed);
    }
}

fn classify(result: &Result<()>, expected: Ending, sum: i32, results: &[Val]) -> Option<Ending> {
    let Err(error) = result else {
        let returned = results[0].unwrap_i32();
        return match expected {
            // What the nested call, of two rounds, returned.
            Ending::NestedReturned if returned == 3 => Some(Ending::NestedReturned),
            _ if returned == sum => Some(Ending::Returned),
            _ => None,
        };
    };
    if error.is::<HostError>() {
        return Some(Ending::HostError);
    }
    Some(match error.downcast_ref::<Trap>()? {
        Trap::UnreachableCodeReached if expected == Ending::NestedTrap => Ending::NestedTrap,
        Trap::UnreachableCodeReached => Ending::Unreachable,
        Trap::IntegerDivisionByZero => Ending::DivisionByZero,
        Trap::MemoryOutOfBounds => Ending::OutOfBounds,
        Trap::IndirectCallToNull => Ending::Null,
        Trap::StackOverflow => Ending::StackOverflow,
        Trap::OutOfFuel => Ending::OutOfFuel,
        _ => return None,
    })
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

impl std::task::Wake for TaskWaker {
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

/// Runs all slots of one thread, woken ones in a random order, until it is time to stop. Then drops them as they are.
fn execute(soak: &Soak, seed: u64) {
    let mut random = Random(seed);
    let timers = Timers::default();
    let woken = Arc::<Woken>::default();
    let mut tasks: Vec<Option<Pin<Box<dyn Future<Output = ()> + '_>>>> = Vec::new();
    for _ in 0..FIBERS {
        tasks.push(Some(Box::pin(slot(soak, &soak.fibers, &timers, Random(random.below(u64::MAX))))));
    }
    #[cfg(feature = "thread-backend")]
    for _ in 0..THREADS {
        tasks.push(Some(Box::pin(slot(soak, &soak.threads, &timers, Random(random.below(u64::MAX))))));
    }
    let wakers: Vec<_> = (0..tasks.len())
        .map(|task| {
            let waker = TaskWaker { task, queued: AtomicBool::new(false), woken: woken.clone(), _alive: Alive::new() };
            Arc::new(waker)
        })
        .collect();
    wakers.iter().for_each(std::task::Wake::wake_by_ref);

    while !soak.is_over() {
        let task = {
            let mut woken = woken.0.lock().unwrap_or_else(PoisonError::into_inner);
            let which = random.below(woken.len().max(1) as u64);
            if woken.is_empty() { None } else { Some(woken.swap_remove(usize::try_from(which).expect("fits"))) }
        };
        let fired = (task.is_none() || random.below(2) == 0).then(|| {
            timers.with(|wakers| {
                let which = usize::try_from(random.below(wakers.len().max(1) as u64)).expect("fits");
                (!wakers.is_empty()).then(|| wakers.swap_remove(which))
            })
        });
        if task.is_none() && !matches!(fired, Some(Some(_))) {
            *soak.wrong.lock().unwrap_or_else(PoisonError::into_inner) = Some("a wake-up was lost".to_owned());
            soak.stop.store(true, Ordering::Relaxed);
        }
        if let Some(Some(waker)) = fired {
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
    // In a random order, with calls in flight.
    while !tasks.is_empty() {
        let which = usize::try_from(random.below(tasks.len() as u64)).expect("fits");
        drop(tasks.swap_remove(which));
    }
    timers.with(Vec::clear);
}

/// What the process has.
#[derive(Clone, Copy)]
struct Usage {
    threads: u64,
    mappings: u64,
    resident: u64,
    addresses: u64,
    allocated: u64,
}

impl Usage {
    fn now() -> Self {
        // ORDERING: a count.
        let allocated = ALLOCATED.load(Ordering::Relaxed);
        let status = std::fs::read_to_string("/proc/self/status").expect("this runs on Linux");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("Linux tells");
            let number = line.trim_start_matches(':').split_whitespace().next().expect("is a number");
            number.parse::<u64>().expect("is a number")
        };
        let maps = std::fs::read_to_string("/proc/self/maps").expect("this runs on Linux");
        Self {
            threads: field("Threads"),
            mappings: maps.lines().count() as u64,
            resident: field("VmRSS") << 10,
            addresses: field("VmSize") << 10,
            allocated,
        }
    }

    /// What there is when threads that are about to end have ended.
    fn settled(threads: u64) -> Self {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let now = Self::now();
            if now.threads <= threads || Instant::now() > deadline {
                return now;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { threads, mappings, resident, addresses, allocated } = self;
        let [resident, addresses, allocated] = [resident >> 20, addresses >> 20, allocated >> 10];
        write!(
            f,
            "rss={resident}MiB allocated={allocated}KiB addresses={addresses}MiB threads={threads} mappings={mappings}"
        )
    }
}

/// Runs all executors for a while, and prints every few seconds what there is.
fn round(soak: &Soak, random: &mut Random, time: Duration, start: Instant) {
    // ORDERING: the threads are started after this.
    soak.stop.store(false, Ordering::Relaxed);
    let end = Instant::now() + time;
    thread::scope(|scope| {
        for _ in 0..EXECUTORS {
            let seed = random.below(u64::MAX);
            scope.spawn(move || execute(soak, seed));
        }
        while Instant::now() < end && !soak.is_over() {
            thread::sleep(Duration::from_secs(3).min(end.saturating_duration_since(Instant::now())));
            println!(
                "t={:.0?} calls={} suspensions={} in_flight={} {}",
                start.elapsed(),
                soak.calls.load(Ordering::Relaxed),
                soak.suspensions.load(Ordering::Relaxed),
                soak.in_flight.load(Ordering::Relaxed),
                Usage::now()
            );
        }
        soak.stop.store(true, Ordering::Relaxed);
    });
    // Everything that is left.
    soak.in_flight.store(0, Ordering::Relaxed);
    soak.fibers.clear();
    #[cfg(feature = "thread-backend")]
    {
        soak.threads.clear();
        wasmtime_async::ThreadStack::end_cached_threads();
    }
}

/// What is wrong after a round, compared with the first.
fn leaks(first: Usage, now: Usage) -> Vec<String> {
    let mut leaks = Vec::new();
    let alive = ALIVE.load(Ordering::Relaxed);
    if alive > 0 {
        leaks.push(format!("{alive} stores, wakers and values on stacks"));
    }
    if now.threads > first.threads {
        leaks.push(format!("{} threads", now.threads - first.threads));
    }
    if now.addresses > first.addresses + SLACK_ADDRESSES {
        leaks.push(format!("{} MiB of addresses", (now.addresses - first.addresses) >> 20));
    }
    if now.allocated > first.allocated + SLACK_ALLOCATED {
        leaks.push(format!("{} KiB of memory", (now.allocated - first.allocated) >> 10));
    }
    leaks
}

fn main() -> Result<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    let mut seconds = 30;
    let mut seed = RandomState::new().hash_one(());
    while let Some(argument) = arguments.next() {
        let value = arguments.next().and_then(|value| value.parse().ok());
        match (argument.as_str(), value) {
            ("--seconds", Some(value)) => seconds = value,
            ("--seed", Some(value)) => seed = value,
            _ => {
                eprintln!("usage: soak [--seconds <number>] [--seed <number>]");
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    println!("--seed {seed}");

    let report = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if !info.payload().is::<HostPanic>() {
            report(info);
        }
    }));
    let mut config = Config::new();
    config.consume_fuel(true).memory_reservation(1 << 20).memory_guard_size(1 << 16);
    let engine = Engine::new(&config)?;
    let guest = linker(&engine)?.instantiate_pre(&Module::new(&engine, GUEST)?)?;
    let soak = Soak {
        guest,
        stop: AtomicBool::new(false),
        calls: AtomicU64::new(0),
        suspensions: AtomicU64::new(0),
        in_flight: AtomicU64::new(0),
        endings: Mutex::default(),
        wrong: Mutex::default(),
        fibers: Idle::of_size(FIBER_SIZE),
        #[cfg(feature = "thread-backend")]
        threads: Idle::of_size(THREAD_SIZE),
    };

    let (start, mut random, mut first) = (Instant::now(), Random(seed), None);
    let threads = Usage::now().threads;
    for number in 1..=ROUNDS {
        round(&soak, &mut random, Duration::from_secs(seconds) / ROUNDS, start);
        if let Some(wrong) = soak.wrong.lock().unwrap_or_else(PoisonError::into_inner).take() {
            println!("wrong: {wrong}");
            return Ok(ExitCode::FAILURE);
        }
        let now = Usage::settled(threads);
        println!("after round {number}: {now}");
        let first = *first.get_or_insert(Usage { threads, ..now });
        let leaks = leaks(first, now);
        if !leaks.is_empty() {
            println!("leaks={}", leaks.join(", "));
            return Ok(ExitCode::FAILURE);
        }
    }
    let endings = soak.endings.lock().unwrap_or_else(PoisonError::into_inner);
    for (ending, count) in &*endings {
        print!("{ending:?}={count} ");
    }
    let (calls, suspensions) = (soak.calls.load(Ordering::Relaxed), soak.suspensions.load(Ordering::Relaxed));
    println!("\ncalls={calls} suspensions={suspensions} seconds={:.0} leaks=none", start.elapsed().as_secs_f64());
    Ok(ExitCode::SUCCESS)
}
