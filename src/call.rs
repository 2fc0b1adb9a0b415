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

/// What a call does on its stack.
///
/// Implemented for `FnOnce(StoreContextMut<'_, T>) -> wasmtime::Result<R>`, whose output is `R`, and for the job types
/// that this crate's own methods name in their results.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot run on a stack with a store of `{T}`",
    note = "expected a closure `|store: StoreContextMut<'_, T>| -> wasmtime::Result<_>`"
)]
pub trait Job<T: 'static> {
    /// The result of a successful call.
    type Output;

    /// Whether this is one of the crate's own jobs. Their frames may all be suspended.
    #[doc(hidden)]
    const KNOWN: bool = false;

    /// Runs the job on the stack.
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

/// A call on a stack: the future that [`Stack::run`] and every other way to enter wasm return.
///
/// It borrows stack and store mutably until it is dropped.
///
/// # Cancel safety
///
/// Dropping a call before its first poll runs nothing.
///
/// Dropping a suspended call resumes it once more, inside `drop`, to make it stop:
///
/// - The future that it waits for is dropped.
/// - The code that waited for it gets [`Error::Cancelled`](crate::Error::Cancelled). From then on, every attempt to
///   wait fails at once with the same error.
/// - The guest unwinds as after a trap. Destructors run in order, and can still reach the store's data.
///
/// Afterwards, stack and store can be used for other calls. Whatever the guest has already done to its memory stays
/// done. As after any trap, wasmtime does not enter the components of the store again.
///
/// Async host functions propagate the error by themselves. Synchronous ones that call `suspend_until` should propagate
/// it, too. If they turn it into something else, such as an error number, the guest is not stopped, and runs on inside
/// `drop` until it ends by itself. (Time slices end it: see
/// [`Store::epoch_deadline_suspend_and_update`](crate::Store::epoch_deadline_suspend_and_update).)
///
/// A suspended call keeps a clone of its last poller's waker.
///
/// # Forgetting
///
/// Forgetting a suspended call ([`std::mem::forget`], a leaked `Box`, a cycle of `Rc`) costs memory and the store,
/// which is lost: see [`Store`](crate::Store). The stack stays usable. It leaves its old memory as it is forever, and
/// allocates new memory for the next call.
///
/// # `Send`
///
/// On a [`FiberStack`](crate::FiberStack), a call is not `Send`, because host functions may wait for anything. On a
/// [`SendFiberStack`](crate::SendFiberStack) and on a `ThreadStack`, it is `Send`. Code that is generic over the stack
/// asks for this with the bound [`SendStack`](crate::SendStack).
///
/// # Panics
///
/// `poll` propagates a panic of the closure or of a host function. `drop` propagates a panic of code that is being
/// cancelled, unless the thread is panicking already.
#[must_use = "futures do nothing unless they are awaited or polled"]
pub struct Call<'a, S: Stack, T: 'static, J: Job<T>>(Running<'a, &'a mut S, T, J>);

impl<'a, S: Stack, T: 'static, J: Job<T>> Call<'a, S, T, J> {
    /// The caller makes sure that the stack [`Carries`](crate::Carries) `T`, `J` and its output.
    pub(crate) fn new(stack: &'a mut S, store: &'a mut Store<T>, job: J) -> Self {
        let (store, suspended) = store.enter();
        Self(Running::new(stack, store, Some(suspended), job))
    }
}

/// Identifies a store: the address of its data, which lies within the store's own allocation.
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
