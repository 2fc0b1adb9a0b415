//! The system has no more memory, mappings or threads: the call or the stack that needs them gets an error, and
//! everything else continues. Runs in child processes, with limits of their own.
#![cfg(all(not(feature = "loom"), target_os = "linux", target_pointer_width = "64"))]
#![expect(unsafe_code, reason = "takes all mappings that a process may have")]

mod common;

use common::child;
use common::futures::{finish, poll_once};
use common::watchdog::{Whereabouts, threads, wait_until, watched};
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use rustix::param::page_size;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::ffi::c_void;
use std::fs;
use std::io;
use std::mem;
use std::ptr;
use std::task::Poll;
use wasmtime::{Config, Engine, Func, Instance, Module, Trap, Val};
use wasmtime_async::{Carries, Error, FuncExt, Stack, Store};

fn alone() -> bool {
    // Without these, each thread takes address space for its own heap, and each panic takes some for its output.
    child::alone_with(|command| {
        command.env("MALLOC_ARENA_MAX", "1").env("RUST_BACKTRACE", "0");
    })
}

fn limits_work() -> bool {
    let work = child::emulator().is_none();
    if !work {
        println!("left out: emulators pay no heed to these limits");
    }
    work
}

/// Limits the process to the bytes that another 20.5 stacks of this size take. Less would be too little: std ends the
/// process if a new thread has a stack, but no memory for the stack on which signals are handled.
fn limit(resource: Resource, used: &str, size: usize) {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let used = status.lines().find_map(|line| line.strip_prefix(used)).unwrap();
    let used: u64 = used.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap();
    let current = used * 1024 + 20 * size as u64 + size as u64 / 2;
    setrlimit(resource, Rlimit { current: Some(current), ..getrlimit(resource) }).unwrap();
}

/// A guest that waits, and then ends in one of several ways.
const GUEST: &str = r#"(module
    (import "" "wait" (func $wait (param i32)))
    (func (export "run") (param $n i32) (result i32)
        (call $wait (local.get $n))
        (if (i32.eq (local.get $n) (i32.const 1)) (then (unreachable)))
        (call $wait (local.get $n))
        (i32.mul (local.get $n) (local.get $n))))"#;

/// An engine whose stores take little address space.
fn engine() -> Engine {
    let mut config = Config::new();
    config.memory_reservation(1 << 20).memory_guard_size(1 << 16);
    Engine::new(&config).unwrap()
}

fn guest(engine: &Engine) -> (Store<()>, Func) {
    let mut store = Store::new(engine, ());
    let wait = Func::wrap_suspending_send(&mut store, |_: i32| async { futures::pending!() });
    let module = Module::new(engine, GUEST).unwrap();
    let instance = Instance::new(&mut store, &module, &[wait.into()]).unwrap();
    let run = instance.get_func(&mut store, "run").unwrap();
    (store, run)
}

fn is_out(error: &Error) -> bool {
    let (Error::StackMemory { source, .. } | Error::ThreadSpawn { source, .. }) = error else { return false };
    // The error of the system, and what to do about it.
    source.raw_os_error().is_some() && error.to_string().contains("raise the limits of the process")
}

/// Makes stacks until the system cannot provide another one.
fn exhaust<S: Stack>(size: usize) -> Vec<S> {
    let mut stacks = Vec::new();
    loop {
        match S::new(size) {
            Ok(stack) => stacks.push(stack),
            Err(error) => {
                assert!(is_out(&error), "{error:?}");
                return stacks;
            }
        }
        assert!(stacks.len() < 10_000, "nothing limits the number of stacks");
    }
}

