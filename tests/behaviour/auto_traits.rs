//! Which values can be sent to other threads, and which cannot.

use std::marker::PhantomData;
use wasmtime::{Result, StoreContextMut};
use wasmtime_async::{Between, Call, Carries, DefaultStack, Error, Pool, PooledStack, Stack, Store, Until};

fn is_send<T: Send>() {}
fn is_sync<T: Sync>() {}
fn is_unpin<T: Unpin>() {}

/// Tells whether a bound holds without requiring it: an inherent constant takes precedence where its bound holds.
macro_rules! question {
    ($name:ident, $bound:path) => {
        struct $name<T>(PhantomData<T>);

        impl<T> Otherwise for $name<T> {}

        impl<T: $bound> $name<T> {
            #[allow(dead_code, reason = "with some features, each answer is no")]
            const ANSWER: bool = true;
        }
    };
}

trait Otherwise {
    const ANSWER: bool = false;
}

question!(IsSend, Send);
question!(IsSync, Sync);
question!(IsSendStack, wasmtime_async::SendStack);
question!(CarriesWhatIsNotSend, Carries<NotSend>);

type Closure<T> = fn(StoreContextMut<'_, T>) -> Result<()>;
type NotSend = std::rc::Rc<()>;

#[test]
fn the_question_is_answered() {
    const { assert!(IsSend::<()>::ANSWER) };
    const { assert!(!IsSend::<NotSend>::ANSWER) };
    const { assert!(IsSync::<()>::ANSWER) };
    const { assert!(!IsSync::<NotSend>::ANSWER) };
    const { assert!(!IsSendStack::<()>::ANSWER) };
    const { assert!(!CarriesWhatIsNotSend::<()>::ANSWER) };
}

#[test]
fn errors() {
    is_send::<Error>();
    is_sync::<Error>();
    is_send::<Between>();
    is_sync::<Between>();
}

#[test]
fn stores() {
    is_send::<Store<()>>();
    is_sync::<Store<()>>();
    is_unpin::<Store<()>>();
    const { assert!(!IsSend::<Store<NotSend>>::ANSWER) };
    const { assert!(!IsSync::<Store<NotSend>>::ANSWER) };
}

/// An idle stack of any kind can be sent, and so can a pool.
fn stacks_are_send<S: Stack + Send + Sync + Unpin>() {
    fn waiting_is_send<S: Stack + Send>(pool: &Pool<S>) -> impl Future + Send {
        pool.get()
    }

    is_send::<Pool<S>>();
    is_sync::<Pool<S>>();
    is_send::<PooledStack<S>>();
    is_sync::<PooledStack<S>>();
    let _ = waiting_is_send::<S>;
}

#[test]
fn default_stacks() {
    stacks_are_send::<DefaultStack>();
}

#[cfg(fiber_stack)]
#[test]
fn fiber_stacks() {
    use wasmtime_async::{FiberStack, Instantiate, InstantiatePre, TypedCall, UntypedCall};

    stacks_are_send::<FiberStack>();
    const { assert!(!IsSendStack::<FiberStack>::ANSWER) };
    const { assert!(CarriesWhatIsNotSend::<FiberStack>::ANSWER) };

    is_unpin::<Call<'_, FiberStack, NotSend, Closure<NotSend>>>();
    const { assert!(!IsSend::<Call<'_, FiberStack, (), Closure<()>>>::ANSWER) };
    const { assert!(!IsSend::<Call<'_, FiberStack, NotSend, Closure<NotSend>>>::ANSWER) };
    const { assert!(!IsSend::<Call<'_, FiberStack, (), UntypedCall<'_>>>::ANSWER) };
    const { assert!(!IsSend::<Call<'_, FiberStack, (), TypedCall<'_, (), ()>>>::ANSWER) };
    const { assert!(!IsSend::<Call<'_, FiberStack, (), Instantiate<'_, ()>>>::ANSWER) };
    const { assert!(!IsSend::<Call<'_, FiberStack, (), InstantiatePre<'_, ()>>>::ANSWER) };
}

/// The calls of a stack whose calls may change threads.
macro_rules! calls_are_send {
    ($stack:ty) => {{
        use wasmtime_async::{Instantiate, InstantiatePre, TypedCall, UntypedCall};

        stacks_are_send::<$stack>();
        const { assert!(IsSendStack::<$stack>::ANSWER) };
        const { assert!(!CarriesWhatIsNotSend::<$stack>::ANSWER) };

        is_unpin::<Call<'_, $stack, (), Closure<()>>>();
        is_send::<Call<'_, $stack, (), Closure<()>>>();
        is_send::<Call<'_, $stack, (), UntypedCall<'_>>>();
        is_send::<Call<'_, $stack, (), TypedCall<'_, (), ()>>>();
        is_send::<Call<'_, $stack, (), Instantiate<'_, ()>>>();
        is_send::<Call<'_, $stack, (), InstantiatePre<'_, ()>>>();
        is_unpin::<Until<'_, $stack, (), Closure<()>, ()>>();
        is_send::<Until<'_, $stack, (), Closure<()>, ()>>();
        const { assert!(!IsSend::<Until<'_, $stack, (), Closure<()>, NotSend>>::ANSWER) };
        // Before it starts, a call holds its store.
        const { assert!(!IsSend::<Call<'_, $stack, NotSend, Closure<NotSend>>>::ANSWER) };
        const { assert!(!IsSend::<Call<'_, $stack, NotSend, UntypedCall<'_>>>::ANSWER) };
        const { assert!(!IsSend::<Call<'_, $stack, NotSend, TypedCall<'_, (), ()>>>::ANSWER) };
    }};
}

#[cfg(fiber_stack)]
#[test]
fn send_fiber_stacks() {
    calls_are_send!(wasmtime_async::SendFiberStack);
}

#[cfg(feature = "thread-backend")]
#[test]
fn thread_stacks() {
    calls_are_send!(wasmtime_async::ThreadStack);
}
