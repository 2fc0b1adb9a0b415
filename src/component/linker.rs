//! Async host functions and resources by name, and instantiation on a stack.

use crate::call::{Call, Job};
use crate::host::component::{blocking, blocking_boxed, blocking_boxed_untyped, blocking_send, blocking_untyped};
use crate::sealed::Extended;
use crate::{AsStoreMut, CallWithin, Carries, Result, Stack};
use std::borrow::{Borrow, BorrowMut};
use std::fmt;
use std::future::Future;
use wasmtime::component::types::ComponentFunc;
use wasmtime::component::{
    Component, ComponentNamedList, Instance, InstancePre, Lift, Linker, LinkerInstance, Lower, ResourceType, Val,
};
use wasmtime::{AsContextMut, StoreContextMut};

/// Async host functions and resources for [`wasmtime::component::LinkerInstance`].
///
/// The closures are async versions of those that wasmtime's own `func_wrap` takes: parameters and results are tuples,
/// and the store's context comes first.
///
/// # Errors
///
/// Each method fails if the name is taken and shadowing is not allowed. For the errors of the functions, see
/// [`FuncExt::new_suspending`](crate::FuncExt::new_suspending).
///
/// # Examples
///
/// ```
/// use futures_timer::Delay;
/// use std::time::Duration;
/// use wasmtime::component::{Component, Linker};
/// use wasmtime::{Engine, StoreContextMut};
/// use wasmtime_async::component::{AsyncFunc, LinkerExt, LinkerInstanceExt};
/// use wasmtime_async::{DEFAULT_STACK_SIZE, DefaultStack, Stack, Store};
///
/// # fn main() -> wasmtime::Result<()> {
/// let engine = Engine::default();
/// let mut linker = Linker::new(&engine);
/// linker.root().func_wrap_suspending("sleep", async |_store: StoreContextMut<'_, ()>, (ms,): (u32,)| {
///     Delay::new(Duration::from_millis(ms.into())).await;
///     Ok(())
/// })?;
/// let component = Component::new(
///     &engine,
///     r#"(component
///         (import "sleep" (func $sleep (param "ms" u32)))
///         (core func $sleep (canon lower (func $sleep)))
///         (core module $guest
///             (import "" "sleep" (func $sleep (param i32)))
///             (func (export "run") (result i32) (call $sleep (i32.const 10)) (i32.const 42)))
///         (core instance $guest (instantiate $guest (with "" (instance (export "sleep" (func $sleep))))))
///         (func (export "run") (result u32) (canon lift (core func $guest "run"))))"#,
/// )?;
/// let mut store = Store::new(&engine, ());
/// let mut stack = DefaultStack::new(DEFAULT_STACK_SIZE)?;
/// let answer = async {
///     let instance = linker.instantiate_on(&mut stack, &mut store, &component).await?;
///     let run = AsyncFunc::from(instance.get_typed_func::<(), (u32,)>(&mut store, "run")?);
///     run.call(&mut stack, &mut store, ()).await
/// };
/// assert_eq!(futures::executor::block_on(answer)?, (42,));
/// # Ok(())
/// # }
/// ```
pub trait LinkerInstanceExt<'i, T: 'static>: Extended + BorrowMut<LinkerInstance<'i, T>> {
    /// Defines an async host function.
    ///
    /// # Errors
    ///
    /// See [`LinkerInstanceExt`].
    fn func_wrap_suspending<Params, Return>(
        &mut self,
        name: &str,
        f: impl AsyncFn(StoreContextMut<'_, T>, Params) -> Result<Return> + Send + Sync + 'static,
    ) -> Result<()>
    where
        Params: ComponentNamedList + Lift + 'static,
        Return: ComponentNamedList + Lower + 'static,
    {
        self.borrow_mut().func_wrap(name, blocking(f))
    }

    /// Defines an async host function from a closure that returns a `Send` future. The future does not keep the store's
    /// context. It works on every stack, including [`SendFiberStack`](crate::SendFiberStack).
    ///
    /// # Errors
    ///
    /// See [`LinkerInstanceExt`].
    fn func_wrap_suspending_send<Params, Return, Fut>(
        &mut self,
        name: &str,
        f: impl Fn(StoreContextMut<'_, T>, Params) -> Fut + Send + Sync + 'static,
    ) -> Result<()>
    where
        Params: ComponentNamedList + Lift + 'static,
        Return: ComponentNamedList + Lower + 'static,
        Fut: Future<Output = Result<Return>> + Send,
    {
        self.borrow_mut().func_wrap(name, blocking_send(f))
    }

    /// Defines an async host function from a closure with the signature that wasmtime's own `func_wrap_async` takes.
    /// Its future is boxed and `Send`, and may keep the store's context. It works on every stack.
    ///
    /// # Errors
    ///
    /// See [`LinkerInstanceExt`].
    fn func_wrap_suspending_boxed<Params, Return, F>(&mut self, name: &str, f: F) -> Result<()>
    where
        Params: ComponentNamedList + Lift + 'static,
        Return: ComponentNamedList + Lower + 'static,
        F: Fn(StoreContextMut<'_, T>, Params) -> Box<dyn Future<Output = Result<Return>> + Send + '_>
            + Send
            + Sync
            + 'static,
    {
        self.borrow_mut().func_wrap(name, blocking_boxed(f))
    }

    /// Defines an async host function whose type is only known at run time.
    ///
    /// # Errors
    ///
    /// See [`LinkerInstanceExt`].
    fn func_new_suspending(
        &mut self,
        name: &str,
        f: impl AsyncFn(StoreContextMut<'_, T>, ComponentFunc, &[Val], &mut [Val]) -> Result<()> + Send + Sync + 'static,
    ) -> Result<()> {
        self.borrow_mut().func_new(name, blocking_untyped(f))
    }

    /// Defines an async host function whose type is only known at run time, from a closure that wasmtime's own
    /// `func_new_async` takes. Its future is boxed and `Send`. It works on every stack.
    ///
    /// # Errors
    ///
    /// See [`LinkerInstanceExt`].
    fn func_new_suspending_boxed<F>(&mut self, name: &str, f: F) -> Result<()>
    where
        F: for<'a> Fn(
                StoreContextMut<'a, T>,
                ComponentFunc,
                &'a [Val],
                &'a mut [Val],
            ) -> Box<dyn Future<Output = Result<()>> + Send + 'a>
            + Send
            + Sync
            + 'static,
    {
        self.borrow_mut().func_new(name, blocking_boxed_untyped(f))
    }

    /// Defines a resource with an async destructor, which runs when the guest drops a resource that it owns.
    ///
    /// # Errors
    ///
    /// See [`LinkerInstanceExt`].
    fn resource_suspending(
        &mut self,
        name: &str,
        ty: ResourceType,
        destructor: impl AsyncFn(StoreContextMut<'_, T>, u32) -> Result<()> + Send + Sync + 'static,
    ) -> Result<()> {
        self.borrow_mut().resource(name, ty, blocking(destructor))
    }

    /// Defines a resource with an async destructor that wasmtime's own `resource_async` takes. Its future is boxed and
    /// `Send`. It works on every stack.
    ///
    /// # Errors
    ///
    /// See [`LinkerInstanceExt`].
    fn resource_suspending_boxed<F>(&mut self, name: &str, ty: ResourceType, destructor: F) -> Result<()>
    where
        F: Fn(StoreContextMut<'_, T>, u32) -> Box<dyn Future<Output = Result<()>> + Send + '_> + Send + Sync + 'static,
    {
        self.borrow_mut().resource(name, ty, blocking_boxed(destructor))
    }
}

impl<'i, T: 'static> LinkerInstanceExt<'i, T> for LinkerInstance<'i, T> {}

/// Instantiation on a stack for [`wasmtime::component::Linker`], where code that runs during instantiation may call
/// async host functions.
pub trait LinkerExt<T: 'static>: Extended + Borrow<Linker<T>> {
    /// Instantiates a component on `stack`.
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
        component: &'a Component,
    ) -> Call<'a, S, T, Instantiate<'a, T>>
    where
        S: Stack + Carries<T>,
        C: AsStoreMut<Data = T>,
    {
        Call::new(stack, store.as_store_mut(), Instantiate { linker: self.borrow(), component })
    }

    /// Instantiates a component from an async host function that a guest has called. Takes the context of that
    /// function's store. See [`CallWithin`].
    ///
    /// # Errors
    ///
    /// Those of [`Linker::instantiate`] and of [`CallWithin`].
    fn instantiate_within<'a, C>(
        &'a self,
        store: &'a mut C,
        component: &'a Component,
    ) -> CallWithin<'a, T, Instantiate<'a, T>>
    where
        C: AsContextMut<Data = T>,
    {
        CallWithin::new(store, Instantiate { linker: self.borrow(), component })
    }
}

impl<T: 'static> LinkerExt<T> for Linker<T> {}

/// Instantiation on a stack for [`wasmtime::component::InstancePre`], which has its imports resolved already.
pub trait InstancePreExt<T: 'static>: Extended + Borrow<InstancePre<T>> {
    /// Instantiates the component on `stack`.
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
        Call::new(stack, store.as_store_mut(), InstantiatePre::new(self.borrow()))
    }

    /// Instantiates the component from an async host function that a guest has called. Takes the context of that
    /// function's store. See [`CallWithin`].
    ///
    /// # Errors
    ///
    /// Those of [`InstancePre::instantiate`] and of [`CallWithin`].
    fn instantiate_within<'a, C>(&'a self, store: &'a mut C) -> CallWithin<'a, T, InstantiatePre<'a, T>>
    where
        C: AsContextMut<Data = T>,
    {
        CallWithin::new(store, InstantiatePre::new(self.borrow()))
    }
}

impl<T: 'static> InstancePreExt<T> for InstancePre<T> {}

/// The job of [`LinkerExt::instantiate_on`].
pub struct Instantiate<'a, T: 'static> {
    linker: &'a Linker<T>,
    component: &'a Component,
}

impl<T: 'static> Job<T> for Instantiate<'_, T> {
    type Output = Instance;
    const KNOWN: bool = true;

    fn run(self, store: StoreContextMut<'_, T>) -> Result<Instance> {
        self.linker.instantiate(store, self.component)
    }
}

impl<T: 'static> fmt::Debug for Instantiate<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instantiate").finish_non_exhaustive()
    }
}

/// The job of [`InstancePreExt::instantiate_on`].
pub struct InstantiatePre<'a, T: 'static> {
    instance: &'a InstancePre<T>,
}

impl<'a, T: 'static> InstantiatePre<'a, T> {
    pub(super) fn new(instance: &'a InstancePre<T>) -> Self {
        Self { instance }
    }
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
        f.debug_struct("InstantiatePre").finish_non_exhaustive()
    }
}
