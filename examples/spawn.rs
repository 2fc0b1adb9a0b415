//! Ten thousand guests as tasks of a tokio runtime with several threads.
//!
//! ```sh
//! cargo run --release --example spawn -- --calls 10000
//! ```
//!
//! Each call is spawned, and the runtime moves it between threads. This takes a `SendFiberStack`, host functions that
//! are registered with `func_wrap_suspending_send`, and stores whose data is `Send`. At most 200 calls are in flight,
//! because the pool has 200 stacks.
//!
//! The last line says on how many threads host functions ran, how often a guest was resumed on another thread than it
//! was suspended on, and how many results were wrong.

use std::collections::HashSet;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::thread::{self, ThreadId};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use wasmtime::{Caller, Engine, InstancePre, Linker, Module, Result};
#[cfg(fiber_stack)]
use wasmtime_async::SendFiberStack as TaskStack;
// Calls on this stack are `Send`, too, and every target has it (with the features `thread-backend` and `tokio`).
#[cfg(not(fiber_stack))]
use wasmtime_async::ThreadStack as TaskStack;
use wasmtime_async::{AsyncFunc, DEFAULT_STACK_SIZE, InstancePreExt, LinkerExt, Pool, Store};

/// Asks a service four questions, and sleeps for 0 to 2 ms in between. Each question is the previous answer.
const GUEST: &str = r#"
    (module
        (import "host" "sleep" (func $sleep (param i32)))
        (import "host" "ask" (func $ask (param i32) (result i32)))
        (func (export "run") (param $n i32) (result i32)
            (local $rounds i32)
            (loop $again
                (local.set $n (call $ask (local.get $n)))                   ;; the stack may be suspended here …
                (call $sleep (i32.rem_u (local.get $n) (i32.const 3)))      ;; … and here
                (local.set $rounds (i32.add (local.get $rounds) (i32.const 1)))
                (br_if $again (i32.lt_u (local.get $rounds) (i32.const 4))))
            (local.get $n)))
"#;

/// The service's answer.
fn answer(question: i32) -> i32 {
    question.wrapping_mul(31) ^ 0x5bd1
}

/// The result that a guest should have.
fn expected(n: i32) -> i32 {
    (0..4).fold(n, |n, _| answer(n))
}

/// A question to the service, and the channel for the answer.
type Question = (i32, oneshot::Sender<i32>);

/// The data of the stores, which they all share.
struct Host {
    service: mpsc::Sender<Question>,
    /// The threads that host functions ran on.
    threads: Mutex<HashSet<ThreadId>>,
    /// How many suspensions ended on another thread than the one where they began.
    moved: AtomicU64,
}

impl Host {
    /// Waits for a future on behalf of a guest, and notes on which threads that happens.
    async fn wait<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        let mut suspended_on = None;
        poll_fn(|cx| {
            let here = thread::current().id();
            self.threads.lock().expect("nothing panics").insert(here);
            if suspended_on.is_some_and(|thread| thread != here) {
                self.moved.fetch_add(1, Ordering::Relaxed);
            }
            let poll = future.as_mut().poll(cx);
            suspended_on = matches!(poll, Poll::Pending).then_some(here);
            poll
        })
        .await
    }

    async fn ask(&self, question: i32) -> Result<i32> {
        let (sender, receiver) = oneshot::channel();
        self.service.send((question, sender)).await?;
        Ok(receiver.await?)
    }
}

fn linker(engine: &Engine) -> Result<Linker<Arc<Host>>> {
    let mut linker = Linker::new(engine);
    // These closures copy what they need out of the `Caller`, and return a `Send` future.
    linker.func_wrap_suspending_send("host", "sleep", |caller: Caller<'_, Arc<Host>>, ms: u32| {
        let host = caller.data().clone();
        async move { host.wait(tokio::time::sleep(Duration::from_millis(ms.into()))).await }
    })?;
    linker.func_wrap_suspending_send("host", "ask", |caller: Caller<'_, Arc<Host>>, question: i32| {
        let host = caller.data().clone();
        async move { host.wait(host.ask(question)).await }
    })?;
    Ok(linker)
}

/// One call, from making the stack to the result. Nothing in it ties it to a thread.
async fn call(n: i32, pool: Pool<TaskStack>, guest: InstancePre<Arc<Host>>, host: Arc<Host>) -> Result<i32> {
    let mut stack = pool.get().await?;
    let mut store = Store::new(guest.module().engine(), host);
    let instance = guest.instantiate_on(&mut *stack, &mut store).await?;
    let run = AsyncFunc::from(instance.get_typed_func::<i32, i32>(&mut store, "run")?);
    run.call(&mut *stack, &mut store, n).await
}

/// Makes all calls, and returns how many results were wrong.
async fn make_calls(calls: i32) -> Result<usize> {
    let (service, mut questions) = mpsc::channel::<Question>(100);
    tokio::spawn(async move {
        while let Some((question, reply)) = questions.recv().await {
            // The task that asked may be gone.
            let _ = reply.send(answer(question));
        }
    });
    let host = Arc::new(Host { service, threads: Mutex::default(), moved: AtomicU64::new(0) });

    let engine = Engine::default();
    let guest = linker(&engine)?.instantiate_pre(&Module::new(&engine, GUEST)?)?;
    #[cfg(fiber_stack)]
    let pool = Pool::new(200, DEFAULT_STACK_SIZE)?;
    // Timers need tokio's runtime, which a stack's thread does not have by itself.
    #[cfg(not(fiber_stack))]
    let pool = Pool::with_setup(200, DEFAULT_STACK_SIZE, |stack: &mut TaskStack| {
        wasmtime_async::Stack::set_ambient(stack, wasmtime_async::tokio_runtime);
    })?;
    let tasks: Vec<_> = (0..calls).map(|n| tokio::spawn(call(n, pool.clone(), guest.clone(), host.clone()))).collect();
    let mut wrong = 0;
    for (n, task) in (0..).zip(tasks) {
        wrong += usize::from(task.await?? != expected(n));
    }

    let threads = host.threads.lock().expect("nothing panics").len();
    let moved = host.moved.load(Ordering::Relaxed);
    println!("calls={calls} threads={threads} moved={moved} wrong={wrong}");
    Ok(wrong)
}

/// The number of calls in the arguments, if they make sense.
fn number_of_calls() -> Option<i32> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => Some(10_000),
        ["--calls", number] => number.parse().ok().filter(|calls| *calls > 0),
        _ => None,
    }
}

#[tokio::main(worker_threads = 4)]
async fn main() -> Result<ExitCode> {
    let Some(calls) = number_of_calls() else {
        eprintln!("usage: spawn [--calls N], N being 1 or more, 10000 unless said otherwise");
        return Ok(ExitCode::from(2));
    };
    let wrong = make_calls(calls).await?;
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
