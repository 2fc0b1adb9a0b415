//! Functions with parameters and results of Rust types.

use crate::arity::for_each_arity;
use crate::call::{Call, Job};
use crate::{AsStoreMut, CallWithin, Carries, Result, Stack};
use std::fmt;
use wasmtime::{AsContextMut, Func, StoreContext, StoreContextMut, TypedFunc, WasmParams, WasmResults, WasmTy};

/// Gives a function parameters and results of Rust types. From [`FuncExt::get_async`].
///
/// `get0` to `get15` name the types one by one. The last type is the result: `()`, a wasm type, or a tuple of wasm
/// types. The signature is checked once, here.
///
/// # Errors
///
/// Each method fails if the function has another signature. The error says which signature was expected and which was
/// found.
///
/// # Panics
///
/// Each method panics if the function belongs to another store.
///
/// # Examples
///
/// ```
/// use wasmtime::{Engine, Func};
/// use wasmtime_async::{DEFAULT_STACK_SIZE, DefaultStack, FuncExt, Stack, Store};
///
/// let mut store = Store::new(&Engine::default(), ());
/// let div_rem = Func::wrap_suspending(&mut store, async |a: i32, b: i32| (a / b, a % b));
///
/// let div_rem = div_rem.get_async(&store).get2::<i32, i32, (i32, i32)>()?;
/// let mut stack = DefaultStack::new(DEFAULT_STACK_SIZE)?;
/// for (a, b) in [(7, 2), (9, 4)] {
///     let call = div_rem.call(&mut stack, &mut store, (a, b));
///     assert_eq!(futures::executor::block_on(call)?, (a / b, a % b));
/// }
/// # Ok::<(), wasmtime::Error>(())
/// ```
///
/// [`FuncExt::get_async`]: crate::FuncExt::get_async
#[must_use = "a getter only gets: call one of its methods"]
pub struct AsyncGetter<'a, T: 'static> {
    func: Func,
    store: StoreContext<'a, T>,
}

macro_rules! get_n {
    ($arity:literal $wrap:ident $get:ident $($arg:ident: $Arg:ident),*) => {
        #[doc = concat!("The function as one of ", $arity, " parameters.")]
        ///
        /// # Errors
        ///
        /// If the function has another signature.
        pub fn $get<$($Arg: WasmTy,)* R: WasmResults>(self) -> Result<AsyncFunc<($($Arg,)*), R>> {
            self.typed()
        }
    };
}

impl<'a, T: 'static> AsyncGetter<'a, T> {
    pub(crate) fn new(func: Func, store: StoreContext<'a, T>) -> Self {
        Self { func, store }
    }

    /// The function with all parameters as one type: a wasm type, or a tuple of any length that wasmtime supports.
    ///
    /// # Errors
    ///
    /// If the function has another signature.
    pub fn typed<Params: WasmParams, Results: WasmResults>(self) -> Result<AsyncFunc<Params, Results>> {
        Ok(AsyncFunc(self.func.typed(self.store)?))
    }

    for_each_arity!(get_n);
}

/// A function to call on stacks, any number of times, with parameters and results of Rust types. Get one from an
/// [`AsyncGetter`], or convert a [`TypedFunc`]:
///
/// ```
/// use wasmtime::{Engine, Instance, Module};
/// use wasmtime_async::{AsyncFunc, DEFAULT_STACK_SIZE, DefaultStack, Stack, Store};
///
/// # fn main() -> wasmtime::Result<()> {
/// let engine = Engine::default();
/// let module = Module::new(&engine, r#"(module (func (export "answer") (result i32) (i32.const 42)))"#)?;
/// let mut store = Store::new(&engine, ());
/// let instance = Instance::new(&mut store, &module, &[])?;
///
/// let answer = AsyncFunc::from(instance.get_typed_func::<(), i32>(&mut store, "answer")?);
/// let mut stack = DefaultStack::new(DEFAULT_STACK_SIZE)?;
/// assert_eq!(futures::executor::block_on(answer.call(&mut stack, &mut store, ()))?, 42);
/// # Ok(())
/// # }
/// ```
pub struct AsyncFunc<Params, Results>(TypedFunc<Params, Results>);

