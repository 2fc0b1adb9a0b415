//! What a generic test needs of a stack.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use wasmtime::{AsContextMut, Result, Store, StoreContextMut};
use wasmtime_async::{AsyncFunc, Call, Carries, Stack};

/// A stack of either kind.
///
/// What a stack can carry is a bound of each call. That of closures, which have no name, cannot be stated for a generic
/// stack, so closures are run by [`go`](Self::go), which asks for what the more demanding kind does.
pub(crate) trait AnyStack: Stack + Send + Carries<()> + Carries<Host> + 'static {
    /// [`Stack::run`].
    fn go<'a, C, F, R>(&'a mut self, store: &'a mut C, f: F) -> Call<'a, Self, C::Data, F>
    where
        C: AsContextMut<Data: Send>,
        F: FnOnce(StoreContextMut<'_, C::Data>) -> Result<R> + Send,
        R: Send;

    /// A call with all that it needs, on its way from one place to another. `Send` if calls on this stack are.
    type Boxed: Future<Output = Result<i32>> + Unpin + 'static;

    /// Calls a function on this stack.
    fn boxed(self, store: Store<Host>, run: AsyncFunc<i32, i32>, param: i32) -> Self::Boxed;
}

macro_rules! any_stack {
    ($stack:ty, $($send:ident)?) => {
        impl AnyStack for $stack {
            type Boxed = Pin<Box<dyn Future<Output = Result<i32>> $(+ $send)?>>;

            fn boxed(mut self, mut store: Store<Host>, run: AsyncFunc<i32, i32>, param: i32) -> Self::Boxed {
                Box::pin(async move { run.call(&mut self, &mut store, param).await })
            }

            fn go<'a, C, F, R>(&'a mut self, store: &'a mut C, f: F) -> Call<'a, Self, C::Data, F>
            where
                C: AsContextMut<Data: Send>,
                F: FnOnce(StoreContextMut<'_, C::Data>) -> Result<R> + Send,
                R: Send,
            {
                self.run(store, f)
            }
        }
    };
}

#[cfg(fiber_stack)]
any_stack!(wasmtime_async::FiberStack,);
#[cfg(feature = "thread-backend")]
any_stack!(wasmtime_async::ThreadStack, Send);

/// The data of most tests' stores.
#[derive(Clone, Debug, Default)]
pub(crate) struct Host {
    /// Tells stores apart.
    pub(crate) id: i32,
    /// What happened, in order. Can be read while the store is in a call.
    pub(crate) log: Log,
}

/// A list of what happened that several can write to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub(crate) fn add(&self, what: impl Into<String>) {
        self.0.lock().expect("nothing panics with the lock held").push(what.into());
    }

    /// All that was added since this was last called.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().expect("nothing panics with the lock held"))
    }

    /// A value that adds an entry when it is dropped.
    pub(crate) fn on_drop(&self, what: &'static str) -> OnDrop {
        OnDrop(self.clone(), what)
    }
}

/// See [`Log::on_drop`].
#[derive(Debug)]
pub(crate) struct OnDrop(Log, &'static str);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.add(self.1);
    }
}
