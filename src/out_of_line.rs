//! Keeping the addresses of thread-local variables away from switches to another thread.
#![expect(unsafe_code, reason = "what is in a pinned value is pinned with it")]

use std::future::Future;
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A future that is polled and dropped in functions of their own.
///
/// The compiler takes the address of a thread-local variable for the same all through a function, and may keep it in a
/// register. A function in which a stack is suspended, and goes on on another thread, must therefore have no use of such a
/// variable inlined into it, on either side of the switch: not in a poll, nor in a destructor.
pub(crate) struct OutOfLine<F>(ManuallyDrop<F>);

impl<F: Future> OutOfLine<F> {
    #[inline]
    pub(crate) fn new(future: F) -> Self {
        Self(ManuallyDrop::new(future))
    }
}

impl<F: Future> Future for OutOfLine<F> {
    type Output = F::Output;

    #[inline(never)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        // SAFETY: the future is pinned with this, and never moved out; `drop` below drops it where it is.
        let future = unsafe { self.map_unchecked_mut(|this| &mut *this.0) };
        future.poll(cx)
    }
}

impl<F> Drop for OutOfLine<F> {
    #[inline(never)]
    fn drop(&mut self) {
        // SAFETY: only here, and this is not used afterwards.
        unsafe { ManuallyDrop::drop(&mut self.0) };
    }
}
