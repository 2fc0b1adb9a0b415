//! What the benches measure side by side: one guest, run by plain synchronous wasmtime, by wasmtime's own async, and by
//! the stacks of this crate, all behind one trait.
#![allow(dead_code, reason = "each bench uses a part of it")]

pub(crate) mod futures;
pub(crate) mod process;

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use wasmtime::{
    AsContextMut, Caller, Config, Engine, Func, FuncType, InstanceAllocationStrategy, InstancePre, Linker, Module,
    PoolingAllocationConfig, Result, Store, TypedFunc, Val, ValType,
};
use wasmtime_async::{
    AsyncFunc, Carries, DEFAULT_STACK_SIZE, FiberStack, FuncExt, InstancePreExt, LinkerExt, Parking, SendFiberStack,
    Stack,
};

use self::futures::{Pending, Woken};

/// The data of every store.
#[derive(Default)]
pub(crate) struct Data {
    /// How many times the host function `WithCaller` was called.
    calls: u64,
    /// The guest's function that the host function `back` calls.
    handler: Option<TypedFunc<i32, i32>>,
}

/// The guest: functions that return at once, a loop of host calls, and a loop of host calls that call its handler.
const GUEST: &str = r#"
    (import "host" "call" (func $call (param i32) (result i32)))
    (import "host" "back" (func $back (param i32) (result i32)))
    (func (export "nop0"))
    (func (export "nop6") (param i32 i64 f32 f64 i32 i64) (result i64) (local.get 1))
    (func (export "handler") (param $n i32) (result i32) (call $call (local.get $n)))
    (func (export "nested") (param $n i32) (result i32) (local $sum i32)
        (loop $again
            (local.set $sum (i32.add (local.get $sum) (call $back (local.get $n))))
            (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
        (local.get $sum))
    (func (export "loop") (param $n i32) (result i32) (local $sum i32)
        (loop $again
            (local.set $sum (i32.add (local.get $sum) (call $call (local.get $n))))
            (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
        (local.get $sum))"#;

/// The guest's function that a host function calls back.
fn handler(caller: &Caller<'_, Data>) -> TypedFunc<i32, i32> {
    caller.data().handler.clone().expect("is set")
}

/// The guest's text with an addition.
pub(crate) fn guest(more: &str) -> String {
    format!("(module {GUEST} {more})")
}

/// How many instances, and how many stacks, the pooling allocator has room for.
const POOL: u32 = 1_100;

/// Whether the guest has a linear memory.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Memory {
    No,
    OnePage,
}

/// The host function that the guest calls, of type `(i32) -> i32`. It returns its argument.
#[derive(Clone, Copy)]
pub(crate) enum Host {
    /// Typed. Its future is pending this many times.
    Typed(u32),
    /// Without static types. Its future is pending this many times.
    Untyped(u32),
    /// Typed, and counts its calls in the store's data. Its future is pending this many times.
    WithCaller(u32),
    /// Typed. Its future is pending once, and keeps its waker and wakes it.
    Waking,
}

/// An engine with wasmtime's default settings, which allocate on demand.
pub(crate) fn on_demand() -> Engine {
    Engine::default()
}

/// An engine that differs from [`on_demand`] in its allocator, which has room for 1,100 instances.
pub(crate) fn pooling() -> Engine {
    pooling_for(POOL, POOL).expect("the pooling allocator can be set up")
}

/// An engine whose pooling allocator has room for this many instances, and for this many memories in them.
pub(crate) fn pooling_for(instances: u32, memories: u32) -> Result<Engine> {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_core_instances(instances).total_stacks(instances).total_memories(memories).total_tables(1);
    Engine::new(Config::new().allocation_strategy(InstanceAllocationStrategy::Pooling(pool)))
}

/// A way to run the guest.
pub(crate) trait Side: 'static {
    /// The stack that a call runs on, if the caller must provide one.
    type Stack;
    type Store: AsContextMut<Data = Data> + From<Store<Data>>;
    /// A guest's function with static types.
    type Func<P: Params, R: Results>;

    fn stack() -> Result<Self::Stack>;

    fn define(linker: &mut Linker<Data>, host: Host) -> Result<()>;

    fn instantiate<'a>(
        pre: &'a InstancePre<Data>,
        stack: &'a mut Self::Stack,
        store: &'a mut Self::Store,
    ) -> impl Future<Output = Result<wasmtime::Instance>>;

    fn func<P: Params, R: Results>(store: &Self::Store, func: Func) -> Result<Self::Func<P, R>>;

    fn call<'a, P: Params, R: Results>(
        func: &'a Self::Func<P, R>,
        stack: &'a mut Self::Stack,
        store: &'a mut Self::Store,
        params: P,
    ) -> impl Future<Output = Result<R>>;

    fn call_untyped<'a>(
        func: &'a Func,
        stack: &'a mut Self::Stack,
        store: &'a mut Self::Store,
        params: &'a [Val],
        results: &'a mut [Val],
    ) -> impl Future<Output = Result<()>>;
}

