//! The life of a call on any backend, from its first poll to its result.
#![expect(unsafe_code, reason = "the job and its result cross from one stack to another by pointer")]

use crate::call::{Job, store_id};
use crate::error::explained;
use crate::frame::Frame;
use crate::stack::Backend;
use crate::{Error, Result};
use std::fmt;
use std::future::Future;
use std::mem::{self, ManuallyDrop};
use std::panic::{self, AssertUnwindSafe};
use std::pin::Pin;
use std::ptr;
use std::task::{Context, Poll, Waker};
use std::thread;
use wasmtime::StoreContextMut;

/// A call on a stack of the backend `B`: not yet begun, suspended, or ended.
pub(crate) struct Running<'a, B: Backend, T: 'static, J: Job<T>> {
    stack: B,
    state: State<'a, B::Runner, T, J>,
    /// The store's flag, set while this is suspended. If it stays set, this was forgotten. A nested call has none.
    suspended: Option<&'a mut bool>,
}

enum State<'a, Runner, T: 'static, J> {
    New {
        store: StoreContextMut<'a, T>,
        job: J,
    },
    /// The code on the runner's stack owns the store.
    Suspended(Runner),
    Ended,
}

/// What the poller and the stack exchange: the store and the job at the first entry, the result at the last.
struct Slot<'a, T: 'static, J: Job<T>> {
    begin: Option<(StoreContextMut<'a, T>, J)>,
    end: Option<thread::Result<Result<J::Output>>>,
}

impl<'a, B: Backend, T: 'static, J: Job<T>> Running<'a, B, T, J> {
    /// The caller makes sure that the stack [`Carries`](crate::Carries) `T`, `J` and its output.
    #[inline]
    pub(crate) fn new(stack: B, store: StoreContextMut<'a, T>, suspended: Option<&'a mut bool>, job: J) -> Self {
        Self { stack, state: State::New { store, job }, suspended }
    }

    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// The runner, while the call is suspended on it.
    pub(crate) fn suspended_on(&self) -> Option<&B::Runner> {
        if let State::Suspended(runner) = &self.state { Some(runner) } else { None }
    }

