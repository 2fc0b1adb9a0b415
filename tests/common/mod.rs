//! What several tests share.
#![allow(dead_code, reason = "each test uses a part of it")]

pub(crate) mod child;
pub(crate) mod futures;
pub(crate) mod moving;
pub(crate) mod random;
pub(crate) mod watchdog;

/// The number in an environment variable, if it is set.
pub(crate) fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} is not a number: {value}")))
}
