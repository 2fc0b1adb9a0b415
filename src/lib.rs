#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg), doc(auto_cfg(hide(fiber_stack))))]

mod activation;
mod arity;
mod call;
mod error;
mod frame;
mod func;
mod getter;
mod host;
mod linker;
mod pool;
mod stack;
#[cfg(target_has_atomic = "64")]
mod store;
mod suspend;
mod sync;

#[cfg(doc)]
#[doc = include_str!("../docs/reviewing.md")]
pub mod reviewing {}

/// Keeps this crate's extension traits to the types of wasmtime that they extend, so that they can get more methods.
mod sealed {
    pub trait Extended {}
    impl Extended for wasmtime::Func {}
    impl<T: 'static> Extended for wasmtime::InstancePre<T> {}
    impl<T: 'static> Extended for wasmtime::Linker<T> {}
    impl<T: 'static> Extended for wasmtime::Store<T> {}
}

pub use call::{Call, Job};
pub use error::Error;
pub use func::{FuncExt, UntypedCall};
pub use getter::{AsyncFunc, AsyncGetter, TypedCall};
pub use host::{HostFn, WithCaller};
pub use linker::{InstancePreExt, Instantiate, InstantiatePre, LinkerExt};
pub use pool::{Pool, PoolCounts, PooledStack};
pub use stack::available::*;
pub use stack::{Carries, DEFAULT_STACK_SIZE, Stack};
#[cfg(target_has_atomic = "64")]
pub use store::StoreExt;
pub use suspend::{suspend_until, yield_now};

use wasmtime::Result;
