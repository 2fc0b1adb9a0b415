//! Modules: async host functions by name, and instantiation on a stack.

use crate::call::{Call, Job};
use crate::host::{
    HostFn, HostParams, SendHostFn, boxed_into_blocking, boxed_into_blocking_untyped, into_blocking_untyped,
};
use crate::sealed::Extended;
use crate::{AsStoreMut, CallWithin, Carries, Result, Stack};
use std::borrow::{Borrow, BorrowMut};
use std::fmt;
use std::future::Future;
use wasmtime::{AsContextMut, Caller, FuncType, Instance, InstancePre, Linker, Module, StoreContextMut, Val, WasmRet};

/// Async host functions for [`wasmtime::Linker`], and instantiation on a stack, where start functions may call them.
///
/// # Examples
///
/// ```
/// use wasmtime::{Engine, Linker, Module};
/// use wasmtime_async::{DEFAULT_STACK_SIZE, DefaultStack, LinkerExt, Stack, Store};
///
/// # fn main() -> wasmtime::Result<()> {
/// let engine = Engine::default();
/// let mut linker = Linker::new(&engine);
/// linker.func_wrap_suspending("host", "config", async |key: i32| -> i32 { futures::future::ready(key + 1).await })?;
///
/// let module = Module::new(
///     &engine,
///     r#"(module
///         (import "host" "config" (func $config (param i32) (result i32)))
///         (global (export "level") (mut i32) (i32.const 0))
///         (func $start (global.set 0 (call $config (i32.const 6))))
///         (start $start))"#,
/// )?;
/// let mut store = Store::new(&engine, ());
/// let mut stack = DefaultStack::new(DEFAULT_STACK_SIZE)?;
/// let instance = futures::executor::block_on(linker.instantiate_on(&mut stack, &mut store, &module))?;
/// let level = instance.get_global(&mut store, "level").expect("is exported");
/// assert_eq!(level.get(&mut store).i32(), Some(7));
/// # Ok(())
/// # }
/// ```
pub trait LinkerExt<T: 'static>: Extended + BorrowMut<Linker<T>> {
    /// Defines an async host function from a closure, with the closure's signature. See [`HostFn`].
    ///
    /// # Errors
    ///
    /// If the name is taken and shadowing is not allowed. For the errors of the function itself, see
    /// [`FuncExt::new_suspending`](crate::FuncExt::new_suspending).
    fn func_wrap_suspending<Marker>(
        &mut self,
        module: &str,
        name: &str,
        f: impl HostFn<T, Marker>,
    ) -> Result<&mut Self> {
        self.borrow_mut().func_wrap(module, name, f.into_blocking())?;
        Ok(self)
    }

    /// Defines an async host function whose signature is only known at run time.
    ///
    /// # Errors
    ///
    /// Those of [`func_wrap_suspending`](Self::func_wrap_suspending).
    ///
    /// # Panics
    ///
    /// If `ty` belongs to another engine.
    fn func_new_suspending(
        &mut self,
        module: &str,
        name: &str,
        ty: FuncType,
        f: impl AsyncFn(Caller<'_, T>, &[Val], &mut [Val]) -> Result<()> + Send + Sync + 'static,
    ) -> Result<&mut Self> {
        self.borrow_mut().func_new(module, name, ty, into_blocking_untyped(f))?;
        Ok(self)
    }

    /// Defines an async host function from a closure that returns a `Send` future. It works on every stack, including
    /// [`SendFiberStack`](crate::SendFiberStack). See [`SendHostFn`].
    ///
    /// # Errors
    ///
    /// Those of [`func_wrap_suspending`](Self::func_wrap_suspending).
    fn func_wrap_suspending_send<Marker>(
        &mut self,
        module: &str,
        name: &str,
        f: impl SendHostFn<T, Marker>,
    ) -> Result<&mut Self> {
        self.borrow_mut().func_wrap(module, name, f.into_blocking())?;
        Ok(self)
    }

    /// Defines an async host function from a closure with the signature that wasmtime's own `func_wrap_async` takes.
    /// Its future is boxed and `Send`, and may keep the [`Caller`]. It works on every stack.
    ///
    /// # Errors
    ///
    /// Those of [`func_wrap_suspending`](Self::func_wrap_suspending).
    fn func_wrap_suspending_boxed<P: HostParams, R: WasmRet>(
        &mut self,
        module: &str,
        name: &str,
        f: impl for<'a> Fn(Caller<'a, T>, P) -> Box<dyn Future<Output = R> + Send + 'a> + Send + Sync + 'static,
    ) -> Result<&mut Self> {
        self.borrow_mut().func_wrap(module, name, boxed_into_blocking(f))?;
        Ok(self)
    }

    /// Defines an async host function whose signature is only known at run time, from a closure that wasmtime's own
    /// `func_new_async` takes. It works on every stack.
    ///
    /// # Errors
    ///
    /// Those of [`func_wrap_suspending`](Self::func_wrap_suspending).
    ///
    /// # Panics
    ///
    /// If `ty` belongs to another engine.
    fn func_new_suspending_boxed(
        &mut self,
        module: &str,
        name: &str,
        ty: FuncType,
        f: impl for<'a> Fn(Caller<'a, T>, &'a [Val], &'a mut [Val]) -> Box<dyn Future<Output = Result<()>> + Send + 'a>
        + Send
        + Sync
        + 'static,
    ) -> Result<&mut Self> {
        self.borrow_mut().func_new(module, name, ty, boxed_into_blocking_untyped(f))?;
        Ok(self)
    }

    /// Instantiates a module on `stack`, and runs its start function there.
    ///
    /// # Errors
    ///
    /// Those of [`Linker::instantiate`], such as a missing import, and those of [`Stack::run`].
    ///
    /// # Cancel safety
    ///
    /// See [`Call`].
    fn instantiate_on<'a, S, C>(
        &'a self,
        stack: &'a mut S,
        store: &'a mut C,
        module: &'a Module,
    ) -> Call<'a, S, T, Instantiate<'a, T>>
    where
        S: Stack + Carries<T>,
        C: AsStoreMut<Data = T>,
    {
        Call::new(stack, store.as_store_mut(), Instantiate { linker: self.borrow(), module })
    }

    /// Instantiates a module from an async host function that the guest has called, and runs its start function there.
    /// Takes that function's [`Caller`]. See [`CallWithin`].
    ///
    /// # Errors
    ///
    /// Those of [`Linker::instantiate`] and of [`CallWithin`].
    fn instantiate_within<'a, C>(
        &'a self,
        caller: &'a mut C,
        module: &'a Module,
    ) -> CallWithin<'a, T, Instantiate<'a, T>>
    where
        C: AsContextMut<Data = T>,
    {
        CallWithin::new(caller, Instantiate { linker: self.borrow(), module })
    }
}