/// While nothing is available, calls in flight continue, each to its own end, and existing stacks work. When something
/// was released, new stacks can be made again.
///
/// If dropping a stack releases its memory at once, a stack in the middle is dropped while nothing is available.
fn others_go_on<S: Stack + Carries<()>, Used>(at: &Whereabouts, size: usize, at_once: bool, use_up: impl Fn() -> Used) {
    let engine = engine();
    let mut places: Vec<_> = (0..5).map(|_| (S::new(size).unwrap(), guest(&engine))).collect();
    let mut spare = guest(&engine);
    let mut reused = S::new(size).unwrap();
    // The first time that a thread enters wasm, wasmtime takes a little memory, and panics if there is none.
    let (store, run) = &mut spare;
    finish(run.call_on(&mut reused, store, &[Val::I32(0)], &mut [Val::I32(0)])).unwrap();
    for round in 0..3 {
        let mut results = [[Val::I32(0)]; 5];
        let params = [0, 1, 2, 3, 4].map(|n| [Val::I32(n)]);
        let mut calls: Vec<_> = places
            .iter_mut()
            .zip(&mut results)
            .zip(&params)
            .map(|(((stack, (store, run)), results), params)| run.call_on(stack, store, params, results))
            .collect();
        assert!(calls.iter_mut().all(|call| poll_once(call).is_pending()));

        let (mut store, forgotten_run) = guest(&engine);
        let running = threads().len();
        let mut neighbours: Vec<_> = (0..5).map(|_| S::new(size).unwrap()).collect();
        for neighbour in &mut neighbours {
            // A thread that has not begun would still need memory, without which std ends the process.
            let (store, run) = &mut spare;
            finish(run.call_on(neighbour, store, &[Val::I32(0)], &mut [Val::I32(0)])).unwrap();
        }
        let used = use_up();
        if at_once {
            // From between the others. The system may have merged them into one mapping.
            drop(neighbours.remove(2));
        }
        let more = exhaust::<S>(size);
        // A stack whose call was forgotten needs new memory, or a new thread.
        let (param, mut squared) = ([Val::I32(2)], [Val::I32(0)]);
        let mut forgotten = forgotten_run.call_on(&mut reused, &mut store, &param, &mut squared);
        assert!(poll_once(&mut forgotten).is_pending());
        mem::forget(forgotten);
        drop(store);
        let (store, run) = &mut spare;
        for _ in 0..2 {
            let error = finish(run.call_on(&mut reused, store, &param, &mut squared)).unwrap_err();
            assert!(error.downcast_ref().is_some_and(is_out), "{error:?}");
        }
        // One is dropped, one traps, and the others return.
        for (n, mut call) in calls.into_iter().enumerate() {
            match n {
                0 => drop(call),
                1 => {
                    let Poll::Ready(result) = poll_once(&mut call) else { panic!("it traps") };
                    assert_eq!(result.unwrap_err().downcast_ref(), Some(&Trap::UnreachableCodeReached));
                }
                _ => {
                    assert!(poll_once(&mut call).is_pending());
                    let Poll::Ready(result) = poll_once(&mut call) else { panic!("it returns") };
                    result.unwrap();
                }
            }
        }
        for (n, result) in (0..).zip(&results).skip(2) {
            assert_eq!(result[0].unwrap_i32(), n * n);
        }

        drop((used, more, neighbours));
        at.note("poller", format_args!("round {round}, waits until there are {running} threads"));
        wait_until(|| threads().len() <= running);
        finish(run.call_on(&mut reused, store, &param, &mut squared)).unwrap();
        assert_eq!(squared[0].unwrap_i32(), 4, "round {round}");
    }
}

/// The tests for one kind of stack.
macro_rules! runs_out {
    ($stack:ty, $at_once:literal) => {
        /// In bytes. Large, so that it takes few to use up what there is.
        const SIZE: usize = 16 << 20;

        #[test]
        fn address_space() {
            if super::limits_work() && super::alone() {
                super::watched(|at| {
                    super::others_go_on::<$stack, _>(at, SIZE, $at_once, || {
                        super::limit(super::Resource::As, "VmSize", SIZE);
                        super::exhaust::<$stack>(SIZE)
                    });
                });
            }
        }

        #[test]
        fn private_memory() {
            if super::limits_work() && super::alone() {
                super::watched(|at| {
                    super::others_go_on::<$stack, _>(at, SIZE, $at_once, || {
                        super::limit(super::Resource::Data, "VmData", SIZE);
                        super::exhaust::<$stack>(SIZE)
                    });
                });
            }
        }

        #[test]
        fn mappings() {
            if super::alone() {
                super::watched(|at| super::others_go_on::<$stack, _>(at, 1 << 20, $at_once, super::Mappings::all));
            }
        }
    };
}

#[cfg(fiber_stack)]
mod fiber {
    runs_out!(wasmtime_async::FiberStack, true);
}

#[cfg(fiber_stack)]
mod send_fiber {
    runs_out!(wasmtime_async::SendFiberStack, true);
}

#[cfg(feature = "thread-backend")]
mod thread {
    runs_out!(wasmtime_async::ThreadStack, false);
}

/// All mappings that this process can still get.
struct Mappings(Vec<(*mut c_void, usize)>);

impl Mappings {
    fn all() -> Self {
        const PAGES: usize = 100_000;
        let page = page_size();
        let mut mappings = Self(Vec::with_capacity(1000));
        // Giving every other page other rights makes it a mapping of its own.
        'all: while let Ok(start) = mappings.map(PAGES * page, ProtFlags::empty()) {
            for number in (0..PAGES).step_by(2) {
                let next = start.wrapping_byte_add(number * page);
                // SAFETY: this lies within the mapping that was just made, which nothing else uses.
                if unsafe { mprotect(next, page, MprotectFlags::READ) }.is_err() {
                    break 'all;
                }
            }
        }
        // The very last mappings.
        while mappings.map(page, ProtFlags::READ).is_ok() && mappings.map(page, ProtFlags::empty()).is_ok() {}
        mappings
    }

    fn map(&mut self, len: usize, rights: ProtFlags) -> io::Result<*mut c_void> {
        // SAFETY: this makes a new mapping, anywhere.
        let start = unsafe { mmap_anonymous(ptr::null_mut(), len, rights, MapFlags::PRIVATE | MapFlags::NORESERVE) }?;
        self.0.push((start, len));
        Ok(start)
    }
}

impl Drop for Mappings {
    fn drop(&mut self) {
        while let Some((start, len)) = self.0.pop() {
            // SAFETY: this is one of our mappings, and nothing uses it.
            unsafe { munmap(start, len) }.unwrap();
        }
    }
}
