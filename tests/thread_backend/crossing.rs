//! Control moves between threads: what runs where, who polls, and who drops.

use crate::Gate;
use crate::common::futures::poll_once;
use crate::common::watchdog::{this_thread, thread_of_id, wait_until, watched};
use futures::executor::block_on;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use wasmtime::{Caller, Engine, Func, Linker, Module, Result, Trap, Val};
use wasmtime_async::{
    DEFAULT_STACK_SIZE, Error, FuncExt, LinkerExt, Stack, Store, ThreadStack, suspend_until, yield_now,
};

/// A guest that calls its host twice from within a synchronous host function. `go(n)` adds what the host returns for
/// `n` and for 1.
const GUEST: &str = r#"
    (module
        (import "host" "wait" (func $wait (param i32) (result i32)))
        (import "host" "back" (func $back (param i32) (result i32)))
        (func (export "inner") (param i32) (result i32)
            (i32.add (call $wait (local.get 0)) (call $wait (i32.const 1))))
        (func (export "go") (param i32) (result i32) (call $back (local.get 0)))
        (func $deep (export "deep") (result i32) (i32.add (i32.const 1) (call $deep))))
"#;

/// The data of a store: `Send`, but not `Sync`.
#[derive(Default)]
struct Data {
    waits: Cell<u32>,
    threads: Vec<thread::ThreadId>,
}

/// An instance of [`GUEST`] whose host waits `pending` times whenever it is called.
fn instance(engine: &Engine, stack: &mut ThreadStack, pending: u32) -> Result<(Store<Data>, wasmtime::Instance)> {
    let mut linker = Linker::<Data>::new(engine);
    linker.func_wrap_suspending("host", "wait", async move |mut caller: Caller<'_, Data>, n: i32| -> Result<i32> {
        for _ in 0..pending {
            let mut first = true;
            std::future::poll_fn(|cx| {
                cx.waker().wake_by_ref();
                if std::mem::take(&mut first) { Poll::Pending } else { Poll::Ready(()) }
            })
            .await;
            caller.data_mut().threads.push(thread::current().id());
            let data = caller.data();
            data.waits.set(data.waits.get() + 1);
        }
        Ok(n * 10)
    })?;
    linker.func_wrap("host", "back", |mut caller: Caller<'_, Data>, n: i32| -> Result<i32> {
        let inner = caller.get_export("inner").and_then(wasmtime::Extern::into_func).expect("the guest exports it");
        inner.typed::<i32, i32>(&caller)?.call(&mut caller, n)
    })?;
    let mut store = Store::new(engine, Data::default());
    let module = Module::new(engine, GUEST)?;
    let instance = block_on(linker.instantiate_on(stack, &mut store, &module))?;
    Ok((store, instance))
}

#[test]
fn all_of_a_call_runs_on_the_stacks_own_thread() {
    watched(|at| {
        let mut stack = ThreadStack::new(DEFAULT_STACK_SIZE).unwrap();
        at.note("poller", "instantiates");
        let (mut store, instance) = instance(&Engine::default(), &mut stack, 2).unwrap();
        let go = instance.get_func(&mut store, "go").unwrap().get_async(&store).get1::<i32, i32>().unwrap();
        for n in 0..3 {
            at.note("poller", format_args!("call {n}"));
            assert_eq!(block_on(go.call(&mut stack, &mut store, (n,))).unwrap(), 10 * n + 10);
        }
        let threads = &store.data().threads;
        assert_eq!(threads.len(), 12);
        assert_ne!(threads[0], thread::current().id());
        assert!(threads.iter().all(|thread| *thread == threads[0]), "{threads:?}");
    });
}

/// Every way to call compiles for a store whose data is not `Sync`.
#[test]
fn calls_are_send() {
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    watched(|_| {
        let engine = Engine::default();
        let mut stack = ThreadStack::new(DEFAULT_STACK_SIZE).unwrap();
        let mut store = Store::new(&engine, Cell::new(5));
        let linker = Linker::new(&engine);
        let module = Module::new(&engine, "(module (func (export \"f\")))").unwrap();
        let pre = linker.instantiate_pre(&module).unwrap();
        let f = Func::wrap(&mut store, |n: i32| n + 1);
        let typed = f.get_async(&store).get1::<i32, i32>().unwrap();
        let mut results = [Val::I32(0)];

        let run = is_send(stack.run(&mut store, |store| Ok(store.data().get())));
        assert_eq!(block_on(run).unwrap(), 5);
        block_on(is_send(linker.instantiate_on(&mut stack, &mut store, &module))).unwrap();
        block_on(is_send(wasmtime_async::InstancePreExt::instantiate_on(&pre, &mut stack, &mut store))).unwrap();
        assert_eq!(block_on(is_send(typed.call(&mut stack, &mut store, (1,)))).unwrap(), 2);
        block_on(is_send(f.call_on(&mut stack, &mut store, &[Val::I32(2)], &mut results))).unwrap();
        assert_eq!(results[0].unwrap_i32(), 3);
        is_send(is_send(stack));
    });
}

