//! The ways to call the guest.

use crate::case::{Case, GUEST};
use crate::host::{Data, Host};
use std::future::Future;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tokio_util::task::LocalPoolHandle;
use wasmtime::{
    Caller, Config, Engine, InstanceAllocationStrategy, InstancePre, Linker, Module, PoolingAllocationConfig, Result,
};
use wasmtime_async::{
    AsyncFunc, Carries, DEFAULT_STACK_SIZE, FiberStack, InstancePreExt, LinkerExt, Pool, SendFiberStack, SendStack,
    Stack, Store, ThreadStack, tokio_runtime,
};

/// The names of the variants. The others are compared with the first one.
pub(crate) const NAMES: [&str; 8] = [
    "wasmtime_pooled",
    "wasmtime_on_demand",
    "send_fiber_pooled",
    "send_fiber_on_demand",
    "local_workers_pooled",
    "thread_pooled",
    "spawn_blocking_pooled",
    SYNCHRONOUS,
];

/// The least that a guest can cost: it cannot be suspended, so only the cases in which it never waits have this variant.
pub(crate) const SYNCHRONOUS: &str = "synchronous_pooled";

/// How many stacks and instances there are: more than there are connections.
const MOST: u32 = 1100;

/// A way to call the guest: each call with a new store and instance.
pub(crate) trait Variant: Send + Sync + 'static {
    fn call(&self, case: Case) -> impl Future<Output = Result<i32>> + Send;
}

/// Where instances come from.
#[derive(Clone, Copy)]
pub(crate) enum Allocation {
    OnDemand,
    Pooled,
}

impl Allocation {
    fn engine(self) -> Result<Engine> {
        let mut config = Config::new();
        if let Self::Pooled = self {
            let mut pool = PoolingAllocationConfig::new();
            pool.total_core_instances(MOST).total_memories(MOST).total_stacks(MOST).max_memory_size(2 << 16);
            config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        }
        Engine::new(&config)
    }
}

fn guest(linker: &Linker<Data>) -> Result<InstancePre<Data>> {
    linker.instantiate_pre(&Module::new(linker.engine(), GUEST)?)
}

/// wasmtime's own async.
pub(crate) struct Wasmtime {
    guest: InstancePre<Data>,
    host: Data,
}

impl Wasmtime {
    pub(crate) fn new(allocation: Allocation, host: Data) -> Result<Self> {
        let mut linker = Linker::new(&allocation.engine()?);
        linker.func_wrap_async("host", "ready", |_, (): ()| Box::new(Host::ready()))?;
        linker.func_wrap_async("host", "sleep", |_, (ms,): (u32,)| Box::new(Host::sleep(ms)))?;
        linker.func_wrap_async("host", "yield", |_, (): ()| Box::new(Host::yield_now()))?;
        linker.func_wrap_async("host", "echo", |caller: Caller<'_, Data>, (n,): (i32,)| {
            Box::new(caller.data().clone().echo(n))
        })?;
        Ok(Self { guest: guest(&linker)?, host })
    }
}

impl Variant for Wasmtime {
    async fn call(&self, case: Case) -> Result<i32> {
        let mut store = wasmtime::Store::new(self.guest.module().engine(), self.host.clone());
        let instance = self.guest.instantiate_async(&mut store).await?;
        instance.get_typed_func::<(), i32>(&mut store, case.name())?.call_async(&mut store, ()).await
    }
}

fn suspending(allocation: Allocation) -> Result<InstancePre<Data>> {
    let mut linker = Linker::new(&allocation.engine()?);
    linker.func_wrap_suspending_send("host", "ready", Host::ready)?;
    linker.func_wrap_suspending_send("host", "sleep", Host::sleep)?;
    linker.func_wrap_suspending_send("host", "yield", Host::yield_now)?;
    linker
        .func_wrap_suspending_send("host", "echo", |caller: Caller<'_, Data>, n: i32| caller.data().clone().echo(n))?;
    guest(&linker)
}

/// Calls that are `Send`. They run in the task of the request.
pub(crate) struct Sent<S: SendStack> {
    guest: InstancePre<Data>,
    host: Data,
    stacks: Pool<S>,
    /// Prepares a stack for a call.
    prepare: fn(&mut S),
}

impl<S: SendStack> Sent<S> {
    fn new(allocation: Allocation, host: Data, prepare: fn(&mut S)) -> Result<Self> {
        let stacks = Pool::new(MOST as usize, DEFAULT_STACK_SIZE)?;
        Ok(Self { guest: suspending(allocation)?, host, stacks, prepare })
    }
}

impl Sent<SendFiberStack> {
    pub(crate) fn on_fibers(allocation: Allocation, host: Data) -> Result<Self> {
        Self::new(allocation, host, |_| ())
    }
}

impl Sent<ThreadStack> {
    pub(crate) fn on_threads(allocation: Allocation, host: Data) -> Result<Self> {
        // Host functions run on the stack's thread, and ask tokio for timers and sockets there.
        Self::new(allocation, host, |stack| stack.set_ambient(tokio_runtime))
    }
}

impl<S: SendStack + Carries<Data> + 'static> Variant for Sent<S> {
    async fn call(&self, case: Case) -> Result<i32> {
        let mut stack = self.stacks.get().await?;
        (self.prepare)(&mut stack);
        let mut store = Store::new(self.guest.module().engine(), self.host.clone());
        let instance = self.guest.instantiate_on(&mut *stack, &mut store).await?;
        let func = AsyncFunc::from(instance.get_typed_func::<(), i32>(&mut store, case.name())?);
        func.call(&mut *stack, &mut store, ()).await
    }
}

