//! Components: async host functions and resources, instantiation, and calls on a stack. (Feature `component-model`.)
//!
//! | to | use |
//! |---|---|
//! | define an async host function or resource | [`LinkerInstanceExt`] |
//! | implement traits that `bindgen!` has generated | [`for_bindgen`] |
//! | instantiate a component | [`LinkerExt::instantiate_on`], [`InstancePreExt::instantiate_on`] |
//! | call what it exports | [`AsyncFunc::call`], [`FuncExt::call_on`], or [`for_bindgen`] |
//! | drop a resource of the guest's | [`ResourceAnyExt::drop_on`] |
//!
//! All of it works on every stack, as it does for modules. What a stack suspends, and which host functions a
//! [`SendFiberStack`](crate::SendFiberStack) takes, is the same, too.
//!
//! After a trap, and after a call that was cancelled, wasmtime does not enter the components of the store again.
//!
//! # Nested calls
//!
//! A host function may call instances of its store while it is called by one: by [`AsyncFunc::call_within`] and the like. Whether
//! the component that called it is among them is up to wasmtime: where its feature `component-model-async` is on, with
//! concurrency support, wasmtime refuses that, with [`Trap::CannotEnterComponent`](wasmtime::Trap::CannotEnterComponent).
//!
//! # Async functions of the component model
//!
//! Functions of the type `async func` (WASI 0.3) need wasmtime's own event loop, and are not called on a stack.

pub mod for_bindgen;
mod func;
mod linker;

pub use func::{AsyncFunc, DropResource, FuncExt, ResourceAnyExt, TypedCall, UntypedCall};
pub use linker::{InstancePreExt, Instantiate, InstantiatePre, LinkerExt, LinkerInstanceExt};
