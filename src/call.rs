//! A call: the future that runs a closure on a stack, from its first poll to its result.
#![expect(unsafe_code, reason = "the closure and its result cross from one stack to another by pointer")]

use crate::frame::Frame;
use crate::stack::{Stack, check_room};
use crate::{Error, Result, Store};
use futures::future::FusedFuture;
use std::fmt;
use std::future::Future;
use std::mem::{self, ManuallyDrop};
use std::panic::{self, AssertUnwindSafe};
use std::pin::Pin;
use std::ptr;
use std::task::{Context, Poll, Waker};
use std::thread;
use wasmtime::{AsContext, StoreContextMut};

/// What a call does on its stack. Implemented for `FnOnce(StoreContextMut<'_, T>) -> wasmtime::Result<R>`, whose output
/// is `R`, and for the types that this crate's ways to call wasm name in their results.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot run on a stack with a store of `{T}`",
    note = "expected a closure `|store: StoreContextMut<'_, T>| -> wasmtime::Result<_>`"
)]
pub trait Job<T: 'static> {
    /// What a successful call results in.
    type Output;

    /// Whether the job is one of this crate's own, which have nothing that must not be suspended.
    #[doc(hidden)]
    const KNOWN: bool = false;

    /// Runs the job, on the stack.
    #[doc(hidden)]
    fn run(self, store: StoreContextMut<'_, T>) -> Result<Self::Output>;
}