#[test]
fn futures_of_host_functions_need_not_be_send() {
    watched(|_| {
        let mut stack = ThreadStack::new(DEFAULT_STACK_SIZE).unwrap();
        let mut store = Store::new(&Engine::default(), ());
        let f = Func::wrap_suspending(&mut store, async |n: i32| {
            let shared = Rc::new(Cell::new(n));
            let other = Rc::clone(&shared);
            let mut polls = 0;
            std::future::poll_fn(|cx| {
                polls += 1;
                other.set(other.get() + 1);
                cx.waker().wake_by_ref();
                if polls < 3 { Poll::Pending } else { Poll::Ready(()) }
            })
            .await;
            shared.get()
        });
        let f = f.get_async(&store).get1::<i32, i32>().unwrap();
        assert_eq!(block_on(f.call(&mut stack, &mut store, (1,))).unwrap(), 4);
    });
}

#[test]
fn each_poll_from_another_thread() {
    watched(|at| {
        let mut stack = ThreadStack::new(DEFAULT_STACK_SIZE).unwrap();
        let (mut store, instance) = instance(&Engine::default(), &mut stack, 10).unwrap();
        let go = instance.get_func(&mut store, "go").unwrap().get_async(&store).get1::<i32, i32>().unwrap();
        let mut call = go.call(&mut stack, &mut store, (4,));
        for n in 0..20 {
            at.note("poller", format_args!("poll {n}"));
            thread::scope(|scope| {
                scope.spawn(|| assert!(poll_once(&mut call).is_pending()));
            });
        }
        assert!(matches!(poll_once(&mut call), Poll::Ready(Ok(50))));
        drop(call);
        assert_eq!(store.data().waits.get(), 20);
        let threads = &store.data().threads;
        assert!(threads.iter().all(|thread| *thread == threads[0]), "{threads:?}");
    });
}

#[test]
fn dropped_by_another_thread() {
    watched(|at| {
        let mut stack = ThreadStack::new(DEFAULT_STACK_SIZE).unwrap();
        let (mut store, instance) = instance(&Engine::default(), &mut stack, 10).unwrap();
        let go = instance.get_func(&mut store, "go").unwrap().get_async(&store).get1::<i32, i32>().unwrap();
        let mut call = go.call(&mut stack, &mut store, (4,));
        assert!(poll_once(&mut call).is_pending());
        at.note("poller", "drop by another thread");
        thread::scope(|scope| scope.spawn(move || drop(call)).join()).unwrap();
        at.note("poller", "next call");
        assert_eq!(block_on(go.call(&mut stack, &mut store, (5,))).unwrap(), 60);
    });
}

/// Makes a call on a stack of its own for each level. A host function of each level polls the next one. The innermost
/// call waits.
fn nest(engine: &Engine, depth: u32, gate: &Gate, at: &crate::common::watchdog::Whereabouts) -> Result<u32> {
    if depth == 0 {
        at.note("innermost", "waits");
        suspend_until(gate.wait())?;
        return Ok(0);
    }
    let mut stack = ThreadStack::new(DEFAULT_STACK_SIZE)?;
    let mut store = Store::new(engine, ());
    let (gate, at, inner) = (gate.clone(), at.clone(), engine.clone());
    let f = Func::wrap(&mut store, move || nest(&inner, depth - 1, &gate, &at));
    let f = f.get_async(&store).get0::<u32>()?;
    let call = f.call(&mut stack, &mut store, ());
    Ok(1 + suspend_until(call)??)
}

#[test]
fn polled_within_a_worker_of_another_stack() {
    watched(|at| {
        let (engine, gate) = (Engine::default(), Gate::default());
        let mut stack = ThreadStack::new(DEFAULT_STACK_SIZE).unwrap();
        let mut store = Store::new(&engine, ());
        for open in [true, false] {
            let (inner, passed, notes) = (engine.clone(), gate.clone(), at.clone());
            let mut call = stack.run(&mut store, move |_| nest(&inner, 5, &passed, &notes));
            at.note("poller", "first poll");
            assert!(poll_once(&mut call).is_pending());
            at.note("poller", "second poll");
            assert!(poll_once(&mut call).is_pending());
            if open {
                gate.open();
                at.note("poller", "last poll");
                assert!(matches!(poll_once(&mut call), Poll::Ready(Ok(5))));
                // For the second round.
                gate.0.lock().unwrap().0 = false;
            } else {
                at.note("poller", "drop");
                drop(call);
            }
        }
    });
}

