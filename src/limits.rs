//! What may be suspended on a stack.
//!
//! Between the root of a call and the code that waits lie frames of two kinds. Known frames are guests, wasmtime's and
//! this crate's; what host functions wait for is no frame, but pinned data. Foreign frames are all others: closures,
//! synchronous host functions, destructors. They may have borrowed or set variables of the thread, hold locks, or count on
//! ending in the reverse order of their beginning.
//!
//! Where only known frames are suspended, nothing depends on the thread, or on the order in which calls end, or on whether
//! they end at all. Any foreign frame in between must have been there before: as the job of the call, as a future that is
//! being polled, by entering another store, or by entering the same store again. [`Limits::allow`] looks for each, and only
//! when a future is pending, so a future that is ready costs nothing.

use crate::error::{Between, Error};
#[cfg(fiber_stack)]
use crate::stack::fiber::Root;
use crate::sync::cell::Cell;
use std::ptr;
use std::thread;

/// What a stack suspends.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(not(fiber_stack), expect(dead_code, reason = "threads suspend anything"))]
pub(crate) enum Rule {
    /// Whatever lies on it.
    Anything,
    /// Known frames only.
    Known,
    /// Known frames only, waiting for futures that are `Send`.
    KnownSend,
}

/// What asks to be suspended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Site {
    /// Code of any kind, with any frames below it.
    Anywhere,
    /// This crate's side of a host function or of an epoch callback that a guest of this store has called (see
    /// [`store_id`](crate::call::store_id)), and whether what waits is `Send`.
    HostFunction { store: *const (), send: bool },
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Limits {
    rule: Rule,
    /// The store that the call was made with. Only compared.
    store: Cell<*const ()>,
    /// Whether the job of the call is one of this crate's, rather than a user's closure.
    known: Cell<bool>,
    /// Where the call's part of the thread's list of activations begins.
    #[cfg(fiber_stack)]
    root: Cell<Root>,
}

impl Limits {
    pub(crate) fn new(rule: Rule) -> Self {
        Self {
            rule,
            store: Cell::new(ptr::null()),
            known: Cell::new(false),
            #[cfg(fiber_stack)]
            root: Cell::new(Root::UNSEEN),
        }
    }

    /// A call begins: in which store, and whether its job is one of this crate's.
    #[inline]
    pub(crate) fn begin(&self, store: *const (), known: bool) {
        self.store.set(store);
        self.known.set(known);
    }

    /// Sets where the call's part of the thread's list begins. Before the stack runs any of the call.
    #[cfg(fiber_stack)]
    #[inline]
    pub(crate) fn set_root(&self, root: Root) {
        self.root.set(root);
    }

    /// Whether the stack may be suspended where it is now, inside the poll of a future or not.
    ///
    /// Not inlined, because it looks at thread-local variables, whose addresses must not be kept across a switch, after
    /// which another thread may go on.
    ///
    /// # Errors
    ///
    /// What is in the way.
    #[inline(never)]
    pub(crate) fn allow(&self, site: Site, is_polling: bool) -> Result<(), Error> {
        if self.rule == Rule::Anything {
            // A thread counts its panics. Suspended in mid-panic, the stack would leave that count to unrelated code.
            return if thread::panicking() { Err(Error::Unwinding) } else { Ok(()) };
        }
        let between = match site {
            _ if !self.known.get() => Between::Closure,
            Site::Anywhere => Between::HostCode,
            Site::HostFunction { .. } if is_polling => Between::Poll,
            Site::HostFunction { store, .. } if store != self.store.get() => Between::OtherStore,
            Site::HostFunction { .. } if !self.is_next_to_root() => Between::NestedCall,
            Site::HostFunction { send: false, .. } if self.rule == Rule::KnownSend => return Err(Error::NotSend),
            Site::HostFunction { .. } => return Ok(()),
        };
        Err(Error::ForeignFrames { between })
    }

    /// Whether one activation of wasmtime's lies between the root of the call and the running code. Where that cannot be
    /// seen, a stack whose calls change threads takes it that there are more.
    fn is_next_to_root(&self) -> bool {
        #[cfg(fiber_stack)]
        if let Some(seen) = self.root.get().is_one_activation_away() {
            return seen;
        }
        self.rule != Rule::KnownSend
    }
}
