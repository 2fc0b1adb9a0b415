//! Async host functions: which closures can become one, and how wasm calls them.

#[cfg(feature = "component-model")]
pub(crate) mod component;

use crate::arity::for_each_arity;
use crate::call::store_id;
use crate::frame::Frame;
use crate::in_one_piece::in_one_piece;
use crate::limits::Site;
use crate::out_of_line::OutOfLine;
use crate::sealed::Extended;
use crate::{Error, Result};
use std::future::Future;
use std::marker::PhantomData;
use std::pin::{Pin, pin};
use wasmtime::{Caller, IntoFunc, Val, WasmRet, WasmTy};

/// A closure or function that can become an async host function.
///
/// It has 0 to 15 parameters, with or without a [`Caller`] in front. The trait is implemented for
///
/// - `AsyncFn(A1, A2, …) -> R` and
/// - `AsyncFn(Caller<'_, T>, A1, A2, …) -> R`,
///
/// which includes functions that return a future. Each parameter is a [`WasmTy`] of wasmtime's. `R` is a wasm type, a
/// tuple of wasm types, or a [`wasmtime::Result`] of either.
///
/// The closure itself must be `Send`, `Sync` and `'static`, as for wasmtime's own `Func::wrap`. Its future need not be
/// any of these. Put data that is not `Send` into the store.
///
/// ```
/// use std::{cell::Cell, rc::Rc};
/// use wasmtime::{Caller, Engine};
/// use wasmtime_async::{FuncExt, Store};
///
/// let mut store = Store::new(&Engine::default(), Rc::new(Cell::new(0)));
/// <wasmtime::Func as FuncExt>::wrap_suspending(&mut store, async |a: i32, b: i64| (b, a));
/// <wasmtime::Func as FuncExt>::wrap_suspending(&mut store, async |caller: Caller<'_, Rc<Cell<i32>>>, n: i32| {
///     let counter = Rc::clone(caller.data());
///     std::future::ready(()).await;
///     counter.set(counter.get() + n);
/// });
///
/// async fn double(n: f64) -> wasmtime::Result<f64> {
///     Ok(n * 2.0)
/// }
/// <wasmtime::Func as FuncExt>::wrap_suspending(&mut store, double);
/// ```
///
/// A closure that only panics needs a result's type: `async |n: i32| -> i32 { panic!("{n}") }`.
///
/// `Marker` tells the two forms apart and is always inferred. The trait is not meant to be implemented elsewhere.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an async host function of a store with data of type `{T}`",
    label = "not a suitable async closure",
    note = "expected `async |a: i32, b: i64, …| …` or `async |caller: Caller<'_, T>, a: i32, …| …`: at most 15 parameters, \
            each with its type, each a wasm type; `Send + Sync + 'static`; returning a wasm type, a tuple of them, or a \
            `wasmtime::Result` of either",
    note = "a closure in wasmtime's own shape, `|caller, (a, b): (i32, i64)| Box::new(async move {{ … }})`, goes to \
            `func_wrap_suspending_boxed`; one that is boxed, or of a generic type `F: Fn(i32) -> Fut`, is called by an async \
            closure: `async move |a: i32| f(a).await`"
)]
pub trait HostFn<T: 'static, Marker>: Send + Sync + 'static {
    /// The parameters in the form that wasmtime expects.
    #[doc(hidden)]
    type Params;
    /// What the function returns.
    #[doc(hidden)]
    type Output: WasmRet;

    /// Makes the synchronous function that wasm calls.
    #[doc(hidden)]
    fn into_blocking(self) -> impl IntoFunc<T, Self::Params, Result<Self::Output>>;
}

/// The marker of closures with a [`Caller`] in front of `Params`.
#[derive(Debug)]
pub struct WithCaller<Params>(PhantomData<Params>);

