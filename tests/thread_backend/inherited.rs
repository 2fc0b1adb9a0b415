//! What a stack's thread inherits from the thread that made the stack, and how much of its stack is left for calls.

use crate::common::watchdog::watched;
use futures::executor::block_on;
use std::cell::Cell;
use std::env;
use std::hint::black_box;
use std::process::Command;
use wasmtime::{Config, Engine, Func, Instance, Module, Store as Wasmtime, Trap};
use wasmtime_async::{AsyncFunc, FuncExt, Stack, Store, ThreadStack};

/// More than any stack here can spare. glibc puts it on the stack of each thread of this program.
const STATIC_BYTES: usize = 200 << 10;
thread_local!(static STATIC: [Cell<u8>; STATIC_BYTES] = const { [const { Cell::new(1) }; STATIC_BYTES] });

/// A guest that recurses without end is stopped, whatever else is on the stack of its thread.
#[test]
fn static_thread_locals_come_on_top_of_the_size() {
    const RECURSE: &str = r#"(module (func $f (export "f") (param i32) (result i32)
        (i32.add (i32.const 1) (call $f (i32.add (local.get 0) (i32.const 1))))))"#;
    watched(|at| {
        for guests in [32 << 10, 512 << 10] {
            let engine = Engine::new(Config::new().max_wasm_stack(guests)).unwrap();
            let module = Module::new(&engine, RECURSE).unwrap();
            let mut store = Store::new(&engine, ());
            let instance = Instance::new(&mut store, &module, &[]).unwrap();
            let f = AsyncFunc::from(instance.get_typed_func::<i32, i32>(&mut store, "f").unwrap());
            for room in [32 << 10, 128 << 10, 1 << 20] {
                at.note("poller", format_args!("{guests} bytes for guests, {room} besides"));
                let mut stack = ThreadStack::new(guests + room).unwrap();
                let error = block_on(f.call(&mut stack, &mut store, 0)).unwrap_err();
                assert_eq!(error.downcast_ref(), Some(&Trap::StackOverflow));
                let number = usize::try_from(std::process::id()).unwrap() % STATIC_BYTES;
                let own =
                    block_on(stack.run(&mut store, move |_| Ok(STATIC.with(|bytes| black_box(bytes)[number].get()))));
                assert_eq!(own.unwrap(), 1);
            }
        }
    });
}

/// Host code can use as many bytes as were asked for.
#[test]
fn host_functions_may_use_the_rest() {
    /// Uses this many KiB of the stack.
    #[inline(never)]
    fn descend(kib: usize) -> usize {
        let block = black_box([1_u8; 1024]);
        if kib == 0 { 0 } else { descend(kib - 1) + usize::from(block[kib % 1024]) }
    }
    watched(|_| {
        let mut stack = ThreadStack::new(1 << 20).unwrap();
        let mut store = Store::new(&Engine::default(), ());
        // Frames are a little larger than their blocks, and much larger without optimisation.
        let kib = if cfg!(debug_assertions) { 300 } else { 800 };
        assert_eq!(block_on(stack.run(&mut store, move |_| Ok(descend(kib)))).unwrap(), kib);
    });
}

/// A new stack does not use a thread of another thread's stack. It has the same processors as the thread that made it.
#[test]
#[cfg(target_os = "linux")]
fn processors_are_those_of_the_thread_that_makes_the_stack() {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    use std::thread;

    fn processors(stack: &mut ThreadStack) -> CpuSet {
        let mut store = Store::new(&Engine::default(), ());
        block_on(stack.run(&mut store, |_| Ok(sched_getaffinity(None).unwrap()))).unwrap()
    }
    watched(|_| {
        let all = sched_getaffinity(None).unwrap();
        let mut one = CpuSet::new();
        one.set((0..CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu)).unwrap());
        thread::scope(|scope| {
            scope.spawn(|| {
                sched_setaffinity(None, &one).unwrap();
                assert_eq!(processors(&mut ThreadStack::new(1 << 20).unwrap()), one);
            });
        });
        assert_eq!(processors(&mut ThreadStack::new(1 << 20).unwrap()), all);
    });
}

const PRINTS: &str = "TEST_PRINTS";

/// std captures the output of a test with a variable that threads inherit.
#[test]
fn output_belongs_to_the_test_that_prints() {
    let mut command = Command::new(env::current_exe().unwrap());
    let output = command.args(["inherited::printing::", "--test-threads=1"]).env(PRINTS, "").output().unwrap();
    let output = String::from_utf8(output.stdout).unwrap();
    for test in ["a_first", "b_second"] {
        assert!(output.contains(&format!("host function of {test}")), "{output}");
    }
}

/// The test above runs this.
mod printing {
    use super::*;

    fn fails_having_printed(test: &'static str) {
        if env::var_os(PRINTS).is_none() {
            return;
        }
        let mut store = Store::from(Wasmtime::new(&Engine::default(), ()));
        let print = Func::wrap_suspending(&mut store, async move || println!("host function of {test}"));
        let mut stack = ThreadStack::new(1 << 20).unwrap();
        block_on(print.call_on(&mut stack, &mut store, &[], &mut [])).unwrap();
        panic!("to see what was printed");
    }

    #[test]
    fn a_first() {
        fails_having_printed("a_first");
    }

    #[test]
    fn b_second() {
        fails_having_printed("b_second");
    }
}
