//! What may be suspended on a stack.
//!
//! Two kinds of frames can lie between the root of a call and the code that waits. Known frames belong to guests, to
//! wasmtime and to this crate. (The futures that host functions wait for are not frames, but pinned data.) All other
//! frames are foreign: closures, synchronous host functions, destructors. They may have borrowed or set thread-local
//! variables, may hold locks, or may depend on ending in the reverse order of their beginning.
//!
//! If only known frames are suspended, nothing depends on the thread, on the order in which calls end, or on whether
//! they end at all. A foreign frame can only get in between in one of four ways: it is the job of the call, it is a
//! future that is being polled, it has entered another store, or it has entered the same store again. [`Limits::allow`]
//! checks for each of them. It runs only when a future is pending, so a future that is ready costs nothing.

use crate::error::{Between, Error};
#[cfg(call_hook)]
use crate::stack::fiber::Entries;
#[cfg(fiber_stack)]
use crate::stack::fiber::Root;
use crate::sync::cell::Cell;
use std::ptr;
use std::thread;
#[cfg(call_hook)]
use wasmtime::CallHook;

/// What a stack suspends.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(not(fiber_stack), expect(dead_code, reason = "threads suspend anything"))]
pub(crate) enum Rule {
    /// Everything.
    Anything,
    /// Known frames only.
    Known,
    /// Known frames only, while they wait for futures that are `Send`.
    KnownSend,
}

/// The code that asks to be suspended. (Two words, so that it is passed in registers.)
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site {
    /// See [`store_id`](crate::call::store_id). Null if frames of any kind may lie below.
    store: *const (),
    /// Whether what waits is `Send`.
    send: bool,
}

impl Site {
    /// Code of any kind, with any kind of frames below it.
    pub(crate) const ANYWHERE: Self = Self { store: ptr::null(), send: false };

    /// This crate's code for a host function or for an epoch callback, which a guest of this store has called.
    #[inline]
    pub(crate) fn host_function(store: *const (), send: bool) -> Self {
        Self { store, send }
    }
}

/// Why a stack is not suspended. (One byte, because returning an [`Error`] takes longer.)
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
    /// The store that the call was made with. It is only compared.
    store: Cell<*const ()>,
    /// Whether the job of the call is one of this crate's own, not a user's closure.
    known: Cell<bool>,
    /// Whether the thread was already panicking when the stack was entered. Then `thread::panicking` says nothing about
    /// the code on the stack.
    poller_panics: Cell<bool>,
    /// Where the call's part of the thread's list of activations begins.
    #[cfg(fiber_stack)]
    root: Cell<Root>,
    /// Counts how often the guests of the call's store are entered, where the list cannot be read.
    #[cfg(call_hook)]
    pub(crate) entries: Entries,
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
            #[cfg(call_hook)]
            entries: Entries::default(),
        }
    }

    #[cfg(fiber_stack)]
    pub(crate) fn rule(&self) -> Rule {
        self.rule
    }

    /// Notes that a call begins, in which store, and whether its job is one of this crate's own.
    #[inline]
    pub(crate) fn begin(&self, store: *const (), known: bool) {
        self.store.set(store);
        self.known.set(known);
        #[cfg(call_hook)]
        self.entries.begin();
    }

    /// Notes that guests of this store are being entered or left.
    #[cfg(call_hook)]
    pub(crate) fn count(&self, store: *const (), hook: CallHook) {
        if self.store.get() == store {
            self.entries.count(hook);
        }
    }

    /// Whether the call was made with this store.
    #[cfg(feature = "thread-backend")]
    pub(crate) fn is_of(&self, store: *const ()) -> bool {
        self.store.get() == store
    }

    /// Notes that the stack is about to run on this thread.
    #[inline]
    pub(crate) fn enter(&self) {
        if self.rule == Rule::Anything {
            self.poller_panics.set(thread::panicking());
        }
    }

    /// Sets where the call's part of the thread's list begins. Called before any code of the call runs on the stack.
    #[cfg(fiber_stack)]
    #[inline]
    pub(crate) fn set_root(&self, root: Root) {
        self.root.set(root);
    }

    /// Checks whether the stack may be suspended where it is now. `is_polling` says whether that is inside the poll of
    /// a future.
    ///
    /// This is not inlined, because it reads thread-local variables. Their addresses must not be kept across a switch,
    /// because another thread may run the code after it.
    ///
    /// # Errors
    ///
    /// What is in the way.
    #[inline(never)]
    pub(crate) fn allow(&self, site: Site, is_polling: bool) -> Result<(), Refusal> {
        if self.rule == Rule::Anything {
            // A thread counts its panics. If the stack were suspended during a panic, that count would affect unrelated
            // code.
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
        } else if let Some(between) = self.between_root_and_here() {
            between
        } else if self.rule == Rule::KnownSend && !site.send {
            return Err(Refusal::NotSend);
        } else {
            return Ok(());
        }))
    }

    /// Checks whether a host function may call its guest within its call. On every stack, it may only if the guest of
    /// the call has called it.
    ///
    /// # Errors
    ///
    /// What is in the way.
    #[cfg(fiber_stack)]
    pub(crate) fn allow_nested(&self, site: Site) -> Result<(), Refusal> {
        self.allow(site, false)?;
        if self.rule != Rule::Anything {
            return Ok(());
        }
        if site.store != self.store.get() {
            return Err(Refusal::Foreign(Between::OtherStore));
        }
        self.between_root_and_here().map_or(Ok(()), |between| Err(Refusal::Foreign(between)))
    }

    /// What lies between the root of the call and the running code, unless that is exactly one of wasmtime's
    /// activations.
    #[cfg_attr(
        not(fiber_stack),
        expect(clippy::unnecessary_wraps, clippy::unused_self, reason = "threads suspend anything")
    )]
    fn between_root_and_here(&self) -> Option<Between> {
        cfg_select! {
            thread_list => (!self.root.get().is_one_activation_away()).then_some(Between::NestedCall),
            call_hook => self.entries.between_root_and_here(),
            _ => Some(Between::NestedCall),
        }
    }
}