/// A closure or function that can become an async host function whose future is `Send`, as a
/// [`SendFiberStack`](crate::SendFiberStack) needs it. It works on every stack.
///
/// It has 0 to 15 parameters, with or without a [`Caller`] in front. The trait is implemented for
///
/// - `Fn(A1, A2, …) -> Fut` and
/// - `Fn(Caller<'_, T>, A1, A2, …) -> Fut`, whose future does not keep the `Caller`: the closure copies what it needs
///   out of the `Caller` first,
///
/// where `Fut` is a [`Future`] that is `Send`. The rest is as for [`HostFn`]. (A function that needs its `Caller` while
/// it waits uses wasmtime's own signature: see
/// [`FuncExt::wrap_suspending_boxed`](crate::FuncExt::wrap_suspending_boxed).)
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicI32, Ordering};
/// use wasmtime::{Caller, Engine};
/// use wasmtime_async::{FuncExt, Store};
///
/// let mut store = Store::new(&Engine::default(), Arc::new(AtomicI32::new(0)));
/// <wasmtime::Func as FuncExt>::wrap_suspending_send(&mut store, |a: i32, b: i64| async move { (b, a) });
/// <wasmtime::Func as FuncExt>::wrap_suspending_send(&mut store, |caller: Caller<'_, Arc<AtomicI32>>, n: i32| {
///     let counter = Arc::clone(caller.data());
///     async move {
///         std::future::ready(()).await;
///         counter.fetch_add(n, Ordering::Relaxed);
///     }
/// });
/// ```
///
/// `Marker` tells the two forms apart and is always inferred. The trait is not meant to be implemented elsewhere.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an async host function of a store with data of type `{T}`, with a future that is `Send`",
    label = "not a suitable closure",
    note = "expected `|a: i32, b: i64, …| async move {{ … }}` or `|caller: Caller<'_, T>, a: i32, …| {{ …; async move {{ … }} }}`: \
            at most 15 parameters, each with its type, each a wasm type; a future that is `Send`, of a wasm type, a tuple of \
            them, or a `wasmtime::Result` of either; itself `Send + Sync + 'static`",
    note = "a future that keeps its `Caller` cannot be used here: register `async fn f(caller: Caller<'_, T>, a: i32)` with \
            `func_wrap_suspending_boxed(…, |caller, (a,): (i32,)| Box::new(f(caller, a)))`",
    note = "of an async closure, `async |…| …`, Rust cannot ask for a `Send` future: write `|…| async move {{ … }}`, or use \
            `func_wrap_suspending`, for a `FiberStack` or a `ThreadStack`"
)]
pub trait SendHostFn<T: 'static, Marker>: Send + Sync + 'static {
    /// The parameters in the form that wasmtime expects.
    #[doc(hidden)]
    type Params;
    /// What the function returns.
    #[doc(hidden)]
    type Output: WasmRet;

    /// Makes the synchronous function that wasm calls.
    #[doc(hidden)]
    fn into_blocking(self) -> impl IntoFunc<T, Self::Params, Result<Self::Output>>;
}

/// The parameters of a host function as one tuple of 0 to 15 wasm types, as wasmtime's own `func_wrap_async` takes
/// them.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the parameters of a host function",
    label = "not a tuple of wasm types",
    note = "the parameters are one tuple of at most 15 wasm types: `(n,): (i32,)`, `(a, b): (i32, i64)`, or `(): ()`"
)]
pub trait HostParams: Extended + Sized + 'static {
    /// The parameters in the form that wasmtime expects.
    #[doc(hidden)]
    type Wasm<T: 'static>;

    /// Makes a synchronous function that takes these parameters one by one.
    #[doc(hidden)]
    fn one_by_one<T: 'static, R: WasmRet>(
        f: impl Fn(Caller<'_, T>, Self) -> Result<R> + Send + Sync + 'static,
    ) -> impl IntoFunc<T, Self::Wasm<T>, Result<R>>;
}

/// Waits for a host function's future, inside the synchronous function that wasm calls. A function without a `Caller`
/// cannot make nested calls, so `NESTS` is false.
#[inline]
fn wait<const NESTS: bool, F: Future>(store: *const (), future: Pin<&mut Option<F>>) -> Result<F::Output> {
    let site = Site::host_function(store, false);
    Frame::with_current(|frame| frame.block_on::<NESTS, F>(future, site)).map_err(Error::into_trap)
}

/// Waits for a future that is `Send`. Afterwards this code may run on another thread.
#[inline]
fn wait_send<const NESTS: bool, F: Future + Send>(
    store: *const (),
    future: Pin<&mut Option<OutOfLine<F>>>,
) -> Result<F::Output> {
    let site = Site::host_function(store, true);
    Frame::with_current(|frame| frame.block_on::<NESTS, _>(future, site)).map_err(Error::into_trap)
}

