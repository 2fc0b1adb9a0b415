//! Async host functions: which closures can be one, and how wasm calls them.

use crate::arity::for_each_arity;
use crate::{Result, suspend_until};
use std::marker::PhantomData;
use wasmtime::{Caller, IntoFunc, Val, WasmRet, WasmTy};

/// What can be an async host function with a signature known to Rust: an async closure, or a function that returns a
/// future, of 0 to 15 parameters, with or without a [`Caller`] in front.
///
/// It is implemented for
///
/// - `AsyncFn(A1, A2, …) -> R` and
/// - `AsyncFn(Caller<'_, T>, A1, A2, …) -> R`,
///
/// where parameters are wasmtime's [`WasmTy`], and `R` is one of those, a tuple of them, or a [`wasmtime::Result`] of
/// either. The closure itself must be `Send`, `Sync` and `'static`, as for wasmtime's own `Func::wrap`; its future need
/// not be any of that. What is not `Send` goes into the store's data.
///
/// ```
/// use std::{cell::Cell, rc::Rc};
/// use wasmtime::{Caller, Engine, Store};
/// use wasmtime_async::FuncExt;
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
/// `Marker` tells the two kinds apart and is always inferred. The trait is not meant to be implemented elsewhere.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an async host function of a store with data of type `{T}`",
    label = "not a suitable async closure",
    note = "expected `async |a: i32, b: i64, …| …` or `async |caller: Caller<'_, T>, a: i32, …| …`: at most 15 parameters, \
            each with its type, each a wasm type; `Send + Sync + 'static`; returning a wasm type, a tuple of them, or a \
            `wasmtime::Result` of either"
)]
pub trait HostFn<T: 'static, Marker>: Send + Sync + 'static {
    /// The parameters, the way wasmtime wants to know them.
    #[doc(hidden)]
    type Params;
    /// What it returns.
    #[doc(hidden)]
    type Output: WasmRet;

    /// The synchronous function that wasm calls.
    #[doc(hidden)]
    fn into_blocking(self) -> impl IntoFunc<T, Self::Params, Result<Self::Output>>;
}

/// The marker of closures with a [`Caller`] in front of `Params`.
#[derive(Debug)]
pub struct WithCaller<Params>(PhantomData<Params>);

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
                move |_: Caller<'_, T>, $($arg: $Arg),*| -> Result<R> { Ok(suspend_until(self($($arg),*))?) }
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
                move |caller: Caller<'_, T>, $($arg: $Arg),*| -> Result<R> { Ok(suspend_until(self(caller, $($arg),*))?) }
            }
        }
    };
}
for_each_arity!(impl_host_fn);

/// The synchronous function that wasm calls, of an async host function whose signature is known at run time only.
pub(crate) fn into_blocking_untyped<T, F>(
    f: F,
) -> impl Fn(Caller<'_, T>, &[Val], &mut [Val]) -> Result<()> + Send + Sync + 'static
where
    T: 'static,
    F: AsyncFn(Caller<'_, T>, &[Val], &mut [Val]) -> Result<()> + Send + Sync + 'static,
{
    move |caller, params, results| suspend_until(f(caller, params, results))?
}
