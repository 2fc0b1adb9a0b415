//! What may go to other threads, and what may not.

use std::marker::PhantomData;
use wasmtime::{Result, StoreContextMut};
use wasmtime_async::{Call, DefaultStack, Error, Pool, PooledStack, TypedCall, UntypedCall};

fn is_send<T: Send>() {}
fn is_sync<T: Sync>() {}
fn is_unpin<T: Unpin>() {}

/// Tells whether a type is `Send` without asking for it: an inherent constant is preferred where its bound holds.
struct IsSend<T>(PhantomData<T>);

trait Otherwise {
    const ANSWER: bool = false;
}

impl<T> Otherwise for IsSend<T> {}

impl<T: Send> IsSend<T> {
    const ANSWER: bool = true;
}

type Closure<T> = fn(StoreContextMut<'_, T>) -> Result<()>;
type NotSend = std::rc::Rc<()>;

#[test]
fn the_question_is_answered() {
    const { assert!(IsSend::<()>::ANSWER) };
    const { assert!(!IsSend::<NotSend>::ANSWER) };
}

#[test]
fn errors() {
    is_send::<Error>();
    is_sync::<Error>();
}

#[test]
fn pools() {
    fn waiting_is_send(pool: &Pool) -> impl Future + Send {
        pool.get()
    }

    is_send::<Pool>();
    is_sync::<Pool>();
    is_send::<PooledStack<DefaultStack>>();
    is_sync::<PooledStack<DefaultStack>>();
    let _ = waiting_is_send;
}

#[cfg(fiber_stack)]
#[test]
fn fiber_stacks() {
    use wasmtime_async::FiberStack;

    is_send::<FiberStack>();
    is_sync::<FiberStack>();
    is_unpin::<FiberStack>();

    is_unpin::<Call<'_, FiberStack, NotSend, Closure<NotSend>>>();
    const { assert!(!IsSend::<Call<'_, FiberStack, (), Closure<()>>>::ANSWER) };
    const { assert!(!IsSend::<Call<'_, FiberStack, NotSend, Closure<NotSend>>>::ANSWER) };
    const { assert!(!IsSend::<Call<'_, FiberStack, (), UntypedCall<'_>>>::ANSWER) };
    const { assert!(!IsSend::<Call<'_, FiberStack, (), TypedCall<'_, (), ()>>>::ANSWER) };
}

#[cfg(feature = "thread-backend")]
#[test]
fn thread_stacks() {
    use wasmtime_async::ThreadStack;

    is_send::<ThreadStack>();
    is_unpin::<ThreadStack>();

    is_send::<Call<'_, ThreadStack, (), Closure<()>>>();
    is_send::<Call<'_, ThreadStack, (), UntypedCall<'_>>>();
    is_send::<Call<'_, ThreadStack, (), TypedCall<'_, (), ()>>>();
    const { assert!(!IsSend::<Call<'_, ThreadStack, NotSend, Closure<NotSend>>>::ANSWER) };
}
