//! Counters that all databases share. They are plain cells behind an `Rc`, because everything runs on one thread, and
//! neither a store's data nor a host function's future must be `Send`.

use std::cell::Cell;
use std::fs;
use std::future::{Future, poll_fn};
use std::pin::pin;
use wasmtime::Result;
use wasmtime::error::Context as _;

#[derive(Default)]
pub struct Stats {
    /// The number of SQL statements that guests ran to their end.
    pub statements: Cell<u64>,
    /// How often the future of a host function was pending. Each time, a guest was suspended.
    pub suspensions: Cell<u64>,
    /// The largest number of guests that were suspended at the same moment.
    pub most_suspended: Cell<usize>,
    /// The largest number of threads that this process was seen to have.
    pub threads: Cell<u64>,
    suspended: Cell<usize>,
}

impl Stats {
    /// Waits for a future on behalf of a guest, and counts how often it is pending.
    pub async fn count<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        let mut suspended = None;
        poll_fn(|cx| {
            let poll = future.as_mut().poll(cx);
            if poll.is_pending() {
                self.suspensions.update(|n| n + 1);
                suspended.get_or_insert_with(|| Suspended::new(self));
            }
            poll
        })
        .await
    }

    /// Checks how many threads this process has.
    pub fn look_at_threads(&self) -> Result<()> {
        let status = fs::read_to_string("/proc/self/status").context("counting threads takes Linux's /proc")?;
        let threads = status.lines().find_map(|line| line.strip_prefix("Threads:")).context("no line `Threads:`")?;
        self.threads.set(self.threads.get().max(threads.trim().parse()?));
        Ok(())
    }
}

/// A suspended guest. It exists from the moment when its future is first pending until that future is ready or dropped.
struct Suspended<'a>(&'a Stats);

impl<'a> Suspended<'a> {
    fn new(stats: &'a Stats) -> Self {
        stats.suspended.update(|n| n + 1);
        stats.most_suspended.update(|most| most.max(stats.suspended.get()));
        Self(stats)
    }
}

impl Drop for Suspended<'_> {
    fn drop(&mut self) {
        self.0.suspended.update(|n| n - 1);
    }
}
