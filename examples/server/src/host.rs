//! The host functions, and the data of a request's store.

use crate::app::App;
use crate::stats::OneMore;
use futures::FutureExt;
use std::future::Future;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wasmtime::{Caller, Engine, Linker, Result, bail};
use wasmtime_async::LinkerExt;

/// The data of a request's store.
pub(crate) struct Host {
    service: SocketAddr,
    /// Shared by all requests.
    visits: Arc<AtomicI32>,
    _alive: OneMore,
}

impl Host {
    pub(crate) fn new(app: &App) -> Self {
        Self {
            service: app.service,
            visits: app.visits.clone(),
            _alive: OneMore::new(&app.stats, |stats| &stats.stores),
        }
    }
}

/// The functions that guests import. Those that wait are closures that return a `Send` future.
pub(crate) fn linker(engine: &Engine) -> Result<Linker<Host>> {
    let mut linker = Linker::new(engine);
    linker.func_wrap_suspending_send("host", "sleep", |ms: u32| {
        careful(async move {
            tokio::time::sleep(Duration::from_millis(ms.into())).await;
            Ok(())
        })
    })?;
    linker.func_wrap_suspending_send("host", "ask", |caller: Caller<'_, Host>, question: i32| {
        careful(ask(caller.data().service, question))
    })?;
    linker.func_wrap_suspending_send("host", "panic", || {
        careful::<()>(async { panic!("a mistake in a host function") })
    })?;
    // This one does not wait.
    linker.func_wrap("host", "visit", |caller: Caller<'_, Host>| caller.data().visits.fetch_add(1, Relaxed))?;
    Ok(linker)
}

/// Sends a number to the service, and receives its answer.
async fn ask(service: SocketAddr, question: i32) -> Result<i32> {
    let mut stream = TcpStream::connect(service).await?;
    stream.write_i32(question).await?;
    Ok(stream.read_i32().await?)
}

/// Turns a panic into an error, so that the guest traps, and the log has its backtrace.
async fn careful<R>(function: impl Future<Output = Result<R>>) -> Result<R> {
    match AssertUnwindSafe(function).catch_unwind().await {
        Ok(result) => result,
        Err(payload) => {
            let text = payload.downcast_ref::<&str>().copied().or(payload.downcast_ref::<String>().map(|text| &**text));
            bail!("a host function panicked: {}", text.unwrap_or("no message"))
        }
    }
}
