//! Futures of nested calls: made by a host function, polled by its own future.
#![expect(unsafe_code, reason = "leaves undropped what cannot be dropped")]

#[cfg(fiber_stack)]
mod on_fiber;

use crate::call::Job;
use crate::running::Running;
use crate::stack::within::Within;
use crate::{Error, Result};
use futures::future::FusedFuture;
use std::fmt;
use std::future::Future;
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::task::{Context, Poll};
use wasmtime::AsContextMut;
#[cfg(feature = "thread-backend")]
use wasmtime::Trap;

/// A call of the guest by an async host function that it has called: the future that
/// [`AsyncFunc::call_within`](crate::AsyncFunc::call_within) and its like return.
///
/// It is a future as any: a guest that waits in it is suspended, and timeouts, `join!`, `select!` and the like around it work,
/// also around calls within calls, to any depth. It is `Send` if the store's data is.
///
/// On a `ThreadStack` the call runs within one poll of this future, and suspends the host function with all that surrounds it:
/// there a timeout is noticed when the nested call has ended.
///
/// # Errors
///
/// The result is a trap or an error of the nested guest's, or
///
/// - [`Error::NotWithin`] if this is polled by anything but the future of the host function that made it, or from within a call
///   of another guest, or by an executor that is run within the host function, such as `futures::executor::block_on`;
/// - [`Error::NoThreadList`] on systems other than Linux and Windows, but on a `ThreadStack`;
/// - [`Error::ForeignFrames`] if the host function was called by other code than its call's guest, so that something would
///   have to be suspended that may not be;
/// - [`Error::Lost`] if a nested call of the same host function, or of one within, was forgotten;
/// - [`Trap::StackOverflow`](wasmtime::Trap::StackOverflow) if there are so many calls within calls that less than a quarter of
///   the space for host functions is left.
///
/// While a nested call is under way, and until the host function next waits, guests of compiled code that wasmtime's own
/// synchronous functions enter from the host function's future trap with
/// [`Trap::StackOverflow`](wasmtime::Trap::StackOverflow), as soon as they come to a function that looks at its stack.
///
/// A result is had at the next poll of the host function's future, which follows at once. So where a nested call is raced against
/// something else, and both are ready in the same poll, the other one wins.
///
/// # Panics
///
/// Goes on with a panic of a host function that the nested guest called.
///
/// # Cancel safety
///
/// Dropped while it is suspended, this unwinds the nested guest, as dropping a [`Call`](crate::Call) does, with all calls within
/// it. The host function goes on.
///
/// # Forgetting
///
/// A nested call that is forgotten while it is suspended lies on the stack above its host function for ever. The whole call ends
/// with [`Error::Lost`] when the host function does, however that ends, and its store is lost.
#[must_use = "futures do nothing unless they are awaited or polled"]
pub struct CallWithin<'a, T: 'static, J: Job<T>> {
    /// Not to be dropped where the stack cannot be entered.
    running: ManuallyDrop<Running<'a, Within, T, J>>,
    host: Within,
    /// How often it was polled and told to wait for the other stack, in one poll of the host function's future.
    #[cfg(fiber_stack)]
    put_off: u32,
    /// What it came to, until the host function's future is polled on the guest's stack again.
    #[cfg(fiber_stack)]
    outcome: Option<std::thread::Result<Result<J::Output>>>,
}

impl<'a, T: 'static, J: Job<T>> CallWithin<'a, T, J> {
    pub(crate) fn new(store: &'a mut impl AsContextMut<Data = T>, job: J) -> Self {
        let host = Within::here();
        let running = ManuallyDrop::new(Running::new(host, store.as_context_mut(), None, job));
        Self {
            running,
            host,
            #[cfg(fiber_stack)]
            put_off: 0,
            #[cfg(fiber_stack)]
            outcome: None,
        }
    }
}

impl<T: 'static, J: Job<T>> Future for CallWithin<'_, T, J> {
    type Output = Result<J::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let host = this.host;
        let Some(host) = host.host() else { return Poll::Ready(Err(Error::NotWithin.into())) };
        #[cfg(feature = "thread-backend")]
        if host.is_of_thread() {
            if this.running.new_store().is_some_and(|store| !host.has_room(store.engine())) {
                return Poll::Ready(Err(Trap::StackOverflow.into()));
            }
            return Poll::Ready(this.running.run_here().unwrap_or_else(|| Err(Error::Ended.into())));
        }
        #[cfg(fiber_stack)]
        return this.poll_on_fiber(cx, host);
        #[cfg(not(fiber_stack))]
        unreachable!("there are no other stacks, {cx:?}");
    }
}

impl<T: 'static, J: Job<T>> FusedFuture for CallWithin<'_, T, J> {
    fn is_terminated(&self) -> bool {
        #[cfg(fiber_stack)]
        if self.outcome.is_some() {
            return false;
        }
        self.running.has_ended()
    }
}

#[cfg(not(fiber_stack))]
impl<T: 'static, J: Job<T>> CallWithin<'_, T, J> {
    /// What runs in place is never suspended.
    fn can_unwind(&self) -> bool {
        self.running.suspended_on().is_none()
    }
}

// Nothing in it is pinned, as in `Call`.
impl<T: 'static, J: Job<T>> Unpin for CallWithin<'_, T, J> {}

impl<T: 'static, J: Job<T>> Drop for CallWithin<'_, T, J> {
    fn drop(&mut self) {
        #[cfg(fiber_stack)]
        self.want_no_more();
        // Elsewhere the stack cannot be entered, so that the call is as good as forgotten.
        if self.can_unwind() {
            // SAFETY: only here, and not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.running) };
        }
    }
}

impl<T: 'static, J: Job<T>> fmt::Debug for CallWithin<'_, T, J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallWithin").field("state", &*self.running).finish_non_exhaustive()
    }
}