    /// The store, if the call has not begun yet.
    pub(crate) fn new_store(&self) -> Option<&StoreContextMut<'a, T>> {
        if let State::New { store, .. } = &self.state { Some(store) } else { None }
    }

    /// If the call has not begun yet, runs the job right here, on the current stack.
    #[cfg(feature = "thread-backend")]
    pub(crate) fn run_here(&mut self) -> Option<Result<J::Output>> {
        match mem::replace(&mut self.state, State::Ended) {
            State::New { store, job } => Some(job.run(store)),
            state => {
                self.state = state;
                None
            }
        }
    }

    /// Prepares a runner for the first poll.
    fn prepare(&mut self, store: &StoreContextMut<'a, T>) -> Result<B::Runner, Error> {
        let runner = self.stack.take(store.engine())?;
        let frame = B::frame(&runner);
        frame.begin(run::<T, J>);
        frame.limits.begin(store_id(store), J::KNOWN);
        Ok(runner)
    }

    /// Enters the stack, and then checks whether the call has ended or was suspended.
    ///
    /// This is inlined, and so are the functions that enter the stack, because the processor mispredicts the return
    /// from each function between the switch and the poller.
    #[inline(always)]
    fn enter(
        &mut self,
        runner: B::Runner,
        waker: Option<&Waker>,
        begin: Option<(StoreContextMut<'a, T>, J)>,
    ) -> Poll<Result<J::Output>> {
        // Must not be dropped before the call has ended, whatever happens.
        let mut runner = ManuallyDrop::new(runner);
        let mut slot = Slot::<T, J> { begin, end: None };
        B::frame(&runner).begin_entry(ptr::from_mut(&mut slot).cast(), waker);
        // Whatever happens, the store is lost unless the call ends.
        if let Some(suspended) = &mut self.suspended {
            **suspended = true;
        }
        // SAFETY: slot and waker outlive this call of `enter`. The slot has the type that `run` expects, because
        // `prepare` set `run` with the same `T` and `J`. An unfinished runner goes into `State::Suspended`, and is only
        // taken from there to be entered again. If its call is lost, it is forgotten.
        unsafe { B::enter(&mut runner) };
        if let Some(suspended) = &mut self.suspended {
            **suspended = slot.end.is_none();
        }
        if slot.end.is_none() {
            #[cfg(fiber_stack)]
            if B::frame(&runner).nesting.is_lost() {
                return Poll::Ready(Err(Error::Lost.into()));
            }
            self.state = State::Suspended(ManuallyDrop::into_inner(runner));
            return Poll::Pending;
        }
        let runner = ManuallyDrop::into_inner(runner);
        B::frame(&runner).end();
        // SAFETY: `prepare` took the runner out of this stack.
        unsafe { self.stack.put_back(runner) };
        // The result stays in the slot until here. `run` has just written it word by word. A move would copy it with wider
        // loads, which a processor cannot forward from those stores.
        match slot.end {
            Some(Ok(result)) => Poll::Ready(result.map_err(explained)),
            Some(Err(payload)) => panic::resume_unwind(payload),
            None => unreachable!("checked above"),
        }
    }

    /// Ends a call that is suspended.
    #[cold]
    fn cancel(&mut self) {
        let State::Suspended(runner) = mem::replace(&mut self.state, State::Ended) else { return };
        B::frame(&runner).cancel();
        // Nothing suspends any more, so one entry reaches the end.
        let panicked = panic::catch_unwind(AssertUnwindSafe(|| {
            let end = self.enter(runner, None, None);
            debug_assert!(end.is_ready(), "a cancelled call suspended");
        }));
        // If the call is suspended nevertheless, it is forgotten, because its memory must stay as it is.
        mem::forget(mem::replace(&mut self.state, State::Ended));
        match panicked {
            Ok(()) => {}
            // Dropping the payload could panic again.
            Err(payload) if thread::panicking() => mem::forget(payload),
            Err(payload) => panic::resume_unwind(payload),
        }
    }
}

/// Runs on the stack: takes the job out of the slot, runs it, and puts its result into the slot.
///
/// # Safety
///
/// The frame's slot is a valid `Slot<T, J>` whenever this runs. It may be another slot after each suspension.
unsafe fn run<T: 'static, J: Job<T>>(frame: &Frame) {
    // SAFETY: the slot is valid, and nobody else uses it while this runs.
    let begin = unsafe { (*frame.slot().cast::<Slot<'_, T, J>>()).begin.take() };
    let end = begin.map(|(store, job)| panic::catch_unwind(AssertUnwindSafe(|| job.run(store))));
    // SAFETY: the slot is valid, and nobody else uses it while this runs. It is the slot of the last entry.
    unsafe { (*frame.slot().cast::<Slot<'_, T, J>>()).end = end };
}

impl<B: Backend, T: 'static, J: Job<T>> Future for Running<'_, B, T, J> {
    type Output = Result<J::Output>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let (runner, begin) = match mem::replace(&mut this.state, State::Ended) {
            State::New { store, job } => (this.prepare(&store)?, Some((store, job))),
            State::Suspended(runner) => (runner, None),
            State::Ended => return Poll::Ready(Err(Error::Ended.into())),
        };
        this.enter(runner, Some(cx.waker()), begin)
    }
}

// Nothing in a call is pinned, because the job is moved onto the stack before it runs.
impl<B: Backend, T: 'static, J: Job<T>> Unpin for Running<'_, B, T, J> {}

impl<B: Backend, T: 'static, J: Job<T>> Drop for Running<'_, B, T, J> {
    #[inline]
    fn drop(&mut self) {
        if let State::Suspended(_) = self.state {
            self.cancel();
        }
    }
}

impl<B: Backend, T: 'static, J: Job<T>> fmt::Debug for Running<'_, B, T, J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::New { .. } => "new",
            State::Suspended(_) => "suspended",
            State::Ended => "ended",
        };
        f.write_str(state)
    }
}
