//! Guests whose data is not `Send`, on a few threads of a tokio server.
//!
//! ```sh
//! cargo run --release --example local_pool -- --calls 2000
//! ```
//!
//! A `tokio_util::task::LocalPoolHandle` has a few workers, each a thread with tasks of its own. A call is made on one of
//! them and stays there, so that its store may have an `Rc`, and its host functions may keep one while they wait. The
//! tasks that ask for the calls may be anywhere: what they send and what they get back is `Send`.
//!
//! An `AbortOnDropHandle` stops the call when it is dropped, as when the client of a server has gone.
//!
//! The last line says on how many threads guests ran, how many results were wrong, how many calls were dropped, and how
//! many stores were left.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::time::sleep;
use tokio_util::task::{AbortOnDropHandle, LocalPoolHandle};
use wasmtime::{Caller, Engine, InstancePre, Linker, Module, Result};
use wasmtime_async::{AsyncFunc, DEFAULT_STACK_SIZE, FiberStack, InstancePreExt, LinkerExt, Pool, Store};

/// Looks its number up, sleeps, and looks again.
const GUEST: &str = r#"
    (module
        (import "host" "look_up" (func $look_up (param i32) (result i32)))
        (import "host" "sleep" (func $sleep (param i32)))
        (func (export "run") (param $n i32) (param $ms i32) (result i32)
            (local $found i32)
            (local.set $found (call $look_up (local.get $n)))
            (call $sleep (local.get $ms))
            (i32.add (local.get $found) (call $look_up (local.get $n)))))
"#;

/// What a guest finds for a number.
fn answer(n: i32) -> i32 {
    n.wrapping_mul(31) ^ 0x5bd1
}

/// The data that all calls of one worker share. It cannot be sent to another thread.
#[derive(Default)]
struct Worker {
    known: RefCell<HashMap<i32, i32>>,
    calls: Cell<usize>,
}

thread_local!(static WORKER: Rc<Worker> = Rc::default());

/// How many stores are alive, and how many workers have had one. Shared by all threads.
#[derive(Default)]
struct Counts {
    stores: AtomicUsize,
    workers: AtomicUsize,
}

/// The data of a store.
struct Host {
    worker: Rc<Worker>,
    counts: Arc<Counts>,
}

impl Host {
    fn new(counts: Arc<Counts>) -> Self {
        let worker = WORKER.with(Rc::clone);
        counts.stores.fetch_add(1, Ordering::Relaxed);
        if worker.calls.replace(worker.calls.get() + 1) == 0 {
            counts.workers.fetch_add(1, Ordering::Relaxed);
        }
        Self { worker, counts }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.counts.stores.fetch_sub(1, Ordering::Relaxed);
    }
}

fn linker(engine: &Engine) -> Result<Linker<Host>> {
    let mut linker = Linker::new(engine);
    linker.func_wrap_suspending("host", "look_up", async |caller: Caller<'_, Host>, n: i32| {
        let worker = Rc::clone(&caller.data().worker);
        if let Some(known) = worker.known.borrow().get(&n) {
            return *known;
        }
        // Asking takes a while. The future that waits for the answer holds an `Rc`.
        sleep(Duration::from_millis(1)).await;
        *worker.known.borrow_mut().entry(n).or_insert_with(|| answer(n))
    })?;
    linker.func_wrap_suspending("host", "sleep", async |ms: i32| {
        sleep(Duration::from_millis(ms.unsigned_abs().into())).await;
    })?;
    Ok(linker)
}

/// What calls need. It is `Send`, and each call has a clone.
#[derive(Clone)]
struct Calls {
    workers: LocalPoolHandle,
    guest: InstancePre<Host>,
    /// One pool for all workers, because an idle `FiberStack` can be sent to another thread.
    stacks: Pool<FiberStack>,
    counts: Arc<Counts>,
}

impl Calls {
    /// Makes a call on the worker that has the fewest tasks.
    fn spawn(&self, n: i32, ms: i32) -> AbortOnDropHandle<Result<i32>> {
        let this = self.clone();
        AbortOnDropHandle::new(self.workers.spawn_pinned(move || this.call(n, ms)))
    }

    async fn call(self, n: i32, ms: i32) -> Result<i32> {
        let mut stack = self.stacks.get().await?;
        let mut store = Store::new(self.guest.module().engine(), Host::new(self.counts));
        let instance = self.guest.instantiate_on(&mut *stack, &mut store).await?;
        let run = AsyncFunc::from(instance.get_typed_func::<(i32, i32), i32>(&mut store, "run")?);
        run.call(&mut *stack, &mut store, (n, ms)).await
    }
}

/// Makes all calls, and then makes and drops a tenth as many. Returns whether all went well.
async fn make_calls(number: i32) -> Result<bool> {
    let engine = Engine::default();
    let calls = Calls {
        workers: LocalPoolHandle::new(4),
        guest: linker(&engine)?.instantiate_pre(&Module::new(&engine, GUEST)?)?,
        stacks: Pool::new(500, DEFAULT_STACK_SIZE)?,
        counts: Arc::default(),
    };
    let mut tasks = Vec::new();
    for n in 0..number {
        // Each call is asked for by a task of the runtime with many threads.
        let calls = calls.clone();
        tasks.push(tokio::spawn(async move { calls.spawn(n % 100, n % 3).await? }));
    }
    let mut wrong = 0;
    for (n, task) in (0..).zip(tasks) {
        wrong += usize::from(task.await?? != answer(n % 100).wrapping_mul(2));
    }

    // These guests would sleep for an hour. All of them are dropped once they have started.
    let dropped = usize::try_from(number)?.div_ceil(10).min(500);
    let handles: Vec<_> = (0..dropped).map(|_| calls.spawn(0, 3_600_000)).collect();
    while calls.counts.stores.load(Ordering::Relaxed) < dropped {
        sleep(Duration::from_millis(1)).await;
    }
    drop(handles);
    let begun = Instant::now();
    while calls.stacks.counts().in_use > 0 && begun.elapsed() < Duration::from_mins(5) {
        sleep(Duration::from_millis(1)).await;
    }

    let (workers, left) = (calls.counts.workers.load(Ordering::Relaxed), calls.counts.stores.load(Ordering::Relaxed));
    println!("calls={number} workers={workers} wrong={wrong} dropped={dropped} left={left}");
    Ok(wrong == 0 && left == 0)
}

/// The number of calls in the arguments, if they make sense.
fn number_of_calls() -> Option<i32> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => Some(2000),
        ["--calls", number] => number.parse().ok().filter(|calls| *calls > 0),
        _ => None,
    }
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<ExitCode> {
    let Some(calls) = number_of_calls() else {
        eprintln!("usage: local_pool [--calls N], N being 1 or more, 2000 unless said otherwise");
        return Ok(ExitCode::from(2));
    };
    Ok(if make_calls(calls).await? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
