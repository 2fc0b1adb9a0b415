//! Fiber stacks: a coroutine (corosensei's, or on Windows a fiber of the system), whose activations are parked whenever
//! it is left.

#[cfg(thread_list)]
mod activation;
#[cfg(not(windows))]
mod coroutine;
#[cfg(windows)]
#[path = "windows.rs"]
mod coroutine;
#[cfg(thread_list)]
mod find;
#[cfg(thread_list)]
mod list;
#[cfg(not(thread_list))]
#[path = "no_list.rs"]
mod list;
#[cfg(not(windows))]
mod memory;
mod parking;
mod runner;
#[cfg(all(thread_list, not(windows)))]
mod self_test;
mod send;
#[cfg(windows)]
mod windows_fiber;
#[cfg(all(thread_list, not(windows)))]
mod words;
#[cfg(all(thread_list, windows))]
#[path = "words_windows.rs"]
mod words;

use super::ambient::Hook;
use super::{Backend, CarriesSealed, Stack, check_room, check_size};
use crate::Error;
use crate::frame::Frame;
use crate::limits::Rule;
pub(crate) use coroutine::leave;
pub(crate) use list::Root;
use list::ThreadList;
#[cfg(call_hook)]
pub(crate) use list::{Entries, count_entries};
use runner::Runner;
pub(crate) use runner::{has_room, prepare_aside, resume};
pub use send::SendFiberStack;
use std::fmt;
use std::marker::PhantomData;
use wasmtime::Engine;

/// A stack that the polling thread switches to and from in a handful of instructions (corosensei). On Windows it is one
/// of the system's fibers, and the thread becomes a fiber while it polls.
///
/// It suspends guests that wait in async host functions, whatever they wait for. Futures and the store's data need not
/// be `Send`, and in return, calls are not `Send` either. (Use a [`SendFiberStack`] for `tokio::spawn`.) An idle stack
/// can be sent to another thread.
///
/// # What it suspends
///
/// A fiber stack suspends known frames: guests, wasmtime's own and this crate's. These keep nothing in the thread, so
/// calls may end in any order, and may be forgotten. Other code of yours is not suspended: the closure of
/// [`Stack::run`], a synchronous host function that waits, or one that calls the guest again, which waits. Such code
/// may have borrowed or set a thread-local variable, may hold a lock, or may be in the middle of an initialiser.
/// Whatever wants to wait there gets [`Error::ForeignFrames`], which says what is in the way. A
/// [`ThreadStack`](crate::ThreadStack) suspends such code, because it has a thread to itself. So does a stack made by
/// [`unchecked`](Self::unchecked), at your own risk.
///
/// To see that a synchronous host function has called its own guest again, the crate reads wasmtime's list of
/// activations on Linux and Windows. There it does not see a hook of wasmtime's feature `call-hook` that calls a guest
/// before another one is entered, or after it was left. On other systems it counts entries itself, with such a hook in
/// each [`Store`](crate::Store#call-hooks).
///
/// # Memory
///
/// A stack takes address space of twice its size, with guard pages. The second half is for the futures of host
/// functions that call their guest, and otherwise takes no memory. Where activations are not parked directly, there is
/// a small third stack, with a store of wasmtime's (see [how it works](crate::guide::how_it_works)). All of this is
/// made at the first use, or by [`Stack::new`], and reused call after call without an allocation. wasmtime's own limit
/// (`Config::max_wasm_stack`) stops a guest that recurses without end. A host function that does so hits the guard
/// page, which ends the process, as it would on a thread's own stack.
pub struct FiberStack(Fiber);

impl FiberStack {
    /// Makes a stack that suspends anything, as [`suspend_until`](crate::suspend_until) in synchronous code needs it.
    ///
    /// # Errors
    ///
    /// Those of [`Stack::new`].
    ///
    /// # Safety
    ///
    /// Suspended frames share the thread's variables with everything that runs in the meantime. They may end in any
    /// order, or never, if their call is forgotten. So code must not be suspended, and other code must not enter it
    /// again while it is suspended, if it
    ///
    /// - uses what a thread-local variable *lends*: within `LocalKey::with`, `scoped_tls::ScopedKey::with` and similar
    ///   functions, even if the variable was set further out, around the poll;
    /// - *initialises* a thread-local variable, a `Once`, a `OnceLock` or a `LazyLock`;
    /// - has *set* a thread-local variable for as long as a closure runs or a guard exists, such as that of an entered
    ///   runtime or span;
    /// - holds a lock that code on the same thread might want, or whose guard must be dropped on the thread that locked
    ///   it;
    /// - is anything else whose soundness depends on its frames being left at all, or in the reverse order of their
    ///   beginning.
    ///
    /// # Examples
    ///
    /// ```
    /// use futures::executor::block_on;
    /// use futures_timer::Delay;
    /// use std::time::Duration;
    /// use wasmtime::{Engine, Func};
    /// use wasmtime_async::{DEFAULT_STACK_SIZE, FiberStack, FuncExt, Store, suspend_until};
    ///
    /// let mut store = Store::new(&Engine::default(), ());
    /// let sleep = Func::wrap(&mut store, |ms: u32| -> wasmtime::Result<()> {
    ///     suspend_until(Delay::new(Duration::from_millis(ms.into())))?;
    ///     Ok(())
    /// });
    /// // SAFETY: only the function above is suspended, and it keeps nothing in the thread.
    /// let mut stack = unsafe { FiberStack::unchecked(DEFAULT_STACK_SIZE) }?;
    /// let sleep = sleep.get_async(&store).get1::<u32, ()>()?;
    /// block_on(sleep.call(&mut stack, &mut store, (10,)))?;
    /// # Ok::<(), wasmtime::Error>(())
    /// ```
    #[expect(unsafe_code, reason = "has a contract that safe code relies on")]
    pub unsafe fn unchecked(size: usize) -> Result<Self, Error> {
        Ok(Self(Fiber::new(size, Rule::Anything)?))
    }

