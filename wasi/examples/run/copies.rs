//! Runs the copies at once on one thread, and reports how each ended.

use crate::arguments::{Arguments, StackKind};
use crate::program::{Program, context};
use crate::{NOT_RUN, TIMED_OUT, TRAPPED, complain, print};
use futures::future::join_all;
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::thread;
use std::time::{Duration, Instant};
use wasmtime::error::Context as _;
use wasmtime::{Engine, Result, Trap, WasmBacktrace};
use wasmtime_async::{
    Carries, DEFAULT_STACK_SIZE, Error, FiberStack, SendFiberStack, Stack, Store, ThreadStack, tokio_runtime,
};
use wasmtime_wasi::p1::WasiP1Ctx;

/// How long a guest that never waits runs before others do, if there is a timeout.
const TICK: Duration = Duration::from_millis(5);

/// What is counted while the copies run.
#[derive(Default)]
struct Counts {
    suspensions: Cell<u64>,
    threads: RefCell<HashSet<thread::ThreadId>>,
}

/// Returns the exit code.
pub(crate) fn run(program: &Program, arguments: &Arguments) -> Result<i32> {
    match arguments.stack {
        StackKind::Fiber => run_on(program, arguments, FiberStack::new),
        StackKind::Send => run_on(program, arguments, SendFiberStack::new),
        StackKind::Thread => run_on(program, arguments, |size| {
            let mut stack = ThreadStack::new(size)?;
            stack.set_ambient(tokio_runtime);
            Ok(stack)
        }),
        StackKind::Without => run_without(program, arguments),
    }
}

/// Runs the copies without stacks, one after the other.
fn run_without(program: &Program, arguments: &Arguments) -> Result<i32> {
    let counts = Counts::default();
    counts.threads.borrow_mut().insert(thread::current().id());
    let begun = Instant::now();
    let run = |copy| {
        let mut store = store(program, arguments).with_context(|| name(arguments, copy))?;
        Ok(Some(program.run_without(&mut store)))
    };
    let ended = (0..number(arguments)).map(run).collect::<Result<_>>()?;
    report(arguments, ended, begun.elapsed(), &counts)
}

fn run_on<S: Stack + Carries<WasiP1Ctx>>(
    program: &Program,
    arguments: &Arguments,
    new_stack: fn(usize) -> Result<S, Error>,
) -> Result<i32> {
    let number = number(arguments);
    let new_stack = |copy| new_stack(DEFAULT_STACK_SIZE).with_context(|| name(arguments, copy));
    let mut stacks = (0..number).map(new_stack).collect::<Result<Vec<_>>>()?;
    let new_store = |copy| store(program, arguments).with_context(|| name(arguments, copy));
    let mut stores = (0..number).map(new_store).collect::<Result<Vec<_>>>()?;
    if arguments.timeout.is_some() {
        tick(program.engine.clone());
    }
    let counts = Counts::default();
    let begun = Instant::now();
    let copies = stacks.iter_mut().zip(&mut stores).map(|(stack, store)| {
        let copy = counts.count(program.run(stack, store));
        async {
            match arguments.timeout {
                Some(timeout) => tokio::time::timeout(timeout, copy).await.ok(),
                None => Some(copy.await),
            }
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(join_all(copies));
    let took = begun.elapsed();
    // A thread may still be working on a file for a program that is gone. Do not wait for it.
    runtime.shutdown_background();
    report(arguments, ended, took, &counts)
}

/// Reports how each copy ended (`None` if it was stopped), and returns the exit code.
fn report(arguments: &Arguments, ended: Vec<Option<Result<i32>>>, took: Duration, counts: &Counts) -> Result<i32> {
    let number = ended.len();
    let mut codes = Vec::new();
    for (copy, result) in ended.into_iter().enumerate() {
        let name = name(arguments, copy);
        codes.push(match result {
            Some(Ok(code)) => code,
            Some(Err(error)) => {
                complain(&format!("{name}: {}", cause(&error)));
                if error.is::<WasmBacktrace>() || error.is::<Trap>() { TRAPPED } else { NOT_RUN }
            }
            None => {
                let timeout = arguments.timeout.unwrap_or_default().as_millis();
                complain(&format!("{name}: stopped, as it had not ended after {timeout} ms"));
                TIMED_OUT
            }
        });
    }
    if arguments.copies.is_some() {
        let (threads, suspensions) = (counts.threads.borrow().len(), counts.suspensions.get());
        let ms = took.as_millis();
        print(&format!("copies={number} threads={threads} ms={ms} suspensions={suspensions}\n"))?;
    }
    Ok(codes.into_iter().find(|code| *code != 0).unwrap_or(0))
}

fn number(arguments: &Arguments) -> usize {
    arguments.copies.unwrap_or(1)
}

/// What messages call this copy.
fn name(arguments: &Arguments, copy: usize) -> String {
    let (name, number) = (arguments.program.display(), number(arguments));
    if number == 1 { name.to_string() } else { format!("{name}, copy {} of {number}", copy + 1) }
}

fn store(program: &Program, arguments: &Arguments) -> Result<Store<WasiP1Ctx>> {
    let mut store = Store::new(&program.engine, context(arguments)?);
    if arguments.timeout.is_some() {
        store.set_epoch_deadline(1);
        store.epoch_deadline_suspend_and_update(1);
    }
    Ok(store)
}

/// Interrupts guests that never call the host every now and then, so that the timeout is noticed.
fn tick(engine: Engine) {
    thread::spawn(move || {
        loop {
            thread::sleep(TICK);
            engine.increment_epoch();
        }
    });
}

/// Why a program was stopped. Leaves out the backtrace, which has many lines.
fn cause(error: &wasmtime::Error) -> String {
    let cause = crate::in_one_line(&wasmtime::Error::msg(error.root_cause().to_string()));
    if error.is::<Trap>() { format!("trapped: {}", cause.trim_start_matches("wasm trap: ")) } else { cause }
}

impl Counts {
    /// Counts how often the future is left pending, and on which threads it is polled.
    async fn count<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|cx| {
            self.threads.borrow_mut().insert(thread::current().id());
            let polled = future.as_mut().poll(cx);
            self.suspensions.set(self.suspensions.get() + u64::from(polled.is_pending()));
            polled
        })
        .await
    }
}