impl<Params: WasmParams, Results: WasmResults> AsyncFunc<Params, Results> {
    /// Calls the function on `stack`.
    ///
    /// # Errors
    ///
    /// A trap, an error of a host function, or one of the errors of [`Stack::run`]. Stack and store stay usable.
    ///
    /// # Panics
    ///
    /// `poll` panics if the function belongs to another store, and propagates a panic of a host function.
    ///
    /// # Cancel safety
    ///
    /// See [`Call`].
    pub fn call<'a, S, C>(
        &'a self,
        stack: &'a mut S,
        store: &'a mut C,
        params: Params,
    ) -> Call<'a, S, C::Data, TypedCall<'a, Params, Results>>
    where
        S: Stack + Carries<C::Data>,
        C: AsStoreMut,
    {
        Call::new(stack, store.as_store_mut(), TypedCall { func: &self.0, params })
    }

    /// Calls the function from an async host function that the guest has called. Takes that function's
    /// [`Caller`](wasmtime::Caller). See [`CallWithin`].
    ///
    /// # Errors
    ///
    /// A trap, an error of a host function, or one of the errors of [`CallWithin`].
    ///
    /// # Panics
    ///
    /// `poll` panics if the function belongs to another store, and propagates a panic of a host function.
    ///
    /// # Examples
    ///
    /// A host function calls the guest's handler and gives up after a minute:
    ///
    /// ```
    /// use futures::future::{Either, select};
    /// use futures_timer::Delay;
    /// use std::time::Duration;
    /// use wasmtime::{Caller, Engine, Linker, Module, Result};
    /// use wasmtime_async::{AsyncFunc, DEFAULT_STACK_SIZE, DefaultStack, LinkerExt, Stack, Store};
    ///
    /// # fn main() -> Result<()> {
    /// # if cfg!(call_hook) { return Ok(()) } // Nested calls are an error there.
    /// let engine = Engine::default();
    /// let mut linker = Linker::new(&engine);
    /// linker.func_wrap_suspending("host", "sleep", async |ms: u32| Delay::new(Duration::from_millis(ms.into())).await)?;
    /// linker.func_wrap_suspending("host", "ask", async |mut caller: Caller<'_, ()>, n: i32| -> Result<i32> {
    ///     let handler = caller.get_export("handler").and_then(wasmtime::Extern::into_func).expect("is exported");
    ///     let handler = AsyncFunc::from(handler.typed::<i32, i32>(&caller)?);
    ///     let limit = Delay::new(Duration::from_secs(60));
    ///     match select(handler.call_within(&mut caller, n), limit).await {
    ///         Either::Left((answer, _)) => answer,
    ///         Either::Right(_) => Ok(-1),
    ///     }
    /// })?;
    /// let module = Module::new(
    ///     &engine,
    ///     r#"(module
    ///         (import "host" "sleep" (func $sleep (param i32)))
    ///         (import "host" "ask" (func $ask (param i32) (result i32)))
    ///         (func (export "handler") (param i32) (result i32)
    ///             (call $sleep (local.get 0))
    ///             (i32.add (local.get 0) (i32.const 1)))
    ///         (func (export "run") (result i32) (call $ask (i32.const 41))))"#,
    /// )?;
    /// let mut store = Store::new(&engine, ());
    /// let mut stack = DefaultStack::new(DEFAULT_STACK_SIZE)?;
    /// let run = async {
    ///     let instance = linker.instantiate_on(&mut stack, &mut store, &module).await?;
    ///     let run = AsyncFunc::from(instance.get_typed_func::<(), i32>(&mut store, "run")?);
    ///     run.call(&mut stack, &mut store, ()).await
    /// };
    /// assert_eq!(futures::executor::block_on(run)?, 42);
    /// # Ok(())
    /// # }
    /// ```
    pub fn call_within<'a, C: AsContextMut>(
        &'a self,
        caller: &'a mut C,
        params: Params,
    ) -> CallWithin<'a, C::Data, TypedCall<'a, Params, Results>> {
        CallWithin::new(caller, TypedCall { func: &self.0, params })
    }

    /// wasmtime's type for the function. Use it for synchronous calls from inside a call: `func.as_typed().call(&mut
    /// caller, …)`.
    pub fn as_typed(&self) -> &TypedFunc<Params, Results> {
        &self.0
    }
}

impl<Params, Results> From<TypedFunc<Params, Results>> for AsyncFunc<Params, Results> {
    fn from(func: TypedFunc<Params, Results>) -> Self {
        Self(func)
    }
}

impl<Params, Results> Clone for AsyncFunc<Params, Results> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: 'static> fmt::Debug for AsyncGetter<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncGetter").field("func", &self.func).finish_non_exhaustive()
    }
}

impl<Params: WasmParams, Results: WasmResults> fmt::Debug for AsyncFunc<Params, Results> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AsyncFunc").field(self.0.func()).finish()
    }
}

/// The job of [`AsyncFunc::call`].
pub struct TypedCall<'a, Params, Results> {
    func: &'a TypedFunc<Params, Results>,
    params: Params,
}

impl<T: 'static, Params: WasmParams, Results: WasmResults> Job<T> for TypedCall<'_, Params, Results> {
    type Output = Results;
    const KNOWN: bool = true;

    fn run(self, store: StoreContextMut<'_, T>) -> Result<Results> {
        self.func.call(store, self.params)
    }
}

impl<Params: WasmParams + fmt::Debug, Results: WasmResults> fmt::Debug for TypedCall<'_, Params, Results> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedCall").field("func", self.func.func()).field("params", &self.params).finish()
    }
}
