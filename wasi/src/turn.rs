//! How long a guest has its thread: until it waits, or has made many host calls without.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use wasmtime_wasi::runtime::with_ambient_tokio_runtime;

/// How many WASI functions in a row return at once before the guest gives way to others on its thread: the next one suspends
/// it first, with its task woken.
///
/// Files are always ready, and so is a terminal, so that a program which only reads and writes would never wait. The count is
/// the thread's: it begins anew whenever a WASI function of any guest on the thread waits.
pub const HOST_CALLS_IN_A_ROW: u32 = 128;

thread_local! {
    /// Only looked at for the moment: the guest may go on on another thread.
    static IN_A_ROW: Cell<u32> = const { Cell::new(0) };
}

/// Runs the future of a WASI function, having given way to others if the guest's turn is over.
///
/// wasmtime-wasi's futures need a tokio runtime: the one that polls the call, or wasmtime-wasi's own if there is none. It is
/// entered for one poll at a time, because it is entered by setting a variable of the thread.
pub(crate) async fn in_turn<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut begun = false;
    poll_fn(move |cx| {
        if !begun {
            begun = true;
            let before = IN_A_ROW.replace(IN_A_ROW.get() + 1);
            if before >= HOST_CALLS_IN_A_ROW {
                // The first of the next turn.
                IN_A_ROW.set(1);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        let polled = with_ambient_tokio_runtime(|| future.as_mut().poll(cx));
        if polled.is_pending() {
            IN_A_ROW.set(0);
        }
        polled
    })
    .await
}

/// Gives way to others once.
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
