//! Calling functions that components export, and dropping their resources, on a stack.

use crate::call::{Call, Job};
use crate::sealed::Extended;
use crate::{AsStoreMut, CallWithin, Carries, Result, Stack};
use std::fmt;
use wasmtime::component::{ComponentNamedList, Func, Lift, Lower, ResourceAny, TypedFunc, Val};
use wasmtime::{AsContextMut, StoreContextMut};

/// A component's function to call on stacks, any number of times, with parameters and results of Rust types. Convert a
/// [`wasmtime::component::TypedFunc`], which code from `bindgen!` returns from `func_…()`.
///
/// For an example, see [`LinkerInstanceExt`](crate::component::LinkerInstanceExt).
pub struct AsyncFunc<Params, Return>(TypedFunc<Params, Return>);

impl<Params, Return> AsyncFunc<Params, Return>
where
    Params: ComponentNamedList + Lower,
    Return: ComponentNamedList + Lift,
{
    /// Calls the function on `stack`, and its `post-return` function, if any.
    ///
    /// # Errors
    ///
    /// A trap, an error of a host function, or one of the errors of [`Stack::run`]. Stack and store stay usable, but
    /// wasmtime does not enter the store's components again.
    ///
    /// # Panics
    ///
    /// `poll` panics if the function belongs to another store, and propagates a panic of a host function.
    ///
    /// # Cancel safety
    ///
    /// See [`Call`].
    pub fn call<'a, S, C>(
        &self,
        stack: &'a mut S,
        store: &'a mut C,
        params: Params,
    ) -> Call<'a, S, C::Data, TypedCall<Params, Return>>
    where
        S: Stack + Carries<C::Data>,
        C: AsStoreMut,
    {
        Call::new(stack, store.as_store_mut(), TypedCall::new(self.0, params))
    }

    /// Calls the function from an async host function that a guest has called. Takes the context of that function's
    /// store. See [`CallWithin`].
    ///
    /// # Errors
    ///
    /// A trap, an error of a host function, or one of the errors of [`CallWithin`]. To call the same component that
    /// called the host function, see [the module](crate::component#nested-calls).
    ///
    /// # Panics
    ///
    /// `poll` panics if the function belongs to another store, and propagates a panic of a host function.
    pub fn call_within<'a, C: AsContextMut>(
        &self,
        store: &'a mut C,
        params: Params,
    ) -> CallWithin<'a, C::Data, TypedCall<Params, Return>> {
        CallWithin::new(store, TypedCall::new(self.0, params))
    }

    /// wasmtime's type for the function.
    pub fn as_typed(&self) -> &TypedFunc<Params, Return> {
        &self.0
    }
}

impl<Params, Return> From<TypedFunc<Params, Return>> for AsyncFunc<Params, Return> {
    fn from(func: TypedFunc<Params, Return>) -> Self {
        Self(func)
    }
}

impl<Params, Return> Clone for AsyncFunc<Params, Return> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<Params, Return> Copy for AsyncFunc<Params, Return> {}

impl<Params, Return> fmt::Debug for AsyncFunc<Params, Return>
where
    Params: ComponentNamedList + Lower,
    Return: ComponentNamedList + Lift,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AsyncFunc").field(self.0.func()).finish()
    }
}

/// Calls on a stack for [`wasmtime::component::Func`], with parameters and results whose types are only known at run
/// time.
pub trait FuncExt: Extended + Copy + Into<Func> {
    /// Calls the function on `stack`, and its `post-return` function, if any. The results are in `results` when the
    /// call's future is ready.
    ///
    /// # Errors
    ///
    /// If `params` or `results` have the wrong number or types, the call fails and runs nothing. Otherwise those of
    /// [`AsyncFunc::call`].
    ///
    /// # Panics
    ///
    /// As [`AsyncFunc::call`].
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

    /// Calls the function from an async host function that a guest has called. Takes the context of that function's
    /// store. The results are in `results` when the future is ready. See [`CallWithin`].
    ///
    /// # Errors
    ///
    /// Those of [`call_on`](Self::call_on) and of [`AsyncFunc::call_within`].
    ///
    /// # Panics
    ///
    /// As [`AsyncFunc::call`].
    fn call_within<'a, C: AsContextMut>(
        &self,
        store: &'a mut C,
        params: &'a [Val],
        results: &'a mut [Val],
    ) -> CallWithin<'a, C::Data, UntypedCall<'a>> {
        CallWithin::new(store, UntypedCall { func: (*self).into(), params, results })
    }
}

impl FuncExt for Func {}

/// Drops a [`wasmtime::component::ResourceAny`] on a stack.
pub trait ResourceAnyExt: Extended + Into<ResourceAny> {
    /// Drops a resource that the host owns. This happens on `stack`, where the destructor may call async host
    /// functions.
    ///
    /// # Errors
    ///
    /// Those of [`ResourceAny::resource_drop`] and of [`Stack::run`].
    ///
    /// # Cancel safety
    ///
    /// See [`Call`]. The resource is gone in any case.
    fn drop_on<'a, S, C>(self, stack: &'a mut S, store: &'a mut C) -> Call<'a, S, C::Data, DropResource>
    where
        S: Stack + Carries<C::Data>,
        C: AsStoreMut,
    {
        Call::new(stack, store.as_store_mut(), DropResource { resource: self.into() })
    }

    /// Drops the resource from an async host function that a guest has called. Takes the context of that function's
    /// store. See [`CallWithin`].
    ///
    /// # Errors
    ///
    /// Those of [`ResourceAny::resource_drop`] and of [`CallWithin`].
    fn drop_within<C: AsContextMut>(self, store: &mut C) -> CallWithin<'_, C::Data, DropResource> {
        CallWithin::new(store, DropResource { resource: self.into() })
    }
}

impl ResourceAnyExt for ResourceAny {}

// Every stack carries these jobs: wasmtime requires parameters and results of Rust types to be `Send`, and everything
// else is `Send`, too.
const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<UntypedCall<'_>>();
    is_send::<DropResource>();
};

/// The job of [`AsyncFunc::call`].
pub struct TypedCall<Params, Return> {
    func: TypedFunc<Params, Return>,
    params: Params,
}

impl<Params, Return> TypedCall<Params, Return> {
    pub(super) fn new(func: TypedFunc<Params, Return>, params: Params) -> Self {
        Self { func, params }
    }
}

impl<T, Params, Return> Job<T> for TypedCall<Params, Return>
where
    T: 'static,
    Params: ComponentNamedList + Lower,
    Return: ComponentNamedList + Lift,
{
    type Output = Return;
    const KNOWN: bool = true;

    fn run(self, store: StoreContextMut<'_, T>) -> Result<Return> {
        self.func.call(store, self.params)
    }
}

impl<Params: fmt::Debug, Return> fmt::Debug for TypedCall<Params, Return> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedCall").field("params", &self.params).finish_non_exhaustive()
    }
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

/// The job of [`ResourceAnyExt::drop_on`].
#[derive(Debug)]
pub struct DropResource {
    resource: ResourceAny,
}

impl<T: 'static> Job<T> for DropResource {
    type Output = ();
    const KNOWN: bool = true;

    fn run(self, store: StoreContextMut<'_, T>) -> Result<()> {
        self.resource.resource_drop(store)
    }
}
