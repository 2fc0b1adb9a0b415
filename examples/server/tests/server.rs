//! The server under bad luck: in its own runtime and in the guests', nothing is left afterwards, and answers are right.

mod common;

use common::{Request, Server, Service, assert_nothing_left};
use futures::future::join_all;
use server_example::{Config, Where};
use std::time::Duration;

/// A test for each place where guests may run.
macro_rules! in_both_runtimes {
    ($($test:ident),+ $(,)?) => {$(
        mod $test {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn shared() {
                super::$test(super::config(super::Where::Shared)).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn own() {
                super::$test(super::config(super::Where::Own)).await;
            }
        }
    )+};
}

in_both_runtimes!(
    answers,
    fifty_timeouts,
    fifty_clients_that_go_away,
    four_guests_that_spin,
    a_burst_of_ten_times_the_pool,
    shut_down_with_a_hundred_in_flight,
    guests_that_fail,
);

fn config(guests: Where) -> Config {
    // A deadline that comes to no test that does not mean it to.
    Config { guests, stacks: 100, deadline: Duration::from_hours(1), ..Config::default() }
}

async fn answers(config: Config) {
    let server = Server::start(config).await;
    assert_eq!(server.get("double", 21).await, (200, "42".into()));
    assert_eq!(server.get("nap", 5).await, (200, "5".into()));
    for visits in 0..3 {
        assert_eq!(server.get("visits", 0).await, (200, visits.to_string()));
    }
    assert_eq!(server.get("nothing", 0).await.0, 404);
    assert_eq!(server.get("memory", 0).await.0, 404);
    let left = server.end_with_nothing_left().await;
    assert_eq!(left.answered, 5);
}

async fn fifty_timeouts(config: Config) {
    let server = Server::start(Config { deadline: Duration::from_millis(100), ..config }).await;
    // Half of them wait, half of them compute.
    let requests = (0..50).map(|n| server.get(if n % 2 == 0 { "nap" } else { "spin" }, 3_600_000));
    for (status, body) in join_all(requests).await {
        assert_eq!(status, 504, "{body}");
    }
    assert_eq!(server.end_with_nothing_left().await.timed_out, 50);
}

async fn fifty_clients_that_go_away(config: Config) {
    let service = Service::start().await;
    let server = Server::start(Config { service: Some(service.address), ..config }).await;
    // A fifth of them compute, the others wait: for a timer, or for the service.
    let functions = ["spin", "nap", "nap", "double", "double"];
    let requests = join_all((0..50).map(|n| server.send(functions[n % 5], 3_600_000))).await;
    server.until(|now| now.stacks_in_use == 50).await;
    drop(requests);
    server.until(|now| now.in_flight == 0 && now.stores == 0 && now.stacks_in_use == 0).await;
    service.open();
    assert_eq!(server.get("double", 4).await, (200, "8".into()));
    let left = server.end_with_nothing_left().await;
    assert_eq!((left.cancelled, left.answered), (50, 1));
}

async fn four_guests_that_spin(config: Config) {
    let server = Server::start(config).await;
    let spinning = join_all((0..4).map(|_| server.send("spin", 0))).await;
    server.until(|now| now.stacks_in_use == 4).await;
    for n in 0..300 {
        assert_eq!(server.get("double", n).await, (200, (2 * n).to_string()));
    }
    // All of that before a guest that spins came to its deadline.
    let now = server.app.snapshot();
    assert_eq!((now.answered, now.stacks_in_use, now.timed_out), (300, 4, 0), "{now:?}");
    drop(spinning);
    assert_eq!(server.end_with_nothing_left().await.cancelled, 4);
}

async fn a_burst_of_ten_times_the_pool(config: Config) {
    let service = Service::start().await;
    let server = Server::start(Config { stacks: 10, waiting: 40, service: Some(service.address), ..config }).await;
    let requests = join_all((0..100).map(|n| server.send("double", n))).await;
    // Nobody is answered before all have come, and have a stack, wait for one, or are refused.
    server.until(|now| now.stacks_in_use == 10 && now.waiting == 40 && now.refused == 50).await;
    service.open();
    let (mut answered, mut refused) = (0, 0);
    for (n, (status, body)) in (0..).zip(join_all(requests.into_iter().map(Request::answer)).await) {
        match status {
            200 => {
                assert_eq!(body, (2 * n).to_string());
                answered += 1;
            }
            503 => refused += 1,
            _ => panic!("{status}: {body}"),
        }
    }
    assert_eq!((answered, refused), (50, 50), "10 run, 40 wait");
    let left = server.end_with_nothing_left().await;
    assert_eq!((left.answered, left.refused), (answered, refused));
    assert!(left.stacks_idle <= 10, "{left:?}");
}

async fn shut_down_with_a_hundred_in_flight(config: Config) {
    let service = Service::start().await;
    let server = Server::start(Config { service: Some(service.address), ..config }).await;
    let requests = join_all((0..100).map(|n| server.send("double", n))).await;
    server.until(|now| now.stacks_in_use == 100).await;
    let ending = server.end();
    service.open();
    for (n, answer) in (0..).zip(join_all(requests.into_iter().map(Request::answer)).await) {
        assert_eq!(answer, (200, (2 * n).to_string()));
    }
    assert_eq!(assert_nothing_left(ending).await.answered, 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shut_down_with_a_client_that_sent_half_a_header() {
    let server = Server::start(Config { deadline: Duration::from_millis(1), ..Config::default() }).await;
    let _open = server.send_half().await;
    assert_nothing_left(server.end()).await;
}

async fn guests_that_fail(config: Config) {
    let server = Server::start(config).await;
    for (function, n, expected) in [
        ("trap", 0, "wasm `unreachable` instruction executed"),
        ("recurse", 0, "call stack exhausted"),
        ("grow", 16, "wasm `unreachable` instruction executed"),
        ("panic", 0, "it failed"),
    ] {
        let (status, body) = server.get(function, n).await;
        assert_eq!((status, body.contains(expected)), (500, true), "{function}: {body}");
        // The server goes on.
        assert_eq!(server.get("grow", 15).await, (200, "16".into()));
    }
    assert_eq!(server.end_with_nothing_left().await.failed, 4);
}