/// A suspended call, its stack and its store, in a box.
fn suspended(gate: &Gate, ended: &Arc<AtomicU32>) -> Box<dyn Send> {
    let (gate, ended) = (gate.clone(), Arc::clone(ended));
    let mut task: futures::future::BoxFuture<'static, _> = Box::pin(async move {
        let mut stack = ThreadStack::new(DEFAULT_STACK_SIZE)?;
        let mut store = Store::new(&Engine::default(), ());
        stack
            .run(&mut store, move |_| {
                let outcome = suspend_until(gate.wait());
                ended.fetch_add(1, Ordering::Relaxed);
                Ok(outcome?)
            })
            .await
    });
    assert!(poll_once(&mut task).is_pending());
    Box::new(Mutex::new(task))
}

#[test]
fn dropped_within_a_host_function() {
    watched(|at| {
        let (gate, ended) = (Gate::default(), Arc::new(AtomicU32::new(0)));
        let mut stack = ThreadStack::new(DEFAULT_STACK_SIZE).unwrap();
        let mut store = Store::new(&Engine::default(), Some(suspended(&gate, &ended)));
        let f = Func::wrap(&mut store, |mut caller: Caller<'_, Option<Box<dyn Send>>>| drop(caller.data_mut().take()));
        at.note("poller", "polls a call whose host function drops another");
        block_on(f.call_on(&mut stack, &mut store, &[], &mut [])).unwrap();
        assert_eq!(ended.load(Ordering::Relaxed), 1);

        // The same in a call that is being cancelled itself.
        *store.data_mut() = Some(suspended(&gate, &ended));
        let f = Func::wrap_suspending(&mut store, async |mut caller: Caller<'_, Option<Box<dyn Send>>>| {
            let _dropped_when_cancelled = caller.data_mut().take();
            std::future::pending::<()>().await;
        });
        let mut call = f.call_on(&mut stack, &mut store, &[], &mut []);
        assert!(poll_once(&mut call).is_pending());
        at.note("poller", "drops a call whose destructors drop another");
        drop(call);
        assert_eq!(ended.load(Ordering::Relaxed), 2);
    });
}

#[test]
fn endless_recursion_on_a_worker_is_a_trap() {
    watched(|at| {
        let mut stack = ThreadStack::new(DEFAULT_STACK_SIZE).unwrap();
        let (mut store, instance) = instance(&Engine::default(), &mut stack, 1).unwrap();
        let deep = instance.get_func(&mut store, "deep").unwrap().get_async(&store).get0::<i32>().unwrap();
        for _ in 0..2 {
            at.note("poller", "recurses");
            let error = block_on(deep.call(&mut stack, &mut store, ())).unwrap_err();
            assert_eq!(error.downcast_ref(), Some(&Trap::StackOverflow), "{error:?}");
        }
        let go = instance.get_func(&mut store, "go").unwrap().get_async(&store).get1::<i32, i32>().unwrap();
        assert_eq!(block_on(go.call(&mut stack, &mut store, (1,))).unwrap(), 20);
    });
}

#[test]
fn panics_cross_to_the_poller() {
    watched(|at| {
        let mut stack = ThreadStack::new(DEFAULT_STACK_SIZE).unwrap();
        let mut store = Store::new(&Engine::default(), ());
        let id = block_on(stack.run(&mut store, |_| Ok(thread::current().id()))).unwrap();
        for suspend in [false, true] {
            at.note("poller", format_args!("suspend: {suspend}"));
            let call = stack.run(&mut store, move |_| -> Result<()> {
                if suspend {
                    yield_now()?;
                }
                resume_unwind(Box::new("payload"));
            });
            let payload = catch_unwind(AssertUnwindSafe(|| block_on(call))).unwrap_err();
            assert_eq!(payload.downcast_ref(), Some(&"payload"));
        }
        // The thread has survived this.
        assert_eq!(block_on(stack.run(&mut store, |_| Ok(thread::current().id()))).unwrap(), id);
    });
}

#[test]
fn dropped_while_the_poller_panics() {
    watched(|at| {
        let mut stack = ThreadStack::new(DEFAULT_STACK_SIZE).unwrap();
        let mut store = Store::new(&Engine::default(), 0);
        let payload = catch_unwind(AssertUnwindSafe(|| {
            let mut call = stack.run(&mut store, |mut store| -> Result<()> {
                let cancelled = matches!(yield_now(), Err(Error::Cancelled));
                *store.data_mut() = if cancelled { 1 } else { 2 };
                // The poller's panic propagates, not this one.
                resume_unwind(Box::new("of the worker"));
            });
            assert!(poll_once(&mut call).is_pending());
            at.note("poller", "panics");
            resume_unwind(Box::new("of the poller"));
        }))
        .unwrap_err();
        assert_eq!((payload.downcast_ref(), *store.data()), (Some(&"of the poller"), 1));
        assert_eq!(block_on(stack.run(&mut store, |store| Ok(*store.data()))).unwrap(), 1);
    });
}

