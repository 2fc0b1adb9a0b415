//! The data of stores, in which tests see what happened.

use std::sync::{Arc, Mutex};

/// The data of most tests' stores.
#[derive(Clone, Debug, Default)]
pub(crate) struct Host {
    /// Tells stores apart.
    pub(crate) id: i32,
    /// What happened, in order. Can be read while the store is in a call.
    pub(crate) log: Log,
}

/// A list of what happened that several can write to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub(crate) fn add(&self, what: impl Into<String>) {
        self.0.lock().expect("nothing panics with the lock held").push(what.into());
    }

    /// All that was added since this was last called.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().expect("nothing panics with the lock held"))
    }

    /// A value that adds an entry when it is dropped.
    pub(crate) fn on_drop(&self, what: &'static str) -> OnDrop {
        OnDrop(self.clone(), what)
    }
}

/// See [`Log::on_drop`].
#[derive(Debug)]
pub(crate) struct OnDrop(Log, &'static str);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.add(self.1);
    }
}
