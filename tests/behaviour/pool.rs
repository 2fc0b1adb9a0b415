//! A pool's stacks: how many there are, and who gets them when.

use crate::common::futures::{CountingWaker, finish, pending, poll_once, poll_with};
use crate::common::random::Random;
use crate::support::guest::{assert_usable, runner, store};
use crate::support::{Code, Host, Kind, many, matrix};
use futures::executor::block_on;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::task::{Poll, Waker};
use std::thread;
use wasmtime::{Func, Result};
use wasmtime_async::{Carries, DEFAULT_STACK_SIZE, Error, FuncExt, Pool, PoolCounts, PooledStack, Stack};

matrix!(
    by_new:
    stacks_are_made_when_needed_and_reused,
    the_stack_used_last_is_used_next,
    who_waits_is_served_in_order,
    who_goes_away_is_passed_over,
    who_goes_away_with_a_stack_hands_it_on,
    who_goes_away_just_now_loses_no_stack,
    who_comes_later_does_not_get_ahead,
    a_stack_that_cannot_be_made_is_no_place_lost,
    a_forgotten_stack_is_a_place_lost,
    calls_on_many_threads,
    clones_are_the_same_pool,
    shrunk,
    each_stack_is_set_up_once,
    a_panic_while_a_stack_is_set_up,
);

type Get<'a, S> = Pin<Box<dyn Future<Output = Result<PooledStack<S>, Error>> + Send + 'a>>;

/// A task that waits for a stack, with a waker that counts.
struct Waiter<'a, S: Stack> {
    get: Get<'a, S>,
    waker: Arc<CountingWaker>,
}

impl<'a, S: Stack + Send> Waiter<'a, S> {
    /// Queues up for a stack.
    fn queued(pool: &'a Pool<S>) -> Self {
        let mut waiter = Self { get: Box::pin(pool.get()), waker: CountingWaker::new() };
        assert!(waiter.poll().is_pending());
        waiter
    }

    fn poll(&mut self) -> Poll<Result<PooledStack<S>, Error>> {
        poll_with(&mut self.get, &Waker::from(self.waker.clone()))
    }

    fn is_woken(&self) -> bool {
        self.waker.woken() > 0
    }

    fn served(&mut self) -> PooledStack<S> {
        assert!(self.is_woken(), "nobody told it");
        let Poll::Ready(stack) = self.poll() else { panic!("woken in vain") };
        stack.expect("there is memory")
    }
}

fn pool<K: Kind>(max: usize) -> Pool<K::Stack> {
    Pool::new(max, DEFAULT_STACK_SIZE).expect("there may be so many")
}

fn counts<S: Stack>(pool: &Pool<S>) -> [usize; 4] {
    let PoolCounts { idle, in_use, created, peak, waiting, .. } = pool.counts();
    assert_eq!(waiting, 0);
    [idle, in_use, created, peak]
}

/// Takes a stack that must be available at once.
fn now<S: Stack>(pool: &Pool<S>) -> PooledStack<S> {
    let Poll::Ready(stack) = poll_once(&mut Box::pin(pool.get())) else { panic!("all are in use") };
    stack.expect("there is memory")
}

fn stacks_are_made_when_needed_and_reused<K: Kind>(code: Code) -> Result<()> {
    assert!(matches!(Pool::<K::Stack>::new(0, DEFAULT_STACK_SIZE), Err(Error::EmptyPool)));
    assert!(matches!(Pool::<K::Stack>::new(1, 1), Err(Error::StackSize { size: 1, .. })));

    let pool = pool::<K>(2);
    assert_eq!(counts(&pool), [0, 0, 0, 0]);
    for _ in 0..3 {
        let mut first = now(&pool);
        assert_eq!(first.size(), DEFAULT_STACK_SIZE);
        assert_usable(&mut *first, &mut store(code))?;
        assert_eq!(counts(&pool)[..3], [0, 1, 1]);
        drop(first);
        assert_eq!(counts(&pool), [1, 0, 1, 1]);
    }
    let both = [now(&pool), now(&pool)];
    assert!(pool.try_get()?.is_none());
    assert_eq!(counts(&pool), [0, 2, 2, 2]);
    drop(both);
    assert_eq!(counts(&pool), [2, 0, 2, 2]);
    drop(pool.try_get()?.expect("is idle"));
    assert_eq!(counts(&pool), [2, 0, 2, 2]);
    Ok(())
}

