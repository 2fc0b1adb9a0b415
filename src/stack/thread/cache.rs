//! Worker threads that wait for their next job.
//!
//! A worker is at any moment in one of these hands: an owner's (a stack's), which sent it a job; the cache's, where it
//! waits for one for a limited time; nobody's, and then it ends. Its [`Worker`] moves between the hands, and the thread
//! follows: what it does when it has no job depends on where its `Worker` is by then, not on who comes first.
//!
//! | the thread looks for a job, and | it |
//! |---|---|
//! | finds one | does it |
//! | its `Worker` was dropped | ends |
//! | the time is over, its `Worker` is in the cache | takes it out and ends |
//! | the time is over, its `Worker` is not in the cache | goes on waiting: someone has just taken it, and will send or drop |

use crate::sync::channel::{Receiver, RecvTimeoutError, SendError, Sender, bounded};
use crate::sync::{Arc, Mutex, spawn};
use std::io;
use std::time::Duration;

/// The idle workers, and what is asked of those to come.
pub(crate) struct Cache<J> {
    state: Mutex<State<J>>,
    /// How many may wait here.
    bound: usize,
    /// How long they wait.
    limit: Duration,
    /// How a worker does a job. Must not unwind.
    work: fn(J),
}

struct State<J> {
    /// The longest idle first.
    idle: Vec<Worker<J>>,
    /// How many workers were started so far: what tells them apart.
    started: u64,
}

/// A worker as its owner sees it. Dropping it lets the thread end when it has no job left to do.
pub(crate) struct Worker<J> {
    id: u64,
    size: usize,
    jobs: Sender<J>,
}

impl<J: Send + 'static> Cache<J> {
    pub(crate) fn new(bound: usize, limit: Duration, work: fn(J)) -> Self {
        Self { state: Mutex::new(State { idle: Vec::new(), started: 0 }), bound, limit, work }
    }

    /// Gives the job to a worker whose stack has `size` bytes: the one that has been idle for the shortest time, or a
    /// new one.
    ///
    /// # Errors
    ///
    /// If none is idle and the operating system starts no thread. The job is dropped.
    pub(crate) fn hire(cache: &Arc<Self>, size: usize, mut job: J) -> io::Result<Worker<J>> {
        let id = loop {
            let mut state = cache.state.lock();
            let Some(found) = state.idle.iter().rposition(|worker| worker.size == size) else {
                state.started += 1;
                break state.started;
            };
            let worker = state.idle.remove(found);
            drop(state);
            match worker.jobs.send(job) {
                Ok(()) => return Ok(worker),
                // Its thread has died. Jobs do not unwind, but the next worker is as good.
                Err(SendError(unsent)) => job = unsent,
            }
        };
        // Room for one job. To send blocks if the last one has not quite ended, for as long as it takes its worker to do so.
        let (jobs, inbox) = bounded(1);
        let worker = Worker { id, size, jobs };
        let cache = cache.clone();
        spawn(size, move || cache.serve(id, &inbox))?;
        // Not refused: the thread cannot end while its `Worker` is here.
        let _sent = worker.jobs.send(job);
        Ok(worker)
    }

    /// Takes a worker back, for the next who needs one, or lets it end if enough are waiting.
    ///
    /// It may still have a job to end: it comes back to look for the next one after that.
    pub(crate) fn give_back(&self, worker: Worker<J>) {
        let mut state = self.state.lock();
        if state.idle.len() < self.bound {
            state.idle.push(worker);
        }
    }

    /// Lets all idle workers end.
    pub(crate) fn clear(&self) {
        self.state.lock().idle.clear();
    }

    /// The life of a worker's thread.
    fn serve(&self, id: u64, inbox: &Receiver<J>) {
        loop {
            let job = match inbox.recv_timeout(self.limit) {
                Ok(job) => job,
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    if self.remove(id) {
                        return;
                    }
                    let Ok(job) = inbox.recv() else { return };
                    job
                }
            };
            (self.work)(job);
        }
    }

    /// Takes the worker out of the cache, if it is there.
    fn remove(&self, id: u64) -> bool {
        let mut state = self.state.lock();
        let found = state.idle.iter().position(|worker| worker.id == id);
        let removed = found.map(|found| state.idle.remove(found));
        drop(state);
        removed.is_some()
    }
}
