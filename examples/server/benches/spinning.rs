//! How long requests take beside guests that spin, with guests in the server's runtime and in one of their own.
//!
//! ```sh
//! cargo bench -p server-example
//! ```

#[path = "../tests/common/mod.rs"]
mod common;

use common::Server;
use futures::future::join_all;
use server_example::{Config, Where};
use std::time::{Duration, Instant};
use tokio::runtime::Builder;

/// How many requests are measured, one after the other.
const REQUESTS: usize = 1000;

/// Measures requests beside this number of guests that spin: the time that half of them stay below, and 99 in 100.
async fn measure(server: Server, spinning: usize) -> (Duration, Duration) {
    let spinners = join_all((0..spinning).map(|_| server.send("spin", 0))).await;
    server.until(|now| now.stacks_in_use == spinning).await;
    let mut times = Vec::with_capacity(REQUESTS);
    for _ in 0..REQUESTS {
        let begun = Instant::now();
        assert_eq!(server.get("double", 21).await, (200, "42".into()));
        times.push(begun.elapsed());
    }
    assert_eq!(server.app.snapshot().stacks_in_use, spinning, "guests spin until the end");
    drop(spinners);
    server.end_with_nothing_left().await;
    times.sort_unstable();
    (times[REQUESTS / 2], times[REQUESTS * 99 / 100])
}

fn main() {
    for (name, guests) in [("shared", Where::Shared), ("own", Where::Own)] {
        for spinning in [0, 4] {
            let config = Config { guests, deadline: Duration::from_hours(1), ..Config::default() };
            let runtime = Builder::new_multi_thread().enable_all().build().expect("there are threads");
            let server = runtime.block_on(Server::start(config));
            // The client has a thread of its own, so that guests do not delay it.
            let client = Builder::new_current_thread().enable_all().build().expect("there are files");
            let (p50, p99) = client.block_on(measure(server, spinning));
            let ms = |time: Duration| time.as_secs_f64() * 1e3;
            println!(
                "runtime={name} spinning={spinning} requests={REQUESTS} p50_ms={:.1} p99_ms={:.1}",
                ms(p50),
                ms(p99)
            );
        }
    }
}
