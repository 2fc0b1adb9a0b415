//! Futures for host functions, and functions that poll calls by hand, so that no executor is measured.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// Is pending a given number of times, and wakes nothing: the poller polls again anyway.
pub(crate) struct Pending(u32);

impl Pending {
    pub(crate) fn times(times: u32) -> Self {
        Self(times)
    }
}

impl Future for Pending {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        match self.0.checked_sub(1) {
            None => Poll::Ready(()),
            Some(left) => {
                self.0 = left;
                Poll::Pending
            }
        }
    }
}

/// Is pending once, keeps a clone of its waker and wakes it, as a timer or a socket does.
#[derive(Default)]
pub(crate) struct Woken(Option<Waker>);

impl Future for Woken {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(waker) = self.0.take() {
            drop(waker);
            return Poll::Ready(());
        }
        self.0.insert(cx.waker().clone()).wake_by_ref();
        Poll::Pending
    }
}

/// A waker that does what the waker of any executor must do: it counts its clones, and notes that it was woken.
pub(crate) fn arc_waker() -> Waker {
    struct Count(AtomicU64);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.wake_by_ref();
        }

        fn wake_by_ref(self: &Arc<Self>) {
            // ORDERING: this count does not order anything.
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    Arc::new(Count(AtomicU64::new(0))).into()
}

/// Polls a future until it is ready, with a waker that does nothing.
pub(crate) fn drive<F: Future>(future: F) -> F::Output {
    drive_with(Waker::noop(), future)
}

/// Polls a future until it is ready.
pub(crate) fn drive_with<F: Future>(waker: &Waker, future: F) -> F::Output {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
    }
}

/// Polls a future that is expected to stay pending.
pub(crate) fn poll_pending<F: Future + ?Sized>(future: Pin<&mut F>) {
    let poll = future.poll(&mut Context::from_waker(Waker::noop()));
    assert!(poll.is_pending(), "the call ended too early");
}

/// The order in which a number of calls is resumed.
#[derive(Clone, Copy)]
pub(crate) enum Order {
    RoundRobin,
    Random,
}

impl Order {
    /// A few rounds. Each call has one turn in each round.
    pub(crate) fn rounds(self, calls: usize) -> Vec<Vec<usize>> {
        let in_turn: Vec<usize> = (0..calls).collect();
        match self {
            Self::RoundRobin => vec![in_turn],
            Self::Random => {
                let mut random = 0x9E37_79B9_7F4A_7C15_u64;
                let shuffled = std::iter::repeat_with(|| shuffle(in_turn.clone(), &mut random));
                shuffled.take(8).collect()
            }
        }
    }
}

/// Fisher and Yates' shuffle, with Marsaglia's xorshift.
fn shuffle(mut items: Vec<usize>, random: &mut u64) -> Vec<usize> {
    for last in (1..items.len()).rev() {
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        let below = u64::try_from(last + 1).expect("fits");
        items.swap(last, usize::try_from(*random % below).expect("fits"));
    }
    items
}
