//! The ambient state of a call's code on the stack's thread.

use crate::common::futures::poll_once;
use crate::common::watchdog::watched;
use futures::executor::block_on;
use std::cell::RefCell;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::task::Poll;
use std::thread;
use wasmtime::{Caller, Engine, Func};
use wasmtime_async::{DEFAULT_STACK_SIZE, FuncExt, Stack, Store, ThreadStack, yield_now};

thread_local!(static TITLE: RefCell<String> = RefCell::default());

/// Restores the thread's title when it is dropped.
struct Entitled(String, Arc<AtomicI32>);

impl Drop for Entitled {
    fn drop(&mut self) {
        TITLE.replace(std::mem::take(&mut self.0));
        self.1.fetch_sub(1, Ordering::Relaxed);
    }
}

fn title() -> String {
    TITLE.with_borrow(String::clone)
}

/// Carries the title over, and counts the threads that have it at the moment.
fn carry_title(stack: &mut ThreadStack) -> Arc<AtomicI32> {
    let loans = Arc::new(AtomicI32::new(0));
    stack.set_ambient({
        let loans = Arc::clone(&loans);
        move || {
            let (title, loans) = (title(), Arc::clone(&loans));
            move || {
                loans.fetch_add(1, Ordering::Relaxed);
                Entitled(TITLE.replace(title), loans)
            }
        }
    });
    loans
}

#[test]
fn each_entry_has_what_its_poller_had() {
    watched(|at| {
        let mut stack = ThreadStack::new(DEFAULT_STACK_SIZE).unwrap();
        let loans = carry_title(&mut stack);
        let mut store = Store::new(&Engine::default(), Vec::new());
        let f = Func::wrap(&mut store, |mut caller: Caller<'_, Vec<String>>| -> wasmtime::Result<()> {
            for _ in 0..3 {
                caller.data_mut().push(title());
                yield_now()?;
            }
            caller.data_mut().push(title());
            Ok(())
        });
        let mut call = f.call_on(&mut stack, &mut store, &[], &mut []);
        TITLE.set("one".to_owned());
        assert!(poll_once(&mut call).is_pending());
        assert_eq!(loans.load(Ordering::Relaxed), 0, "not left before control was");
        TITLE.set("two".to_owned());
        assert!(poll_once(&mut call).is_pending());
        at.note("poller", "polls from another thread");
        thread::scope(|scope| {
            scope.spawn(|| {
                TITLE.set("three".to_owned());
                assert!(poll_once(&mut call).is_pending());
            });
        });
        TITLE.set("four".to_owned());
        // The last entry is that of the drop.
        assert!(poll_once(&mut call).is_ready());
        drop(call);
        assert_eq!(*store.data(), ["one", "two", "three", "four"]);
        assert_eq!((loans.load(Ordering::Relaxed), title()), (0, "four".to_owned()));
    });
}

/// A call in which `capture`, `enter` or `leave` panics continues. If one of the latter two panics, the thread is not
/// used again.
#[test]
fn panics_of_the_hook_do_not_reach_the_call() {
    struct Leave(bool);
    impl Drop for Leave {
        fn drop(&mut self) {
            if self.0 && !thread::panicking() {
                resume_unwind(Box::new("leave"));
            }
        }
    }
    watched(|at| {
        for place in ["nowhere", "capture", "enter", "leave"] {
            at.note("poller", place);
            let mut stack = ThreadStack::new(DEFAULT_STACK_SIZE).unwrap();
            let mut store = Store::new(&Engine::default(), ());
            let before = block_on(stack.run(&mut store, |_| Ok(thread::current().id()))).unwrap();
            stack.set_ambient(move || {
                if place == "capture" {
                    resume_unwind(Box::new("capture"));
                }
                move || {
                    if place == "enter" {
                        resume_unwind(Box::new("enter"));
                    }
                    Leave(place == "leave")
                }
            });
            let mut call = stack.run(&mut store, |_| {
                yield_now()?;
                Ok(thread::current().id())
            });
            assert!(poll_once(&mut call).is_pending());
            let Poll::Ready(Ok(during)) = poll_once(&mut call) else { panic!("{place}") };
            assert_eq!(during, before);
            drop(call);
            let after = block_on(stack.run(&mut store, |_| Ok(thread::current().id()))).unwrap();
            assert_eq!(after == before, matches!(place, "nowhere" | "capture"), "{place}");
        }
    });
}