/// The memory of the stack that was used last is still in the processor's cache.
fn the_stack_used_last_is_used_next<K: Kind>(code: Code) -> Result<()> {
    /// Roughly where the stack's calls run.
    fn place<S: Stack + Carries<Host>>(stack: &mut S, code: Code) -> Result<usize> {
        finish(stack.run_send(&mut store(code), |_| {
            let local = 0_u8;
            Ok(std::hint::black_box(&raw const local).addr())
        }))
    }

    // A stack is far larger than a few frames.
    let is_same = |one: usize, other: usize| one.abs_diff(other) < DEFAULT_STACK_SIZE / 4;
    let pool = pool::<K>(2);
    let (mut first, mut second) = (now(&pool), now(&pool));
    let places = [place(&mut *first, code)?, place(&mut *second, code)?];
    assert!(!is_same(places[0], places[1]));
    drop(first);
    drop(second);
    assert!(is_same(place(&mut *now(&pool), code)?, places[1]));
    Ok(())
}

fn who_waits_is_served_in_order<K: Kind>(_: Code) -> Result<()> {
    let pool = pool::<K>(2);
    let (mut held, mut waiters) = (vec![now(&pool), now(&pool)], Vec::new());
    for _ in 0..5 {
        waiters.push(Waiter::queued(&pool));
    }
    while !waiters.is_empty() {
        assert_eq!(pool.counts().waiting, waiters.len());
        drop(held.remove(0));
        let mut next = waiters.remove(0);
        assert!(waiters.iter().all(|waiter| !waiter.is_woken()), "more than one was told");
        held.push(next.served());
    }
    assert_eq!(counts(&pool), [0, 2, 2, 2]);
    drop(held);
    assert_eq!(counts(&pool), [2, 0, 2, 2]);
    Ok(())
}

fn who_goes_away_is_passed_over<K: Kind>(_: Code) -> Result<()> {
    for gone in 0..4 {
        let pool = pool::<K>(1);
        let held = now(&pool);
        let mut waiters: Vec<_> = (0..4).map(|_| Waiter::queued(&pool)).collect();
        let waker = waiters.remove(gone).waker;
        assert_eq!((Arc::strong_count(&waker), waker.woken()), (1, 0), "is still in the queue");
        assert_eq!(pool.counts().waiting, 3);
        drop(held);
        for mut waiter in waiters {
            drop(waiter.served());
        }
        assert_eq!(counts(&pool), [1, 0, 1, 1]);
    }
    Ok(())
}

fn who_goes_away_with_a_stack_hands_it_on<K: Kind>(_: Code) -> Result<()> {
    let pool = pool::<K>(1);
    let held = now(&pool);
    let [first, second, mut third] = std::array::from_fn(|_| Waiter::queued(&pool));
    drop(held);
    assert!(first.is_woken() && !second.is_woken());
    drop(first);
    assert!(second.is_woken() && !third.is_woken());
    drop(second);
    drop(third.served());
    // The last waiter has nobody to hand the stack to.
    let held = now(&pool);
    let last = Waiter::queued(&pool);
    drop(held);
    assert_eq!(counts(&pool), [0, 1, 1, 1]);
    drop(last);
    assert_eq!(counts(&pool), [1, 0, 1, 1]);
    Ok(())
}

/// One thread drops a waiter while another frees a stack. The remaining waiter gets the stack.
fn who_goes_away_just_now_loses_no_stack<K: Kind>(_: Code) -> Result<()> {
    let pool = pool::<K>(1);
    for _ in 0..many() {
        let held = now(&pool);
        let [waiter, mut next] = std::array::from_fn(|_| Waiter::queued(&pool));
        let start = Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                drop(waiter);
            });
            start.wait();
            drop(held);
        });
        drop(next.served());
        assert_eq!(counts(&pool), [1, 0, 1, 1]);
    }
    Ok(())
}

fn who_comes_later_does_not_get_ahead<K: Kind>(_: Code) -> Result<()> {
    let pool = pool::<K>(1);
    let held = now(&pool);
    let mut first = Waiter::queued(&pool);
    drop(held);
    // The stack was handed to the first waiter, which has not been polled since.
    assert!(pool.try_get()?.is_none());
    let mut second = Waiter::queued(&pool);
    drop(first.served());
    drop(second.served());
    Ok(())
}

