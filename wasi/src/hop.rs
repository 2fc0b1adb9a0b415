//! Waiting for a file: another thread works on it, and is usually done within microseconds. It takes longer than that to put
//! this thread to sleep and to wake it again. So the guest first asks for the result again and again.

use std::cell::Cell;
use std::future::Future;
use std::num::NonZero;
use std::pin::pin;
use std::sync::LazyLock;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Context;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

/// How long a guest asks. In the meantime, the other tasks of its thread run, but the thread does not sleep.
const ASKING: Duration = Duration::from_micros(50);

/// Each guest that asks takes a processor, and the thread that works for it takes another.
static HOPS: LazyLock<Hops> = LazyLock::new(|| Hops::new(available_parallelism().map_or(1, NonZero::get) / 2));

/// What a host function is told when it polls a future that may wait for a file. It asks by waking its task.
pub(crate) struct Hop<'a> {
    hops: &'a Hops,
    wait: Option<Wait<'a>>,
}

impl Hop<'static> {
    pub(crate) fn new() -> Self {
        HOPS.hop()
    }
}

impl Hop<'_> {
    /// Called each time after the future was polled.
    pub(crate) fn polled(&mut self, ready: bool, cx: &mut Context<'_>) {
        if !ready {
            self.wait.get_or_insert_with(|| self.hops.wait()).ask(cx);
        } else if let Some(Wait::Asks { .. }) = self.wait {
            with_record(|record| record.note(true));
        }
    }
}

/// The guests that wait for files.
struct Hops {
    /// If more wait at once, the threads that work for them need the processors.
    most: usize,
    waiting: AtomicUsize,
}

impl Hops {
    fn new(most: usize) -> Self {
        Self { most, waiting: AtomicUsize::new(0) }
    }

    fn hop(&self) -> Hop<'_> {
        Hop { hops: self, wait: None }
    }

    /// Begins to wait.
    fn wait(&self) -> Wait<'_> {
        if !with_record(Record::asks) {
            return Wait::Sleeps { _waiting: None };
        }
        // ORDERING: only the number matters.
        let before = self.waiting.fetch_add(1, Relaxed);
        let waiting = Waiting(self);
        if before < self.most {
            Wait::Asks { since: None, _waiting: waiting }
        } else {
            Wait::Sleeps { _waiting: Some(waiting) }
        }
    }
}

/// A guest in `Hops::waiting`.
struct Waiting<'a>(&'a Hops);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        // ORDERING: only the number matters.
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}

/// What a guest does while its future is pending.
enum Wait<'a> {
    Asks {
        since: Option<Instant>,
        _waiting: Waiting<'a>,
    },
    /// It counts as waiting unless asking has turned out to be in vain: it may be waiting for something else than a file.
    Sleeps {
        _waiting: Option<Waiting<'a>>,
    },
}

impl Wait<'_> {
    /// Arranges for the task to be polled again, after others, if it should ask.
    fn ask(&mut self, cx: &mut Context<'_>) {
        let Self::Asks { since, .. } = self else { return };
        if since.get_or_insert_with(Instant::now).elapsed() < ASKING {
            // On tokio, this also lets those have their turn that wait for I/O and timers, and keeps the task on its thread.
            let yielded = pin!(tokio::task::yield_now()).poll(cx);
            debug_assert!(yielded.is_pending(), "tokio polls again later");
        } else {
            with_record(|record| record.note(false));
            *self = Self::Sleeps { _waiting: None };
        }
    }
}

/// What asking has been good for lately on one thread.
#[derive(Clone, Copy)]
struct Record {
    /// From 0 (the result always came in time) to `WORST`.
    level: u8,
    /// How many waits are still to come that must not ask.
    skip: u16,
}

/// At this level, one wait in 256 asks.
const WORST: u8 = 8;

thread_local! {
    /// Not used across a wait, after which the guest may be on another thread.
    static RECORD: Cell<Record> = const { Cell::new(Record { level: 0, skip: 0 }) };
}

fn with_record<R>(f: impl FnOnce(&mut Record) -> R) -> R {
    let mut record = RECORD.get();
    let result = f(&mut record);
    RECORD.set(record);
    result
}

impl Record {
    /// Whether the wait that begins now should ask.
    fn asks(&mut self) -> bool {
        let asks = self.skip == 0;
        self.skip = self.skip.saturating_sub(1);
        asks
    }

    /// Notes whether the result came while a guest asked. One that came too late weighs as much as two in time, so that a
    /// thread whose guests mostly wait for slow disks, or for terminals, soon sleeps at once.
    fn note(&mut self, in_time: bool) {
        self.level = if in_time { self.level.saturating_sub(1) } else { (self.level + 2).min(WORST) };
        self.skip = (1 << self.level) - 1;
    }
}

#[cfg(test)]
mod tests {
    use super::{Hop, Hops};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Wake};
    use std::thread;

    /// Polls a future that is ready or not, and returns how often this wakes the task.
    fn poll(hop: &mut Hop<'_>, ready: bool) -> usize {
        #[derive(Default)]
        struct Wakes(AtomicUsize);

        impl Wake for Wakes {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }

        let wakes = Arc::new(Wakes::default());
        hop.polled(ready, &mut Context::from_waker(&wakes.clone().into()));
        wakes.0.load(Ordering::Relaxed)
    }

    /// Polls a future that is pending, and returns whether the guest asks.
    fn asks(hop: &mut Hop<'_>) -> bool {
        poll(hop, false) == 1
    }

    /// Waits until it sleeps, and returns whether it asked before that.
    fn in_vain(hops: &Hops) -> bool {
        let mut hop = hops.hop();
        let asked = asks(&mut hop);
        while asks(&mut hop) {}
        assert!(!asks(&mut hop));
        asked
    }

    /// Waits for what is ready at the second poll, and returns whether it asked.
    fn in_time(hops: &Hops) -> bool {
        let mut hop = hops.hop();
        let asked = asks(&mut hop);
        assert_eq!(poll(&mut hop, true), 0);
        asked
    }

    /// On a thread that has never waited.
    fn with_new_record(test: fn(&Hops)) {
        thread::spawn(move || test(&Hops::new(1))).join().unwrap();
    }

    #[test]
    fn asks_as_long_as_results_are_in_time() {
        with_new_record(|hops| {
            assert!((0..1000).all(|_| in_time(hops)));
            assert_eq!(poll(&mut hops.hop(), true), 0);
        });
    }

    #[test]
    fn asks_less_often_after_asking_in_vain() {
        with_new_record(|hops| {
            for gap in [3, 15, 63, 255, 255] {
                assert!(in_vain(hops));
                assert!((0..gap).all(|_| !in_vain(hops)), "one of {gap} asked");
            }
            assert!(in_vain(hops));
        });
    }

    #[test]
    fn asks_more_often_after_results_in_time() {
        with_new_record(|hops| {
            assert!(in_vain(hops));
            for gap in [3, 1, 0, 0] {
                assert!((0..gap).all(|_| !in_time(hops)), "one of {gap} asked");
                assert!(in_time(hops));
            }
        });
    }

    #[test]
    fn sleeps_while_others_wait() {
        with_new_record(|hops| {
            let (mut first, mut second) = (hops.hop(), hops.hop());
            assert!(asks(&mut first));
            assert!(!asks(&mut second));
            drop(first);
            assert!(!in_time(hops), "the second is left");
            drop(second);
            assert!(in_time(hops));
        });
    }
}