/// Calls that are not `Send`. They run on workers of their own.
pub(crate) struct Local {
    guest: InstancePre<Data>,
    host: Data,
    stacks: Pool<FiberStack>,
    workers: LocalPoolHandle,
}

impl Local {
    pub(crate) fn new(allocation: Allocation, host: Data) -> Result<Self> {
        let workers = LocalPoolHandle::new(Handle::current().metrics().num_workers());
        let stacks = Pool::new(MOST as usize, DEFAULT_STACK_SIZE)?;
        Ok(Self { guest: suspending(allocation)?, host, stacks, workers })
    }
}

impl Variant for Local {
    async fn call(&self, case: Case) -> Result<i32> {
        let (guest, host, stacks) = (self.guest.clone(), self.host.clone(), self.stacks.clone());
        let call = async move || {
            let mut stack = stacks.get().await?;
            let mut store = Store::new(guest.module().engine(), host);
            let instance = guest.instantiate_on(&mut *stack, &mut store).await?;
            let func = AsyncFunc::from(instance.get_typed_func::<(), i32>(&mut store, case.name())?);
            func.call(&mut *stack, &mut store, ()).await
        };
        self.workers.spawn_pinned(call).await?
    }
}

/// wasmtime's synchronous calls, on threads that may block.
pub(crate) struct Blocking {
    guest: InstancePre<Data>,
    host: Data,
}

impl Blocking {
    pub(crate) fn new(allocation: Allocation, host: Data) -> Result<Self> {
        fn wait<F: Future>(future: F) -> F::Output {
            Handle::current().block_on(future)
        }

        let mut linker = Linker::new(&allocation.engine()?);
        linker.func_wrap("host", "ready", || wait(Host::ready()))?;
        linker.func_wrap("host", "sleep", |ms: u32| wait(Host::sleep(ms)))?;
        linker.func_wrap("host", "yield", || wait(Host::yield_now()))?;
        linker.func_wrap("host", "echo", |caller: Caller<'_, Data>, n: i32| wait(caller.data().clone().echo(n)))?;
        Ok(Self { guest: guest(&linker)?, host })
    }
}

impl Variant for Blocking {
    async fn call(&self, case: Case) -> Result<i32> {
        let (guest, host) = (self.guest.clone(), self.host.clone());
        let call = move || {
            let mut store = wasmtime::Store::new(guest.module().engine(), host);
            let instance = guest.instantiate(&mut store)?;
            instance.get_typed_func::<(), i32>(&mut store, case.name())?.call(&mut store, ())
        };
        spawn_blocking(call).await?
    }
}

/// wasmtime's synchronous calls, in the task of the request.
pub(crate) struct Synchronous {
    guest: InstancePre<Data>,
    host: Data,
}

impl Synchronous {
    pub(crate) fn new(allocation: Allocation, host: Data) -> Result<Self> {
        let mut linker = Linker::new(&allocation.engine()?);
        linker.func_wrap("host", "ready", || 1)?;
        // The guest imports these, too, but does not call them.
        linker.func_wrap("host", "sleep", |_: u32| ())?;
        linker.func_wrap("host", "yield", || ())?;
        linker.func_wrap("host", "echo", |n: i32| n)?;
        Ok(Self { guest: guest(&linker)?, host })
    }
}

impl Variant for Synchronous {
    async fn call(&self, case: Case) -> Result<i32> {
        let mut store = wasmtime::Store::new(self.guest.module().engine(), self.host.clone());
        let instance = self.guest.instantiate(&mut store)?;
        instance.get_typed_func::<(), i32>(&mut store, case.name())?.call(&mut store, ())
    }
}
