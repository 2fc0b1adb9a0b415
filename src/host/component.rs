//! Makes the synchronous functions that components call, from async host functions and destructors of resources.

use super::{Boxed, wait, wait_send};
use crate::Result;
use crate::call::store_id;
use crate::out_of_line::OutOfLine;
use std::future::Future;
use std::pin::pin;
use wasmtime::StoreContextMut;
use wasmtime::component::Val;
use wasmtime::component::types::ComponentFunc;

/// From an async closure.
pub(crate) fn blocking<T, P, R>(
    f: impl AsyncFn(StoreContextMut<'_, T>, P) -> Result<R> + Send + Sync + 'static,
) -> impl Fn(StoreContextMut<'_, T>, P) -> Result<R> + Send + Sync + 'static
where
    T: 'static,
{
    move |store, params| wait::<true, _>(store_id(&store), pin!(Some(f(store, params))))?
}

/// From a closure that returns a `Send` future. That future cannot keep the store's context, so it makes no nested
/// calls.
pub(crate) fn blocking_send<T, P, R, Fut>(
    f: impl Fn(StoreContextMut<'_, T>, P) -> Fut + Send + Sync + 'static,
) -> impl Fn(StoreContextMut<'_, T>, P) -> Result<R> + Send + Sync + 'static
where
    T: 'static,
    Fut: Future<Output = Result<R>> + Send,
{
    move |store, params| wait_send::<false, _>(store_id(&store), pin!(Some(OutOfLine::new(f(store, params)))))?
}

/// From a closure with wasmtime's own signature.
pub(crate) fn blocking_boxed<T, P, R>(
    f: impl Fn(StoreContextMut<'_, T>, P) -> Boxed<'_, Result<R>> + Send + Sync + 'static,
) -> impl Fn(StoreContextMut<'_, T>, P) -> Result<R> + Send + Sync + 'static
where
    T: 'static,
{
    move |store, params| {
        wait_send::<true, _>(store_id(&store), pin!(Some(OutOfLine::new(Box::into_pin(f(store, params))))))?
    }
}

/// From an async closure whose type is only known at run time.
pub(crate) fn blocking_untyped<T, F>(
    f: F,
) -> impl Fn(StoreContextMut<'_, T>, ComponentFunc, &[Val], &mut [Val]) -> Result<()> + Send + Sync + 'static
where
    T: 'static,
    F: AsyncFn(StoreContextMut<'_, T>, ComponentFunc, &[Val], &mut [Val]) -> Result<()> + Send + Sync + 'static,
{
    move |store, ty, params, results| wait::<true, _>(store_id(&store), pin!(Some(f(store, ty, params, results))))?
}

/// From a closure with wasmtime's own signature, whose type is only known at run time.
pub(crate) fn blocking_boxed_untyped<T, F>(
    f: F,
) -> impl Fn(StoreContextMut<'_, T>, ComponentFunc, &[Val], &mut [Val]) -> Result<()> + Send + Sync + 'static
where
    T: 'static,
    F: for<'a> Fn(StoreContextMut<'a, T>, ComponentFunc, &'a [Val], &'a mut [Val]) -> Boxed<'a, Result<()>>
        + Send
        + Sync
        + 'static,
{
    // Gives everything the same lifetime, the shortest one.
    fn call<'a, T: 'static>(
        f: &impl Fn(StoreContextMut<'a, T>, ComponentFunc, &'a [Val], &'a mut [Val]) -> Boxed<'a, Result<()>>,
        store: StoreContextMut<'a, T>,
        ty: ComponentFunc,
        params: &'a [Val],
        results: &'a mut [Val],
    ) -> Result<()> {
        let id = store_id(&store);
        wait_send::<true, _>(id, pin!(Some(OutOfLine::new(Box::into_pin(f(store, ty, params, results))))))?
    }
    move |store, ty, params, results| call(&f, store, ty, params, results)
}