/// Parameters that every side can pass.
pub(crate) trait Params: wasmtime::WasmParams + Sync + 'static {}
impl<P: wasmtime::WasmParams + Sync + 'static> Params for P {}

/// Results that every side can return.
pub(crate) trait Results: wasmtime::WasmResults + Sync + 'static {}
impl<R: wasmtime::WasmResults + Sync + 'static> Results for R {}

/// Plain synchronous wasmtime. Its host functions never wait.
pub(crate) struct Plain;

impl Side for Plain {
    type Stack = ();
    type Store = Store<Data>;
    type Func<P: Params, R: Results> = TypedFunc<P, R>;

    fn stack() -> Result<()> {
        Ok(())
    }

    fn define(linker: &mut Linker<Data>, host: Host) -> Result<()> {
        match host {
            Host::Typed(_) | Host::Waking => linker.func_wrap("host", "call", |n: i32| n)?,
            Host::Untyped(_) => linker.func_new("host", "call", host_type(linker.engine()), |_, params, results| {
                results[0] = params[0];
                Ok(())
            })?,
            Host::WithCaller(_) => linker.func_wrap("host", "call", |mut caller: Caller<'_, Data>, n: i32| {
                caller.data_mut().calls += 1;
                n
            })?,
        };
        linker
            .func_wrap("host", "back", |mut caller: Caller<'_, Data>, n: i32| handler(&caller).call(&mut caller, n))?;
        Ok(())
    }

    async fn instantiate<'a>(
        pre: &'a InstancePre<Data>,
        (): &'a mut (),
        store: &'a mut Store<Data>,
    ) -> Result<wasmtime::Instance> {
        pre.instantiate(store)
    }

    fn func<P: Params, R: Results>(store: &Store<Data>, func: Func) -> Result<Self::Func<P, R>> {
        func.typed(store)
    }

    async fn call<'a, P: Params, R: Results>(
        func: &'a Self::Func<P, R>,
        (): &'a mut (),
        store: &'a mut Store<Data>,
        params: P,
    ) -> Result<R> {
        func.call(store, params)
    }

    async fn call_untyped<'a>(
        func: &'a Func,
        (): &'a mut (),
        store: &'a mut Store<Data>,
        params: &'a [Val],
        results: &'a mut [Val],
    ) -> Result<()> {
        func.call(store, params, results)
    }
}

/// wasmtime's own async.
pub(crate) struct Native;

impl Side for Native {
    type Stack = ();
    type Store = Store<Data>;
    type Func<P: Params, R: Results> = TypedFunc<P, R>;

    fn stack() -> Result<()> {
        Ok(())
    }