fn a_stack_that_cannot_be_made_is_no_place_lost<K: Kind>(_: Code) -> Result<()> {
    // With 32-bit addresses, such memory may exist.
    if cfg!(target_pointer_width = "32") {
        return Ok(());
    }
    let pool = Pool::<K::Stack>::new(1, usize::MAX >> 2)?;
    for _ in 0..3 {
        let error = poll_once(&mut Box::pin(pool.get())).map(|stack| stack.map(drop));
        assert!(
            matches!(error, Poll::Ready(Err(Error::StackMemory { .. } | Error::ThreadSpawn { .. }))),
            "there is no such memory"
        );
        assert_eq!(counts(&pool), [0, 0, 0, 1]);
    }
    assert!(pool.try_get().is_err());
    Ok(())
}

fn a_forgotten_stack_is_a_place_lost<K: Kind>(code: Code) -> Result<()> {
    let pool = pool::<K>(2);
    std::mem::forget(now(&pool));
    assert_usable(&mut *now(&pool), &mut store(code))?;
    assert_eq!(counts(&pool), [1, 1, 2, 2]);
    Ok(())
}

fn calls_on_many_threads<K: Kind>(code: Code) -> Result<()> {
    const MAX: usize = 3;
    let pool = pool::<K>(MAX);
    let in_use = AtomicUsize::new(0);
    let mut random = Random::from_environment();
    let users = [(); 8].map(|()| random.fork());
    thread::scope(|scope| {
        for mut random in users {
            let (pool, in_use) = (&pool, &in_use);
            scope.spawn(move || {
                let mut store = store(code);
                let wait = Func::wrap_suspending_send(&mut store, |n: u32| pending(n as usize));
                let text = r#"(module (import "" "" (func (param i32))) (export "run" (func 0)))"#;
                let run = runner(&mut store, text, [wait]).expect("it fits");
                let run = run.get_async(&store).get1::<u32, ()>().expect("has this type");
                for _ in 0..20 {
                    let mut stack = if random.one_in(3) {
                        // Tasks come and go, with or without a stack.
                        let _ = poll_once(&mut Box::pin(pool.get())).map(drop);
                        let Some(stack) = pool.try_get().expect("there is memory") else { continue };
                        stack
                    } else {
                        block_on(pool.get()).expect("there is memory")
                    };
                    assert!(in_use.fetch_add(1, Ordering::Relaxed) < MAX);
                    let rounds = u32::try_from(random.below(3)).expect("is small");
                    let call = run.call(&mut *stack, &mut store, (rounds,));
                    if random.one_in(4) {
                        let mut call = call;
                        let _ = poll_once(&mut call);
                    } else {
                        block_on(call).expect("returns");
                    }
                    in_use.fetch_sub(1, Ordering::Relaxed);
                }
            });
        }
    });
    let [idle, in_use, created, peak] = counts(&pool);
    assert_eq!((idle, in_use), (created, 0));
    assert!(created <= MAX && peak <= MAX);
    Ok(())
}

/// Idle stacks are dropped, stacks in use stay, and new ones are made when they are needed.
fn shrunk<K: Kind>(code: Code) -> Result<()> {
    let pool = pool::<K>(4);
    let held: Vec<_> = (0..4).map(|_| now(&pool)).collect();
    let mut held = held.into_iter();
    let in_use = held.next().expect("four were taken");
    drop(held);
    assert_eq!((pool.counts().idle, pool.counts().in_use), (3, 1));
    pool.shrink_to(5);
    assert_eq!(pool.counts().idle, 3);
    pool.shrink_to(1);
    assert_eq!((pool.counts().idle, pool.counts().in_use, pool.counts().created), (1, 1, 4));
    drop(in_use);
    pool.shrink_to(0);
    assert_eq!((pool.counts().idle, pool.counts().in_use), (0, 0));
    let mut stack = now(&pool);
    assert_eq!(pool.counts().created, 5);
    assert_usable(&mut *stack, &mut store(code))
}

