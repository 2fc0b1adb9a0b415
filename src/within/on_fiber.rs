//! Nested calls on stacks that are switched to: see [`nesting`](crate::nesting).
#![expect(unsafe_code, reason = "makes the stack aside ready")]

use super::CallWithin;
use crate::call::{Job, store_id};
use crate::frame::Frame;
use crate::limits::Site;
use crate::stack::fiber::{Root, has_room_aside, prepare_aside};
use crate::{Error, Result};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread;
use wasmtime::Trap;

impl<T: 'static, J: Job<T>> CallWithin<'_, T, J> {
    /// A poll on the guest's stack, or aside.
    pub(super) fn poll_on_fiber(&mut self, cx: &mut Context<'_>, host: &Frame) -> Poll<Result<J::Output>> {
        if !host.nesting.is_aside() {
            return match self.outcome.take() {
                Some(outcome) => Poll::Ready(outcome.unwrap_or_else(|payload| resume_unwind(payload))),
                None => self.ask(cx, host).map_or_else(|error| Poll::Ready(Err(error)), |()| Poll::Pending),
            };
        }
        if self.outcome.is_some() {
            // Something beside it was ready first. The wake-up that brought this here would be missing where the result is.
            Self::come_again(cx, host);
            return Poll::Pending;
        }
        if !self.running.is_suspended() {
            if host.nesting.has_nested() {
                return Poll::Ready(Err(Error::Lost.into()));
            }
            if let Err(error) = self.may_begin(host) {
                return Poll::Ready(Err(error));
            }
            // SAFETY: the host's frame is current, and its future polled aside.
            if !unsafe { has_room_aside(host.nesting.runner()) } {
                return Poll::Ready(Err(Trap::StackOverflow.into()));
            }
        }
        // A panic, too, waits for the guest's stack.
        match catch_unwind(AssertUnwindSafe(|| Pin::new(&mut *self.running).poll(cx))) {
            Ok(Poll::Pending) => {}
            // Lost: the guest's stack will not be had again.
            Ok(Poll::Ready(outcome)) if host.nesting.has_nested() => return Poll::Ready(outcome),
            Ok(Poll::Ready(outcome)) => self.end(cx, host, Ok(outcome)),
            Err(payload) => self.end(cx, host, Err(payload)),
        }
        Poll::Pending
    }

    /// Asks to be polled aside.
    fn ask(&self, cx: &Context<'_>, host: &Frame) -> Result<()> {
        self.may_begin(host)?;
        // SAFETY: the host's frame is current.
        unsafe { prepare_aside(host.nesting.runner()) }?;
        host.nesting.want();
        Self::come_again(cx, host);
        Ok(())
    }

    /// Whether this may begin where it is polled: within the poll of the host function's future, with nothing entered between.
    fn may_begin(&self, host: &Frame) -> Result<()> {
        let Some(store) = self.running.new_store() else { return Err(Error::Ended.into()) };
        if host.is_cancelled() {
            return Err(Error::Cancelled.into());
        }
        if !host.is_polling() {
            return Err(Error::NotWithin.into());
        }
        if !Root::here().is_seen() {
            return Err(Error::NoThreadList.into());
        }
        Ok(host.limits.allow_nested(Site::host_function(store_id(store), true)).map_err(Error::from)?)
    }

    /// The nested call has ended. The host function's future is told on the guest's stack, where it can enter the guest by
    /// wasmtime's own functions.
    fn end(&mut self, cx: &Context<'_>, host: &Frame, outcome: thread::Result<Result<J::Output>>) {
        self.outcome = Some(outcome);
        host.nesting.go_back();
        Self::come_again(cx, host);
    }

    /// Sees to it that this is polled when the host function's future is, which will be at once.
    fn come_again(cx: &Context<'_>, host: &Frame) {
        if !host.is_own_waker(cx.waker()) {
            cx.waker().wake_by_ref();
        }
    }
}
