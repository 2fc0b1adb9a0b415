//! Functions: making async host functions, and calling functions on a stack.

use crate::arity::for_each_arity;
use crate::call::{Call, Job};
use crate::host::{
    HostFn, HostParams, SendHostFn, boxed_into_blocking, boxed_into_blocking_untyped, into_blocking_untyped,
};
use crate::sealed::Extended;
use crate::{AsStoreMut, AsyncGetter, CallWithin, Carries, Result, Stack};
use std::future::Future;
use wasmtime::{AsContext, AsContextMut, Caller, Func, FuncType, StoreContextMut, Val, WasmRet, WasmTy};

macro_rules! wrap_async_n {
    ($arity:literal $wrap:ident $get:ident $($arg:ident: $Arg:ident),*) => {
        #[doc = concat!("[`wrap_suspending`](Self::wrap_suspending) of a closure with a [`Caller`] and ", $arity, " more.")]
        fn $wrap<T: 'static, $($Arg: WasmTy,)* R: WasmRet>(
            store: impl AsContextMut<Data = T>,
            f: impl AsyncFn(Caller<'_, T>, $($Arg),*) -> R + Send + Sync + 'static,
        ) -> Self {
            Self::wrap_suspending(store, f)
        }
    };
}

/// Async host functions for [`wasmtime::Func`], and calls that may suspend.
///
/// To the guest, an async host function looks like any other: it returns when its future is ready. While the future is
/// pending, the guest's stack is suspended and the call's own future is pending, too.
///
/// # Two sets of names
///
/// wasmtime has its own `Func::new_async`, `wrap_async` and `call_async` once its feature `async` is on anywhere in the
/// build. [`FiberStack`](crate::FiberStack) needs that feature, and Rust prefers these functions to a trait's methods.
/// So the methods here have names that nothing shadows: [`new_suspending`](Self::new_suspending),
/// [`wrap_suspending`](Self::wrap_suspending) and [`call_on`](Self::call_on). To use the shorter names, name the trait:
/// `<Func as FuncExt>::wrap_async(…)`, `FuncExt::call_async(&func, …)`.
///
/// # Examples
///
/// ```
/// use futures_timer::Delay;
/// use std::time::Duration;
/// use wasmtime::{Engine, Func, Instance, Module};
/// use wasmtime_async::{DEFAULT_STACK_SIZE, DefaultStack, FuncExt, Stack, Store};
///
/// # fn main() -> wasmtime::Result<()> {
/// let engine = Engine::default();
/// let mut store = Store::new(&engine, ());
/// let fetch = Func::wrap_suspending(&mut store, async |id: i32| -> i32 {
///     Delay::new(Duration::from_millis(10)).await; // any future: a socket, a channel …
///     id * 10
/// });
/// let module = Module::new(
///     &engine,
///     r#"(module
///         (import "" "fetch" (func $fetch (param i32) (result i32)))
///         (func (export "sum") (result i32) (i32.add (call $fetch (i32.const 1)) (call $fetch (i32.const 2)))))"#,
/// )?;
/// let instance = Instance::new(&mut store, &module, &[fetch.into()])?;
/// let sum = instance.get_func(&mut store, "sum").expect("is exported").get_async(&store).get0::<i32>()?;
///
/// let mut stack = DefaultStack::new(DEFAULT_STACK_SIZE)?;
/// let call = sum.call(&mut stack, &mut store, ());
/// assert_eq!(futures::executor::block_on(call)?, 30);
/// # Ok(())
/// # }
/// ```
pub trait FuncExt: Extended + Copy + From<Func> + Into<Func> {
    /// Makes an async host function whose signature is only known at run time. It gets its parameters as [`Val`]s and
    /// writes its results to the second slice.
    ///
    /// # Errors
    ///
    /// A call of the function makes the guest trap
    ///
    /// - with the error that the function returns;
    /// - with [`Error::NotOnStack`] if the guest was not entered on a stack of this crate;
    /// - with [`Error::Cancelled`] if the call is dropped;
    /// - with [`Error::ForeignFrames`] if the future is pending and the stack holds frames that it does not suspend;
    /// - with [`Error::NotSend`] if the future is pending on a [`SendFiberStack`](crate::SendFiberStack).
    ///
    /// # Panics
    ///
    /// If `ty` belongs to another engine.
    ///
    /// [`Error::NotOnStack`]: crate::Error::NotOnStack
    /// [`Error::Cancelled`]: crate::Error::Cancelled
    /// [`Error::ForeignFrames`]: crate::Error::ForeignFrames
    /// [`Error::NotSend`]: crate::Error::NotSend
    fn new_suspending<T: 'static>(
        store: impl AsContextMut<Data = T>,
        ty: FuncType,
        f: impl AsyncFn(Caller<'_, T>, &[Val], &mut [Val]) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        Func::new(store, ty, into_blocking_untyped(f)).into()
    }

