//! The baton between a stack's poller and its worker: whoever has it runs, the other waits.
//!
//! All there is to it is one word. Its low bit says whose turn it is; the other bit says that the one who waits has
//! gone to sleep:
//!
//! | state | set by | what follows |
//! |---|---|---|
//! | `POLLER` | [`Baton::new`]; the worker, when it passes the baton on | the poller runs |
//! | `POLLER` + `PARKED` | the worker, waiting | the poller runs, and wakes the worker when it passes the baton on |
//! | `WORKER` | the poller, when it passes the baton on | the worker runs |
//! | `WORKER` + `PARKED` | the poller, waiting | the worker runs, and wakes the poller when it passes the baton on |
//!
//! Passing is one swap, which tells whether there is someone to wake, so that no wake-up can fall between a look at
//! the flag and the word's change. Waiting is a number of looks, then sleep. The number is bounded, and small after
//! looks that were in vain, so that a side that has to wait long uses no time on the processor.
//!
//! Sleepers sleep on a condition variable, not in `std::thread::park`: the token of a thread may be in use by whatever
//! the thread runs besides (an executor, say), which would lose a wake-up that is swallowed here.
#![expect(unsafe_code, reason = "the baton carries data that is neither `Send` nor `Sync` by itself")]

use crate::sync::atomic::{AtomicU32, Ordering};
use crate::sync::cell::Cell;
use crate::sync::{Condvar, Mutex, looks, spin_loop};

/// The two who share a baton.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Whoever polls the call. Not always the same thread.
    Poller,
    /// The thread that the call runs on.
    Worker,
}

const POLLER: u32 = 0;
const WORKER: u32 = 1;
/// The bits that say whose turn it is.
const TURN: u32 = 1;
/// Whoever waits is asleep, or about to be.
const PARKED: u32 = 2;

impl Side {
    fn turn(self) -> u32 {
        match self {
            Side::Poller => POLLER,
            Side::Worker => WORKER,
        }
    }

    fn other(self) -> Side {
        match self {
            Side::Poller => Side::Worker,
            Side::Worker => Side::Poller,
        }
    }
}

/// See the module's documentation.
///
/// What a side wrote before it passed the baton, the other sees once its wait is over.
#[derive(Debug)]
pub(crate) struct Baton {
    state: Line<AtomicU32>,
    /// Held from the last look until it sleeps by whoever goes to sleep, so that no wake-up comes in between.
    lock: Mutex<()>,
    awake: Condvar,
    poller: Line<Habit>,
    worker: Line<Habit>,
}

// SAFETY: the one thing in it that is not `Sync` is each side's habit, which only that side uses. It has one thread at a
// time: the worker does not change, and polls of a call follow one another.
unsafe impl Sync for Baton {}

/// Keeps the sides from writing to each other's cache lines. Processors fetch them in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Line<T>(T);

impl Baton {
    /// A baton in the poller's hand.
    pub(crate) fn new() -> Self {
        Self {
            state: Line(AtomicU32::new(POLLER)),
            lock: Mutex::new(()),
            awake: Condvar::new(),
            poller: Line(Habit::new()),
            worker: Line(Habit::new()),
        }
    }

    /// Passes the baton to `side`. Only by the other side, and only if it has it.
    #[inline]
    pub(crate) fn pass(&self, side: Side) {
        // ORDERING: release, for the acquire load of `wait` on the other side.
        let was = self.state.0.swap(side.turn(), Ordering::Release);
        debug_assert_eq!(was & TURN, side.other().turn(), "passed by the side that waits");
        if was & PARKED != 0 {
            self.wake();
        }
    }

    /// Waits until `side`, whose thread this is, has the baton.
    #[inline]
    pub(crate) fn wait(&self, side: Side) {
        let habit = match side {
            Side::Poller => &self.poller.0,
            Side::Worker => &self.worker.0,
        };
        // Answered before the question: says nothing of how long looking takes.
        if self.is_turn_of(side) {
            return;
        }
        for _ in 0..habit.looks() {
            spin_loop();
            if self.is_turn_of(side) {
                return habit.was_right();
            }
        }
        habit.was_wrong();
        self.sleep(side);
    }

    #[inline]
    fn is_turn_of(&self, side: Side) -> bool {
        // ORDERING: acquire, for the release swap of `pass` on the other side. That the other side may since have added
        // `PARKED` does no harm: a read-modify-write goes on with the release of the value that it replaces.
        self.state.0.load(Ordering::Acquire) & TURN == side.turn()
    }

    #[cold]
    fn sleep(&self, side: Side) {
        let waiting = side.other().turn();
        // ORDERING: `PARKED` tells nothing but that there is someone to wake, so relaxed when it succeeds. When it fails
        // the baton has come: acquire, as in `is_turn_of`.
        if self.state.0.compare_exchange(waiting, waiting | PARKED, Ordering::Relaxed, Ordering::Acquire).is_err() {
            return;
        }
        let mut guard = self.lock.lock();
        // Wake-ups without a reason happen.
        while !self.is_turn_of(side) {
            self.awake.wait(&mut guard);
        }
    }

    #[cold]
    fn wake(&self) {
        // Once the lock is to be had, whoever is to be woken either sleeps, or has yet to look for the last time.
        drop(self.lock.lock());
        self.awake.notify_one();
    }
}

/// How long one side looks at the word before it goes to sleep.
///
/// Looking pays if the other side is quick and runs on another processor. So the first wait looks for as long as going
/// to sleep and being woken would take. A side that looked in vain goes to sleep at once in its next waits, twice as many
/// each time, but for a short look now and then, and then looks long again. It takes one side's long look to find back:
/// that side is awake to answer at once, which the other finds with its next short look.
#[derive(Debug)]
struct Habit {
    /// How many looks a long look is.
    long: u32,
    /// How often in a row looking long was in vain.
    misses: Cell<u32>,
    /// How many waits there are before the next long look.
    pause: Cell<u32>,
}

/// How many looks a short look is: what a quick answer from another processor takes.
const SHORT: u32 = 8;
/// Every how many waits of a pause there is a short look.
const SHORT_EVERY: u32 = 4;
/// How many waits a pause has at most, as a power of two.
const MAX_PAUSE: u32 = 10;

impl Habit {
    fn new() -> Self {
        Self { long: looks(), misses: Cell::new(0), pause: Cell::new(0) }
    }

    /// How often to look in this wait.
    #[inline]
    fn looks(&self) -> u32 {
        match self.pause.get() {
            0 => self.long,
            pause if pause.is_multiple_of(SHORT_EVERY) => self.long.min(SHORT),
            _ => 0,
        }
    }

    #[inline]
    fn was_right(&self) {
        // Most of the time there is nothing to change, and reading is cheaper.
        if self.misses.get() != 0 {
            self.misses.set(0);
            self.pause.set(0);
        }
    }

    #[cold]
    fn was_wrong(&self) {
        let pause = self.pause.get();
        if pause == 0 {
            let misses = (self.misses.get() + 1).min(MAX_PAUSE);
            self.misses.set(misses);
            self.pause.set(1 << misses);
        } else {
            self.pause.set(pause - 1);
        }
    }
}
