//! The functions one by one: each gives what wasmtime-wasi's own synchronous function gives. Those that can wait leave the
//! thread to others, and do not come back when their call is dropped.

mod cases;
mod driver;
mod files;
mod same;
mod sockets;
mod streams;
mod waiting;

use crate::guests::ENGINE;
use crate::stacks::Kind;
use driver::DRIVER;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use wasmtime::Result;
use wasmtime::component::{Instance, Linker, Type, Val};
use wasmtime_async::Store;
use wasmtime_async::component::{FuncExt, LinkerExt};
use wasmtime_wasi::p1::WasiP1Ctx;

/// Calls exports of the driver.
trait Host {
    async fn call(&mut self, name: &str, arguments: &[u64]) -> Result<Val>;
}

/// On a stack, with this crate's functions.
struct OnStack<S> {
    stack: S,
    store: Store<WasiP1Ctx>,
    instance: Instance,
}

impl<S: Kind> Host for OnStack<S> {
    async fn call(&mut self, name: &str, arguments: &[u64]) -> Result<Val> {
        let function = self.instance.get_func(&mut self.store, name).unwrap();
        let (arguments, mut results) = (typed(function.ty(&self.store).params(), arguments), [Val::Bool(false)]);
        function.call_on(&mut self.stack, &mut self.store, &arguments, &mut results).await?;
        let [result] = results;
        Ok(result)
    }
}

/// Without a stack, with wasmtime-wasi's own.
struct Upstream {
    store: wasmtime::Store<WasiP1Ctx>,
    instance: Instance,
}

impl Host for Upstream {
    async fn call(&mut self, name: &str, arguments: &[u64]) -> Result<Val> {
        let function = self.instance.get_func(&mut self.store, name).unwrap();
        let (arguments, mut results) = (typed(function.ty(&self.store).params(), arguments), [Val::Bool(false)]);
        function.call(&mut self.store, &arguments, &mut results)?;
        let [result] = results;
        Ok(result)
    }
}

fn typed<'a>(types: impl Iterator<Item = (&'a str, Type)>, arguments: &[u64]) -> Vec<Val> {
    let value = |((_, ty), argument): ((&str, Type), &u64)| match ty {
        Type::U32 => Val::U32(u32::try_from(*argument).unwrap()),
        _ => Val::U64(*argument),
    };
    types.zip(arguments).map(value).collect()
}

fn bytes(list: Val) -> Vec<u8> {
    let Val::List(bytes) = list else { panic!("not a list: {list:?}") };
    let byte = |byte| if let Val::U8(byte) = byte { byte } else { panic!("not a byte: {byte:?}") };
    bytes.into_iter().map(byte).collect()
}

/// The driver, and what came of its calls.
struct Guest<H> {
    host: H,
    returned: Arc<AtomicUsize>,
    /// What was called or read, and the bytes.
    log: Vec<(String, Vec<u8>)>,
    /// What was called with success.
    succeeded: BTreeSet<String>,
}

/// A result as it lies in the guest's memory.
struct Answer(Vec<u8>);

impl Answer {
    fn u32(&self, at: usize) -> u64 {
        u32::from_le_bytes(self.0[at..at + 4].try_into().unwrap()).into()
    }

    /// The handle in a `result` without an error.
    fn handle(&self) -> u64 {
        assert_eq!(self.0[0], 0, "error {}", self.0[4]);
        self.u32(4)
    }
}

impl<S: Kind> Guest<OnStack<S>> {
    async fn on_stack(wasi: WasiP1Ctx) -> Self {
        Self::new(S::linker(), async |linker| {
            let (mut stack, mut store) = (S::new_stack(), Store::new(&ENGINE, wasi));
            let instance = linker.instantiate_on(&mut stack, &mut store, &DRIVER.component).await.unwrap();
            OnStack { stack, store, instance }
        })
        .await
    }
}

impl Guest<Upstream> {
    async fn upstream(wasi: WasiP1Ctx) -> Self {
        let mut linker = Linker::new(&ENGINE);
        wasmtime_wasi::p2::add_to_linker_sync(&mut linker).unwrap();
        Self::new(linker, async |linker| {
            let mut store = wasmtime::Store::new(&ENGINE, wasi);
            let instance = linker.instantiate(&mut store, &DRIVER.component).unwrap();
            Upstream { store, instance }
        })
        .await
    }
}

impl<H: Host> Guest<H> {
    async fn new(mut linker: Linker<WasiP1Ctx>, instantiate: impl AsyncFnOnce(&Linker<WasiP1Ctx>) -> H) -> Self {
        let returned = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&returned);
        let came_back = move |_: wasmtime::StoreContextMut<'_, _>, (): ()| {
            count.fetch_add(1, Ordering::Relaxed);
            Ok(())
        };
        linker.root().func_wrap("came-back", came_back).unwrap();
        Self { host: instantiate(&linker).await, returned, log: Vec::new(), succeeded: BTreeSet::new() }
    }

    /// How many host functions came back to the guest.
    fn returned(&self) -> usize {
        self.returned.load(Ordering::Relaxed)
    }

    async fn call(&mut self, name: &str, arguments: impl AsRef<[u64]>) -> Answer {
        let arguments = arguments.as_ref();
        let result = match self.host.call(name, arguments).await {
            Ok(result) => bytes(result),
            Err(error) => panic!("{name}{arguments:?}: {error:?}"),
        };
        if !DRIVER.exports[name] || result[0] == 0 {
            self.succeeded.insert(name.into());
        }
        self.log.push((format!("{name}{arguments:?}"), result.clone()));
        Answer(result)
    }

    /// Takes out of the log what differs from run to run.
    fn wipe(&mut self, range: Range<usize>) {
        self.log.last_mut().unwrap().1[range].fill(0);
    }

    async fn peek(&mut self, at: u64, len: u64) -> Vec<u8> {
        let found = bytes(self.host.call("peek", &[at, len]).await.unwrap());
        self.log.push((format!("bytes at {at}"), found.clone()));
        found
    }

    async fn poke(&mut self, at: u64, bytes: &[u8]) {
        for (n, word) in (0..).zip(bytes.chunks(4)) {
            let mut padded = [0; 4];
            padded[..word.len()].copy_from_slice(word);
            self.host.call("poke", &[at + 4 * n, u32::from_le_bytes(padded).into()]).await.unwrap();
        }
    }
}
