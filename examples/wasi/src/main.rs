//! Fifty copies of a C program that blocks, at once on one thread. Each copy talks over a socket, writes and reads a file, and
//! sleeps. Then fifty more copies start and are dropped while they sleep. Everything that they had open is closed.
//!
//! ```sh
//! cargo run --release -p wasi-example
//! ```

mod guests;
mod server;

use guests::World;
use server::Server;
use std::error::Error;
use std::fs;
use std::time::{Duration, Instant};
use tokio::task::LocalSet;

const GUESTS: usize = 50;
/// How long the first fifty sleep.
const SLEEP: Duration = Duration::from_millis(200);
/// How long the others would sleep: longer than the program can take, so that none wakes before it is dropped.
const LONG_SLEEP: Duration = Duration::from_secs(1000);
/// The timeout for everything that should take no time. A busy machine can take long.
const LIMIT: Duration = Duration::from_mins(10);

fn main() -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, run())
}

async fn run() -> Result<(), Box<dyn Error>> {
    let world = World::new()?;
    let server = Server::new().await?;

    // The first fifty run to their end.
    let begun = Instant::now();
    let guests = world.start(&server, SLEEP, "at once").await?;
    let codes = tokio::time::timeout(LIMIT, guests).await??;
    let together = begun.elapsed();
    if codes != [0; GUESTS] {
        return Err(format!("the programs ended with {codes:?}").into());
    }
    let visits = server.take_visits(LIMIT).await?;
    for (guest, visit) in visits.iter().enumerate() {
        let kept = fs::read_to_string(world.file(guest))?;
        if !visit.is_complete || visit.word != kept {
            return Err(format!("guest {guest} got {:?}, kept {kept:?}, and did not say so", visit.word).into());
        }
    }
    let threads = world.threads();

    // The others run until all sleep, with their files and sockets open.
    let open_before = open_descriptors()?;
    let mut guests = Box::pin(world.start(&server, LONG_SLEEP, "to be dropped").await?);
    tokio::select! {
        ended = &mut guests => return Err(format!("the programs ended, before all slept: {ended:?}").into()),
        () = server.all_sleep() => {}
        () = tokio::time::sleep(LIMIT) => return Err("the programs do not get to sleep".into()),
    }
    let open = open_descriptors()?;
    // Each guest has at least its file and both ends of its socket open.
    if open < open_before + 3 * GUESTS || world.alive() != GUESTS {
        return Err(format!("{open} descriptors and {} programs are open", world.alive()).into());
    }
    drop(guests);
    // The server sees each connection end.
    let visits = server.take_visits(LIMIT).await?;
    let dropped = visits.iter().filter(|visit| !visit.is_complete).count();
    let left_open = open_descriptors()?.saturating_sub(open_before) + world.alive();

    let (slept, together) = (SLEEP.as_millis(), together.as_millis());
    println!(
        "guests={GUESTS} threads={threads} slept_ms={slept} together_ms={together} dropped={dropped} left_open={left_open}"
    );
    if threads == 1 && dropped == GUESTS && left_open == 0 { Ok(()) } else { Err("not as it should be".into()) }
}

/// How many descriptors this process has open.
fn open_descriptors() -> Result<usize, Box<dyn Error>> {
    Ok(fs::read_dir("/dev/fd")?.count())
}
