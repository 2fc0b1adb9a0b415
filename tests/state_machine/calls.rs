//! Calls as values. Each owns its stack and its store while it lasts, and returns them at the end.

use crate::script::Token;
use crate::shared::World;
use crate::usage::FIBER_SIZE;
use std::future::{Future, poll_fn};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex};
use std::task::{Context, Poll, Waker};
use wasmtime::{Func, Trap, Val};
use wasmtime_async::{Between, Carries, Error, FiberStack, FuncExt, SendFiberStack, Stack, Store};
#[cfg(feature = "thread-backend")]
use wasmtime_async::{DEFAULT_STACK_SIZE, ThreadStack};

/// The kind of stack that a call runs on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Fiber,
    Unchecked,
    Send,
    #[cfg(feature = "thread-backend")]
    Thread,
}

impl Kind {
    const ALL: &[Self] = &[
        Self::Fiber,
        Self::Unchecked,
        Self::Send,
        #[cfg(feature = "thread-backend")]
        Self::Thread,
    ];

    /// The kinds that exist here.
    pub(crate) fn all() -> &'static [Self] {
        static ALL: LazyLock<Vec<Kind>> = LazyLock::new(|| {
            let is_there = |kind: &Kind| match kind {
                Kind::Fiber => FiberStack::new(FIBER_SIZE).is_ok(),
                Kind::Send => sees_activations(),
                Kind::Unchecked => true,
                #[cfg(feature = "thread-backend")]
                Kind::Thread => true,
            };
            Kind::ALL.iter().copied().filter(is_there).collect()
        });
        &ALL
    }

    pub(crate) fn is_fiber(self) -> bool {
        matches!(self, Self::Fiber | Self::Unchecked | Self::Send)
    }

    /// Whether it suspends only known frames.
    pub(crate) fn refuses(self) -> bool {
        matches!(self, Self::Fiber | Self::Send)
    }

    /// Whether a call that a host function makes as a future runs within one poll. Then nothing else that the host
    /// function waits for is polled in the meantime.
    pub(crate) fn calls_in_place(self) -> bool {
        !self.is_fiber()
    }

    /// Whether its calls stay on one thread.
    pub(crate) fn stays(self) -> bool {
        matches!(self, Self::Fiber | Self::Unchecked)
    }
}

/// Whether stacks can see that a host function has called the guest again, and therefore let it do so as a future. They
/// cannot where wasmtime's list of activations cannot be read.
pub(crate) fn sees_activations() -> bool {
    static SEES: LazyLock<bool> =
        LazyLock::new(|| !matches!(SendFiberStack::new(FIBER_SIZE), Err(Error::NoThreadList)));
    *SEES
}

/// A stack without a call.
#[derive(Debug)]
pub(crate) enum Idle {
    Fiber(FiberStack),
    Unchecked(FiberStack),
    Send(SendFiberStack),
    #[cfg(feature = "thread-backend")]
    Thread(ThreadStack),
}

impl Idle {
    pub(crate) fn new(kind: Kind) -> Self {
        match kind {
            Kind::Fiber => Self::Fiber(FiberStack::new(FIBER_SIZE).expect("there is memory")),
            Kind::Unchecked => Self::Unchecked(unchecked()),
            Kind::Send => Self::Send(SendFiberStack::new(FIBER_SIZE).expect("there is memory")),
            #[cfg(feature = "thread-backend")]
            Kind::Thread => Self::Thread(ThreadStack::new(DEFAULT_STACK_SIZE).expect("there are threads")),
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Fiber(_) => Kind::Fiber,
            Self::Unchecked(_) => Kind::Unchecked,
            Self::Send(_) => Kind::Send,
            #[cfg(feature = "thread-backend")]
            Self::Thread(_) => Kind::Thread,
        }
    }
}

#[expect(unsafe_code, reason = "such stacks are among what is to be tested")]
fn unchecked() -> FiberStack {
    // SAFETY: only host functions of this program are suspended here. They wait outside of all locks and thread-local
    // variables, and their values may be dropped in any order, or never.
    unsafe { FiberStack::unchecked(FIBER_SIZE) }.expect("there is memory")
}

