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

/// What asks to be suspended. (Two words, to be passed in registers.)
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site {
    /// See [`store_id`](crate::call::store_id). Null where frames of any kind may lie below.
    store: *const (),
    /// Whether what waits is `Send`.
    send: bool,
}

impl Site {
    /// Code of any kind, with any frames below it.
    pub(crate) const ANYWHERE: Self = Self { store: ptr::null(), send: false };

    /// This crate's side of a host function or of an epoch callback, called by a guest of this store.
    #[inline]
    pub(crate) fn host_function(store: *const (), send: bool) -> Self {
        Self { store, send }
    }
}

/// Why a stack is not suspended. (One byte: an [`Error`] takes longer to return.)
#[derive(Clone, Copy, Debug)]
pub(crate) enum Refusal {
    Foreign(Between),
    NotSend,
    Unwinding,
}

impl From<Refusal> for Error {
    #[cold]
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Foreign(between) => Error::ForeignFrames { between },
            Refusal::NotSend => Error::NotSend,
            Refusal::Unwinding => Error::Unwinding,
        }
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Limits {
    rule: Rule,
    /// The store that the call was made with. Only compared.
    store: Cell<*const ()>,
    /// Whether the job of the call is one of this crate's, rather than a user's closure.
    known: Cell<bool>,
    /// Whether the thread was panicking when the stack was entered, so that it says nothing of what runs on it.
    poller_panics: Cell<bool>,
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
            poller_panics: Cell::new(false),
            #[cfg(fiber_stack)]
            root: Cell::new(Root::UNSEEN),
        }
    }

    #[cfg(fiber_stack)]
    pub(crate) fn rule(&self) -> Rule {
        self.rule
    }

    /// A call begins: in which store, and whether its job is one of this crate's.
    #[inline]
    pub(crate) fn begin(&self, store: *const (), known: bool) {
        self.store.set(store);
        self.known.set(known);
    }

    /// The stack is about to run, on this thread.
    #[inline]
    pub(crate) fn enter(&self) {
        if self.rule == Rule::Anything {
            self.poller_panics.set(thread::panicking());
        }
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
    pub(crate) fn allow(&self, site: Site, is_polling: bool) -> Result<(), Refusal> {
        if self.rule == Rule::Anything {
            // A thread counts its panics. Suspended in mid-panic, the stack would leave that count to unrelated code.
            let panics = thread::panicking() && !self.poller_panics.get();
            return if panics { Err(Refusal::Unwinding) } else { Ok(()) };
        }
        Err(Refusal::Foreign(if !self.known.get() {
            Between::Closure
        } else if site.store.is_null() {
            Between::HostCode
        } else if is_polling {
            Between::Poll
        } else if site.store != self.store.get() {
            Between::OtherStore
        } else if !self.is_next_to_root() {
            Between::NestedCall
        } else if self.rule == Rule::KnownSend && !site.send {
            return Err(Refusal::NotSend);
        } else {
            return Ok(());
        }))
    }

    /// Whether a host function may call its guest within its call: on any stack only if the guest of the call has called it.
    ///
    /// # Errors
    ///
    /// What is in the way.
    #[cfg(fiber_stack)]
    pub(crate) fn allow_nested(&self, site: Site) -> Result<(), Refusal> {
        self.allow(site, false)?;
        if site.store != self.store.get() {
            return Err(Refusal::Foreign(Between::OtherStore));
        }
        if self.is_next_to_root() { Ok(()) } else { Err(Refusal::Foreign(Between::NestedCall)) }
    }

    /// Whether one activation of wasmtime's lies between the root of the call and the running code. Where that cannot be
    /// seen, it is taken to be more, but on systems where no `FiberStack` can see it.
    fn is_next_to_root(&self) -> bool {
        #[cfg(fiber_stack)]
        if let Some(seen) = self.root.get().is_one_activation_away() {
            return seen;
        }
        !cfg!(thread_list) && self.rule != Rule::KnownSend
    }
}