    /// How a call that this thread makes now, outside of any other call, parks its activations when it suspends.
    ///
    /// ```
    /// use wasmtime_async::{FiberStack, Parking};
    ///
    /// if !cfg!(feature = "direct-parking") {
    ///     assert_eq!(FiberStack::parking(), Parking::Fiber);
    /// }
    /// ```
    pub fn parking() -> Parking {
        if ThreadList::of_this_thread().is_some_and(ThreadList::can_park) { Parking::Direct } else { Parking::Fiber }
    }
}

/// How the activations of a suspended call are parked: see [how it works](crate::guide::how_it_works).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Parking {
    /// By one of wasmtime's own fibers, using only its public API.
    Fiber,
    /// By setting wasmtime's per-thread word (feature `direct-parking`, where that word was found and tested).
    Direct,
}

/// The common part of the kinds of fiber stacks.
struct Fiber {
    size: usize,
    rule: Rule,
    /// `None` while a call runs, and after one was forgotten.
    idle: Option<Runner>,
    hook: Option<Hook>,
}

impl Fiber {
    fn new(size: usize, rule: Rule) -> Result<Self, Error> {
        let size = check_size(size)?;
        Ok(Self { size, rule, idle: Some(Runner::new(size, rule)?), hook: None })
    }

    /// For a rule that must see what is on the stack.
    fn checked(size: usize, rule: Rule) -> Result<Self, Error> {
        if cfg!(thread_list) && ThreadList::of_this_thread().is_none() {
            return Err(Error::NoThreadList);
        }
        Self::new(size, rule)
    }

    fn set_hook(&mut self, hook: Hook) {
        if let Some(idle) = &self.idle {
            idle.frame().set_hook(Some(hook.clone()));
        }
        self.hook = Some(hook);
    }

    /// Makes a runner in place of one that was forgotten.
    #[cold]
    fn another(&self) -> Result<Runner, Error> {
        let runner = Runner::new(self.size, self.rule)?;
        runner.frame().set_hook(self.hook.clone());
        Ok(runner)
    }

    #[inline]
    fn take(&mut self, engine: &Engine) -> Result<Runner, Error> {
        check_room(self.size, engine)?;
        let mut runner = match self.idle.take() {
            Some(runner) => runner,
            None => self.another()?,
        };
        match runner.prepare() {
            Ok(()) => Ok(runner),
            Err(error) => {
                self.idle = Some(runner);
                Err(error)
            }
        }
    }
}

// SAFETY: a shared reference only gives access to the size.
#[expect(unsafe_code)]
unsafe impl Sync for Fiber {}

/// Named in the compiler's message when a call on a [`FiberStack`] should be `Send`.
pub trait UseSendFiberStackOrLocalSet {}

/// A runner with a call on it. It stays on its thread, because anything may wait there.
#[derive(Debug)]
pub struct Pinned {
    pinned: PhantomData<dyn UseSendFiberStackOrLocalSet>,
    runner: Runner,
}

impl<T: ?Sized> CarriesSealed<T> for FiberStack {}

impl Stack for FiberStack {
    /// Makes a stack, as [`Stack::new`] says.
    ///
    /// # Errors
    ///
    /// In addition, [`Error::NoThreadList`] if wasmtime's list of activations cannot be read on Linux or Windows, for
    /// example because the system provided no thread to look for it.
    fn new(size: usize) -> Result<Self, Error> {
        Ok(Self(Fiber::checked(size, Rule::Known)?))
    }

    fn size(&self) -> usize {
        self.0.size
    }

    fn set_ambient<E, G>(&mut self, capture: impl Fn() -> E + Send + Sync + 'static)
    where
        E: FnOnce() -> G + Send + 'static,
        G: 'static,
    {
        self.0.set_hook(Hook::new(capture));
    }
}

// SAFETY: see `Runner`, which keeps each of the promises.
#[expect(unsafe_code)]
unsafe impl Backend for FiberStack {
    type Runner = Pinned;

    #[inline]
    fn take(&mut self, engine: &Engine) -> Result<Pinned, Error> {
        Ok(Pinned { pinned: PhantomData, runner: self.0.take(engine)? })
    }

    #[inline]
    unsafe fn put_back(&mut self, Pinned { runner, .. }: Pinned) {
        self.0.idle = Some(runner);
    }

    #[inline]
    fn frame(Pinned { runner, .. }: &Pinned) -> &Frame {
        runner.frame()
    }

    #[inline(always)]
    unsafe fn enter(Pinned { runner, .. }: &mut Pinned) {
        // SAFETY: up to the caller. `take` has prepared the runner.
        unsafe { runner.enter() }
    }
}

impl fmt::Debug for FiberStack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FiberStack").field("size", &self.0.size).finish_non_exhaustive()
    }
}
