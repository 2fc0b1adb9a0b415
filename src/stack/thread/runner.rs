//! A stack's worker. Passing it the baton enters the stack.
#![expect(unsafe_code, reason = "poller and worker share what only the one who has the baton may use")]

use super::ambient::Ambient;
use super::cache::{Cache, Worker};
use super::handoff::{Baton, Side};
use crate::frame::{Frame, Leave};
use crate::limits::Rule;
use crate::stack::ambient::Hook;
use crate::sync::Arc;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::ptr;

/// A worker's thread, and what enters it. The stack owns it while it is idle, and a call owns it while the call runs.
///
/// It is only dropped while idle. A runner that is forgotten leaves its thread waiting forever.
pub struct Runner {
    shared: Arc<Shared>,
    /// `None` only while this is being dropped.
    worker: Option<Worker<Service>>,
    cache: Arc<Cache<Service>>,
    hook: Option<Hook>,
    /// Not `Sync`: only one thread at a time may use the frame.
    not_sync: PhantomData<std::cell::Cell<()>>,
}

/// The state that poller and worker share. Each keeps it alive for itself, because each touches the baton for a moment
/// longer than it has it.
struct Shared {
    baton: Baton,
    /// The size of the worker's stack, in bytes.
    size: usize,
    frame: Frame,
    ambient: Ambient,
}

/// A worker's job: all the calls on one runner, until that runner is dropped.
pub(crate) struct Service(Arc<Shared>);

// SAFETY: only the side that has the baton uses anything but the baton, and passing it is a happens-before edge. The
// parts that need not be `Send` stay on one side: `Ambient::entered` belongs to the worker; the frame points to a slot
// whose contents are `Send` (`Carries`), and to a waker.
unsafe impl Send for Shared {}
// SAFETY: only the side that has the baton uses anything but the baton, as above.
unsafe impl Sync for Shared {}

impl Runner {
    /// Gets a worker with a stack of `size` bytes, which waits for the first entry.
    pub(crate) fn new(cache: &Arc<Cache<Service>>, size: usize, hook: Option<Hook>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            baton: Baton::new(),
            size,
            frame: Frame::new(Leave::Thread, Rule::Anything),
            ambient: Ambient::default(),
        });
        let worker = Cache::hire(cache, size, Service(shared.clone()))?;
        Ok(Self { shared, worker: Some(worker), cache: cache.clone(), hook, not_sync: PhantomData })
    }

    pub(crate) fn frame(&self) -> &Frame {
        &self.shared.frame
    }

    pub(crate) fn set_hook(&mut self, hook: Hook) {
        self.hook = Some(hook);
    }

    /// Whether this runner should be dropped, and not used for another call.
    pub(crate) fn is_spoilt(&self) -> bool {
        self.shared.ambient.is_spoilt()
    }

    /// Lets the worker run until it leaves its stack.
    ///
    /// # Safety
    ///
    /// That of [`Backend::enter`](crate::stack::Backend::enter).
    pub(crate) unsafe fn enter(&mut self) {
        let Shared { baton, ambient, .. } = &*self.shared;
        ambient.capture(self.hook.as_ref());
        baton.pass(Side::Worker);
        baton.wait(Side::Poller);
    }
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runner").finish_non_exhaustive()
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        let spoilt = self.is_spoilt();
        // Returns the worker to its cache before it is told to go there.
        if let Some(worker) = self.worker.take()
            && !spoilt
        {
            self.cache.give_back(worker);
        }
        // The worker is entered with nothing to start, so it ends its service. The baton does not come back.
        self.shared.baton.pass(Side::Worker);
    }
}

impl Service {
    /// The worker's side, on its thread.
    pub(crate) fn work(self) {
        let shared = &*self.0;
        shared.baton.wait(Side::Worker);
        shared.frame.set_backend(ptr::from_ref(shared).cast());
        shared.frame.set_extent(shared.size);
        let _current = shared.frame.make_current();
        shared.ambient.enter();
        // SAFETY: nothing else runs on this thread during this service, and the backend is set.
        unsafe { shared.frame.serve() };
        shared.ambient.leave();
    }
}

/// Leaves the worker's stack: lets the poller run until it enters again.
///
/// # Safety
///
/// Called on the worker's thread, in the service of the runner that `backend` belongs to.
pub(crate) unsafe fn leave(backend: *const ()) {
    // SAFETY: `work` has set it, and keeps it alive.
    let shared = unsafe { &*backend.cast::<Shared>() };
    shared.ambient.leave();
    shared.baton.pass(Side::Poller);
    shared.baton.wait(Side::Worker);
    shared.ambient.enter();
}
