//! Tests parking by the thread's list before it is used.
#![expect(unsafe_code, reason = "parks calls")]

use super::activation::in_activation;
use super::list::{Head, ThreadList};
use super::memory::Memory;
use corosensei::stack::Stack as _;
use corosensei::{Coroutine, CoroutineResult, Yielder};
use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;

/// The size of the stacks, in bytes.
const SIZE: usize = 256 << 10;
/// How often each call is suspended.
const ROUNDS: u32 = 2;

/// Tests whether this list can park calls. Makes two calls, each of which is suspended in two host functions. They are
/// resumed in the order in which they were suspended, and then in the reverse order. Each host function fails with an
/// error of its own. Whenever both calls are suspended, the list must be as it was before. Runs on a thread that is in
/// no activation.
///
/// If the list turns out not to be wasmtime's, wasmtime still has the activations of both calls. Then they end at once,
/// the younger one first, as if nothing had been parked.
pub(super) fn parking_works(list: ThreadList) -> bool {
    let gives_up = Rc::new(Cell::new(false));
    let (Some(mut first), Some(mut second)) = (Call::new(list, 1, &gives_up), Call::new(list, 2, &gives_up)) else {
        return false;
    };
    let enter = |call: &mut Call| {
        call.enter();
        !gives_up.get() && list.head() == Head::EMPTY
    };
    let went_well = enter(&mut first)
        && enter(&mut second)
        // Like a queue: the first round of each call ends, and the second begins.
        && enter(&mut first)
        && enter(&mut second)
        // Like a stack: the second round of each call ends.
        && enter(&mut second)
        && enter(&mut first);
    gives_up.set(true);
    let ended = [second.end(), first.end()];
    went_well && ended == [true, true] && list.head() == Head::EMPTY
}

/// The error of a host function. It says which call, and which round.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("round {1} of call {0}")]
struct Mark(u32, u32);

/// A call that parks its activations whenever it is suspended.
struct Call {
    list: ThreadList,
    parked: Head,
    coroutine: Coroutine<(), (), bool, Memory>,
    /// Whether it ended with its own errors, once it has ended.
    outcome: Option<bool>,
}

impl Call {
    fn new(list: ThreadList, number: u32, gives_up: &Rc<Cell<bool>>) -> Option<Self> {
        let memory = Memory::new(SIZE).ok()?;
        let stack = memory.limit().get()..memory.base().get();
        let gives_up = gives_up.clone();
        let coroutine = Coroutine::with_stack(memory, move |yielder, ()| {
            let mut rounds = (0..ROUNDS).map(|round| Mark(number, round));
            rounds.all(|mark| fails_with(mark, list, &stack, yielder, &gives_up))
        });
        Some(Self { list, parked: Head::EMPTY, coroutine, outcome: None })
    }

    fn enter(&mut self) {
        // SAFETY: this runs on the list's thread. What this puts in was taken off below, or is an empty list, to which
        // only this call adds its activations. The caller makes sure that all calls end.
        let outer = unsafe { self.list.replace(self.parked) };
        if let CoroutineResult::Return(outcome) = self.coroutine.resume(()) {
            self.outcome = Some(outcome);
        }
        // SAFETY: what was there before is put back, on the same thread.
        self.parked = unsafe { self.list.replace(outer) };
    }

    /// Runs to the end, and returns whether the errors were right.
    fn end(&mut self) -> bool {
        while !self.coroutine.done() {
            self.enter();
        }
        self.outcome == Some(true)
    }
}

/// Calls a host function that suspends the coroutine and fails. Returns whether the error was its own.
fn fails_with(
    mark: Mark,
    list: ThreadList,
    stack: &Range<usize>,
    yielder: &Yielder<(), ()>,
    gives_up: &Cell<bool>,
) -> bool {
    let failed = in_activation(|| {
        let head = list.head();
        // The only activation on the list, and on this stack.
        if !stack.contains(&head.addr()) || list.before_head() != Some(0) {
            gives_up.set(true);
        }
        if !gives_up.get() {
            yielder.suspend(());
        }
        if list.head() != head {
            gives_up.set(true);
        }
        Err(mark.into())
    });
    failed.is_err_and(|error| error.downcast_ref() == Some(&mark))
}
