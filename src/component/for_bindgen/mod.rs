//! wasmtime under another name, for code that `bindgen!` generates. Its component linker has a `func_wrap_async` that
//! suspends a stack of this crate, and generated exports are called on such a stack.
//!
//! Name this module as `wasmtime_crate`, and make imports and exports async:
//!
//! ```
//! use futures_timer::Delay;
//! use std::time::Duration;
//! use wasmtime::Engine;
//! use wasmtime::component::{Component, HasSelf};
//! use wasmtime_async::component::for_bindgen::OnStack;
//! use wasmtime_async::component::for_bindgen::component::Linker;
//! use wasmtime_async::{DEFAULT_STACK_SIZE, DefaultStack, Stack, Store};
//!
//! wasmtime::component::bindgen!({
//!     inline: "
//!         package example:clock;
//!         world guest {
//!             import sleep: func(ms: u32) -> u32;
//!             export run: func(ms: u32) -> u32;
//!         }
//!     ",
//!     imports: { default: async },
//!     exports: { default: async },
//!     wasmtime_crate: wasmtime_async::component::for_bindgen,
//! });
//!
//! struct Host {
//!     slept: u32,
//! }
//!
//! impl GuestImports for Host {
//!     async fn sleep(&mut self, ms: u32) -> u32 {
//!         Delay::new(Duration::from_millis(ms.into())).await;
//!         self.slept += ms;
//!         self.slept
//!     }
//! }
//!
//! # fn main() -> wasmtime::Result<()> {
//! let engine = Engine::default();
//! let mut linker = Linker::new(&engine);
//! Guest::add_to_linker::<_, HasSelf<_>>(&mut linker, |host: &mut Host| host)?;
//! # let component = r#"(component
//! #     (import "sleep" (func $sleep (param "ms" u32) (result u32)))
//! #     (core func $sleep (canon lower (func $sleep)))
//! #     (core module $guest
//! #         (import "" "sleep" (func $sleep (param i32) (result i32)))
//! #         (func (export "run") (param i32) (result i32)
//! #             (drop (call $sleep (local.get 0))) (call $sleep (local.get 0))))
//! #     (core instance $guest (instantiate $guest (with "" (instance (export "sleep" (func $sleep))))))
//! #     (func (export "run") (param "ms" u32) (result u32) (canon lift (core func $guest "run"))))"#;
//! let component = Component::new(&engine, component)?;
//!
//! let mut store = Store::new(&engine, Host { slept: 0 });
//! let mut stack = DefaultStack::new(DEFAULT_STACK_SIZE)?;
//! let slept = async {
//!     let mut store = OnStack::new(&mut stack, &mut store);
//!     let guest = Guest::instantiate_async(&mut store, &component, &linker).await?;
//!     guest.call_run(&mut store, 10).await
//! };
//! assert_eq!(futures::executor::block_on(slept)?, 20);
//! # Ok(())
//! # }
//! ```
//!
//! Code that is generated with `async` needs data that is `Send`, as with wasmtime itself, and works on every stack. If
//! an async host function calls an export with its store's context, that is a nested call: see [`CallWithin`].
//! Functions of the type `async func` need wasmtime's own async.
//!
//! The module contains what code from `bindgen!` of wasmtime 48 uses.

pub mod component;

use crate::call::Job;
use crate::{Call, CallWithin, Carries, Stack};
use job::Ours;
use std::fmt;
use std::future::Future;

pub use crate::Store;
pub use wasmtime::*;

/// A store and the stack to call on: what generated exports take as `store`.
pub struct OnStack<'a, S, T: 'static> {
    stack: &'a mut S,
    store: &'a mut Store<T>,
}

impl<'a, S: Stack + Carries<T>, T: 'static> OnStack<'a, S, T> {
    /// Makes calls in `store`, on `stack`.
    #[must_use]
    pub fn new(stack: &'a mut S, store: &'a mut Store<T>) -> Self {
        Self { stack, store }
    }
}

impl<S: fmt::Debug, T: 'static> fmt::Debug for OnStack<'_, S, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnStack").field("stack", &self.stack).finish_non_exhaustive()
    }
}

impl<S, T: 'static> AsContext for OnStack<'_, S, T> {
    type Data = T;

    fn as_context(&self) -> StoreContext<'_, T> {
        self.store.as_context()
    }
}

