//! What all requests share.

use crate::config::{Config, Where};
use crate::host::{self, Host};
use crate::stats::{Snapshot, Stats};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};
use std::thread;
use std::time::Duration;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::Semaphore;
use wasmtime::error::Context as _;
use wasmtime::{
    Config as EngineConfig, Engine, EngineWeak, ExternType, InstanceAllocationStrategy, InstancePre, Module,
    PoolingAllocationConfig, Result, ValType,
};
use wasmtime_async::{DEFAULT_STACK_SIZE, Pool, SendFiberStack};

/// Roughly how long a guest computes before other tasks get their turn.
const SLICE: Duration = Duration::from_millis(1);

/// What all requests share.
pub struct App {
    pub(crate) config: Config,
    pub(crate) guest: InstancePre<Host>,
    pub(crate) stacks: Pool<SendFiberStack>,
    /// One permit for each request that may wait for a stack.
    pub(crate) places: Semaphore,
    pub(crate) stats: Arc<Stats>,
    pub(crate) visits: Arc<AtomicI32>,
    /// The other server, which guests ask.
    pub(crate) service: SocketAddr,
    /// Where guests run.
    pub(crate) runtime: Handle,
    _own: Option<OwnRuntime>,
}

impl App {
    /// Compiles the guest, and gets ready for requests. Await this in the server's runtime.
    ///
    /// # Errors
    ///
    /// If the system does not provide memory for the pools, threads, or a port for the service.
    pub async fn new(config: Config) -> Result<Arc<Self>> {
        let too_many = || format!("cannot reserve memory for {} instances: lower --stacks", config.stacks);
        let instances = u32::try_from(config.stacks).with_context(too_many)?;
        let mut pooling = PoolingAllocationConfig::new();
        pooling.total_core_instances(instances).total_memories(instances).max_memory_size(1 << 20);
        let mut engine = EngineConfig::new();
        engine.epoch_interruption(true).allocation_strategy(InstanceAllocationStrategy::Pooling(pooling));
        let engine = Engine::new(&engine).with_context(too_many)?;
        let clock = engine.weak();
        thread::Builder::new().name("clock".into()).spawn(move || tick(&clock))?;

        let module = Module::new(&engine, include_str!("guest.wat"))?;
        let service = match config.service {
            Some(service) => service,
            None => crate::service::start().await?,
        };
        let own = match config.guests {
            Where::Shared => None,
            Where::Own => Some(Builder::new_multi_thread().thread_name("guests").enable_all().build()?),
        };
        Ok(Arc::new(Self {
            guest: host::linker(&engine)?.instantiate_pre(&module)?,
            stacks: Pool::new(config.stacks, DEFAULT_STACK_SIZE)?,
            places: Semaphore::new(config.waiting.min(Semaphore::MAX_PERMITS)),
            stats: Arc::default(),
            visits: Arc::default(),
            service,
            runtime: own.as_ref().map_or_else(Handle::current, |own| own.handle().clone()),
            _own: own.map(|own| OwnRuntime(Some(own))),
            config,
        }))
    }

    /// Whether the guest has a function by that name that requests can call.
    pub(crate) fn has(&self, function: &str) -> bool {
        let Some(ExternType::Func(ty)) = self.guest.module().get_export(function) else { return false };
        let is_number = |ty: ValType| matches!(ty, ValType::I32);
        ty.params().len() == 1 && ty.params().all(is_number) && ty.results().len() == 1 && ty.results().all(is_number)
    }

    /// The counters.
    pub fn snapshot(&self) -> Snapshot {
        let (stats, stacks) = (&self.stats, self.stacks.counts());
        Snapshot {
            in_flight: stats.in_flight.load(Relaxed),
            answered: stats.answered.load(Relaxed),
            cancelled: stats.cancelled.load(Relaxed),
            timed_out: stats.timed_out.load(Relaxed),
            refused: stats.refused.load(Relaxed),
            failed: stats.failed.load(Relaxed),
            stores: stats.stores.load(Relaxed),
            stacks_idle: stacks.idle,
            stacks_in_use: stacks.in_use,
            waiting: stacks.waiting,
        }
    }
}

/// Ends time slices, until the engine is dropped.
fn tick(engine: &EngineWeak) {
    while let Some(engine) = engine.upgrade() {
        engine.increment_epoch();
        drop(engine);
        thread::sleep(SLICE);
    }
}

/// A runtime that can be dropped in a task of another runtime, where a plain `Runtime` panics.
struct OwnRuntime(Option<Runtime>);

impl Drop for OwnRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
