//! See the library's documentation.

use server_example::{App, Config, serve};
use std::env;
use std::process::{ExitCode, exit};
use tokio::net::TcpListener;
use wasmtime::Result;
use wasmtime::error::Context as _;

/// The exit code after a second signal, as a shell reports it for Ctrl-C.
const INTERRUPTED: i32 = 130;

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let Some(config) = Config::from_arguments(env::args().skip(1)) else {
        eprintln!("{}", Config::USAGE);
        return Ok(ExitCode::from(2));
    };
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let end = told_to_end();
    let listener = TcpListener::bind(config.address)
        .await
        .with_context(|| format!("cannot listen on {}: choose another with --address", config.address))?;
    tracing::info!("listening on http://{}/, guests in a runtime: {:?}", listener.local_addr()?, config.guests);
    let left = serve(listener, App::new(config).await?, end).await?;
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

/// Waits for Ctrl-C, or, on Unix, also for `SIGTERM`, from now on. The next one after that ends the process at once.
fn told_to_end() -> impl Future<Output = ()> + Send + 'static {
    #[cfg(unix)]
    let mut told = {
        use tokio::signal::unix::{SignalKind, signal};
        let listen = |kind| signal(kind).expect("signals can be waited for");
        let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt()), listen(SignalKind::terminate()));
        async move || {
            tokio::select! {
                _ = interrupt.recv() => (),
                _ = terminate.recv() => (),
            }
        }
    };
    #[cfg(not(unix))]
    let told = async || drop(tokio::signal::ctrl_c().await);
    async move {
        told().await;
        tracing::info!("finishing what is in flight (send the signal again to end at once)");
        tokio::spawn(async move {
            told().await;
            exit(INTERRUPTED);
        });
    }
}