impl<T: 'static, F, R> Job<T> for F
where
    F: FnOnce(StoreContextMut<'_, T>) -> Result<R>,
{
    type Output = R;

    fn run(self, store: StoreContextMut<'_, T>) -> Result<R> {
        self(store)
    }
}

/// A call on a stack: the future that [`Stack::run`] and all the ways to call wasm return.
///
/// It holds stack and store by `&mut` until it is dropped.
///
/// # Cancel safety
///
/// Dropped before its first poll, a call runs nothing. Dropped while it is suspended, it is resumed once more, with the
/// order to stop, within `drop`: the future that it waits for is dropped, whoever waits for it is told
/// [`Error::Cancelled`], the guest unwinds as after a trap, destructors run in order with the store's data still in
/// reach, and any further attempt to wait for a future fails at once with the same error. Then stack and store can be
/// used for other calls. What the guest had already done to its memory stays done. As after any trap, wasmtime does not
/// enter the components of the store again.
///
/// Async host functions hand the error on, and so should synchronous ones that call `suspend_until`: a guest to which
/// one makes something else of it, say an error number, is not stopped, and goes on within `drop` until it ends by itself.
/// (Time slices end it: [`Store::epoch_deadline_suspend_and_update`](crate::Store::epoch_deadline_suspend_and_update).)
///
/// A suspended call keeps a clone of its last poller's waker.
///
/// # Forgetting
///
/// A suspended call that is forgotten ([`mem::forget`], a leaked `Box`, a cycle of `Rc`) costs memory, and its store, which
/// is lost: see [`Store`](crate::Store). The stack can be used: its memory stays as it is for ever, and it makes itself new
/// memory at its next use.
///
/// # `Send`
///
/// On a [`FiberStack`](crate::FiberStack) a call is not `Send`, because host functions may wait for anything. On a
/// [`SendFiberStack`](crate::SendFiberStack) and a `ThreadStack` it is. Code that is generic over the stack asks for that by
/// [`SendStack`](crate::SendStack).
///
/// # Panics
///
/// `poll` goes on with a panic of the closure or of a host function. `drop` does the same with a panic of code that
/// is being cancelled, unless the thread is panicking already.
#[must_use = "futures do nothing unless they are awaited or polled"]
pub struct Call<'a, S: Stack, T: 'static, J: Job<T>> {
    stack: &'a mut S,
    state: State<'a, S::Runner, T, J>,
    /// The store's, set while this is suspended: if it stays so, this was forgotten.
    suspended: &'a mut bool,
}

enum State<'a, Runner, T: 'static, J> {
    New {
        store: StoreContextMut<'a, T>,
        job: J,
    },
    /// The code on the runner's stack has the store.
    Suspended(Runner),
    Ended,
}

/// What crosses between the poller and the stack: the way in at the first entry, the way out at the last.
struct Slot<'a, T: 'static, J: Job<T>> {
    begin: Option<(StoreContextMut<'a, T>, J)>,
    end: Option<thread::Result<Result<J::Output>>>,
}

impl<'a, S: Stack, T: 'static, J: Job<T>> Call<'a, S, T, J> {
    /// The caller sees to it that the stack [`Carries`](crate::Carries) `T`, `J` and its output.
    pub(crate) fn new(stack: &'a mut S, store: &'a mut Store<T>, job: J) -> Self {
        let (store, suspended) = store.enter();
        Self { stack, state: State::New { store, job }, suspended }
    }

    /// Gets a runner ready for the first poll.
    fn prepare(&mut self, store: &StoreContextMut<'a, T>) -> Result<S::Runner, Error> {
        check_room(self.stack.size(), store.engine())?;
        let runner = self.stack.take()?;
        let frame = S::frame(&runner);
        frame.begin(run::<T, J>);
        frame.limits.begin(store_id(store), J::KNOWN);
        Ok(runner)
    }

    /// Enters the stack and sees how it was left.
    ///
    /// Inlined, as are the ways into the stack: the processor mispredicts the return from each function between the switch
    /// and the poller.
    #[inline(always)]
    fn stretch(
        &mut self,
        runner: S::Runner,
        waker: Option<&Waker>,
        begin: Option<(StoreContextMut<'a, T>, J)>,
    ) -> Poll<Result<J::Output>> {
        // Not to be dropped before the call has ended, come what may.
        let mut runner = ManuallyDrop::new(runner);
        let mut slot = Slot::<T, J> { begin, end: None };
        S::frame(&runner).set_stretch(ptr::from_mut(&mut slot).cast(), waker);
        // SAFETY: slot and waker outlive this call of `enter`; the slot has the type that `run`, which `prepare` set with
        // the same `T` and `J`, takes it to have. An unfinished runner goes into `State::Suspended`, from where it is
        // only taken to be entered again.
        unsafe { S::enter(&mut runner) };
        *self.suspended = slot.end.is_none();
        let Some(end) = slot.end else {
            self.state = State::Suspended(ManuallyDrop::into_inner(runner));
            return Poll::Pending;
        };
        let runner = ManuallyDrop::into_inner(runner);
        S::frame(&runner).end();
        // SAFETY: taken out of this stack by `prepare`.
        unsafe { self.stack.put_back(runner) };
        Poll::Ready(end.unwrap_or_else(|payload| panic::resume_unwind(payload)))
    }
}

/// Tells stores apart: the address of the data, which lies within the store's own allocation.
#[inline]
pub(crate) fn store_id(store: &impl AsContext) -> *const () {
    ptr::from_ref(store.as_context().data()).cast()
}

/// Runs on the stack: takes the job out of the slot, does it, and puts its result there.
///
/// # Safety
///
/// The frame's slot is a valid `Slot<T, J>` whenever this runs; it may be another one after each suspension.
unsafe fn run<T: 'static, J: Job<T>>(frame: &Frame) {
    // SAFETY: valid, and nobody else uses it while this runs.
    let begin = unsafe { (*frame.slot().cast::<Slot<'_, T, J>>()).begin.take() };
    let end = begin.map(|(store, job)| panic::catch_unwind(AssertUnwindSafe(|| job.run(store))));
    // SAFETY: as above; this is the slot of the last entry.
    unsafe { (*frame.slot().cast::<Slot<'_, T, J>>()).end = end };
}

impl<S: Stack, T: 'static, J: Job<T>> Future for Call<'_, S, T, J> {
    type Output = Result<J::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let (runner, begin) = match mem::replace(&mut this.state, State::Ended) {
            State::New { store, job } => (this.prepare(&store)?, Some((store, job))),
            State::Suspended(runner) => (runner, None),
            State::Ended => return Poll::Ready(Err(Error::Ended.into())),
        };
        this.stretch(runner, Some(cx.waker()), begin)
    }
}

impl<S: Stack, T: 'static, J: Job<T>> FusedFuture for Call<'_, S, T, J> {
    fn is_terminated(&self) -> bool {
        matches!(self.state, State::Ended)
    }
}

// Nothing in a call is pinned: the job is moved onto the stack before it runs.
impl<S: Stack, T: 'static, J: Job<T>> Unpin for Call<'_, S, T, J> {}

impl<S: Stack, T: 'static, J: Job<T>> Drop for Call<'_, S, T, J> {
    fn drop(&mut self) {
        let State::Suspended(runner) = mem::replace(&mut self.state, State::Ended) else { return };
        S::frame(&runner).cancel();
        // With nothing left that suspends, one stretch reaches the end.
        let panicked = panic::catch_unwind(AssertUnwindSafe(|| {
            let end = self.stretch(runner, None, None);
            debug_assert!(end.is_ready(), "a cancelled call suspended");
        }));
        // A call that is left suspended all the same is forgotten: its memory must stay as it is.
        mem::forget(mem::replace(&mut self.state, State::Ended));
        match panicked {
            Ok(()) => {}
            // Dropped, it could panic once more.
            Err(payload) if thread::panicking() => mem::forget(payload),
            Err(payload) => panic::resume_unwind(payload),
        }
    }
}

impl<S: Stack, T: 'static, J: Job<T>> fmt::Debug for Call<'_, S, T, J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::New { .. } => "new",
            State::Suspended(_) => "suspended",
            State::Ended => "ended",
        };
        f.debug_struct("Call").field("state", &state).finish_non_exhaustive()
    }
}
