//! Calls as values: each owns its stack and its store while it lasts, and gives them back at the end.

use crate::script::{Token, World};
use crate::usage::FIBER_SIZE;
use std::future::{Future, poll_fn};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use wasmtime::{Func, Store, Trap, Val};
use wasmtime_async::{Carries, FiberStack, FuncExt, Stack};
#[cfg(feature = "thread-backend")]
use wasmtime_async::{DEFAULT_STACK_SIZE, ThreadStack};

/// A stack that no call is on.
#[derive(Debug)]
pub(crate) enum Idle {
    Fiber(FiberStack),
    #[cfg(feature = "thread-backend")]
    Thread(ThreadStack),
}

impl Idle {
    pub(crate) fn fiber() -> Self {
        Self::Fiber(FiberStack::new(FIBER_SIZE).expect("there is memory"))
    }

    #[cfg(feature = "thread-backend")]
    pub(crate) fn thread() -> Self {
        Self::Thread(ThreadStack::new(DEFAULT_STACK_SIZE).expect("there are threads"))
    }
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
    /// Something that no script asks for.
    Wrong(String),
}

/// An order to a call, carried out when it is polled next.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stop {
    Drop,
    Forget,
}

pub(crate) type Done = (Idle, Store<World>, Ending);

/// A call that has not ended.
pub(crate) enum Running {
    Fiber(Pin<Box<dyn Future<Output = Done>>>),
    #[cfg(feature = "thread-backend")]
    Thread(Pin<Box<dyn Future<Output = Done> + Send>>),
}

pub(crate) type Order = Arc<Mutex<Option<Stop>>>;

impl Running {
    pub(crate) fn start(stack: Idle, store: Store<World>, run: Func, params: [i32; 2]) -> (Self, Order) {
        let order = Order::default();
        let running = match stack {
            Idle::Fiber(stack) => {
                let order = order.clone();
                Self::Fiber(Box::pin(async move {
                    let (stack, store, ending) = call(stack, store, run, params, order).await;
                    (Idle::Fiber(stack), store, ending)
                }))
            }
            #[cfg(feature = "thread-backend")]
            Idle::Thread(stack) => {
                let order = order.clone();
                Self::Thread(Box::pin(async move {
                    let (stack, store, ending) = call(stack, store, run, params, order).await;
                    (Idle::Thread(stack), store, ending)
                }))
            }
        };
        (running, order)
    }

    pub(crate) fn poll(&mut self, waker: &Waker) -> Poll<Done> {
        let mut cx = Context::from_waker(waker);
        match self {
            Self::Fiber(future) => future.as_mut().poll(&mut cx),
            #[cfg(feature = "thread-backend")]
            Self::Thread(future) => future.as_mut().poll(&mut cx),
        }
    }
}

async fn call<S: Stack + Carries<World>>(
    mut stack: S,
    mut store: Store<World>,
    run: Func,
    params: [i32; 2],
    order: Order,
) -> (S, Store<World>, Ending) {
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
        Ok(Err(error)) => match (error.downcast_ref(), error.downcast_ref()) {
            (Some(trap), _) => Ending::Trapped(*trap),
            (None, Some(token)) => Ending::Failed(*token),
            (None, None) => Ending::Wrong(format!("{error:?}")),
        },
        Err(ending) => ending,
    };
    (stack, store, ending)
}