    fn define(linker: &mut Linker<Data>, host: Host) -> Result<()> {
        match host {
            Host::Typed(times) => linker.func_wrap_async("host", "call", move |_, (n,): (i32,)| {
                Box::new(async move {
                    Pending::times(times).await;
                    n
                })
            })?,
            Host::Untyped(times) => {
                let ty = host_type(linker.engine());
                linker.func_new_async("host", "call", ty, move |_, params, results| {
                    Box::new(async move {
                        Pending::times(times).await;
                        results[0] = params[0];
                        Ok(())
                    })
                })?
            }
            Host::WithCaller(times) => {
                linker.func_wrap_async("host", "call", move |mut caller: Caller<'_, Data>, (n,): (i32,)| {
                    Box::new(async move {
                        Pending::times(times).await;
                        caller.data_mut().calls += 1;
                        n
                    })
                })?
            }
            Host::Waking => linker.func_wrap_async("host", "call", |_, (n,): (i32,)| {
                Box::new(async move {
                    Woken::default().await;
                    n
                })
            })?,
        };
        linker.func_wrap_async("host", "back", |mut caller: Caller<'_, Data>, (n,): (i32,)| {
            Box::new(async move { handler(&caller).call_async(&mut caller, n).await })
        })?;
        Ok(())
    }

    fn instantiate<'a>(
        pre: &'a InstancePre<Data>,
        (): &'a mut (),
        store: &'a mut Store<Data>,
    ) -> impl Future<Output = Result<wasmtime::Instance>> {
        pre.instantiate_async(store)
    }

    fn func<P: Params, R: Results>(store: &Store<Data>, func: Func) -> Result<Self::Func<P, R>> {
        func.typed(store)
    }

    fn call<'a, P: Params, R: Results>(
        func: &'a Self::Func<P, R>,
        (): &'a mut (),
        store: &'a mut Store<Data>,
        params: P,
    ) -> impl Future<Output = Result<R>> {
        func.call_async(store, params)
    }

    fn call_untyped<'a>(
        func: &'a Func,
        (): &'a mut (),
        store: &'a mut Store<Data>,
        params: &'a [Val],
        results: &'a mut [Val],
    ) -> impl Future<Output = Result<()>> {
        func.call_async(store, params, results)
    }
}

/// This crate, on stacks of one kind.
pub(crate) struct Ours<S>(PhantomData<S>);

/// A kind of stack, and how host functions are defined for it.
pub(crate) trait OurStack: Stack + Carries<Data> + 'static {
    fn define(linker: &mut Linker<Data>, host: Host) -> Result<()>;
}

impl OurStack for FiberStack {
    fn define(linker: &mut Linker<Data>, host: Host) -> Result<()> {
        define_local(linker, host)
    }
}

#[cfg(feature = "thread-backend")]
impl OurStack for wasmtime_async::ThreadStack {
    fn define(linker: &mut Linker<Data>, host: Host) -> Result<()> {
        define_local(linker, host)
    }
}

impl OurStack for SendFiberStack {
    fn define(linker: &mut Linker<Data>, host: Host) -> Result<()> {
        define_send(linker, host)
    }
}

/// With async closures, whose futures need not be `Send`.
fn define_local(linker: &mut Linker<Data>, host: Host) -> Result<()> {
    match host {
        Host::Typed(times) => linker.func_wrap_suspending("host", "call", async move |n: i32| -> i32 {
            Pending::times(times).await;
            n
        })?,
        Host::Untyped(times) => {
            let ty = host_type(linker.engine());
            linker.func_new_suspending("host", "call", ty, async move |_, params, results| {
                Pending::times(times).await;
                results[0] = params[0];
                Ok(())
            })?
        }
        Host::WithCaller(times) => {
            linker.func_wrap_suspending("host", "call", async move |mut caller: Caller<'_, Data>, n: i32| -> i32 {
                Pending::times(times).await;
                caller.data_mut().calls += 1;
                n
            })?
        }
        Host::Waking => linker.func_wrap_suspending("host", "call", async |n: i32| -> i32 {
            Woken::default().await;
            n
        })?,
    };
    linker.func_wrap_suspending("host", "back", async |mut caller: Caller<'_, Data>, n: i32| -> Result<i32> {
        AsyncFunc::from(handler(&caller)).call_within(&mut caller, n).await
    })?;
    Ok(())
}

