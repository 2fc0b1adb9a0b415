//! The programs. Each has a context and a stack of its own, and all run on the thread that polls.

use crate::GUESTS;
use crate::server::Server;
use futures::future::try_join_all;
use indicatif::{ProgressBar, ProgressStyle};
use std::cell::RefCell;
use std::collections::HashSet;
use std::future::{Future, poll_fn};
use std::path::PathBuf;
use std::pin::pin;
use std::rc::Rc;
use std::thread::{self, ThreadId};
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpStream;
use wasmtime::{Engine, Linker, Module, Result};
use wasmtime_async::{DEFAULT_STACK_SIZE, FiberStack, Stack, Store};
use wasmtime_async_wasi::{command, p1};
use wasmtime_wasi::cli::{AsyncStdinStream, AsyncStdoutStream};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::{FsPerms, WasiCtx};

/// The data of a store. It is not `Send`.
struct Data {
    wasi: WasiP1Ctx,
    _alive: Rc<()>,
}

pub struct World {
    engine: Engine,
    module: Module,
    linker: Linker<Data>,
    dir: TempDir,
    alive: Rc<()>,
    threads: RefCell<HashSet<ThreadId>>,
}

impl World {
    pub fn new() -> Result<Self> {
        let engine = Engine::default();
        let module = Module::new(&engine, include_bytes!(concat!(env!("OUT_DIR"), "/visitor.wasm")))?;
        let mut linker = Linker::new(&engine);
        p1::add_to_linker(&mut linker, |data: &mut Data| &mut data.wasi)?;
        let dir = TempDir::new()?;
        Ok(Self { engine, module, linker, dir, alive: Rc::new(()), threads: RefCell::default() })
    }

    /// The file that a guest keeps its word in.
    pub fn file(&self, guest: usize) -> PathBuf {
        self.dir.path().join(format!("guest-{guest}"))
    }

    /// How many stores are alive.
    pub fn alive(&self) -> usize {
        Rc::strong_count(&self.alive) - 1
    }

    /// How many threads programs have run on.
    pub fn threads(&self) -> usize {
        self.threads.borrow().len()
    }

    /// Connects all guests, which will sleep for this long, with the server. The future that this returns runs them to their end,
    /// and returns their exit codes.
    pub async fn start(
        &self,
        server: &Server,
        sleep: Duration,
        what: &'static str,
    ) -> Result<impl Future<Output = Result<Vec<i32>>>> {
        let bar = ProgressBar::new(u64::try_from(GUESTS)?).with_message(what);
        bar.set_style(ProgressStyle::with_template("{pos:>3} of {len} guests {msg} {wide_bar} {elapsed}")?);
        let mut guests = Vec::new();
        for guest in 0..GUESTS {
            let (socket, bar) = (server.connect().await?, bar.clone());
            guests.push(async move {
                let code = self.run(guest, sleep, socket).await?;
                bar.inc(1);
                Ok(code)
            });
        }
        Ok(async move {
            let codes = try_join_all(guests).await;
            bar.finish();
            codes
        })
    }

    async fn run(&self, guest: usize, sleep: Duration, socket: TcpStream) -> Result<i32> {
        let (input, output) = socket.into_split();
        let wasi = WasiCtx::builder()
            .args(&["visitor", &format!("guest-{guest}"), &sleep.as_millis().to_string()])
            .preopened_dir(self.dir.path(), "/words", FsPerms::ReadWrite)?
            .stdin(AsyncStdinStream::new(input))
            .stdout(AsyncStdoutStream::new(4096, output))
            .inherit_stderr()
            .build_p1();
        let mut store = Store::new(&self.engine, Data { wasi, _alive: Rc::clone(&self.alive) });
        let mut stack = FiberStack::new(DEFAULT_STACK_SIZE)?;
        let mut program = pin!(command::run(&mut stack, &mut store, &self.linker, &self.module));
        poll_fn(|cx| {
            self.threads.borrow_mut().insert(thread::current().id());
            program.as_mut().poll(cx)
        })
        .await
    }
}
