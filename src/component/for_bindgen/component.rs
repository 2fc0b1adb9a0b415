//! wasmtime's module `component`, with replacements for those types that add async host functions or make calls.
#![expect(unsafe_code, reason = "has an unsafe function of wasmtime's that generated code calls")]

use super::job::Ours;
use super::{AsContextMut, Place};
use crate::Result;
use crate::component::func::TypedCall;
use crate::component::linker::InstantiatePre;
use crate::component::{LinkerExt, LinkerInstanceExt};
use crate::sealed::Extended;
use std::borrow::Borrow;
use std::fmt;
use std::future::Future;
use std::ops::{Deref, DerefMut};
use wasmtime::component as plain;
use wasmtime::{AsContext, Engine, StoreContextMut};

pub use wasmtime::component::*;

/// A type of this module that wraps one of wasmtime's.
macro_rules! wraps {
    ([$($generics:tt)*] $Name:ident $([$($args:tt)*])?) => {
        impl<$($generics)*> Deref for $Name $(<$($args)*>)? {
            type Target = plain::$Name $(<$($args)*>)?;

            fn deref(&self) -> &Self::Target {
                &self.0
            }
        }

        impl<$($generics)*> From<plain::$Name $(<$($args)*>)?> for $Name $(<$($args)*>)? {
            fn from(inner: plain::$Name $(<$($args)*>)?) -> Self {
                Self(inner)
            }
        }

        impl<$($generics)*> fmt::Debug for $Name $(<$($args)*>)? {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($Name)).finish_non_exhaustive()
            }
        }
    };
}

/// A [`wasmtime::component::Linker`] to which generated code adds async host functions for stacks. It dereferences to
/// wasmtime's linker, so you can add synchronous functions, too.
pub struct Linker<T: 'static>(plain::Linker<T>);

wraps!([T: 'static] Linker [T]);

impl<T: 'static> Linker<T> {
    /// Makes a linker, as [`wasmtime::component::Linker::new`] does.
    pub fn new(engine: &Engine) -> Self {
        plain::Linker::new(engine).into()
    }

    /// wasmtime's linker.
    pub fn into_inner(self) -> plain::Linker<T> {
        self.0
    }

    /// The names at the top level.
    pub fn root(&mut self) -> LinkerInstance<'_, T> {
        LinkerInstance(self.0.root())
    }

    /// The names within an instance.
    ///
    /// # Errors
    ///
    /// If something else already has the name.
    pub fn instance(&mut self, name: &str) -> Result<LinkerInstance<'_, T>> {
        Ok(LinkerInstance(self.0.instance(name)?))
    }

    /// Resolves the imports of a component.
    ///
    /// # Errors
    ///
    /// As [`wasmtime::component::Linker::instantiate_pre`].
    pub fn instantiate_pre(&self, component: &Component) -> Result<InstancePre<T>> {
        Ok(InstancePre(self.0.instantiate_pre(component)?))
    }
}

impl<T: 'static> Extended for Linker<T> {}

impl<T: 'static> Borrow<plain::Linker<T>> for Linker<T> {
    fn borrow(&self) -> &plain::Linker<T> {
        &self.0
    }
}

impl<T: 'static> LinkerExt<T> for Linker<T> {}

