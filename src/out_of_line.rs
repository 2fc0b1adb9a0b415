//! Keeps the addresses of thread-local variables away from switches to another thread.
#![expect(unsafe_code, reason = "what is in a pinned value is pinned with it")]

use std::future::Future;
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A future that is polled and dropped in functions of their own.
///
/// The compiler assumes that a thread-local variable has the same address throughout a function, and may keep that
/// address in a register. If a stack is suspended in a function and continues on another thread, the function must not
/// have any use of such a variable inlined into it, before or after the switch. This applies to polls and to
/// destructors.
pub(crate) struct OutOfLine<F>(ManuallyDrop<Option<F>>);

impl<F: Future> OutOfLine<F> {
    #[inline]
    pub(crate) fn new(future: F) -> Self {
        Self(ManuallyDrop::new(Some(future)))
    }
}

impl<F: Future> Future for OutOfLine<F> {
    type Output = F::Output;

    /// When the future is ready, this also drops it, which saves another function call. (An async block has dropped its
    /// variables by then. The fields of other futures are dropped as part of the last poll.)
    #[inline(never)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        // SAFETY: the future is pinned together with this. It is never moved out, and is only dropped in place.
        let mut future = unsafe { self.map_unchecked_mut(|this| &mut *this.0) };
        let polled = future.as_mut().as_pin_mut().expect("is not polled after it was ready").poll(cx);
        if polled.is_ready() {
            future.set(None);
        }
        polled
    }
}

impl<F> OutOfLine<F> {
    #[inline(never)]
    fn drop_future(&mut self) {
        *self.0 = None;
    }
}

impl<F> Drop for OutOfLine<F> {
    #[inline]
    fn drop(&mut self) {
        if self.0.is_some() {
            self.drop_future();
        }
    }
}