impl<T: 'static> LinkerExt<T> for Linker<T> {}

/// Instantiation on a stack for [`wasmtime::InstancePre`], which has its imports resolved already.
pub trait InstancePreExt<T: 'static>: Extended + Borrow<InstancePre<T>> {
    /// Instantiates the module on `stack`, and runs its start function there.
    ///
    /// # Errors
    ///
    /// Those of [`InstancePre::instantiate`] and of [`Stack::run`].
    ///
    /// # Cancel safety
    ///
    /// See [`Call`].
    fn instantiate_on<'a, S, C>(&'a self, stack: &'a mut S, store: &'a mut C) -> Call<'a, S, T, InstantiatePre<'a, T>>
    where
        S: Stack + Carries<T>,
        C: AsStoreMut<Data = T>,
    {
        Call::new(stack, store.as_store_mut(), InstantiatePre { instance: self.borrow() })
    }

    /// Instantiates the module from an async host function that the guest has called, and runs its start function
    /// there. Takes that function's [`Caller`]. See [`CallWithin`].
    ///
    /// # Errors
    ///
    /// Those of [`InstancePre::instantiate`] and of [`CallWithin`].
    fn instantiate_within<'a, C>(&'a self, caller: &'a mut C) -> CallWithin<'a, T, InstantiatePre<'a, T>>
    where
        C: AsContextMut<Data = T>,
    {
        CallWithin::new(caller, InstantiatePre { instance: self.borrow() })
    }
}

impl<T: 'static> InstancePreExt<T> for InstancePre<T> {}

/// The job of [`LinkerExt::instantiate_on`].
pub struct Instantiate<'a, T: 'static> {
    linker: &'a Linker<T>,
    module: &'a Module,
}

impl<T: 'static> Job<T> for Instantiate<'_, T> {
    type Output = Instance;
    const KNOWN: bool = true;

    fn run(self, store: StoreContextMut<'_, T>) -> Result<Instance> {
        self.linker.instantiate(store, self.module)
    }
}

impl<T: 'static> fmt::Debug for Instantiate<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instantiate").field("module", &self.module.name()).finish_non_exhaustive()
    }
}

/// The job of [`InstancePreExt::instantiate_on`].
pub struct InstantiatePre<'a, T: 'static> {
    instance: &'a InstancePre<T>,
}

impl<T: 'static> Job<T> for InstantiatePre<'_, T> {
    type Output = Instance;
    const KNOWN: bool = true;

    fn run(self, store: StoreContextMut<'_, T>) -> Result<Instance> {
        self.instance.instantiate(store)
    }
}

impl<T: 'static> fmt::Debug for InstantiatePre<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InstantiatePre").field("module", &self.instance.module().name()).finish_non_exhaustive()
    }
}