impl<T: 'static> DerefMut for Linker<T> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl<T: 'static> Clone for Linker<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// A [`wasmtime::component::LinkerInstance`] whose async functions suspend a stack of this crate.
pub struct LinkerInstance<'a, T: 'static>(plain::LinkerInstance<'a, T>);

wraps!(['a, T: 'static] LinkerInstance ['a, T]);

impl<T: 'static> LinkerInstance<'_, T> {
    /// See [`LinkerInstanceExt::func_wrap_suspending_boxed`].
    ///
    /// # Errors
    ///
    /// See [`LinkerInstanceExt`].
    pub fn func_wrap_async<Params, Return, F>(&mut self, name: &str, f: F) -> Result<()>
    where
        Params: ComponentNamedList + Lift + 'static,
        Return: ComponentNamedList + Lower + 'static,
        F: Fn(StoreContextMut<'_, T>, Params) -> Box<dyn Future<Output = Result<Return>> + Send + '_>
            + Send
            + Sync
            + 'static,
    {
        self.0.func_wrap_suspending_boxed(name, f)
    }

    /// See [`LinkerInstanceExt::resource_suspending_boxed`].
    ///
    /// # Errors
    ///
    /// See [`LinkerInstanceExt`].
    pub fn resource_async<F>(&mut self, name: &str, ty: ResourceType, destructor: F) -> Result<()>
    where
        F: Fn(StoreContextMut<'_, T>, u32) -> Box<dyn Future<Output = Result<()>> + Send + '_> + Send + Sync + 'static,
    {
        self.0.resource_suspending_boxed(name, ty, destructor)
    }

    /// The names within an instance that is nested in this one.
    ///
    /// # Errors
    ///
    /// If something else already has the name.
    pub fn instance(&mut self, name: &str) -> Result<LinkerInstance<'_, T>> {
        Ok(LinkerInstance(self.0.instance(name)?))
    }
}

impl<T: 'static> DerefMut for LinkerInstance<'_, T> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

/// A [`wasmtime::component::InstancePre`] that generated code instantiates on a stack.
pub struct InstancePre<T: 'static>(plain::InstancePre<T>);

wraps!([T: 'static] InstancePre [T]);

impl<T: 'static> InstancePre<T> {
    /// Instantiates the component, as [`wasmtime::component::InstancePre::instantiate`] does.
    ///
    /// # Errors
    ///
    /// Those of wasmtime's function.
    pub fn instantiate(&self, mut store: impl AsContextMut<Data = T>) -> Result<Instance> {
        Ok(Instance(self.0.instantiate(store.as_context_mut().plain())?))
    }

    /// Instantiates the component on the stack of an [`OnStack`](super::OnStack). If `store` is the context of a host
    /// function's store, instantiates it within that host function.
    ///
    /// # Errors
    ///
    /// Those of [`InstancePreExt`](crate::component::InstancePreExt).
    pub async fn instantiate_async(&self, mut store: impl AsContextMut<Data = T>) -> Result<Instance> {
        Ok(Instance(Place::call(store.as_context_mut(), Ours(InstantiatePre::new(&self.0))).await?))
    }
}

impl<T: 'static> Clone for InstancePre<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// A [`wasmtime::component::Instance`] in which generated code looks up exports.
#[derive(Clone, Copy)]
pub struct Instance(plain::Instance);

wraps!([] Instance);

impl Instance {
    /// Returns the `InstancePre` that this instance was made from.
    pub fn instance_pre<T>(&self, store: impl AsContext<Data = T>) -> InstancePre<T> {
        InstancePre(self.0.instance_pre(store))
    }

    /// Looks up a function.
    ///
    /// # Errors
    ///
    /// As [`wasmtime::component::Instance::get_typed_func`].
    pub fn get_typed_func<Params, Return>(
        &self,
        mut store: impl AsContextMut,
        name: impl ExportLookup,
    ) -> Result<TypedFunc<Params, Return>>
    where
        Params: ComponentNamedList + Lower,
        Return: ComponentNamedList + Lift,
    {
        Ok(TypedFunc(self.0.get_typed_func(store.as_context_mut().plain(), name)?))
    }
}

/// A [`wasmtime::component::TypedFunc`] whose `call_async` calls on a stack of this crate.
pub struct TypedFunc<Params, Return>(plain::TypedFunc<Params, Return>);

wraps!([Params, Return] TypedFunc [Params, Return]);

impl<Params, Return> TypedFunc<Params, Return>
where
    Params: ComponentNamedList + Lower,
    Return: ComponentNamedList + Lift,
{
    /// See [`wasmtime::component::TypedFunc::new_unchecked`].
    ///
    /// # Safety
    ///
    /// The function has these types.
    pub unsafe fn new_unchecked(func: Func) -> Self {
        // SAFETY: up to the caller.
        Self(unsafe { plain::TypedFunc::new_unchecked(func) })
    }

    /// Calls the function, as [`wasmtime::component::TypedFunc::call`] does.
    ///
    /// # Errors
    ///
    /// Those of wasmtime's function.
    ///
    /// # Panics
    ///
    /// If the function belongs to another store.
    pub fn call(&self, mut store: impl AsContextMut, params: Params) -> Result<Return> {
        self.0.call(store.as_context_mut().plain(), params)
    }

    /// Calls the function on the stack of an [`OnStack`](super::OnStack). If `store` is the context of a host
    /// function's store, calls it within that host function.
    ///
    /// # Errors
    ///
    /// Those of [`AsyncFunc::call`](crate::component::AsyncFunc::call) and
    /// [`AsyncFunc::call_within`](crate::component::AsyncFunc::call_within).
    pub async fn call_async(&self, mut store: impl AsContextMut, params: Params) -> Result<Return> {
        Place::call(store.as_context_mut(), Ours(TypedCall::new(self.0, params))).await
    }
}

impl<Params, Return> Clone for TypedFunc<Params, Return> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<Params, Return> Copy for TypedFunc<Params, Return> {}
