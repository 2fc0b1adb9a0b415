#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod asking;
pub mod command;
mod error;
mod functions;
mod guest;
#[cfg(feature = "http")]
pub mod http;
pub mod p0;
pub mod p1;
pub mod p2;
mod sleep;
mod turn;

pub use error::Error;
pub use turn::HOST_CALLS_IN_A_ROW;

use wasmtime::Result;