fn clones_are_the_same_pool<K: Kind>(code: Code) -> Result<()> {
    let pool = pool::<K>(1);
    let clone = pool.clone();
    let mut stack = now(&pool);
    assert!(clone.try_get()?.is_none());
    drop((pool, clone));
    // A stack outlives its pool.
    assert_usable(&mut *stack, &mut store(code))
}

/// Calls that are `Send` and hold a stack from a pool. Each poll is on the next thread.
#[cfg(fiber_stack)]
#[test]
fn calls_go_from_thread_to_thread() -> Result<()> {
    use std::collections::VecDeque;
    use std::sync::Mutex;
    use wasmtime_async::{SendFiberStack, Store};

    type Task = Pin<Box<dyn Future<Output = Result<u32>> + Send>>;

    async fn request(pool: Pool<SendFiberStack>, number: u32) -> Result<u32> {
        let mut stack = pool.get().await?;
        let mut store = Store::new(&Code::Pulley.engine(), Host::default());
        let wait = Func::wrap_suspending_send(&mut store, |n: u32| async move {
            pending(n as usize % 4).await;
            n + 1
        });
        let text = r#"(module
            (import "" "" (func $wait (param i32) (result i32)))
            (func (export "run") (param i32) (result i32) (call $wait (call $wait (local.get 0)))))"#;
        let run = runner(&mut store, text, [wait])?.get_async(&store).get1::<u32, u32>()?;
        run.call(&mut *stack, &mut store, (number,)).await
    }

    const MAX: usize = 3;
    const REQUESTS: u32 = 60;
    let pool = Pool::<SendFiberStack>::new(MAX, DEFAULT_STACK_SIZE)?;
    let tasks: VecDeque<(u32, Task)> =
        (0..REQUESTS).map(|number| (number, Box::pin(request(pool.clone(), number)) as Task)).collect();
    let (tasks, ended) = (Mutex::new(tasks), AtomicUsize::new(0));
    crate::common::watchdog::watched(|_| {
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    loop {
                        let next = tasks.lock().expect("is not poisoned").pop_front();
                        // The other threads have the remaining tasks.
                        let Some((number, mut task)) = next else { break };
                        match poll_once(&mut task) {
                            Poll::Pending => tasks.lock().expect("is not poisoned").push_back((number, task)),
                            Poll::Ready(result) => {
                                assert_eq!(result.expect("does not fail"), number + 2);
                                ended.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                });
            }
        });
    });
    assert_eq!(ended.load(Ordering::Relaxed), REQUESTS as usize);
    let [idle, in_use, created, peak] = counts(&pool);
    assert_eq!((idle, in_use, created), (created, 0, peak));
    assert!(peak <= MAX);
    Ok(())
}

fn each_stack_is_set_up_once<K: Kind>(_: Code) -> Result<()> {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = calls.clone();
    let pool = Pool::<K::Stack>::with_setup(2, DEFAULT_STACK_SIZE, move |stack| {
        assert!(stack.size() >= DEFAULT_STACK_SIZE);
        counter.fetch_add(1, Ordering::Relaxed);
    })?;
    let set_up = || calls.load(Ordering::Relaxed);
    assert_eq!(set_up(), 0);
    for _ in 0..3 {
        let (first, second) = (block_on(pool.get())?, pool.try_get()?.expect("there are two"));
        assert_eq!(set_up(), 2);
        drop((first, second));
    }
    pool.shrink_to(1);
    let both = (block_on(pool.get())?, block_on(pool.get())?);
    assert_eq!(set_up(), 3);
    drop(both);
    Ok(())
}

/// Nothing is lost.
fn a_panic_while_a_stack_is_set_up<K: Kind>(_: Code) -> Result<()> {
    let calls = AtomicUsize::new(0);
    let pool = Pool::<K::Stack>::with_setup(1, DEFAULT_STACK_SIZE, move |_| {
        if calls.fetch_add(1, Ordering::Relaxed) == 0 {
            // Like a panic, but nothing is printed.
            resume_unwind(Box::new("while it is set up"));
        }
    })?;
    let payload = catch_unwind(AssertUnwindSafe(|| drop(block_on(pool.get())))).unwrap_err();
    assert_eq!(payload.downcast_ref(), Some(&"while it is set up"));
    assert_eq!((pool.counts().in_use, pool.counts().created), (0, 0));
    let mut stack = block_on(pool.get())?;
    assert_usable(&mut *stack, &mut store(Code::Pulley))
}
