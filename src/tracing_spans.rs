//! Spans of `tracing` that stay with a call from one entry of its stack to the next.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, ThreadId};
use tracing::dispatcher::{self, DefaultGuard};
use tracing::span::EnteredSpan;
use tracing::{Dispatch, Id, Span};

/// Shows host functions the span in which their call is polled, and keeps the spans that they enter away from other
/// code while the call is suspended.
///
/// Use it with [`Stack::set_ambient`](crate::Stack::set_ambient):
///
/// - If code of a call has entered a span and the call suspends, the span is left at once, and entered again when the
///   call resumes.
/// - A `ThreadStack` has a thread of its own. That thread gets the poller's subscriber and current span while it runs.
///
/// The subscriber must know its current span, as the registry of `tracing-subscriber` does. A future made by
/// `tracing::Instrument` leaves its span by itself whenever it is pending, and does not need this on a stack that runs
/// on the poller's thread.
///
/// Two things are not seen:
///
/// - A span that code of a call enters although the poller is in it already. It is left when the call's code leaves it.
/// - That a call was forgotten while it was suspended. Set the hook again before the stack's next call, which would enter
///   the spans of the forgotten one.
///
/// # Examples
///
/// ```
/// use tracing::info_span;
/// use wasmtime::{Engine, Func};
/// use wasmtime_async::{DEFAULT_STACK_SIZE, DefaultStack, FuncExt, Stack, Store, tracing_spans};
///
/// let mut store = Store::new(&Engine::default(), ());
/// let read = Func::wrap_suspending(&mut store, async || {
///     let _entered = info_span!("read").entered();
///     futures::future::ready(()).await; // is left here, if this is pending
/// });
/// let mut stack = DefaultStack::new(DEFAULT_STACK_SIZE)?;
/// stack.set_ambient(tracing_spans());
/// futures::executor::block_on(read.call_on(&mut stack, &mut store, &[], &mut []))?;
/// # Ok::<(), wasmtime::Error>(())
/// ```
pub fn tracing_spans() -> impl Fn() -> CapturedSpans + Send + Sync + 'static {
    let away = Arc::<Mutex<Vec<Away>>>::default();
    move || {
        let poller = Poller {
            thread: thread::current().id(),
            dispatch: dispatcher::get_default(Dispatch::clone),
            span: Span::current(),
        };
        let away = Arc::clone(&away);
        Box::new(move || EnteredSpans::new(poller, away))
    }
}

/// What [`tracing_spans`] captures whenever a call is polled. Calling it enters the spans on the current thread.
pub type CapturedSpans = Box<dyn FnOnce() -> EnteredSpans + Send>;

/// The spans of a call. They are entered until this is dropped. See [`tracing_spans`].
#[derive(Debug)]
pub struct EnteredSpans {
    /// The current span outside of the call's own spans.
    base: Option<Id>,
    /// Where the call's spans go when this is dropped.
    away: Arc<Mutex<Vec<Away>>>,
    // Left in this order, after the call's spans.
    _span: Option<EnteredSpan>,
    _dispatch: Option<DefaultGuard>,
}

/// The state of the polling thread.
struct Poller {
    thread: ThreadId,
    dispatch: Dispatch,
    span: Span,
}

/// A span that code of a suspended call is in. That code keeps it open.
#[derive(Debug)]
struct Away {
    dispatch: Dispatch,
    id: Id,
}

impl EnteredSpans {
    fn new(poller: Poller, away: Arc<Mutex<Vec<Away>>>) -> Self {
        let elsewhere = poller.thread != thread::current().id();
        let default = elsewhere.then(|| dispatcher::set_default(&poller.dispatch));
        let span = elsewhere.then(|| poller.span.entered());
        let base = current().map(|Away { id, .. }| id);
        // The span that was left last is the outermost.
        while let Some(Away { dispatch, id }) = last(&away) {
            dispatch.enter(&id);
        }
        Self { base, away, _span: span, _dispatch: default }
    }
}

impl Drop for EnteredSpans {
    fn drop(&mut self) {
        while let Some(span) = current().filter(|span| Some(&span.id) != self.base.as_ref()) {
            span.dispatch.exit(&span.id);
            self.away.lock().unwrap_or_else(PoisonError::into_inner).push(span);
        }
    }
}

fn last(away: &Mutex<Vec<Away>>) -> Option<Away> {
    away.lock().unwrap_or_else(PoisonError::into_inner).pop()
}

/// The current span of this thread.
fn current() -> Option<Away> {
    dispatcher::get_default(|dispatch| {
        let id = dispatch.current_span().id()?.clone();
        Some(Away { dispatch: dispatch.clone(), id })
    })
}
