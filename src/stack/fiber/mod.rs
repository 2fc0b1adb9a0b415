//! The stacks that are switched to: a coroutine, corosensei's or on Windows a fiber, whose activations are parked whenever it
//! is left.

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
use runner::Runner;
pub(crate) use runner::{has_room, prepare_aside, resume};
pub use send::SendFiberStack;
use std::fmt;
use std::marker::PhantomData;
use wasmtime::Engine;

/// A stack that is switched to and from by a handful of instructions (corosensei), on the thread that polls. On Windows it is a
/// fiber of the system's, and the thread is one, too, while it polls.
///
/// It suspends guests that wait in async host functions, whatever those wait for: futures and the store's data need not be
/// `Send`, and in return calls are not, either. ([`SendFiberStack`] is the one for `tokio::spawn`.) Idle, the stack can be
/// sent to another thread.
///
/// # What it suspends
///
/// Known frames: guests, wasmtime's and this crate's own. Those count on nothing of the thread, so that calls may end in any
/// order, and be forgotten. Where other code of yours would be left suspended in its middle (the closure of
/// [`Stack::run`], a synchronous host function that waits, or calls the guest again, which waits), whatever wants to wait gets
/// [`Error::ForeignFrames`], which says what is in the way. Such code may have borrowed or set a variable of the thread,
/// hold a lock, or be in the midst of an initialiser. A [`ThreadStack`](crate::ThreadStack) suspends it nevertheless, as
/// it has a thread to itself; so does a stack made by [`unchecked`](Self::unchecked), on your word.
///
/// A synchronous host function that calls its own guest again is seen by reading wasmtime's list of activations, which
/// works on Linux and Windows. On other systems it is not seen: such a function must not have anything of the above, if the
/// guest that it calls may wait. Nor is a hook of wasmtime's feature `call-hook` seen that calls a guest before another one is
/// entered, or after it has been left, on any system.
///
/// # Memory
///
/// Address space of twice the stack's size, with guard pages: the second half is for the futures of host functions that call
/// their guest, and takes no memory otherwise. Where activations are not parked directly, there is a small third stack, with a
/// store of wasmtime's (see the crate's documentation). All of it is made at the first use, or by [`Stack::new`], and reused
/// call after call without an allocation. A guest that recurses without end is stopped by
/// wasmtime's own limit (`Config::max_wasm_stack`); a host function that does so hits the guard page, which ends the
/// process as it would on a thread's own stack.
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
    /// Suspended frames share the thread's variables with all that runs meanwhile, and may end in any order, or never if
    /// their call is forgotten. So nothing may be suspended, nor entered again by other code while it is suspended, that
    ///
    /// - a thread-local variable *lends*: within `LocalKey::with`, `scoped_tls::ScopedKey::with` and the like, also where the
    ///   variable was set further out, around the poll;
    /// - *initialises* a thread-local variable, a `Once`, a `OnceLock` or a `LazyLock`;
    /// - has *set* a thread-local variable for the time of a closure or of a guard, such as that of an entered runtime or
    ///   span;
    /// - holds a lock that code on the same thread might want, or whose guard must be dropped on the thread that locked it;
    /// - is anything else whose soundness depends on its frames being left in the reverse order of their beginning, or at all.
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
    /// // SAFETY: the one thing that is suspended is the function above, which has nothing of the thread.
    /// let mut stack = unsafe { FiberStack::unchecked(DEFAULT_STACK_SIZE) }?;
    /// let sleep = sleep.get_async(&store).get1::<u32, ()>()?;
    /// block_on(sleep.call(&mut stack, &mut store, (10,)))?;
    /// # Ok::<(), wasmtime::Error>(())
    /// ```
    #[expect(unsafe_code, reason = "has a contract that safe code relies on")]
    pub unsafe fn unchecked(size: usize) -> Result<Self, Error> {
        Ok(Self(Fiber::new(size, Rule::Anything)?))
    }

    /// How a call that is made from this thread now, outside any other, parks its activations when it suspends.
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

/// How the activations of a suspended call are parked; see the crate's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Parking {
    /// By a fiber of wasmtime's own, with nothing but its public API.
    Fiber,
    /// By setting wasmtime's per-thread word (feature `direct-parking`, where that word was found and tried).
    Direct,
}

/// What the kinds of fiber stacks have in common.
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

    fn set_hook(&mut self, hook: Hook) {
        if let Some(idle) = &self.idle {
            idle.frame().set_hook(Some(hook.clone()));
        }
        self.hook = Some(hook);
    }

    /// One in place of a runner that was forgotten.
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

// SAFETY: a shared reference gives away the size only.
#[expect(unsafe_code)]
unsafe impl Sync for Fiber {}

/// Named in the compiler's message when a call on a [`FiberStack`] should be `Send`.
pub trait UseSendFiberStackOrLocalSet {}

/// A runner with a call on it, which stays on its thread, since anything may wait there.
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
    /// [`Error::NoThreadList`], too, if wasmtime's list of activations cannot be read on Linux or Windows: no thread was to be
    /// had to look for it, say.
    fn new(size: usize) -> Result<Self, Error> {
        if cfg!(thread_list) && ThreadList::of_this_thread().is_none() {
            return Err(Error::NoThreadList);
        }
        Ok(Self(Fiber::new(size, Rule::Known)?))
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
        // SAFETY: up to the caller; `take` has prepared it.
        unsafe { runner.enter() }
    }
}

impl fmt::Debug for FiberStack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FiberStack").field("size", &self.0.size).finish_non_exhaustive()
    }
}
