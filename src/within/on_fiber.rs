//! Nested calls on fiber stacks: see [`nesting`](crate::nesting).
#![expect(unsafe_code, reason = "makes the stack aside ready")]

use super::CallWithin;
use crate::call::{Job, store_id};
use crate::frame::Frame;
use crate::limits::Site;
use crate::stack::fiber::{Root, has_room, prepare_aside};
use crate::{Error, Result};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use wasmtime::Trap;

/// How often one poll of the host function's future may poll a nested call that must wait for the other stack.
/// Combinators such as `join!` poll the futures that they have woken again, a few times. Code that blocks on the nested
/// call in the middle of that poll would poll it forever.
const PATIENCE: u32 = 1000;

impl<T: 'static, J: Job<T>> CallWithin<'_, T, J> {
    /// Polls the call, either on the guest's stack or aside.
    pub(super) fn poll_on_fiber(&mut self, cx: &mut Context<'_>, host: &Frame) -> Poll<Result<J::Output>> {
        let is_aside = host.nesting.is_aside();
        if self.outcome.is_some() && is_aside && host.is_polling() && self.put_off < PATIENCE {
            self.put_off(cx, host);
            return Poll::Pending;
        }
        if let Some(outcome) = self.take_outcome() {
            return Poll::Ready(outcome);
        }
        self.check(host)?;
        if !is_aside {
            self.ask(cx, host)?;
            return Poll::Pending;
        }
        self.want_no_more(host);
        let (running, outcome) = (&mut *self.running, &mut self.outcome);
        let polled = catch_unwind(AssertUnwindSafe(|| {
            if let Poll::Ready(ended) = Pin::new(running).poll(cx) {
                *outcome = Some(Ok(ended));
            }
        }));
        if let Err(payload) = polled {
            self.outcome = Some(Err(payload));
        }
        if host.nesting.has_nested() {
            // Either the call is suspended, or it is lost, because the guest's stack never becomes free again.
            return self.take_outcome().map_or(Poll::Pending, Poll::Ready);
        }
        // The host function's future gets the result, or the panic, on the guest's stack, where it can enter the guest
        // with wasmtime's own functions.
        host.nesting.go_back();
        self.put_off(cx, host);
        Poll::Pending
    }

    /// Takes the result of the nested call, or propagates its panic.
    fn take_outcome(&mut self) -> Option<Result<J::Output>> {
        self.outcome.take().map(|outcome| outcome.unwrap_or_else(|payload| resume_unwind(payload)))
    }

    /// Checks whether the call may begin or resume, here and now.
    fn check(&self, host: &Frame) -> Result<()> {
        if self.running.has_ended() {
            return Err(Error::Ended.into());
        }
        if host.is_cancelled() {
            return Err(Error::Cancelled.into());
        }
        if !host.is_polling() {
            return Err(Error::NotWithin.into());
        }
        if let Some(level) = self.running.suspended_on() {
            return if level.is_youngest() { Ok(()) } else { Err(Error::NotWithin.into()) };
        }
        if host.nesting.has_nested() {
            return Err(Error::Lost.into());
        }
        let Some(store) = self.running.new_store() else { return Err(Error::Ended.into()) };
        let allowed = host.limits.allow_nested(Site::host_function(store_id(store), true));
        if (allowed.is_err() || !cfg!(thread_list)) && !Root::here().is_seen() {
            return Err(Error::NoThreadList.into());
        }
        allowed.map_err(Error::from)?;
        // SAFETY: the host's frame is current.
        if unsafe { has_room(host.nesting.runner()) }? { Ok(()) } else { Err(Trap::StackOverflow.into()) }
    }

    /// Asks to be polled aside.
    fn ask(&mut self, cx: &Context<'_>, host: &Frame) -> Result<()> {
        if self.put_off == PATIENCE {
            return Err(Error::NotWithin.into());
        }
        // SAFETY: the host's frame is current.
        unsafe { prepare_aside(host.nesting.runner()) }?;
        host.nesting.want();
        self.put_off(cx, host);
        Ok(())
    }

    /// Withdraws the request to be polled aside, if this is the place where it was made.
    pub(super) fn withdraw(&mut self) {
        let host = self.host;
        if let Some(host) = host.host() {
            self.want_no_more(host);
        }
    }

    /// Withdraws the request to be polled aside.
    fn want_no_more(&mut self, host: &Frame) {
        if self.put_off > 0 {
            host.nesting.want_no_more();
            self.put_off = 0;
        }
    }

    /// Whether the stack can be entered to unwind the guest, or there is no guest to unwind.
    pub(super) fn can_unwind(&self) -> bool {
        self.running.suspended_on().is_none_or(|level| self.host.host().is_some() && level.is_youngest())
    }

    /// Makes sure that this is polled together with the host function's future, which happens at once.
    fn put_off(&mut self, cx: &Context<'_>, host: &Frame) {
        self.put_off += 1;
        if !host.is_own_waker(cx.waker()) {
            cx.waker().wake_by_ref();
        }
    }
}
