//! Simplifies a failing group: removes cases, guests and decisions as long as it still fails.

use super::worker::{Verdict, Worker};
use crate::cases::run::Group;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// How long to try.
const PATIENCE: Duration = Duration::from_mins(3);
/// How long to wait for each candidate. A group that hangs is to be made plainer within the above.
const EACH: Duration = Duration::from_mins(1);

fn cases(group: &mut Group) -> &mut Vec<Vec<u8>> {
    &mut group.cases
}

fn guests(group: &mut Group) -> &mut Vec<Vec<u8>> {
    &mut group.guests
}

struct Reducer {
    worker: Worker,
    deadline: Instant,
    best: Group,
    text: String,
}

/// Returns a simpler group that fails, and how it fails.
pub(crate) fn reduce(group: Group, text: String) -> (Group, String) {
    let deadline = Instant::now() + PATIENCE;
    let mut reducer = Reducer { worker: Worker::start(Stdio::null()), deadline, best: group, text };
    while reducer.pass() && Instant::now() < reducer.deadline {}
    (reducer.best, reducer.text)
}

impl Reducer {
    /// Keeps a candidate if it fails, in whatever way.
    fn try_group(&mut self, candidate: Group) -> bool {
        if candidate == self.best || Instant::now() > self.deadline {
            return false;
        }
        match self.worker.ask(&candidate, EACH) {
            Verdict::Same(_) => false,
            Verdict::Different(text) => {
                // The worker may have died, or may be in any state.
                self.worker = Worker::start(Stdio::null());
                (self.best, self.text) = (candidate, text);
                true
            }
        }
    }

    /// Tries everything once. Returns whether anything got simpler.
    fn pass(&mut self) -> bool {
        let mut plainer = false;
        for list in [cases, guests] {
            let mut place = 0;
            while place < list(&mut self.best.clone()).len() {
                let mut candidate = self.best.clone();
                list(&mut candidate).remove(place);
                if !candidate.guests.is_empty() && !candidate.cases.is_empty() && self.try_group(candidate) {
                    plainer = true;
                } else {
                    place += 1;
                }
            }
            for place in 0..list(&mut self.best.clone()).len() {
                plainer |= self.reduce_bytes(|group| &mut list(group)[place]);
            }
        }
        plainer
    }

    /// Removes pieces of a string of bytes, or sets them to zero. Tries larger pieces first.
    fn reduce_bytes(&mut self, string: impl Fn(&mut Group) -> &mut Vec<u8>) -> bool {
        let mut plainer = false;
        let mut size = string(&mut self.best.clone()).len();
        while size > 0 {
            let mut end = string(&mut self.best.clone()).len();
            while end > 0 {
                let start = end.saturating_sub(size);
                for zero in [false, true] {
                    let mut candidate = self.best.clone();
                    let bytes = string(&mut candidate);
                    if zero {
                        bytes[start..end].fill(0);
                    } else {
                        bytes.drain(start..end);
                    }
                    if self.try_group(candidate) {
                        plainer = true;
                        break;
                    }
                }
                end = start;
            }
            size /= 2;
        }
        plainer
    }
}