/// With closures that return `Send` futures. These are boxed if they keep what they borrow.
fn define_send(linker: &mut Linker<Data>, host: Host) -> Result<()> {
    match host {
        Host::Typed(times) => linker.func_wrap_suspending_send("host", "call", move |n: i32| async move {
            Pending::times(times).await;
            n
        })?,
        Host::Untyped(times) => {
            let ty = host_type(linker.engine());
            linker.func_new_suspending_boxed("host", "call", ty, move |_, params, results| {
                Box::new(async move {
                    Pending::times(times).await;
                    results[0] = params[0];
                    Ok(())
                })
            })?
        }
        Host::WithCaller(times) => {
            linker.func_wrap_suspending_send("host", "call", move |mut caller: Caller<'_, Data>, n: i32| {
                caller.data_mut().calls += 1;
                async move {
                    Pending::times(times).await;
                    n
                }
            })?
        }
        Host::Waking => linker.func_wrap_suspending_send("host", "call", |n: i32| async move {
            Woken::default().await;
            n
        })?,
    };
    linker.func_wrap_suspending_boxed("host", "back", |mut caller: Caller<'_, Data>, (n,): (i32,)| {
        Box::new(async move { AsyncFunc::from(handler(&caller)).call_within(&mut caller, n).await })
    })?;
    Ok(())
}

impl<S: OurStack> Side for Ours<S> {
    type Stack = S;
    type Store = wasmtime_async::Store<Data>;
    type Func<P: Params, R: Results> = AsyncFunc<P, R>;

    fn stack() -> Result<S> {
        Ok(S::new(DEFAULT_STACK_SIZE)?)
    }

    fn define(linker: &mut Linker<Data>, host: Host) -> Result<()> {
        S::define(linker, host)
    }

    fn instantiate<'a>(
        pre: &'a InstancePre<Data>,
        stack: &'a mut S,
        store: &'a mut Self::Store,
    ) -> impl Future<Output = Result<wasmtime::Instance>> {
        pre.instantiate_on(stack, store)
    }

    fn func<P: Params, R: Results>(store: &Self::Store, func: Func) -> Result<Self::Func<P, R>> {
        func.get_async(store).typed()
    }

    fn call<'a, P: Params, R: Results>(
        func: &'a Self::Func<P, R>,
        stack: &'a mut S,
        store: &'a mut Self::Store,
        params: P,
    ) -> impl Future<Output = Result<R>> {
        func.call(stack, store, params)
    }

    fn call_untyped<'a>(
        func: &'a Func,
        stack: &'a mut S,
        store: &'a mut Self::Store,
        params: &'a [Val],
        results: &'a mut [Val],
    ) -> impl Future<Output = Result<()>> {
        func.call_on(stack, store, params, results)
    }
}

/// The name of the fiber backend in reports. It says which of its two ways to park activations is in use.
pub(crate) fn fiber_name() -> &'static str {
    match FiberStack::parking() {
        Parking::Direct => "fiber-direct",
        _ => "fiber",
    }
}

/// The fiber backend.
pub(crate) type Fiber = Ours<FiberStack>;

/// The fiber backend, with calls that are `Send`.
pub(crate) type SendFiber = Ours<SendFiberStack>;

/// The thread backend.
#[cfg(feature = "thread-backend")]
pub(crate) type Thread = Ours<wasmtime_async::ThreadStack>;

/// Something to do for a side that is known by its name.
pub(crate) trait ForSide {
    fn run<S: Side>(&self, engine: &Engine) -> Result<()>;
}

/// The names of the sides that suspend.
pub(crate) fn suspending_sides() -> Vec<&'static str> {
    let mut sides = vec!["native", "pooled", fiber_name(), "send"];
    if cfg!(feature = "thread-backend") {
        sides.push("thread");
    }
    sides
}

/// Does something for a side. `instances` is how many instances the pooling allocator has room for.
pub(crate) fn for_side(side: &str, instances: u32, task: &impl ForSide) -> Result<()> {
    match side {
        "sync" => task.run::<Plain>(&on_demand()),
        "native" => task.run::<Native>(&on_demand()),
        "pooled" => task.run::<Native>(&pooling_for(instances, 1)?),
        "send" => task.run::<SendFiber>(&on_demand()),
        #[cfg(feature = "thread-backend")]
        "thread" => task.run::<Thread>(&on_demand()),
        _ => task.run::<Fiber>(&on_demand()),
    }
}

