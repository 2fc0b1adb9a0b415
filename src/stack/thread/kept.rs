//! Threads of dropped stacks that are kept for new stacks, if the user asks for it.

use super::ThreadStack;
use super::cache::Cache;
use super::runner::Service;
use crate::Error;
use crate::stack::check_size;
use crate::sync::Arc;
use std::fmt;
use std::time::Duration;

/// Keeps the threads of dropped stacks for new ones, so that making a [`ThreadStack`] does not always start a thread.
///
/// Most programs do not need this: a stack runs one call after the other on the same thread, and so do the stacks of a
/// [`Pool`](crate::Pool). It is for programs that make and drop many stacks, maybe of different sizes.
///
/// A thread keeps what it inherited from the thread that started it: see
/// [`ThreadStack`](ThreadStack#what-its-thread-inherits). So all threads that make stacks from one cache should be
/// alike in this respect.
///
/// Clones share the threads. A thread ends after it has waited for `idle_limit`, even if the cache is gone.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use wasmtime::Engine;
/// use wasmtime_async::{DEFAULT_STACK_SIZE, Stack, Store, ThreadCache};
///
/// let cache = ThreadCache::new(64, Duration::from_secs(10));
/// let mut store = Store::new(&Engine::default(), ());
/// let mut thread = || {
///     let mut stack = cache.stack(DEFAULT_STACK_SIZE)?;
///     futures::executor::block_on(stack.run(&mut store, |_| Ok(std::thread::current().id())))
/// };
/// assert_eq!(thread()?, thread()?);
/// # Ok::<(), wasmtime::Error>(())
/// ```
#[derive(Clone)]
pub struct ThreadCache(Arc<Cache<Service>>);

impl ThreadCache {
    /// Makes a cache that keeps at most `max` threads, each for at most `idle_limit`.
    #[must_use]
    pub fn new(max: usize, idle_limit: Duration) -> Self {
        Self(Arc::new(Cache::new(max, idle_limit, Service::work)))
    }

    /// Makes a stack of `size` bytes on a thread from the cache. Starts a thread if the cache has none of this size.
    ///
    /// When the stack is dropped, its thread returns to the cache.
    ///
    /// # Errors
    ///
    /// Those of [`Stack::new`](crate::Stack::new).
    pub fn stack(&self, size: usize) -> Result<ThreadStack, Error> {
        ThreadStack::with_cache(check_size(size)?, Arc::clone(&self.0))
    }

    /// Tells the threads in the cache to end. Does not wait until they have ended.
    pub fn clear(&self) {
        self.0.clear();
    }
}

impl fmt::Debug for ThreadCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadCache").finish_non_exhaustive()
    }
}
