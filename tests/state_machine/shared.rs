//! What a call shares with the machine. It shows the machine how far the call is and what it has left behind.

use crate::calls::Kind;
use crate::script::Step;
use std::future;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Wake, Waker};

/// A waker that counts how often it was woken.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicUsize);

impl Count {
    pub(crate) fn woken(&self) -> usize {
        // ORDERING: the machine does one thing after the other, and waits until other threads are done.
        self.0.load(Ordering::Relaxed)
    }
}

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        // ORDERING: the machine does one thing after the other, and waits until other threads are done.
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A gate of a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Which {
    Step,
    Race,
}

/// What a step waits for.
#[derive(Debug, Default)]
struct Gate {
    open: bool,
    waker: Option<Waker>,
}

/// What a call shares with the machine.
#[derive(Debug)]
pub(crate) struct Shared {
    token: i32,
    kind: Kind,
    steps: Vec<Step>,
    /// Two gates for each step: one where its last host function waits, and one of a race.
    gates: Mutex<Vec<[Gate; 2]>>,
    /// How many steps have begun.
    begun: AtomicUsize,
    /// The values on its stack, from the bottom up.
    guards: Mutex<Vec<u64>>,
    next_guard: AtomicU64,
    wrong: Mutex<Option<String>>,
}

impl Shared {
    pub(crate) fn new(token: i32, kind: Kind, steps: Vec<Step>) -> Arc<Self> {
        let gates = Mutex::new(steps.iter().map(|_| Default::default()).collect());
        let begun = AtomicUsize::new(0);
        Arc::new(Self {
            token,
            kind,
            steps,
            gates,
            begun,
            guards: Mutex::default(),
            next_guard: AtomicU64::new(0),
            wrong: Mutex::default(),
        })
    }

    /// Opens a gate that the call waits at.
    pub(crate) fn open(&self, step: usize, which: Which) {
        let waker = {
            let gate = &mut self.gates.lock().expect("not held in a panic")[step][which as usize];
            gate.open = true;
            gate.waker.take()
        };
        waker.expect("the call waits at this gate").wake();
    }

    pub(crate) fn token(&self) -> i32 {
        self.token
    }

    /// The kind of stack that the call runs on.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Begins a step. Returns how many have begun before.
    pub(crate) fn begin(&self) -> usize {
        // ORDERING: see `Count`.
        self.begun.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn begun(&self) -> usize {
        // ORDERING: see `Count`.
        self.begun.load(Ordering::Relaxed)
    }

    /// How many values are on the stack of the call.
    pub(crate) fn guards(&self) -> usize {
        self.guards.lock().expect("not held in a panic").len()
    }

    pub(crate) fn wrong(&self) -> Option<String> {
        self.wrong.lock().expect("not held in a panic").clone()
    }

    pub(crate) fn say_wrong(&self, text: String) {
        *self.wrong.lock().expect("not held in a panic") = Some(text);
    }
}

/// Waits until a gate of a step is open.
pub(crate) async fn gate(shared: &Shared, step: usize, which: Which) {
    /// Drops the waker when the wait is over.
    struct Waiting<'a>(&'a Shared, usize, Which);
    impl Drop for Waiting<'_> {
        fn drop(&mut self) {
            self.0.gates.lock().expect("not held in a panic")[self.1][self.2 as usize].waker = None;
        }
    }

    let _waiting = Waiting(shared, step, which);
    future::poll_fn(|cx| {
        let gate = &mut shared.gates.lock().expect("not held in a panic")[step][which as usize];
        if gate.open {
            return Poll::Ready(());
        }
        gate.waker = Some(cx.waker().clone());
        Poll::Pending
    })
    .await;
}

/// A value on the stack of a call. Those above it must be dropped first.
pub(crate) struct Guard {
    shared: Arc<Shared>,
    number: u64,
    /// Whether those above it may stay forever.
    loose: bool,
}

impl Guard {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        Self::with(shared, false)
    }

    /// A value that accepts that those above it were forgotten.
    pub(crate) fn loose(shared: &Arc<Shared>) -> Self {
        Self::with(shared, true)
    }

    fn with(shared: &Arc<Shared>, loose: bool) -> Self {
        // ORDERING: see `Count`.
        let number = shared.next_guard.fetch_add(1, Ordering::Relaxed);
        shared.guards.lock().expect("not held in a panic").push(number);
        Self { shared: Arc::clone(shared), number, loose }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut guards = self.shared.guards.lock().expect("not held in a panic");
        let last = guards.last().copied();
        let place = guards.iter().rposition(|number| *number == self.number);
        let fine = place.is_some() && (self.loose || last == Some(self.number));
        place.map(|place| guards.remove(place));
        drop(guards);
        if !fine {
            self.shared.say_wrong(format!("{} was dropped when {last:?} was the last", self.number));
        }
    }
}

/// The data of a store: the call that uses it.
#[derive(Default, Debug)]
pub(crate) struct World(pub(crate) Option<Arc<Shared>>);
