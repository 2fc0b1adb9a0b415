//! See the library's documentation.

use server_example::{App, Config, serve};
use std::env;
use std::process::ExitCode;
use tokio::net::TcpListener;
use wasmtime::Result;

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let Some(config) = Config::from_arguments(env::args().skip(1)) else {
        eprintln!("{}", Config::USAGE);
        return Ok(ExitCode::from(2));
    };
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let listener = TcpListener::bind(config.address).await?;
    tracing::info!("listening on http://{}/, guests in a runtime: {:?}", listener.local_addr()?, config.guests);
    let left = serve(listener, App::new(config).await?, told_to_end()).await?;
    println!(
        "answered={} cancelled={} timed_out={} refused={} failed={} in_flight={} stores={} stacks_in_use={}",
        left.answered,
        left.cancelled,
        left.timed_out,
        left.refused,
        left.failed,
        left.in_flight,
        left.stores,
        left.stacks_in_use
    );
    let clean = left.in_flight == 0 && left.stores == 0 && left.stacks_in_use == 0;
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Waits for Ctrl-C or, on Unix, `SIGTERM`.
async fn told_to_end() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate()).expect("signals can be waited for");
        tokio::select! {
            _ = tokio::signal::ctrl_c() => (),
            _ = terminate.recv() => (),
        }
    }
    #[cfg(not(unix))]
    let _ = tokio::signal::ctrl_c().await;
    tracing::info!("finishing what is in flight");
}
