//! The server's process.

use crate::case::Case;
use crate::host::Host;
use crate::variants::{Allocation, Blocking, Local, SYNCHRONOUS, Sent, Synchronous, Variant, Wasmtime};
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use rustix::time::{ClockId, clock_gettime};
use std::fs;
use std::io::Read;
use std::net::SocketAddr;
use std::process::exit;
use std::sync::Arc;
use std::thread;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use wasmtime::{Result, bail};
use wasmtime_async::FiberStack;

/// Serves one variant until standard input ends. Prints the address, and how calls are parked.
pub(crate) fn run(variant: &str, echo: SocketAddr) -> Result<()> {
    // Standard input ends when the process that has started this one is gone.
    thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        exit(0)
    });
    let host = Host::new(echo);
    Builder::new_multi_thread().enable_all().build()?.block_on(async {
        match variant {
            "wasmtime_pooled" => serve(Wasmtime::new(Allocation::Pooled, host)?).await,
            "wasmtime_on_demand" => serve(Wasmtime::new(Allocation::OnDemand, host)?).await,
            "send_fiber_pooled" => serve(Sent::on_fibers(Allocation::Pooled, host)?).await,
            "send_fiber_on_demand" => serve(Sent::on_fibers(Allocation::OnDemand, host)?).await,
            "local_workers_pooled" => serve(Local::new(Allocation::Pooled, host)?).await,
            "thread_pooled" => serve(Sent::on_threads(Allocation::Pooled, host)?).await,
            "spawn_blocking_pooled" => serve(Blocking::new(Allocation::Pooled, host)?).await,
            SYNCHRONOUS => serve(Synchronous::new(Allocation::Pooled, host)?).await,
            _ => bail!("there is no variant {variant}"),
        }
    })
}

async fn serve<V: Variant>(variant: V) -> Result<()> {
    let mut routes = Router::new().route("/usage", get(usage));
    for case in Case::ALL {
        let answer = async move |State(variant): State<Arc<V>>| match variant.call(case).await {
            Ok(answer) => (StatusCode::OK, answer.to_string()),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:?}")),
        };
        routes = routes.route(&format!("/{}", case.name()), get(answer));
    }
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    println!("{} {:?}", listener.local_addr()?, FiberStack::parking());
    axum::serve(listener, routes.with_state(Arc::new(variant))).await?;
    Ok(())
}

/// The processor time so far, in nanoseconds, and the memory now, in KiB.
async fn usage() -> String {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let memory = memory.and_then(|memory| memory.trim().strip_suffix(" kB")).unwrap_or("0");
    format!("{} {}", time.tv_sec * 1_000_000_000 + time.tv_nsec, memory.trim())
}
