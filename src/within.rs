//! Nested calls: futures that a host function makes, and that its own future polls.
#![expect(unsafe_code, reason = "leaves undropped what cannot be dropped")]

#[cfg(fiber_stack)]
mod on_fiber;

use crate::call::Job;
#[cfg(feature = "thread-backend")]
use crate::call::store_id;
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

/// A nested call: an async host function calls the guest that called it. This is the future that
/// [`AsyncFunc::call_within`](crate::AsyncFunc::call_within) and similar methods return.
///
/// It is an ordinary future. A guest that waits in it is suspended. Timeouts, `join!`, `select!` and the like work
/// around it, and around calls within calls, to any depth. It is `Send` if the store's data is.
///
/// On a `ThreadStack`, the call runs within one poll of this future. While it waits, it suspends the host function with
/// everything around the call, so a timeout there is only noticed when the nested call has ended.
///
/// # Errors
///
/// The result is a trap or an error of the nested guest, or
///
/// - [`Error::NotWithin`] if something other than the future of the host function that made this polls it, such as an
///   executor that the host function runs (`futures::executor::block_on`) or code within a call of another guest;
/// - [`Error::NoThreadList`] on systems other than Linux and Windows, except on a `ThreadStack`;
/// - [`Error::ForeignFrames`] if something other than the guest of the call has called the host function, so that
///   frames would have to be suspended that must not be;
/// - [`Error::Lost`] if a nested call of the same host function, or of one within it, was forgotten;
/// - [`Trap::StackOverflow`](wasmtime::Trap::StackOverflow) if calls within calls have left less than a quarter of the
///   space for host functions.
///
/// The host function's future gets the result at its next poll, which follows at once. So if a nested call races
/// against something else, and both become ready in the same poll, the other one wins.
///
/// # wasmtime's own synchronous calls
///
/// While a nested call is suspended, the host function cannot enter compiled guests with wasmtime's own synchronous
/// functions, such as `func.call(&mut caller, …)`. The same holds after a suspended call was dropped, for instance by a
/// timeout, until the host function has waited for something else that was pending. The guest traps with
/// [`Trap::StackOverflow`](wasmtime::Trap::StackOverflow) as soon as it reaches a function that checks its stack. Use
/// `call_within` there, which always works.
///
/// # Panics
///
/// `poll` propagates a panic of a host function that the nested guest called. If this is dropped before that poll,
/// because something else won the race, the panic is dropped with it.
///
/// # Cancel safety
///
/// Dropping this while it is suspended unwinds the nested guest and all calls within it, as dropping a
/// [`Call`](crate::Call) does. The host function continues. Drop it where you poll it, in the future of the host
/// function: anywhere else, such as on another thread or within another call, the stack cannot be entered, and the
/// nested call is forgotten.
///
/// # Forgetting
///
/// A nested call that is forgotten while it is suspended stays on the stack above its host function forever. When the
/// host function ends, however it ends, the whole call ends with [`Error::Lost`], and its store is lost. If it is
/// forgotten before it has begun, only wasmtime's own synchronous calls are affected: they may trap, as above, until the
/// host function ends.
#[must_use = "futures do nothing unless they are awaited or polled"]
pub struct CallWithin<'a, T: 'static, J: Job<T>> {
    /// Not dropped where the stack cannot be entered.
    running: ManuallyDrop<Running<'a, Within, T, J>>,
    host: Within,
    /// How many polls, within one poll of the host function's future, told this to wait for the other stack.
    #[cfg(fiber_stack)]
    put_off: u32,
    /// The result, until the host function's future is polled on the guest's stack again.
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
            if let Some(store) = this.running.new_store()
                && !host.has_room(store_id(store), store.engine())?
            {
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
    /// A call that runs in place is never suspended.
    fn can_unwind(&self) -> bool {
        self.running.suspended_on().is_none()
    }
}

// Like a `Call`, it contains nothing that is pinned.
impl<T: 'static, J: Job<T>> Unpin for CallWithin<'_, T, J> {}

impl<T: 'static, J: Job<T>> Drop for CallWithin<'_, T, J> {
    fn drop(&mut self) {
        #[cfg(fiber_stack)]
        self.withdraw();
        // Where the stack cannot be entered, the call is as good as forgotten.
        if self.can_unwind() {
            // SAFETY: this is the only place that drops it, and nothing uses it afterwards.
            unsafe { ManuallyDrop::drop(&mut self.running) };
        }
    }
}

impl<T: 'static, J: Job<T>> fmt::Debug for CallWithin<'_, T, J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallWithin").field("state", &*self.running).finish_non_exhaustive()
    }
}
