//! What the log says of guests that fail. (A log is the whole process's, so this is a program of its own.)

mod common;

use common::Server;
use server_example::Config;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

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
async fn traps_and_panics_are_logged_with_the_guests_backtrace() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).init();
    let server = Server::start(Config::default()).await;
    for (function, frame, why) in [
        ("trap", "trap", "unreachable"),
        ("panic", "panics", "a host function panicked: a mistake in a host function"),
        ("recurse", "recurse", "call stack exhausted"),
    ] {
        assert_eq!(server.get(function, 7).await.0, 500);
        let text = String::from_utf8(std::mem::take(&mut *log.0.lock().expect("nothing panics"))).expect("is text");
        for part in ["ERROR", "n=7", &format!("!{frame}"), why] {
            assert!(text.contains(part), "`{part}` is missing in: {text}");
        }
    }
    server.end_with_nothing_left().await;
}