/// Waits until a thread of this process sleeps, on systems that tell.
fn wait_until_asleep(id: Option<&str>) {
    wait_until(|| id.and_then(thread_of_id).is_none_or(|thread| thread.state == 'S'));
}

/// An executor may sleep in `thread::park`, which has one token per thread. Waiting for the worker must not take that
/// token.
#[test]
fn wake_ups_of_the_pollers_thread_are_not_swallowed() {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    watched(|at| {
        let mut stack = ThreadStack::new(DEFAULT_STACK_SIZE).unwrap();
        let mut store = Store::new(&Engine::default(), ());
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let poller = this_thread();
        for round in 0..100 {
            let poller = poller.clone();
            let mut call = pin!(stack.run(&mut store, move |_| {
                let mut polls = 0;
                Ok(suspend_until(std::future::poll_fn(|cx| {
                    polls += 1;
                    if polls == 3 {
                        return Poll::Ready(());
                    }
                    // The poller sleeps when it is woken, and then again.
                    wait_until_asleep(poller.as_deref());
                    cx.waker().wake_by_ref();
                    wait_until_asleep(poller.as_deref());
                    Poll::Pending
                }))?)
            }));
            while call.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
                at.note("poller", format_args!("round {round}, parked"));
                thread::park();
                at.note("poller", format_args!("round {round}, polls"));
            }
        }
    });
}

/// Fiber stacks on this stack's thread, and the other way round.
#[cfg(fiber_stack)]
mod with_fibers {
    use super::*;
    use crate::common::futures::pending;
    use wasmtime_async::FiberStack;

    #[test]
    fn thread_stack_polled_on_a_fiber() {
        watched(|at| {
            let gate = Gate::default();
            // SAFETY: the suspended code keeps nothing in its thread.
            #[expect(unsafe_code, reason = "a closure waits")]
            let mut outer = unsafe { FiberStack::unchecked(DEFAULT_STACK_SIZE) }.unwrap();
            let mut store = Store::new(&Engine::default(), ());
            for open in [true, false] {
                let passed = gate.clone();
                let mut call = outer.run(&mut store, move |_| {
                    let mut inner = ThreadStack::new(DEFAULT_STACK_SIZE)?;
                    let (mut store, instance) = instance(&Engine::default(), &mut inner, 3)?;
                    let go = instance.get_func(&mut store, "go").unwrap().get_async(&store).get1::<i32, i32>()?;
                    let n = suspend_until(go.call(&mut inner, &mut store, (1,)))??;
                    suspend_until(inner.run(&mut store, move |_| Ok(suspend_until(passed.wait())?)))??;
                    Ok(n)
                });
                at.note("poller", "first polls");
                for _ in 0..10 {
                    assert!(poll_once(&mut call).is_pending());
                }
                if open {
                    gate.open();
                    at.note("poller", "last poll");
                    assert!(matches!(poll_once(&mut call), Poll::Ready(Ok(20))));
                    gate.0.lock().unwrap().0 = false;
                } else {
                    at.note("poller", "drop");
                    drop(call);
                }
            }
        });
    }

    #[test]
    fn fibers_on_a_worker() {
        watched(|at| {
            let mut outer = ThreadStack::new(DEFAULT_STACK_SIZE).unwrap();
            let mut store = Store::new(&Engine::default(), ());
            let mut call = outer.run(&mut store, |_| {
                let engine = Engine::default();
                let shared = Rc::new(Cell::new(0));
                let fiber = async |n: u32| -> Result<()> {
                    let mut stack = FiberStack::new(DEFAULT_STACK_SIZE)?;
                    let mut store = Store::new(&engine, Rc::clone(&shared));
                    let f = Func::wrap_suspending(&mut store, async move |caller: Caller<'_, Rc<Cell<u32>>>| {
                        for _ in 0..n {
                            pending(1).await;
                            caller.data().set(caller.data().get() + 1);
                        }
                    });
                    f.get_async(&store).get0::<()>()?.call(&mut stack, &mut store, ()).await
                };
                suspend_until(futures::future::try_join_all((1..=4).map(fiber)))??;
                Ok(shared.get())
            });
            for n in 0..4 {
                at.note("poller", format_args!("poll {n}"));
                assert!(poll_once(&mut call).is_pending());
            }
            assert!(matches!(poll_once(&mut call), Poll::Ready(Ok(10))));
        });
    }
}
