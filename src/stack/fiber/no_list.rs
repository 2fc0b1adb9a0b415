//! Takes the place of `list` on systems where the thread's list of activations is not looked for. It is never
//! available.
#![expect(unsafe_code, reason = "has the functions of `list`")]

use std::convert::Infallible;

/// There is none. (A private field, so that other modules are not told that their code is unreachable.)
#[derive(Clone, Copy, Debug)]
#[allow(dead_code, reason = "is never made")]
pub(super) struct ThreadList(Infallible);

/// There is nothing on it.
#[derive(Clone, Copy, Debug)]
#[allow(dead_code, reason = "is never made")]
pub(super) struct Head(Infallible);

impl ThreadList {
    pub(super) fn of_this_thread() -> Option<Self> {
        None
    }

    pub(super) fn can_park(self) -> bool {
        match self.0 {}
    }

    pub(super) fn head(self) -> Head {
        match self.0 {}
    }

    /// # Safety
    ///
    /// Never called.
    pub(super) unsafe fn replace(self, _: Head) -> Head {
        match self.0 {}
    }
}

/// The root cannot be seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Root;

impl Root {
    pub(crate) const UNSEEN: Self = Self;

    pub(super) fn of(_: Option<ThreadList>) -> Self {
        Self
    }

    pub(crate) fn here() -> Self {
        Self
    }

    pub(crate) fn is_seen(self) -> bool {
        false
    }

    pub(crate) fn is_one_activation_away(self) -> Option<bool> {
        None
    }
}