    /// Makes an async host function from an async closure, with the closure's signature. See [`HostFn`].
    ///
    /// # Errors
    ///
    /// Those of [`new_suspending`](Self::new_suspending).
    fn wrap_suspending<T: 'static, Marker>(store: impl AsContextMut<Data = T>, f: impl HostFn<T, Marker>) -> Self {
        Func::wrap(store, f.into_blocking()).into()
    }

    /// Makes an async host function from a closure that returns a `Send` future. It works on every stack, including
    /// [`SendFiberStack`](crate::SendFiberStack). See [`SendHostFn`].
    ///
    /// # Errors
    ///
    /// Those of [`new_suspending`](Self::new_suspending), except `NotSend`.
    fn wrap_suspending_send<T: 'static, Marker>(
        store: impl AsContextMut<Data = T>,
        f: impl SendHostFn<T, Marker>,
    ) -> Self {
        Func::wrap(store, f.into_blocking()).into()
    }

    /// Makes an async host function from a closure with the signature that wasmtime's own `Func::wrap_async` takes. Its
    /// future is boxed and `Send`, and may keep the [`Caller`]. It works on every stack.
    ///
    /// # Errors
    ///
    /// Those of [`wrap_suspending_send`](Self::wrap_suspending_send).
    ///
    /// # Examples
    ///
    /// ```
    /// use wasmtime::{Caller, Engine, Func};
    /// use wasmtime_async::{FuncExt, Store};
    ///
    /// let mut store = Store::new(&Engine::default(), 0);
    /// Func::wrap_suspending_boxed(&mut store, |mut caller: Caller<'_, i32>, (a, b): (i32, i32)| {
    ///     Box::new(async move {
    ///         std::future::ready(()).await;
    ///         *caller.data_mut() += a;
    ///         b
    ///     })
    /// });
    /// ```
    fn wrap_suspending_boxed<T: 'static, P: HostParams, R: WasmRet>(
        store: impl AsContextMut<Data = T>,
        f: impl for<'a> Fn(Caller<'a, T>, P) -> Box<dyn Future<Output = R> + Send + 'a> + Send + Sync + 'static,
    ) -> Self {
        Func::wrap(store, boxed_into_blocking(f)).into()
    }

    /// Makes an async host function whose signature is only known at run time, from a closure that wasmtime's own
    /// `Func::new_async` takes. It works on every stack.
    ///
    /// # Errors
    ///
    /// Those of [`wrap_suspending_send`](Self::wrap_suspending_send).
    ///
    /// # Panics
    ///
    /// If `ty` belongs to another engine.
    fn new_suspending_boxed<T: 'static>(
        store: impl AsContextMut<Data = T>,
        ty: FuncType,
        f: impl for<'a> Fn(Caller<'a, T>, &'a [Val], &'a mut [Val]) -> Box<dyn Future<Output = Result<()>> + Send + 'a>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Func::new(store, ty, boxed_into_blocking_untyped(f)).into()
    }

    /// Calls the function on `stack`. The results are in `results` when the call's future is ready.
    ///
    /// # Errors
    ///
    /// A trap, an error of a host function, or one of the errors of [`Stack::run`]. If `params` or `results` have the
    /// wrong number or types, the call fails and runs nothing. Stack and store stay usable after each of these.
    ///
    /// # Panics
    ///
    /// `poll` panics if the function belongs to another store, and propagates a panic of a host function.
    ///
    /// # Cancel safety
    ///
    /// See [`Call`].
    fn call_on<'a, S, C>(
        &self,
        stack: &'a mut S,
        store: &'a mut C,
        params: &'a [Val],
        results: &'a mut [Val],
    ) -> Call<'a, S, C::Data, UntypedCall<'a>>
    where
        S: Stack + Carries<C::Data>,
        C: AsStoreMut,
    {
        Call::new(stack, store.as_store_mut(), UntypedCall { func: (*self).into(), params, results })
    }

    /// Calls the function from an async host function that the guest has called. Takes that function's [`Caller`]. The
    /// results are in `results` when the future is ready. See [`CallWithin`].
    ///
    /// # Errors
    ///
    /// Those of [`call_on`](Self::call_on) and of [`CallWithin`].
    ///
    /// # Panics
    ///
    /// As [`call_on`](Self::call_on).
    fn call_within<'a, C: AsContextMut>(
        &self,
        caller: &'a mut C,
        params: &'a [Val],
        results: &'a mut [Val],
    ) -> CallWithin<'a, C::Data, UntypedCall<'a>> {
        CallWithin::new(caller, UntypedCall { func: (*self).into(), params, results })
    }

    /// Gives the function parameters and results of Rust types.
    fn get_async<'a, C: AsContext>(&self, store: &'a C) -> AsyncGetter<'a, C::Data> {
        AsyncGetter::new((*self).into(), store.as_context())
    }

    /// [`new_suspending`](Self::new_suspending) by another name, which wasmtime's own function shadows.
    fn new_async<T: 'static>(
        store: impl AsContextMut<Data = T>,
        ty: FuncType,
        f: impl AsyncFn(Caller<'_, T>, &[Val], &mut [Val]) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self::new_suspending(store, ty, f)
    }

    /// [`wrap_suspending`](Self::wrap_suspending) by another name, which wasmtime's own function shadows.
    fn wrap_async<T: 'static, Marker>(store: impl AsContextMut<Data = T>, f: impl HostFn<T, Marker>) -> Self {
        Self::wrap_suspending(store, f)
    }

    /// [`call_on`](Self::call_on) by another name, which wasmtime's own function shadows.
    fn call_async<'a, S, C>(
        &self,
        stack: &'a mut S,
        store: &'a mut C,
        params: &'a [Val],
        results: &'a mut [Val],
    ) -> Call<'a, S, C::Data, UntypedCall<'a>>
    where
        S: Stack + Carries<C::Data>,
        C: AsStoreMut,
    {
        self.call_on(stack, store, params, results)
    }

    for_each_arity!(wrap_async_n);
}

/// The job of [`FuncExt::call_on`].
#[derive(Debug)]
pub struct UntypedCall<'a> {
    func: Func,
    params: &'a [Val],
    results: &'a mut [Val],
}

impl<T: 'static> Job<T> for UntypedCall<'_> {
    type Output = ();
    const KNOWN: bool = true;

    fn run(self, store: StoreContextMut<'_, T>) -> Result<()> {
        self.func.call(store, self.params, self.results)
    }
}

impl FuncExt for Func {}
