//! The data of stores, where tests see what happened.

use std::sync::{Arc, Mutex};

/// The data of most tests' stores.
#[derive(Clone, Debug, Default)]
pub(crate) struct Host {
    /// Identifies the store.
    pub(crate) id: i32,
    /// What happened, in order. Tests can read it while a call is using the store.
    pub(crate) log: Log,
}

/// A list of events. Its clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub(crate) fn add(&self, what: impl Into<String>) {
        self.0.lock().expect("nothing panics with the lock held").push(what.into());
    }

    /// Takes all entries out of the list.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().expect("nothing panics with the lock held"))
    }

    /// Returns a value that adds an entry when it is dropped.
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