#[cfg(feature = "tokio")]
mod tokio_runtimes {
    use super::*;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::runtime::{Builder, Handle, Runtime};
    use wasmtime::{Linker, Module, Result};
    use wasmtime_async::{Error, LinkerExt, suspend_until, tokio_runtime};

    const GUEST: &str = r#"
        (module
            (import "host" "sleep" (func $sleep (param i32)))
            (import "host" "echo" (func $echo (param i32 i32) (result i32)))
            (import "host" "spawn" (func $spawn (param i32) (result i32)))
            (func (export "go") (param $port i32) (param $n i32) (result i32)
                (call $sleep (i32.const 5))
                (i32.add (call $echo (local.get $port) (local.get $n)) (call $spawn (local.get $n)))))
    "#;

    fn stack() -> Result<ThreadStack, Error> {
        let mut stack = ThreadStack::new(DEFAULT_STACK_SIZE)?;
        stack.set_ambient(tokio_runtime);
        Ok(stack)
    }

    fn runtime() -> Runtime {
        Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    }

    fn linker(engine: &Engine) -> Result<Linker<()>> {
        let mut linker = Linker::new(engine);
        // This tests one of tokio's timers. Nothing depends on when it fires.
        linker.func_wrap_suspending("host", "sleep", async |ms: u32| {
            tokio::time::sleep(Duration::from_millis(ms.into())).await;
        })?;
        linker.func_wrap_suspending("host", "echo", async |port: u32, n: i32| -> Result<i32> {
            let mut stream = TcpStream::connect(("127.0.0.1", u16::try_from(port)?)).await?;
            stream.write_i32(n).await?;
            Ok(stream.read_i32().await?)
        })?;
        linker.func_wrap_suspending("host", "spawn", async |n: i32| -> Result<i32> {
            Ok(tokio::spawn(async move { n * 1000 }).await?)
        })?;
        Ok(linker)
    }