/// What generated code takes as a store. To call exports, this is an [`OnStack`]. Inside an async host function it is
/// the context of that function's store, and the call is a nested one ([`CallWithin`]). To look up exports, it is any
/// of wasmtime's contexts.
pub trait AsContextMut: AsContext {
    /// Where calls are made: on a kind of stack, or [`Within`] another call.
    type Place: Place<Self::Data>;

    /// Reborrows this for a shorter time.
    fn as_context_mut(&mut self) -> Context<'_, Self::Data, Self::Place>;
}

/// A store, and where calls are made in it: see [`AsContextMut`].
pub struct Context<'a, T: 'static, P>(Target<'a, T, P>);

enum Target<'a, T: 'static, P> {
    On(&'a mut P, &'a mut Store<T>),
    Within(StoreContextMut<'a, T>),
}

impl<T: 'static, P> Context<'_, T, P> {
    /// wasmtime's context.
    pub(super) fn plain(&mut self) -> StoreContextMut<'_, T> {
        match &mut self.0 {
            Target::On(_, store) => wasmtime::AsContextMut::as_context_mut(*store),
            Target::Within(store) => wasmtime::AsContextMut::as_context_mut(store),
        }
    }
}

impl<T: 'static, P> fmt::Debug for Context<'_, T, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").finish_non_exhaustive()
    }
}

impl<T: 'static, P> AsContext for Context<'_, T, P> {
    type Data = T;

    fn as_context(&self) -> StoreContext<'_, T> {
        match &self.0 {
            Target::On(_, store) => store.as_context(),
            Target::Within(store) => store.as_context(),
        }
    }
}

impl<T: 'static, P: Place<T>> AsContextMut for Context<'_, T, P> {
    type Place = P;

    fn as_context_mut(&mut self) -> Context<'_, T, P> {
        Context(match &mut self.0 {
            Target::On(stack, store) => Target::On(stack, store),
            Target::Within(store) => Target::Within(wasmtime::AsContextMut::as_context_mut(store)),
        })
    }
}

impl<S: Stack + Carries<T>, T: 'static> AsContextMut for OnStack<'_, S, T> {
    type Place = S;

    fn as_context_mut(&mut self) -> Context<'_, T, S> {
        Context(Target::On(self.stack, self.store))
    }
}

impl<C: AsContextMut> AsContextMut for &mut C {
    type Place = C::Place;

    fn as_context_mut(&mut self) -> Context<'_, C::Data, C::Place> {
        (**self).as_context_mut()
    }
}

macro_rules! within {
    ($($Context:ty),*) => {
        $(impl<T: 'static> AsContextMut for $Context {
            type Place = Within;

            fn as_context_mut(&mut self) -> Context<'_, T, Within> {
                Context(Target::Within(wasmtime::AsContextMut::as_context_mut(self)))
            }
        })*
    };
}
within!(StoreContextMut<'_, T>, Caller<'_, T>, Store<T>, wasmtime::Store<T>);

/// Where the calls of generated code are made. Only this crate's own jobs run there, because every stack carries them.
/// Closures do not, because they may hold something that is not `Send`:
///
/// ```compile_fail,E0308
/// use wasmtime_async::component::for_bindgen::{Context, Place, StoreContextMut};
///
/// fn run<P: Place<()>>(context: Context<'_, (), P>) {
///     let _ = P::call(context, |_: StoreContextMut<'_, ()>| Ok(()));
/// }
/// ```
pub trait Place<T: 'static>: Sized {
    /// Runs a job in the store.
    #[doc(hidden)]
    fn call<J: Job<T>>(context: Context<'_, T, Self>, job: Ours<J>) -> impl Future<Output = Result<J::Output>>;
}

mod job {
    /// A job of this crate's own. Nobody else can make one.
    #[derive(Debug)]
    pub struct Ours<J>(pub(super) J);
}

impl<S: Stack + Carries<T>, T: 'static> Place<T> for S {
    async fn call<J: Job<T>>(context: Context<'_, T, S>, Ours(job): Ours<J>) -> Result<J::Output> {
        match context.0 {
            Target::On(stack, store) => Call::new(stack, store, job).await,
            Target::Within(mut store) => CallWithin::new(&mut store, job).await,
        }
    }
}

/// Nested calls, made within an async host function.
#[derive(Debug)]
pub enum Within {}

impl<T: 'static> Place<T> for Within {
    async fn call<J: Job<T>>(context: Context<'_, T, Self>, Ours(job): Ours<J>) -> Result<J::Output> {
        match context.0 {
            Target::On(within, _) => match *within {},
            Target::Within(mut store) => CallWithin::new(&mut store, job).await,
        }
    }
}
