//! The store: wasmtime's store, and whether a call is suspended in it.

#[cfg(call_hook)]
use crate::stack::fiber::count_entries;
use std::fmt;
use std::mem;
use std::ops::{Deref, DerefMut};
use wasmtime::{AsContext, AsContextMut, Engine, StoreContext, StoreContextMut};

/// A [`wasmtime::Store`] for calls on stacks.
///
/// Use it like wasmtime's store: it dereferences to one, and works as a context for wasmtime's functions.
///
/// A call borrows the store until the call ends or is dropped. During a call, host functions have a
/// [`Caller`](wasmtime::Caller) instead. They use it to call guests of the same store: with
/// [`AsyncFunc::call_within`](crate::AsyncFunc::call_within) and similar methods, which may wait, or, unless such a
/// call is suspended, with wasmtime's own `func.call(&mut caller, …)`.
///
/// # Forgetting
///
/// A suspended call that is forgotten ([`mem::forget`], a leaked `Box`, a cycle of `Rc`) stays inside its store
/// forever. From then on the store is lost: every use except `Debug` panics, and dropping it leaks its memory.
///
/// # Call hooks
///
/// This concerns wasmtime's feature `call-hook` on systems other than Linux and Windows. There each of these stores has
/// a hook of this crate's, which counts how often guests are entered. Making one from a [`wasmtime::Store`] replaces
/// the hook that this had. If you replace this crate's hook, the store's guests cannot wait on checked fiber stacks.
///
/// # Examples
///
/// ```
/// use wasmtime::{Engine, Func};
/// use wasmtime_async::Store;
///
/// let mut store = Store::new(&Engine::default(), 20); // or `Store::from` one of wasmtime's
/// *store.data_mut() += 1;
/// let double = Func::wrap(&mut store, |caller: wasmtime::Caller<'_, i32>| caller.data() * 2);
/// assert_eq!(double.typed::<(), i32>(&store)?.call(&mut store, ())?, 42);
/// let store: wasmtime::Store<i32> = store.into_inner();
/// # Ok::<(), wasmtime::Error>(())
/// ```
pub struct Store<T: 'static> {
    /// `None` only while `into_inner` or `drop` takes this apart.
    inner: Option<wasmtime::Store<T>>,
    /// A call sets this when it suspends, and clears it when it resumes.
    suspended: bool,
}

impl<T: 'static> Store<T> {
    /// Makes a store, as [`wasmtime::Store::new`] does.
    pub fn new(engine: &Engine, data: T) -> Self {
        wasmtime::Store::new(engine, data).into()
    }

    /// Unwraps wasmtime's store.
    ///
    /// # Panics
    ///
    /// If the store is lost.
    pub fn into_inner(mut self) -> wasmtime::Store<T> {
        self.check();
        self.inner.take().expect("is there until now")
    }

    /// Drops the store and returns its data.
    ///
    /// # Panics
    ///
    /// If the store is lost.
    pub fn into_data(self) -> T {
        self.into_inner().into_data()
    }

    /// Returns what a call needs: wasmtime's store, and the flag that says whether the call is suspended.
    #[inline]
    pub(crate) fn enter(&mut self) -> (StoreContextMut<'_, T>, &mut bool) {
        self.check();
        (self.inner.as_mut().expect("is there").as_context_mut(), &mut self.suspended)
    }

    #[inline]
    fn check(&self) {
        /// Not generic, so that the program has it only once.
        #[cold]
        #[track_caller]
        fn lost() -> ! {
            panic!(
                "this store is lost, because a suspended call in it was forgotten: drop calls, or run them to their end, and \
                 make a new store"
            )
        }
        if self.suspended {
            lost();
        }
    }
}

impl<T: 'static> From<wasmtime::Store<T>> for Store<T> {
    fn from(store: wasmtime::Store<T>) -> Self {
        #[cfg(call_hook)]
        let store = {
            let mut store = store;
            count_entries(&mut store);
            store
        };
        Self { inner: Some(store), suspended: false }
    }
}

impl<T: 'static> From<Store<T>> for wasmtime::Store<T> {
    fn from(store: Store<T>) -> Self {
        store.into_inner()
    }
}

impl<T: 'static> Deref for Store<T> {
    type Target = wasmtime::Store<T>;

    #[inline]
    fn deref(&self) -> &Self::Target {
        self.check();
        self.inner.as_ref().expect("is there")
    }
}

impl<T: 'static> DerefMut for Store<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.check();
        self.inner.as_mut().expect("is there")
    }
}

impl<T: 'static> AsContext for Store<T> {
    type Data = T;

    #[inline]
    fn as_context(&self) -> StoreContext<'_, T> {
        (**self).as_context()
    }
}

impl<T: 'static> AsContextMut for Store<T> {
    #[inline]
    fn as_context_mut(&mut self) -> StoreContextMut<'_, T> {
        (**self).as_context_mut()
    }
}

impl<T: 'static> Drop for Store<T> {
    fn drop(&mut self) {
        if self.suspended {
            // The frames of the forgotten call still refer to the store.
            mem::forget(self.inner.take());
        }
    }
}

impl<T: fmt::Debug + 'static> fmt::Debug for Store<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut store = f.debug_struct("Store");
        match &self.inner {
            Some(inner) if !self.suspended => store.field("data", inner.data()).finish_non_exhaustive(),
            _ => store.field("lost", &true).finish_non_exhaustive(),
        }
    }
}

/// What a call takes as its store: `&mut` a [`Store`] of this crate.
///
/// Use it as a bound in code that is generic over the stack. Implement it for a type that wraps a store.
#[diagnostic::on_unimplemented(
    message = "a call on a stack takes a `wasmtime_async::Store`, but `{Self}` is not one",
    label = "not a store of this crate",
    note = "inside a call, call the guest right there: in an async host function by `func.call_within(&mut caller, …)`, which \
            may wait, or by wasmtime's own `func.call(&mut caller, …)`; for modules by `linker.instantiate_within(&mut caller, \
            …)` or `linker.instantiate(&mut caller, …)`",
    note = "a `wasmtime::Store` becomes one by `wasmtime_async::Store::from(store)`"
)]
pub trait AsStoreMut {
    /// The store's data.
    type Data: 'static;

    /// The store.
    fn as_store_mut(&mut self) -> &mut Store<Self::Data>;
}

impl<T: 'static> AsStoreMut for Store<T> {
    type Data = T;

    #[inline]
    fn as_store_mut(&mut self) -> &mut Store<T> {
        self
    }
}

impl<S: AsStoreMut> AsStoreMut for &mut S {
    type Data = S::Data;

    #[inline]
    fn as_store_mut(&mut self) -> &mut Store<S::Data> {
        (**self).as_store_mut()
    }
}