    /// Tasks of a multi-threaded runtime that move between threads. Their guests sleep, use sockets, and spawn.
    #[test]
    fn timers_sockets_and_spawn_work_in_host_functions() {
        watched(|at| {
            let runtime = runtime();
            let engine = Engine::default();
            let linker = Arc::new(linker(&engine).unwrap());
            let module = Module::new(&engine, GUEST).unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
                let port = i32::from(listener.local_addr().unwrap().port());
                tokio::spawn(async move {
                    while let Ok((mut stream, _)) = listener.accept().await {
                        tokio::spawn(async move {
                            let n = stream.read_i32().await.unwrap();
                            stream.write_i32(n + 1).await.unwrap();
                        });
                    }
                });
                let guests: Vec<_> = (0..50)
                    .map(|n| {
                        let (engine, linker, module, at) = (engine.clone(), linker.clone(), module.clone(), at.clone());
                        tokio::spawn(async move {
                            at.note(n, "began");
                            let mut stack = stack()?;
                            let mut store = Store::new(&engine, ());
                            let instance = linker.instantiate_on(&mut stack, &mut store, &module).await?;
                            let go = instance.get_func(&mut store, "go").unwrap();
                            let go = go.get_async(&store).get2::<i32, i32, i32>()?;
                            at.note(n, "calls");
                            let sum = go.call(&mut stack, &mut store, (port, n)).await?;
                            at.note(n, "is back");
                            wasmtime::error::Ok(sum)
                        })
                    })
                    .collect();
                for (n, guest) in (0..).zip(guests) {
                    assert_eq!(guest.await.unwrap().unwrap(), n + 1 + 1000 * n);
                }
            });
        });
    }

    #[test]
    fn no_runtime_no_context() {
        watched(|_| {
            let mut stack = stack().unwrap();
            let mut store = Store::new(&Engine::default(), ());
            let runtime = runtime();
            let current = |stack: &mut ThreadStack, store: &mut Store<()>| {
                block_on(stack.run(store, |_| Ok(Handle::try_current().is_ok()))).unwrap()
            };
            assert!(!current(&mut stack, &mut store));
            {
                let _entered = runtime.enter();
                assert!(current(&mut stack, &mut store));
            }
            assert!(!current(&mut stack, &mut store), "the runtime was left on the stack's thread");
        });
    }

    /// A feature that a dependency turns on changes nothing.
    #[test]
    fn no_runtime_unless_asked_for() {
        watched(|_| {
            let mut stack = ThreadStack::new(DEFAULT_STACK_SIZE).unwrap();
            let mut store = Store::new(&Engine::default(), ());
            let runtime = runtime();
            let _entered = runtime.enter();
            let call = stack.run(&mut store, |_| Ok(Handle::try_current().is_ok()));
            assert!(!block_on(call).unwrap());
        });
    }

    /// The runtime may be dropped between two polls.
    #[test]
    fn each_entry_has_its_pollers_runtime() {
        watched(|_| {
            let mut stack = stack().unwrap();
            let mut store = Store::new(&Engine::default(), ());
            let mut call = stack.run(&mut store, |_| {
                let mut seen = Vec::new();
                for _ in 0..3 {
                    seen.push(Handle::try_current().is_ok());
                    yield_now()?;
                }
                Ok(seen)
            });
            assert!(poll_once(&mut call).is_pending());
            let runtime = runtime();
            {
                let _entered = runtime.enter();
                assert!(poll_once(&mut call).is_pending());
            }
            drop(runtime);
            assert!(poll_once(&mut call).is_pending());
            let Poll::Ready(Ok(seen)) = poll_once(&mut call) else { panic!() };
            assert_eq!(seen, [false, true, false]);
        });
    }

    /// A runtime that shuts down drops its tasks, and their calls with them.
    #[test]
    fn runtime_shut_down_with_calls_suspended() {
        watched(|at| {
            let runtime = runtime();
            let (sender, receiver) = std::sync::mpsc::channel();
            for n in 0..10 {
                let sender = sender.clone();
                runtime.spawn(async move {
                    let mut stack = stack().unwrap();
                    let mut store = Store::new(&Engine::default(), ());
                    let call = stack.run(&mut store, move |_| {
                        let listener = suspend_until(TcpListener::bind(("127.0.0.1", 0)))??;
                        sender.send(None).unwrap();
                        // Nobody connects.
                        let outcome = suspend_until(listener.accept());
                        sender.send(Some(matches!(outcome, Err(Error::Cancelled)))).unwrap();
                        Ok(n)
                    });
                    call.await.unwrap();
                });
            }
            at.note("main", "waits for the calls to begin");
            (0..10).for_each(|_| assert_eq!(receiver.recv().unwrap(), None));
            at.note("main", "shuts the runtime down");
            drop(runtime);
            drop(sender);
            at.note("main", "waits for the calls to end");
            assert_eq!(receiver.iter().collect::<Vec<_>>(), [Some(true); 10]);
        });
    }

    /// tokio requires its guards to be dropped in order, and a guard that outlives an entry is not. tokio panics where
    /// the guard is. Nothing hangs, and the thread is not used for other calls.
    #[test]
    fn guard_held_while_suspended() {
        watched(|at| {
            let runtime = runtime();
            let _entered = runtime.enter();
            let mut stack = stack().unwrap();
            let mut store = Store::new(&Engine::default(), ());
            let before = block_on(stack.run(&mut store, |_| Ok(thread::current().id()))).unwrap();
            let mut call = stack.run(&mut store, |_| {
                let handle = Handle::current();
                let _guard = handle.enter();
                yield_now()?;
                Ok(())
            });
            at.note("poller", "polls");
            assert!(poll_once(&mut call).is_pending());
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| poll_once(&mut call).is_ready()));
            assert!(outcome.is_err());
            drop(call);
            at.note("poller", "next call");
            let after = block_on(stack.run(&mut store, |_| Ok(thread::current().id()))).unwrap();
            assert_ne!(before, after);
        });
    }
}
