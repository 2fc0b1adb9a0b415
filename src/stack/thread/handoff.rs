//! The baton between a stack's poller and its worker: the side that has it runs, and the other side waits.
//!
//! The whole state is one word. Its low bit says whose turn it is. The other bit says that the waiting side has gone to
//! sleep:
//!
//! | state | set by | what follows |
//! |---|---|---|
//! | `POLLER` | [`Baton::new`]; the worker, when it passes the baton | the poller runs |
//! | `POLLER` + `PARKED` | the worker, waiting | the poller runs, and wakes the worker when it passes the baton |
//! | `WORKER` | the poller, when it passes the baton | the worker runs |
//! | `WORKER` + `PARKED` | the poller, waiting | the worker runs, and wakes the poller when it passes the baton |
//!
//! Passing the baton is one swap, which also tells whether the other side must be woken. So no wake-up can get lost
//! between reading the flag and changing the word. A waiting side spins on the word for a while, and then sleeps.
//! The while is bounded, and short after waits in which spinning did not help, so a side that waits for long uses no
//! processor time.
//!
//! Sleepers use a condition variable and not `std::thread::park`. Other code on the thread, such as an executor, may
//! use the thread's token, and this code would swallow its wake-ups.
#![expect(unsafe_code, reason = "the baton carries data that is neither `Send` nor `Sync` by itself")]

use crate::sync::atomic::{AtomicU32, Ordering};
use crate::sync::cell::Cell;
use crate::sync::{Condvar, Mutex, max_spins, spin_loop};

/// The two sides that share a baton.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The thread that polls the call. It can be another thread each time.
    Poller,
    /// The thread that the call runs on.
    Worker,
}

const POLLER: u32 = 0;
const WORKER: u32 = 1;
/// The bits that say whose turn it is.
const TURN: u32 = 1;
/// The waiting side is asleep, or about to be.
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
/// When a side's wait is over, it sees everything that the other side wrote before it passed the baton.
#[derive(Debug)]
pub(crate) struct Baton {
    state: Line<AtomicU32>,
    /// The side that goes to sleep holds this from its last look until it sleeps, so that no wake-up comes in between.
    lock: Mutex<()>,
    awake: Condvar,
    poller: Line<Habit>,
    worker: Line<Habit>,
}

// SAFETY: the only part that is not `Sync` is each side's habit, and only that side uses it. Each side has one thread
// at a time: the worker stays the same, and polls of a call follow one another.
unsafe impl Sync for Baton {}

/// Keeps the sides from writing to each other's cache lines. Processors fetch them in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Line<T>(T);

impl Baton {
    /// A baton that the poller has.
    pub(crate) fn new() -> Self {
        Self {
            state: Line(AtomicU32::new(POLLER)),
            lock: Mutex::new(()),
            awake: Condvar::new(),
            poller: Line(Habit::new()),
            worker: Line(Habit::new()),
        }
    }

    /// Passes the baton to `side`. Only the other side may do this, and only while it has the baton.
    #[inline]
    pub(crate) fn pass(&self, side: Side) {
        // ORDERING: release, pairs with the acquire load of `wait` on the other side.
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
        // The answer came before the question, which says nothing about how long spinning takes.
        if self.is_turn_of(side) {
            return;
        }
        for _ in 0..habit.spins() {
            spin_loop();
            if self.is_turn_of(side) {
                return habit.spinning_helped();
            }
        }
        habit.spinning_failed();
        self.sleep(side);
    }

    #[inline]
    fn is_turn_of(&self, side: Side) -> bool {
        // ORDERING: acquire, pairs with the release swap of `pass` on the other side. That side may have added `PARKED`
        // since. This does no harm, because a read-modify-write continues the release sequence of the value that it
        // replaces.
        self.state.0.load(Ordering::Acquire) & TURN == side.turn()
    }

    #[cold]
    fn sleep(&self, side: Side) {
        let waiting = side.other().turn();
        // ORDERING: `PARKED` only says that someone must be woken, so success is relaxed. Failure means that the baton
        // has come, so it is acquire, as in `is_turn_of`.
        if self.state.0.compare_exchange(waiting, waiting | PARKED, Ordering::Relaxed, Ordering::Acquire).is_err() {
            return;
        }
        let mut guard = self.lock.lock();
        // Spurious wake-ups happen.
        while !self.is_turn_of(side) {
            self.awake.wait(&mut guard);
        }
    }

    #[cold]
    fn wake(&self) {
        // Once this has the lock, the other side either sleeps, or has yet to look for the last time.
        drop(self.lock.lock());
        self.awake.notify_one();
    }
}

/// How long one side spins on the word before it goes to sleep.
///
/// Spinning helps if the other side is quick and runs on another processor. So the first wait spins for as long as going
/// to sleep and being woken would take. If that did not help, the side sleeps at once in its next waits, except for a
/// short wait now and then, and then spins for long again. After each failure, it sleeps through twice as many waits. If
/// one side spins for long, both return to spinning: that side is awake and answers at once, which the other side notices
/// in its next short wait.
#[derive(Debug)]
struct Habit {
    /// The number of spins in a long wait.
    long: u32,
    /// How many long waits in a row ended in sleep.
    misses: Cell<u32>,
    /// How many waits to come spin little or not at all.
    pause: Cell<u32>,
}

/// The number of spins in a short wait: as long as a quick answer from another processor takes.
const SHORT: u32 = 8;
/// During a pause, every how many waits one spins for a short time.
const SHORT_EVERY: u32 = 4;
/// The maximum number of waits in a pause, as a power of two.
const MAX_PAUSE: u32 = 10;

impl Habit {
    fn new() -> Self {
        Self { long: max_spins(), misses: Cell::new(0), pause: Cell::new(0) }
    }

    /// How often to spin in this wait.
    #[inline]
    fn spins(&self) -> u32 {
        match self.pause.get() {
            0 => self.long,
            pause if pause.is_multiple_of(SHORT_EVERY) => self.long.min(SHORT),
            _ => 0,
        }
    }

    #[inline]
    fn spinning_helped(&self) {
        // Most of the time there is nothing to change, and reading is cheaper than writing.
        if self.misses.get() != 0 {
            self.misses.set(0);
            self.pause.set(0);
        }
    }

    #[cold]
    fn spinning_failed(&self) {
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
