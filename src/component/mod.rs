//! Components: async host functions and resources, instantiation, and calls on a stack. (Feature `component-model`.)
//!
//! | to | use |
//! |---|---|
//! | define an async host function or resource | [`LinkerInstanceExt`] |
//! | implement traits that `bindgen!` has generated | [`for_bindgen`] |
//! | instantiate a component | [`LinkerExt::instantiate_on`], [`InstancePreExt::instantiate_on`] |
//! | call what it exports | [`AsyncFunc::call`], [`FuncExt::call_on`], or [`for_bindgen`] |
//! | drop a resource that the guest defines | [`ResourceAnyExt::drop_on`] |
//!
//! All of this works on every stack, as it does for modules. The same rules decide what a stack suspends, and which
//! host functions work on a [`SendFiberStack`](crate::SendFiberStack).
//!
//! After a trap, and after a call was cancelled, wasmtime does not enter the components of that store again.
//!
//! # Nested calls
//!
//! While a guest is calling a host function, that function may call instances of its store, with
//! [`AsyncFunc::call_within`] and similar methods. wasmtime decides whether it may call the component that called it.
//! If wasmtime's feature `component-model-async` is on, with concurrency support, wasmtime refuses that with
//! [`Trap::CannotEnterComponent`](wasmtime::Trap::CannotEnterComponent).
//!
//! # Async functions of the component model
//!
//! Functions of the type `async func` (WASI 0.3) need wasmtime's own event loop. They cannot be called on a stack.

pub mod for_bindgen;
mod func;
mod linker;

pub use func::{AsyncFunc, DropResource, FuncExt, ResourceAnyExt, TypedCall, UntypedCall};
pub use linker::{InstancePreExt, Instantiate, InstantiatePre, LinkerExt, LinkerInstanceExt};
