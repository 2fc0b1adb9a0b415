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

/// How long a guest asks. Other tasks of its thread run in the meantime, but the thread does not sleep.
const ASKING: Duration = Duration::from_micros(50);

/// A guest that asks takes a processor, and the thread that works for it takes another.
static CROWD: LazyLock<Crowd> = LazyLock::new(|| Crowd::new(available_parallelism().map_or(1, NonZero::get) / 2));

/// The guests that ask at the moment.
struct Crowd {
    /// How many may ask at once.
    most: usize,
    asking: AtomicUsize,
}

impl Crowd {
    fn new(most: usize) -> Self {
        Self { most, asking: AtomicUsize::new(0) }
    }

    /// Begins to ask, if there is a place.
    fn join(&self) -> Option<Place<'_>> {
        // ORDERING: only the number matters.
        let before = self.asking.fetch_add(1, Relaxed);
        let place = Place(self);
        (before < self.most).then_some(place)
    }
}

/// A guest's place in the crowd. A guest that is forgotten keeps it.
struct Place<'a>(&'a Crowd);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        // ORDERING: only the number matters.
        self.0.asking.fetch_sub(1, Relaxed);
    }
}

/// How one host function waits for a file. (It may also wait for something else, such as a terminal or a socket.)
pub(crate) struct Asking<'a> {
    crowd: &'a Crowd,
    state: State<'a>,
}

enum State<'a> {
    /// The future has not been pending so far.
    New,
    Asks {
        since: Instant,
        _place: Place<'a>,
    },
    Sleeps,
}

impl Asking<'static> {
    pub(crate) fn new() -> Self {
        Self::among(&CROWD)
    }
}

impl<'a> Asking<'a> {
    fn among(crowd: &'a Crowd) -> Self {
        Self { crowd, state: State::New }
    }

    /// Called each time after the future was polled. Wakes the task if the guest should ask again.
    pub(crate) fn polled(&mut self, ready: bool, cx: &mut Context<'_>) {
        match self.state {
            State::New if !ready => self.state = self.begin(),
            State::Asks { since, .. } if ready || since.elapsed() >= ASKING => {
                with_record(|record| record.note(ready));
                self.state = State::Sleeps;
            }
            _ => {}
        }
        if let State::Asks { .. } = self.state {
            // On tokio, tasks that wait for I/O and timers get their turn first, and the task stays on its thread. (On a
            // `ThreadStack`, and outside of tokio, the task is woken at once.)
            let yielded = pin!(tokio::task::yield_now()).poll(cx);
            debug_assert!(yielded.is_pending(), "tokio polls again later");
        }
    }

    fn begin(&self) -> State<'a> {
        if !with_record(Record::asks) {
            return State::Sleeps;
        }
        let Some(place) = self.crowd.join() else {
            with_record(|record| record.note(false));
            return State::Sleeps;
        };
        State::Asks { since: Instant::now(), _place: place }
    }
}

/// What asking has been good for lately on one thread.
#[derive(Clone, Copy)]
struct Record {
    /// From 0 (the result always came in time) to `WORST`.
    level: u8,
    /// How many of the next waits must not ask.
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

    /// Notes whether the result came while a guest asked. If it came later, or the crowd was full, that weighs as much as two
    /// results in time. So a thread soon stops asking if its guests mostly wait for slow disks, terminals or sockets.
    fn note(&mut self, in_time: bool) {
        self.level = if in_time { self.level.saturating_sub(1) } else { (self.level + 2).min(WORST) };
        self.skip = (1 << self.level) - 1;
    }
}

#[cfg(test)]
mod tests {
    use super::{Asking, Crowd};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Wake};
    use std::thread;

    /// Polls a future that is ready or not, and returns how often this wakes the task.
    fn poll(asking: &mut Asking<'_>, ready: bool) -> usize {
        #[derive(Default)]
        struct Wakes(AtomicUsize);

        impl Wake for Wakes {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }

        let wakes = Arc::new(Wakes::default());
        asking.polled(ready, &mut Context::from_waker(&wakes.clone().into()));
        wakes.0.load(Ordering::Relaxed)
    }

    /// Polls a future that is pending, and returns whether the guest asks.
    fn asks(asking: &mut Asking<'_>) -> bool {
        poll(asking, false) == 1
    }

    /// Waits until it sleeps, and returns whether it asked before that.
    fn in_vain(crowd: &Crowd) -> bool {
        let mut asking = Asking::among(crowd);
        let asked = asks(&mut asking);
        while asks(&mut asking) {}
        assert!(!asks(&mut asking));
        asked
    }

    /// Waits for what is ready at the second poll, and returns whether it asked.
    fn in_time(crowd: &Crowd) -> bool {
        let mut asking = Asking::among(crowd);
        let asked = asks(&mut asking);
        assert_eq!(poll(&mut asking, true), 0);
        asked
    }

    /// On a thread that has never waited.
    fn with_new_record(test: fn(&Crowd)) {
        thread::spawn(move || test(&Crowd::new(1))).join().unwrap();
    }

    #[test]
    fn asks_as_long_as_results_are_in_time() {
        with_new_record(|crowd| {
            assert!((0..1000).all(|_| in_time(crowd)));
            assert_eq!(poll(&mut Asking::among(crowd), true), 0);
        });
    }

    #[test]
    fn asks_less_often_after_asking_in_vain() {
        with_new_record(|crowd| {
            for gap in [3, 15, 63, 255, 255] {
                assert!(in_vain(crowd));
                assert!((0..gap).all(|_| !in_vain(crowd)), "one of {gap} asked");
            }
            assert!(in_vain(crowd));
        });
    }

    #[test]
    fn asks_more_often_after_results_in_time() {
        with_new_record(|crowd| {
            assert!(in_vain(crowd));
            for gap in [3, 1, 0, 0] {
                assert!((0..gap).all(|_| !in_time(crowd)), "one of {gap} asked");
                assert!(in_time(crowd));
            }
        });
    }

    #[test]
    fn sleeps_while_the_crowd_is_full() {
        with_new_record(|crowd| {
            let (mut first, mut second) = (Asking::among(crowd), Asking::among(crowd));
            assert!(asks(&mut first));
            assert!(!asks(&mut second), "there is one place");
            // As after asking in vain.
            assert!((0..3).all(|_| !in_time(crowd)));
            assert!(!in_time(crowd), "the first asks still");
            drop(first);
            assert!((0..15).all(|_| !in_time(crowd)));
            assert!(in_time(crowd));
        });
    }
}
