#![doc = include_str!("../README.md")]

mod call;
mod error;
mod frame;
mod stack;
mod suspend;

pub use call::Call;
pub use error::Error;
#[cfg(all(feature = "fiber", any(target_arch = "x86_64", all(target_arch = "aarch64", not(windows)))))]
pub use stack::FiberStack;
pub use stack::{Carries, DEFAULT_SIZE, DefaultStack, Stack};
pub use suspend::{suspend_until, yield_now};

/// A result whose error is wasmtime's, which carries traps, host errors and this crate's [`Error`] alike.
pub type Result<T, E = wasmtime::Error> = std::result::Result<T, E>;