macro_rules! impl_host_fn {
    ($arity:literal $wrap:ident $get:ident $($arg:ident: $Arg:ident),*) => {
        impl<T, F, R, $($Arg),*> HostFn<T, ($($Arg,)*)> for F
        where
            T: 'static,
            F: AsyncFn($($Arg),*) -> R + Send + Sync + 'static,
            R: WasmRet,
            $($Arg: WasmTy,)*
        {
            type Params = (Caller<'static, T>, $($Arg),*);
            type Output = R;

            fn into_blocking(self) -> impl IntoFunc<T, Self::Params, Result<R>> {
                move |caller: Caller<'_, T>, $($arg: $Arg),*| -> Result<R> { wait::<false, _>(store_id(&caller), pin!(Some(self($($arg),*)))) }
            }
        }

        impl<T, F, R, $($Arg),*> HostFn<T, WithCaller<($($Arg,)*)>> for F
        where
            T: 'static,
            F: AsyncFn(Caller<'_, T>, $($Arg),*) -> R + Send + Sync + 'static,
            R: WasmRet,
            $($Arg: WasmTy,)*
        {
            type Params = (Caller<'static, T>, $($Arg),*);
            type Output = R;

            fn into_blocking(self) -> impl IntoFunc<T, Self::Params, Result<R>> {
                move |caller: Caller<'_, T>, $($arg: $Arg),*| -> Result<R> {
                    wait::<true, _>(store_id(&caller), pin!(Some(self(in_one_piece(caller), $($arg),*))))
                }
            }
        }

        impl<T, F, Fut, $($Arg),*> SendHostFn<T, ($($Arg,)*)> for F
        where
            T: 'static,
            F: Fn($($Arg),*) -> Fut + Send + Sync + 'static,
            Fut: Future<Output: WasmRet> + Send,
            $($Arg: WasmTy,)*
        {
            type Params = (Caller<'static, T>, $($Arg),*);
            type Output = Fut::Output;

            fn into_blocking(self) -> impl IntoFunc<T, Self::Params, Result<Fut::Output>> {
                move |caller: Caller<'_, T>, $($arg: $Arg),*| -> Result<Fut::Output> {
                    wait_send::<false, _>(store_id(&caller), pin!(Some(OutOfLine::new(self($($arg),*)))))
                }
            }
        }

        impl<T, F, Fut, $($Arg),*> SendHostFn<T, WithCaller<($($Arg,)*)>> for F
        where
            T: 'static,
            F: Fn(Caller<'_, T>, $($Arg),*) -> Fut + Send + Sync + 'static,
            Fut: Future<Output: WasmRet> + Send,
            $($Arg: WasmTy,)*
        {
            type Params = (Caller<'static, T>, $($Arg),*);
            type Output = Fut::Output;

            fn into_blocking(self) -> impl IntoFunc<T, Self::Params, Result<Fut::Output>> {
                move |caller: Caller<'_, T>, $($arg: $Arg),*| -> Result<Fut::Output> {
                    wait_send::<false, _>(store_id(&caller), pin!(Some(OutOfLine::new(self(caller, $($arg),*)))))
                }
            }
        }

        impl<$($Arg: WasmTy + 'static),*> Extended for ($($Arg,)*) {}

        impl<$($Arg: WasmTy + 'static),*> HostParams for ($($Arg,)*) {
            type Wasm<T: 'static> = (Caller<'static, T>, $($Arg),*);

            fn one_by_one<T: 'static, R: WasmRet>(
                f: impl Fn(Caller<'_, T>, Self) -> Result<R> + Send + Sync + 'static,
            ) -> impl IntoFunc<T, Self::Wasm<T>, Result<R>> {
                move |caller: Caller<'_, T>, $($arg: $Arg),*| -> Result<R> { f(caller, ($($arg,)*)) }
            }
        }
    };
}
for_each_arity!(impl_host_fn);

/// The future of a host function with wasmtime's own signature.
pub(crate) type Boxed<'a, R> = Box<dyn Future<Output = R> + Send + 'a>;

/// Makes the synchronous function that wasm calls, from an async host function with wasmtime's own signature.
pub(crate) fn boxed_into_blocking<T, P, R>(
    f: impl Fn(Caller<'_, T>, P) -> Boxed<'_, R> + Send + Sync + 'static,
) -> impl IntoFunc<T, P::Wasm<T>, Result<R>>
where
    T: 'static,
    P: HostParams,
    R: WasmRet,
{
    P::one_by_one(move |caller, params| {
        wait_send::<true, _>(store_id(&caller), pin!(Some(OutOfLine::new(Box::into_pin(f(caller, params))))))
    })
}

/// Makes the synchronous function that wasm calls, from an async host function whose signature is only known at run
/// time.
pub(crate) fn into_blocking_untyped<T, F>(
    f: F,
) -> impl Fn(Caller<'_, T>, &[Val], &mut [Val]) -> Result<()> + Send + Sync + 'static
where
    T: 'static,
    F: AsyncFn(Caller<'_, T>, &[Val], &mut [Val]) -> Result<()> + Send + Sync + 'static,
{
    move |caller, params, results| wait::<true, _>(store_id(&caller), pin!(Some(f(caller, params, results))))?
}

/// Does the same for an async host function with wasmtime's own signature.
pub(crate) fn boxed_into_blocking_untyped<T, F>(
    f: F,
) -> impl Fn(Caller<'_, T>, &[Val], &mut [Val]) -> Result<()> + Send + Sync + 'static
where
    T: 'static,
    F: for<'a> Fn(Caller<'a, T>, &'a [Val], &'a mut [Val]) -> Boxed<'a, Result<()>> + Send + Sync + 'static,
{
    // Gives everything the same lifetime, the shortest one.
    fn call<'a, T: 'static>(
        f: &impl Fn(Caller<'a, T>, &'a [Val], &'a mut [Val]) -> Boxed<'a, Result<()>>,
        caller: Caller<'a, T>,
        params: &'a [Val],
        results: &'a mut [Val],
    ) -> Result<()> {
        wait_send::<true, _>(store_id(&caller), pin!(Some(OutOfLine::new(Box::into_pin(f(caller, params, results))))))?
    }
    move |caller, params, results| call(&f, caller, params, results)
}
