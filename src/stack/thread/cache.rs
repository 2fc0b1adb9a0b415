//! Worker threads that wait for their next job.
//!
//! At any moment, a worker belongs to an owner (a stack), which has sent it a job, to the cache, where it waits for a
//! job for a limited time, or to nobody, and then it ends. Its [`Worker`] handle moves between them, and the thread
//! follows: what it does without a job depends on where its `Worker` is at that time, not on who acts first.
//!
//! | the thread looks for a job, and | it |
//! |---|---|
//! | finds one | runs it |
//! | its `Worker` was dropped | ends |
//! | the time is over, and its `Worker` is in the cache | takes it out, and ends |
//! | the time is over, and its `Worker` is not in the cache | keeps waiting: someone has just taken it, and will send a job or drop it |

use crate::sync::channel::{Receiver, RecvTimeoutError, SendError, Sender, bounded};
use crate::sync::{Arc, Mutex, spawn};
use std::io;
use std::time::Duration;

/// The idle workers, and the settings for new ones.
pub(crate) struct Cache<J> {
    state: Mutex<State<J>>,
    /// How many workers may wait here.
    bound: usize,
    /// How long a worker waits.
    limit: Duration,
    /// Runs a job on a worker's thread. Must not unwind.
    work: fn(J),
}

struct State<J> {
    /// The worker that has been idle for the longest time comes first.
    idle: Vec<Worker<J>>,
    /// How many workers were started so far. This number identifies a worker.
    started: u64,
}

/// The owner's handle of a worker. After it is dropped, the thread ends when it has no job left.
pub(crate) struct Worker<J> {
    id: u64,
    size: usize,
    jobs: Sender<J>,
}

impl<J: Send + 'static> Cache<J> {
    pub(crate) fn new(bound: usize, limit: Duration, work: fn(J)) -> Self {
        Self { state: Mutex::new(State { idle: Vec::new(), started: 0 }), bound, limit, work }
    }

    /// Sends the job to a worker whose stack has `size` bytes: the one that has been idle for the shortest time, or a
    /// new one.
    ///
    /// # Errors
    ///
    /// If no worker is idle and the operating system starts no thread. The job is dropped.
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
                // Its thread has died. Jobs do not unwind, but a new worker serves as well.
                Err(SendError(unsent)) => job = unsent,
            }
        };
        // Room for one job. Sending blocks while the worker is finishing the previous one.
        let (jobs, inbox) = bounded(1);
        let worker = Worker { id, size, jobs };
        let cache = cache.clone();
        spawn(size, move || cache.serve(id, &inbox))?;
        // This cannot fail: the thread cannot end while its `Worker` is here.
        let _sent = worker.jobs.send(job);
        Ok(worker)
    }

    /// Takes a worker back for the next owner. Lets it end if enough workers are waiting.
    ///
    /// The worker may still be finishing a job. Afterwards it looks for the next one.
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

    /// Runs on a worker's thread, from its start to its end.
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
