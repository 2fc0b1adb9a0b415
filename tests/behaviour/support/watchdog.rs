//! Ends the process when a test hangs, instead of leaving that to whoever waits for it.

use std::process;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// Far more than any test takes, interpreted and emulated.
const LIMIT: Duration = Duration::from_mins(4);

/// Runs a test, and aborts the process with the test's name if that takes too long.
pub(crate) fn guarded<R>(name: &str, test: impl FnOnce() -> R) -> R {
    let owned = name.to_owned();
    let (done, watch) = channel::<()>();
    thread::spawn(move || {
        if let Err(RecvTimeoutError::Timeout) = watch.recv_timeout(LIMIT) {
            eprintln!("{owned} hangs: not done after {} s", LIMIT.as_secs());
            process::abort();
        }
    });
    let result = test();
    drop(done);
    result
}
