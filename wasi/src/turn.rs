//! How long a guest keeps its thread: until it waits, or has made many host calls without waiting.

use crate::asking::Asking;
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use wasmtime_wasi::runtime::with_ambient_tokio_runtime;

/// How many calls of WASI functions in a row may return without waiting. The next call first lets other guests of the thread
/// run: it wakes the task and suspends the guest.
///
/// Files and terminals can be ready all the time. A program that only reads and writes those would never wait. Each thread
/// counts the calls of all its guests, and starts again from 0 when a WASI function waits.
pub const HOST_CALLS_IN_A_ROW: u32 = 128;

thread_local! {
    /// Not used across a wait, after which the guest may be on another thread.
    static IN_A_ROW: Cell<u32> = const { Cell::new(0) };
}

/// Runs the future of a WASI function. If the guest's turn is over, lets others run first.
///
/// wasmtime-wasi's futures need a tokio runtime: the one that polls the call, or wasmtime-wasi's own if there is none. Entering
/// a runtime sets a thread-local variable, so this does it for one poll at a time.
pub(crate) fn in_turn<F: Future>(future: F) -> impl Future<Output = F::Output> {
    turn(future, None)
}

/// Does the same for a function that may wait for a file.
pub(crate) fn in_turn_asking<F: Future>(future: F) -> impl Future<Output = F::Output> {
    turn(future, Some(Asking::new()))
}

async fn turn<F: Future>(future: F, mut asking: Option<Asking<'static>>) -> F::Output {
    let mut future = pin!(future);
    let mut begun = false;
    poll_fn(move |cx| {
        if !begun {
            begun = true;
            let before = IN_A_ROW.replace(IN_A_ROW.get() + 1);
            if before >= HOST_CALLS_IN_A_ROW {
                // This call is the first of the next turn.
                IN_A_ROW.set(1);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        let polled = with_ambient_tokio_runtime(|| future.as_mut().poll(cx));
        if polled.is_pending() {
            IN_A_ROW.set(0);
        }
        if let Some(asking) = &mut asking {
            asking.polled(polled.is_ready(), cx);
        }
        polled
    })
    .await
}

/// Lets other tasks run once.
pub(crate) async fn give_way() {
    let mut given = false;
    poll_fn(|cx| {
        if given {
            return Poll::Ready(());
        }
        given = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
