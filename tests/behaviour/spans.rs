//! Spans of `tracing`: they are entered where code of their call runs, and nowhere else.

use crate::common::futures::{pending, poll_once};
use crate::common::moving::elsewhere;
use crate::support::guest::{ONCE, assert_usable, runner, stack, store};
use crate::support::{Code, Kind, matrix};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tracing::dispatcher::{self, get_default};
use tracing::subscriber::with_default;
use tracing::{Dispatch, Event, Instrument, Span, Subscriber, info, info_span};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Scope};
use wasmtime::{Func, Result};
use wasmtime_async::{FuncExt, Stack, Store, tracing_spans};

matrix!(guards_are_put_away, instrumented_futures_need_no_more_than_their_poller);
matrix!(anything: two_calls_in_turn);

/// Records the spans that each event is in, from the outermost, and which spans were closed.
#[derive(Clone, Default)]
struct WritesDown(Arc<Mutex<Vec<String>>>);

impl WritesDown {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for WritesDown {
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let spans = context.event_scope(event).into_iter().flat_map(Scope::from_root);
        let spans: Vec<_> = spans.map(|span| span.name()).collect();
        let event = event.metadata().fields().iter().next().map_or("", |field| field.name());
        self.0.lock().unwrap().push(format!("{event} in {}", spans.join("/")));
    }

    fn on_close(&self, id: tracing::Id, context: Context<'_, S>) {
        let name = context.span(&id).map_or("", |span| span.name());
        self.0.lock().unwrap().push(format!("{name} closed"));
    }
}

/// Runs a test with a subscriber.
fn written(test: impl FnOnce(&WritesDown) -> Result<()>) -> Result<()> {
    let writes = WritesDown::default();
    let result = with_default(tracing_subscriber::registry().with(writes.clone()), || test(&writes));
    assert!(Span::current().is_none());
    result
}

/// Runs something in a span, with the subscriber of this thread.
fn within<R>(span: &Span, f: impl FnOnce() -> R) -> R {
    let dispatch = get_default(Dispatch::clone);
    elsewhere(|| {
        dispatcher::with_default(&dispatch, || {
            let result = span.in_scope(f);
            assert!(Span::current().is_none());
            result
        })
    })
}

/// A host function that holds a span's guard, and one within, while it waits.
fn holds_guards<T: 'static>(store: &mut Store<T>) -> Func {
    Func::wrap_suspending(store, async || {
        let _outer = info_span!("outer").entered();
        let _inner = info_span!("inner").entered();
        info!(before = 1);
        pending(2).await;
        info!(after = 1);
    })
}

fn guards_are_put_away<K: Kind>(code: Code) -> Result<()> {
    // A `SendFiberStack` does not suspend a function that holds a guard.
    if K::MOVES {
        return Ok(());
    }
    written(|writes| {
        let mut stack = stack::<K>();
        stack.set_ambient(tracing_spans());
        let mut store = store(code);
        let hold = holds_guards(&mut store);
        let run = runner(&mut store, ONCE, [hold])?;

        let mut call = run.call_on(&mut stack, &mut store, &[], &mut []);
        let request = info_span!("request");
        for _ in 0..2 {
            assert!(within(&request, || poll_once(&mut call)).is_pending());
            info!(beside = 1);
            request.in_scope(|| info!(within = 1));
        }
        assert!(within(&request, || poll_once(&mut call)).is_ready());
        drop(call);
        assert_eq!(
            writes.take(),
            [
                "before in request/outer/inner",
                "beside in ",
                "within in request",
                "beside in ",
                "within in request",
                "after in request/outer/inner",
                "inner closed",
                "outer closed",
            ]
        );

        // The call is dropped on another thread.
        let mut call = run.call_on(&mut stack, &mut store, &[], &mut []);
        assert!(within(&request, || poll_once(&mut call)).is_pending());
        info_span!("elsewhere").in_scope(|| {
            drop(call);
            info!(beside = 1);
        });
        assert_eq!(
            writes.take(),
            [
                "before in request/outer/inner",
                "inner closed",
                "outer closed",
                "beside in elsewhere",
                "elsewhere closed"
            ]
        );
        assert_usable(&mut stack, &mut store)
    })
}

fn instrumented_futures_need_no_more_than_their_poller<K: Kind>(code: Code) -> Result<()> {
    written(|writes| {
        let mut stack = stack::<K>();
        stack.set_ambient(tracing_spans());
        let mut store = store(code);
        let wait = Func::wrap_suspending_send(&mut store, || {
            async {
                info!(before = 1);
                pending(1).await;
                info!(after = 1);
            }
            .instrument(info_span!("host"))
        });
        let run = runner(&mut store, ONCE, [wait])?;
        let mut call = run.call_on(&mut stack, &mut store, &[], &mut []);
        let request = info_span!("request");
        assert!(within(&request, || poll_once(&mut call)).is_pending());
        info!(beside = 1);
        assert!(within(&request, || poll_once(&mut call)).is_ready());
        drop(call);
        assert_eq!(writes.take(), ["before in request/host", "beside in ", "after in request/host", "host closed"]);
        assert_usable(&mut stack, &mut store)
    })
}

/// Each call has spans of its own, whichever resumes first.
fn two_calls_in_turn<K: Kind>(code: Code) -> Result<()> {
    written(|writes| {
        let (mut stacks, mut stores) = ([stack::<K>(), stack::<K>()], [store(code), store(code)]);
        let mut calls = Vec::new();
        for (stack, store) in stacks.iter_mut().zip(&mut stores) {
            stack.set_ambient(tracing_spans());
            let hold = holds_guards(store);
            let run = runner(store, ONCE, [hold])?;
            calls.push(Box::pin(async move { run.call_on(stack, store, &[], &mut []).await }));
        }
        let requests = [info_span!("a"), info_span!("b")];
        for which in [0, 1, 1, 0, 1, 0] {
            let ready = within(&requests[which], || poll_once(&mut calls[which])).is_ready();
            if ready {
                info!(ended = 1);
            }
        }
        let mut seen = BTreeMap::new();
        for line in writes.take() {
            *seen.entry(line).or_insert(0) += 1;
        }
        let expected = [
            ("after in a/outer/inner", 1),
            ("after in b/outer/inner", 1),
            ("before in a/outer/inner", 1),
            ("before in b/outer/inner", 1),
            ("ended in ", 2),
            ("inner closed", 2),
            ("outer closed", 2),
        ];
        assert!(seen.iter().map(|(line, times)| (&**line, *times)).eq(expected), "{seen:?}");
        Ok(())
    })
}