/// The guest, linked with one host function, for one side.
pub(crate) struct Linked<S> {
    pre: InstancePre<Data>,
    side: PhantomData<S>,
}

impl<S: Side> Linked<S> {
    pub(crate) fn new(engine: &Engine, host: Host, memory: Memory) -> Result<Self> {
        let module = Module::new(engine, guest(if memory == Memory::OnePage { "(memory 1)" } else { "" }))?;
        let mut linker = Linker::new(engine);
        S::define(&mut linker, host)?;
        Ok(Self { pre: linker.instantiate_pre(&module)?, side: PhantomData })
    }

    /// An instance in a store of its own, with a stack.
    pub(crate) fn live(&self) -> Result<Live<S>> {
        self.live_by(Instantiated::OnStack)
    }

    fn live_by(&self, instantiated: Instantiated) -> Result<Live<S>> {
        let mut stack = S::stack()?;
        let (store, instance) = match instantiated {
            Instantiated::OnStack => {
                let mut store = self.store();
                let instance = futures::drive(S::instantiate(&self.pre, &mut stack, &mut store))?;
                (store, instance)
            }
            // As wasmtime's own async does if there is no start function.
            Instantiated::Elsewhere => {
                let mut store = Store::new(self.pre.module().engine(), Data::default());
                let instance = futures::drive(Native::instantiate(&self.pre, &mut (), &mut store))?;
                (store.into(), instance)
            }
        };
        Ok(Live { store, stack, instance })
    }

    /// Does what a server does for a request: makes a new store and a new instance, and makes one call, which calls the
    /// host function once. Returns 1.
    pub(crate) async fn request(&self, stack: &mut S::Stack) -> Result<i32> {
        let mut store = self.store();
        let instance = S::instantiate(&self.pre, stack, &mut store).await?;
        let func = instance.get_func(&mut store, "loop").expect("the guest exports it");
        let func = S::func::<i32, i32>(&store, func)?;
        S::call(&func, stack, &mut store, 1).await
    }

    /// A call with a store, an instance and a stack of its own, which does not end while a bench runs: it makes four
    /// billion host calls.
    async fn endless(&self, instantiated: Instantiated) -> Result<i32> {
        let mut live = self.live_by(instantiated)?;
        let func = live.func::<i32, i32>("loop")?;
        S::call(&func, &mut live.stack, &mut live.store, -1).await
    }

    /// An endless call that has started and is suspended in its first host call.
    pub(crate) fn suspended(&self, instantiated: Instantiated) -> Result<Suspended<'_>> {
        let mut call = Box::pin(self.endless(instantiated));
        match call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => Ok(call),
            Poll::Ready(outcome) => Err(outcome.expect_err("it has no end")),
        }
    }

    fn store(&self) -> S::Store {
        Store::new(self.pre.module().engine(), Data::default()).into()
    }
}

/// Where an instance was made: on the stack that its calls use, which leaves traces there, or on the thread's own
/// stack.
#[derive(Clone, Copy)]
pub(crate) enum Instantiated {
    OnStack,
    Elsewhere,
}

/// See [`Linked::suspended`].
pub(crate) type Suspended<'a> = Pin<Box<dyn Future<Output = Result<i32>> + 'a>>;

/// See [`Linked::live`].
pub(crate) struct Live<S: Side> {
    pub(crate) store: S::Store,
    pub(crate) stack: S::Stack,
    instance: wasmtime::Instance,
}

impl<S: Side> Live<S> {
    pub(crate) fn func<P: Params, R: Results>(&mut self, name: &str) -> Result<S::Func<P, R>> {
        let func = self.untyped(name);
        S::func(&self.store, func)
    }

    /// Tells the host function `back` which function to call.
    pub(crate) fn set_handler(&mut self) {
        let handler = self.untyped("handler").typed(&self.store).expect("has this type");
        self.store.as_context_mut().data_mut().handler = Some(handler);
    }

    pub(crate) fn untyped(&mut self, name: &str) -> Func {
        self.instance.get_func(&mut self.store, name).expect("the guest exports it")
    }
}

fn host_type(engine: &Engine) -> FuncType {
    FuncType::new(engine, [ValType::I32], [ValType::I32])
}