/// How a call ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Ending {
    Returned(i32),
    Trapped(Trap),
    Failed(Token),
    Panicked(Token),
    Dropped,
    Forgotten,
    /// A call within it was forgotten.
    Lost,
    /// Something wanted to wait where the stack does not suspend.
    Refused(Between),
    /// The pending future was not registered as `Send`.
    NotSend,
    /// Something that no script asks for.
    Wrong(String),
}

impl Ending {
    /// The name under which this is counted.
    pub(crate) fn name(&self) -> String {
        let text = format!("{self:?}");
        match self {
            Self::Refused(_) => text,
            _ => text.split('(').next().unwrap_or_default().to_owned(),
        }
    }
}

/// An instruction to a call. It takes effect at the next poll.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stop {
    Drop,
    Forget,
}

pub(crate) type Done = (Idle, Store<World>, Ending);

/// A call that has not ended.
pub(crate) enum Running {
    Stays(Pin<Box<dyn Future<Output = Done>>>),
    Moves(Pin<Box<dyn Future<Output = Done> + Send>>),
}

pub(crate) type Order = Arc<Mutex<Option<Stop>>>;

impl Running {
    pub(crate) fn start(stack: Idle, store: Store<World>, run: Func, params: [i32; 2]) -> (Self, Order) {
        let order = Order::default();
        let to_take = order.clone();
        let running = match stack {
            Idle::Fiber(stack) => Self::Stays(Box::pin(call(stack, Idle::Fiber, store, run, params, to_take))),
            Idle::Unchecked(stack) => Self::Stays(Box::pin(call(stack, Idle::Unchecked, store, run, params, to_take))),
            Idle::Send(stack) => Self::Moves(Box::pin(call(stack, Idle::Send, store, run, params, to_take))),
            #[cfg(feature = "thread-backend")]
            Idle::Thread(stack) => Self::Moves(Box::pin(call(stack, Idle::Thread, store, run, params, to_take))),
        };
        (running, order)
    }

    pub(crate) fn poll(&mut self, waker: &Waker) -> Poll<Done> {
        let mut cx = Context::from_waker(waker);
        match self {
            Self::Stays(future) => future.as_mut().poll(&mut cx),
            Self::Moves(future) => future.as_mut().poll(&mut cx),
        }
    }
}

async fn call<S: Stack + Carries<World>>(
    mut stack: S,
    idle: fn(S) -> Idle,
    mut store: Store<World>,
    run: Func,
    params: [i32; 2],
    order: Order,
) -> Done {
    let (params, mut results) = (params.map(Val::I32), [Val::I32(-1)]);
    let ending = {
        let mut call = Some(Box::pin(run.call_on(&mut stack, &mut store, &params, &mut results)));
        let outcome = poll_fn(|cx| match order.lock().expect("not held in a panic").take() {
            Some(Stop::Drop) => {
                call = None;
                Poll::Ready(Err(Ending::Dropped))
            }
            Some(Stop::Forget) => {
                mem::forget(call.take());
                Poll::Ready(Err(Ending::Forgotten))
            }
            None => {
                let call = call.as_mut().expect("is polled until it is ready");
                match catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(cx))) {
                    Ok(Poll::Pending) => Poll::Pending,
                    Ok(Poll::Ready(result)) => Poll::Ready(Ok(result)),
                    Err(payload) => Poll::Ready(Err(match payload.downcast() {
                        Ok(token) => Ending::Panicked(*token),
                        Err(payload) => {
                            let text = payload.downcast_ref::<String>().cloned();
                            Ending::Wrong(format!("panicked: {}", text.unwrap_or_default()))
                        }
                    })),
                }
            }
        })
        .await;
        drop(call);
        outcome
    };
    let ending = match ending {
        Ok(Ok(())) => Ending::Returned(results[0].unwrap_i32()),
        Ok(Err(error)) => match (error.downcast_ref(), error.downcast_ref(), error.downcast_ref()) {
            (Some(trap), ..) => Ending::Trapped(*trap),
            (_, Some(token), _) => Ending::Failed(*token),
            (.., Some(Error::ForeignFrames { between, .. })) => Ending::Refused(*between),
            (.., Some(Error::NotSend)) => Ending::NotSend,
            (.., Some(Error::Lost)) => Ending::Lost,
            _ => Ending::Wrong(format!("{error:?}")),
        },
        Err(ending) => ending,
    };
    (idle(stack), store, ending)
}
