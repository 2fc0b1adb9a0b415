#![doc = include_str!("../README.md")]

mod arity;
mod call;
mod error;
mod frame;
mod func;
mod getter;
mod host;
mod linker;
mod stack;
#[cfg(target_has_atomic = "64")]
mod store;
mod suspend;
mod sync;

#[doc = include_str!("../docs/reviewing.md")]
pub mod reviewing {}

pub use call::{Call, Job};
pub use error::Error;
pub use func::{FuncExt, UntypedCall};
pub use getter::{AsyncFunc, AsyncGetter, TypedCall};
pub use host::{HostFn, WithCaller};
pub use linker::{InstancePreExt, Instantiate, InstantiatePre, LinkerExt};
pub use stack::available::*;
pub use stack::{Carries, DEFAULT_SIZE, Stack};
#[cfg(target_has_atomic = "64")]
pub use store::StoreExt;
pub use suspend::{suspend_until, yield_now};

use wasmtime::Result;
