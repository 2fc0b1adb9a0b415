#![doc = include_str!("index.md")]

#[doc = include_str!("from_call_async.md")]
pub mod from_call_async {}

#[doc = include_str!("from_blocking.md")]
pub mod from_blocking {}

#[doc = include_str!("which_stack.md")]
pub mod which_stack {}

#[doc = include_str!("cookbook.md")]
pub mod cookbook {}

#[doc = include_str!("how_it_works.md")]
pub mod how_it_works {}
