//! What the log says of guests that fail. (A log is the whole process's, so this is a program of its own.)

mod common;

use common::{Server, Service};
use server_example::Config;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("nothing panics").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_is_logged_with_the_guests_backtrace() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).init();
    let written = || String::from_utf8(std::mem::take(&mut *log.0.lock().expect("nothing panics"))).expect("is text");

    let service = Service::start().await;
    let config = Config { stacks: 1, waiting: 0, service: Some(service.address), ..Config::default() };
    let server = Server::start(Config { deadline: Duration::from_hours(1), ..config }).await;
    for (function, frame, why) in [
        ("trap", "trap", "unreachable"),
        ("panic", "panics", "a host function panicked: a mistake in a host function"),
        ("recurse", "recurse", "call stack exhausted"),
        ("grow", "grow", "unreachable"),
    ] {
        assert_eq!(server.get(function, 16).await.0, 500);
        let text = written();
        for part in ["ERROR", "n=16", &format!("!{frame}"), why] {
            assert!(text.contains(part), "`{part}` is missing in: {text}");
        }
    }

    // The pool's only stack is in use.
    let waits = server.send("double", 21).await;
    server.until(|now| now.stacks_in_use == 1).await;
    assert_eq!(server.get("double", 1).await.0, 503);
    let text = written();
    assert!(text.contains("WARN") && text.contains("refused: too many requests wait"), "{text}");
    service.open();
    assert_eq!(waits.answer().await, (200, "42".into()));
    server.end_with_nothing_left().await;
}
