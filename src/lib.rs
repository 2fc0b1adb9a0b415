#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg), doc(auto_cfg(hide(fiber_stack))))]

mod arity;
mod call;
#[cfg(feature = "component-model")]
pub mod component;
mod error;
mod frame;
mod func;
mod getter;
mod host;
mod in_one_piece;
mod limits;
mod linker;
#[cfg(fiber_stack)]
mod nesting;
mod out_of_line;
mod pool;
mod running;
#[cfg(target_has_atomic = "64")]
mod slices;
mod stack;
mod store;
mod suspend;
mod sync;
#[cfg(feature = "tokio")]
mod tokio_runtime;
#[cfg(feature = "tracing")]
mod tracing_spans;
mod until;
mod within;

#[cfg(doc)]
pub mod guide;

#[cfg(doc)]
#[doc = include_str!("../docs/benchmarks.md")]
///
#[doc = include_str!("../docs/in-flight.svg")]
///
#[doc = include_str!("../docs/in-flight-direct.svg")]
pub mod benchmarks {}

#[cfg(doc)]
#[doc = include_str!("../docs/reviewing.md")]
pub mod reviewing {}

/// Keeps other crates from implementing this crate's traits. Extension traits of wasmtime's types may get more methods,
/// and safe code relies on what the implementations do.
mod sealed {
    pub trait Extended {}
    impl Extended for wasmtime::Func {}
    impl<T: 'static> Extended for wasmtime::InstancePre<T> {}
    impl<T: 'static> Extended for wasmtime::Linker<T> {}

    #[cfg(feature = "component-model")]
    mod component {
        use super::Extended;
        use wasmtime::component::{Func, InstancePre, Linker, LinkerInstance, ResourceAny};

        impl Extended for Func {}
        impl<T: 'static> Extended for InstancePre<T> {}
        impl<T: 'static> Extended for Linker<T> {}
        impl<T: 'static> Extended for LinkerInstance<'_, T> {}
        impl Extended for ResourceAny {}
    }
}

pub use call::{Call, Job};
pub use error::{Between, Error};
pub use func::{FuncExt, UntypedCall};
pub use getter::{AsyncFunc, AsyncGetter, TypedCall};
pub use host::{HostFn, HostParams, SendHostFn, WithCaller};
pub use linker::{InstancePreExt, Instantiate, InstantiatePre, LinkerExt};
pub use pool::{Pool, PoolCounts, PooledStack};
pub use stack::available::*;
pub use stack::{CarriedBy, Carries, DEFAULT_STACK_SIZE, SendStack, Stack};
pub use store::{AsStoreMut, Store};
pub use suspend::{suspend_in_host_function, suspend_until, yield_now};
#[cfg(feature = "tokio")]
pub use tokio_runtime::{EnteredRuntime, tokio_runtime};
#[cfg(feature = "tracing")]
pub use tracing_spans::{CapturedSpans, EnteredSpans, tracing_spans};
pub use until::Until;
pub use within::CallWithin;

use wasmtime::Result;
