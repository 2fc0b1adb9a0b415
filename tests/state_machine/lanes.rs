//! Threads that run one operation at a time, and the calls that can be used on each of them.

use crate::calls::{Done, Running};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

type Staying = BTreeMap<i32, Pin<Box<dyn Future<Output = Done>>>>;
type Moving = BTreeMap<i32, Pin<Box<dyn Future<Output = Done> + Send>>>;

/// The calls that any thread may poll.
static MOVING: Mutex<Moving> = Mutex::new(BTreeMap::new());

thread_local! {
    /// The calls that were started on this thread and stay there.
    static STAYING: RefCell<Staying> = const { RefCell::new(BTreeMap::new()) };
    static IS_LANE: Cell<bool> = const { Cell::new(false) };
}

/// Whether calls that stay on their thread may be started here, because the machine comes back.
pub(crate) fn is_lane() -> bool {
    IS_LANE.get()
}

/// The calls that can be used from here. Calls that are being polled are in no list.
pub(crate) fn calls_within_reach() -> Vec<i32> {
    let mut calls: Vec<_> = STAYING.with_borrow(|calls| calls.keys().copied().collect());
    calls.extend(MOVING.lock().expect("not held in a panic").keys());
    calls
}

pub(crate) fn take(call: i32) -> Running {
    let moving = MOVING.lock().expect("not held in a panic").remove(&call);
    moving.map_or_else(
        || Running::Stays(STAYING.with_borrow_mut(|calls| calls.remove(&call)).expect("is within reach")),
        Running::Moves,
    )
}

pub(crate) fn put_back(call: i32, running: Running) {
    match running {
        Running::Stays(future) => drop(STAYING.with_borrow_mut(|calls| calls.insert(call, future))),
        Running::Moves(future) => drop(MOVING.lock().expect("not held in a panic").insert(call, future)),
    }
}

/// An operation for a lane.
type Errand = Box<dyn FnOnce() + Send>;

pub(crate) struct Lane {
    errands: Sender<Errand>,
    results: Receiver<thread::Result<()>>,
    thread: thread::JoinHandle<()>,
}

impl Lane {
    pub(crate) fn start() -> Self {
        let (errands, inbox) = channel::<Errand>();
        let (outbox, results) = channel();
        let thread = thread::spawn(move || {
            IS_LANE.set(true);
            for errand in inbox {
                if outbox.send(catch_unwind(AssertUnwindSafe(errand))).is_err() {
                    break;
                }
            }
        });
        Self { errands, results, thread }
    }

    /// Runs an operation on this lane's thread, and waits for it.
    pub(crate) fn go(&self, errand: impl FnOnce() + Send + 'static) -> thread::Result<()> {
        self.errands.send(Box::new(errand)).expect("the lane is there");
        self.results.recv().expect("the lane is there")
    }

    /// Ends the thread.
    pub(crate) fn end(self) {
        drop(self.errands);
        self.thread.join().expect("went well");
    }
}
