//! A call: the future that runs a closure on a stack, from its first poll to its result.

use crate::running::Running;
use crate::stack::Stack;
use crate::{Result, Store};
use futures::future::FusedFuture;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::ptr;
use std::task::{Context, Poll};
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
/// [`Error::Cancelled`](crate::Error::Cancelled), the guest unwinds as after a trap, destructors run in order with the store's data still in
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
/// A suspended call that is forgotten ([`std::mem::forget`], a leaked `Box`, a cycle of `Rc`) costs memory, and its store, which
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
pub struct Call<'a, S: Stack, T: 'static, J: Job<T>>(Running<'a, &'a mut S, T, J>);

impl<'a, S: Stack, T: 'static, J: Job<T>> Call<'a, S, T, J> {
    /// The caller sees to it that the stack [`Carries`](crate::Carries) `T`, `J` and its output.
    pub(crate) fn new(stack: &'a mut S, store: &'a mut Store<T>, job: J) -> Self {
        let (store, suspended) = store.enter();
        Self(Running::new(stack, store, Some(suspended), job))
    }
}

/// Tells stores apart: the address of the data, which lies within the store's own allocation.
#[inline]
pub(crate) fn store_id(store: &impl AsContext) -> *const () {
    ptr::from_ref(store.as_context().data()).cast()
}

impl<S: Stack, T: 'static, J: Job<T>> Future for Call<'_, S, T, J> {
    type Output = Result<J::Output>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl<S: Stack, T: 'static, J: Job<T>> FusedFuture for Call<'_, S, T, J> {
    fn is_terminated(&self) -> bool {
        self.0.has_ended()
    }
}

impl<S: Stack, T: 'static, J: Job<T>> fmt::Debug for Call<'_, S, T, J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("state", &self.0).finish_non_exhaustive()
    }
}
