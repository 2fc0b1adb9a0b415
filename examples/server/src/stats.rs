//! The counters.

use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// What has happened to requests, and how many requests and stores there are now.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub(crate) in_flight: AtomicUsize,
    pub(crate) answered: AtomicUsize,
    pub(crate) cancelled: AtomicUsize,
    pub(crate) timed_out: AtomicUsize,
    pub(crate) refused: AtomicUsize,
    pub(crate) failed: AtomicUsize,
    pub(crate) stores: AtomicUsize,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Serialize)]
#[non_exhaustive]
pub struct Snapshot {
    /// Requests that have arrived and have not ended yet.
    pub in_flight: usize,
    /// Answered with the guest's result.
    pub answered: usize,
    /// Given up by the client.
    pub cancelled: usize,
    /// Stopped at the deadline.
    pub timed_out: usize,
    /// Refused because too many wait.
    pub refused: usize,
    /// Ended in a trap, a panic or another error.
    pub failed: usize,
    /// Stores that are alive.
    pub stores: usize,
    /// Stacks that are ready to be used.
    pub stacks_idle: usize,
    /// Stacks that guests use.
    pub stacks_in_use: usize,
    /// Requests that wait for a stack.
    pub waiting: usize,
}

/// Counts one more of something, for as long as this is alive.
pub(crate) struct OneMore {
    stats: Arc<Stats>,
    of: fn(&Stats) -> &AtomicUsize,
}

impl OneMore {
    pub(crate) fn new(stats: &Arc<Stats>, of: fn(&Stats) -> &AtomicUsize) -> Self {
        of(stats).fetch_add(1, Relaxed);
        Self { stats: stats.clone(), of }
    }
}

impl Drop for OneMore {
    fn drop(&mut self) {
        (self.of)(&self.stats).fetch_sub(1, Relaxed);
    }
}
