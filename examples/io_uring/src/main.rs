//! An echo server on compio. compio's runtime has one thread, uses the kernel's `io_uring`, and has futures that are not
//! `Send`. A guest serves each connection, and its host functions wait for the ring.
//!
//! ```sh
//! cargo run --release -p io-uring-example -- --connections 5000
//! ```
//!
//! Without `--connections` there are as many connections as the process may have files for, but at most 20,000. Each one takes
//! two files, because the clients are in the same program. In many containers the kernel does not let programs use `io_uring`.
//! There compio polls instead, and the last line says so.

mod client;
mod guest;

use compio::driver::DriverType;
use compio::net::TcpListener;
use compio::runtime::{JoinHandle, ResumeUnwind, Runtime, spawn};
use futures::future::{ready, try_join, try_join_all};
use futures::stream::{FuturesUnordered, TryStreamExt};
use rustix::process::{Resource, getrlimit, setrlimit};
use std::process::ExitCode;
use std::rc::Rc;
use wasmtime::Result;

const USAGE: &str = "usage: io-uring-example [--connections N], N being 1 or more";

/// How many messages each client sends.
const MESSAGES: usize = 5;
/// How many files the program needs for itself, with some to spare.
const FILES_FOR_ITSELF: u64 = 100;
/// More would need more ports than many systems give to clients.
const MOST_CONNECTIONS: usize = 20_000;

/// Serves this many connections at once. Returns how many answers were wrong, and how many bytes the guests counted.
async fn echo(connections: usize) -> Result<(usize, u64)> {
    let guests = Rc::new(guest::Guests::new()?);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;

    // All connections are open before the first client sends, so all guests are suspended at once.
    let (mut tasks, mut streams) = (Vec::with_capacity(connections), Vec::with_capacity(connections));
    for _ in 0..connections {
        let (near, (far, _)) = try_join(client::connect(address), listener.accept()).await?;
        tasks.push(spawn(Rc::clone(&guests).serve(far)));
        streams.push(near);
    }
    // `try_join_all` would look at the results in order, and so would not notice the first failure.
    let served: FuturesUnordered<_> = tasks.into_iter().map(ended).collect();
    let served = served.try_fold(0, |sum, bytes| ready(Ok(sum + bytes)));
    let talked = try_join_all((0..).zip(streams).map(|(n, stream)| client::talk(stream, n, MESSAGES)));
    // If a guest fails, its error is the one to report, and the clients need not go on.
    let (bytes, wrong) = try_join(served, async { Ok(talked.await?) }).await?;
    Ok((wrong.into_iter().sum(), bytes))
}

/// The result of a task.
async fn ended<R>(task: JoinHandle<Result<R>>) -> Result<R> {
    task.await.resume_unwind().expect("is not cancelled")
}

/// How many connections there are files for.
fn most_connections() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // If this fails, the limit stays what it was.
    let _ = setrlimit(Resource::Nofile, limit);
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    // The number of ports is limited, too.
    usize::try_from(files.saturating_sub(FILES_FOR_ITSELF) / 2).unwrap_or(usize::MAX).clamp(1, MOST_CONNECTIONS)
}

/// The number of connections in the arguments, or what is wrong with them.
fn number_of_connections() -> Result<usize, String> {
    let most = most_connections();
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => Ok(most),
        ["--connections", number] => match number.parse() {
            Ok(0) | Err(_) => Err(USAGE.into()),
            Ok(connections) if connections <= most => Ok(connections),
            Ok(_) if most == MOST_CONNECTIONS => Err(format!("at most {most}, because each takes a port")),
            Ok(_) => Err(format!("at most {most} here: raise `ulimit -n`")),
        },
        _ => Err(USAGE.into()),
    }
}

fn main() -> Result<ExitCode> {
    let connections = match number_of_connections() {
        Ok(connections) => connections,
        Err(problem) => {
            eprintln!("{problem}");
            return Ok(ExitCode::from(2));
        }
    };
    let runtime = Runtime::new()?;
    let driver = match runtime.driver_type() {
        DriverType::IoUring => "io_uring",
        _ => "polling (io_uring is not available here)",
    };
    let (wrong, bytes) = runtime.block_on(echo(connections))?;
    let expected = connections * MESSAGES * client::MESSAGE;
    println!(
        "driver={driver} connections={connections} messages={} bytes={bytes} wrong={wrong}",
        connections * MESSAGES
    );
    Ok(if wrong == 0 && u64::try_from(expected)? == bytes { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
