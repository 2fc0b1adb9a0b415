//! A bounded number of stacks that many tasks share and reuse. Tasks wait for them in line.

use crate::stack::available::DefaultStack;
use crate::stack::check_size;
use crate::{Error, Stack};
use futures::channel::oneshot;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A bounded pool of stacks. Its clones share the stacks, on any number of threads.
///
/// The pool bounds how many calls are in flight, and so how much address space and memory they take. A task that finds
/// all stacks in use waits for one.
///
/// The pool makes a stack when it is first needed, and then reuses it: the next task gets the stack that was used last.
/// It keeps its stacks until [`shrink_to`](Self::shrink_to) is called, or until the pool, its clones and all stacks
/// taken from it are dropped.
///
/// A task that holds one stack and waits for another can deadlock, if all other tasks do the same. Give calls within
/// calls a pool of their own, or use [`try_get`](Self::try_get).
///
/// # Examples
///
/// A hundred requests, four at a time:
///
/// ```
/// use futures::executor::block_on;
/// use futures::future::try_join_all;
/// use futures_timer::Delay;
/// use std::time::Duration;
/// use wasmtime::{Engine, Func, Result};
/// use wasmtime_async::{DEFAULT_STACK_SIZE, FuncExt, Pool, Store};
///
/// async fn request(pool: &Pool, engine: &Engine, number: i32) -> Result<i32> {
///     let mut stack = pool.get().await?;
///     let mut store = Store::new(engine, ());
///     let double = Func::wrap_suspending(&mut store, async |n: i32| -> i32 {
///         Delay::new(Duration::from_millis(1)).await;
///         n * 2
///     });
///     let double = double.get_async(&store).get1::<i32, i32>()?;
///     // Where a function takes a stack, pass `&mut *stack`.
///     double.call(&mut *stack, &mut store, (number,)).await
/// }
///
/// let engine = Engine::default();
/// let pool: Pool = Pool::new(4, DEFAULT_STACK_SIZE)?; // of `DefaultStack`
/// let answers = block_on(try_join_all((0..100).map(|number| request(&pool, &engine, number))))?;
/// assert_eq!(answers.iter().sum::<i32>(), 9900);
/// assert_eq!((pool.counts().created, pool.counts().idle), (4, 4));
/// # Ok::<(), wasmtime::Error>(())
/// ```
pub struct Pool<S: Stack = DefaultStack>(Arc<Shared<S>>);

/// How many stacks a [`Pool`] has, and how many tasks wait for one. From [`Pool::counts`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolCounts {
    /// How many stacks are idle.
    pub idle: usize,
    /// How many stacks are in use, are being made, or were handed to a task that has not been polled since.
    pub in_use: usize,
    /// How many stacks were made so far.
    pub created: usize,
    /// The highest value of `in_use` so far.
    pub peak: usize,
    /// How many tasks are waiting for a stack.
    pub waiting: usize,
}

/// A stack of a [`Pool`]. Dropping it returns the stack to the pool, which hands it to the task that has waited
/// longest, if any.
///
/// The next owner gets the stack as it was left, including what [`Stack::set_ambient`] has set. A stack that is
/// forgotten counts as in use forever.
#[must_use = "dropped, the stack goes back to its pool at once"]
pub struct PooledStack<S: Stack = DefaultStack>(Permit<S>);

struct Shared<S> {
    /// The largest number of stacks in use.
    max: usize,
    /// The size of each stack, in bytes.
    size: usize,
    /// Called with each stack that is made.
    setup: Box<dyn Fn(&mut S) + Send + Sync>,
    state: Mutex<State<S>>,
}

struct State<S> {
    idle: Vec<S>,
    in_use: usize,
    created: usize,
    peak: usize,
    /// The tasks that wait for a permit, in the order of their arrival. Empty unless all permits are taken.
    waiting: BTreeMap<u64, oneshot::Sender<Permit<S>>>,
    /// The number that the next task to wait will get.
    next: u64,
}

/// The right to use one stack, and the stack itself once it is made. When it is dropped, the next task in line gets it.
/// This also holds if a waiter was handed a permit and is dropped before it takes it.
struct Permit<S> {
    stack: Option<S>,
    pool: Arc<Shared<S>>,
}

impl<S: Stack> Pool<S> {
    /// Makes a pool of at most `max` stacks of `size` bytes each. It contains no stack yet.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyPool`] if `max` is 0, [`Error::StackSize`] if no stack of this size can work.
    pub fn new(max: usize, size: usize) -> Result<Self, Error> {
        Self::with_setup(max, size, |_| ())
    }

    /// Makes a pool that calls `setup` with each stack after it has made the stack, for example to set what surrounds
    /// calls on it:
    ///
    /// ```
    /// # #[cfg(feature = "tokio")]
    /// # fn main() -> Result<(), wasmtime_async::Error> {
    /// use wasmtime_async::{DEFAULT_STACK_SIZE, Pool, Stack, ThreadStack, tokio_runtime};
    ///
    /// let pool = Pool::with_setup(100, DEFAULT_STACK_SIZE, |stack: &mut ThreadStack| stack.set_ambient(tokio_runtime))?;
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "tokio"))]
    /// # fn main() {}
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`Pool::new`].
    ///
    /// # Panics
    ///
    /// `get` and `try_get` propagate a panic of `setup`. The stack is dropped, and the next task in line makes another.
    pub fn with_setup(max: usize, size: usize, setup: impl Fn(&mut S) + Send + Sync + 'static) -> Result<Self, Error> {
        if max == 0 {
            return Err(Error::EmptyPool);
        }
        let size = check_size(size)?;
        let state = State { idle: Vec::new(), in_use: 0, created: 0, peak: 0, waiting: BTreeMap::new(), next: 0 };
        Ok(Self(Arc::new(Shared { max, size, setup: Box::new(setup), state: Mutex::new(state) })))
    }

    /// Takes a stack out of the pool, and waits until one is free. Waiting tasks are served in the order of their first
    /// polls.
    ///
    /// # Errors
    ///
    /// Those of [`Stack::new`], if the pool must make a stack and cannot. The next task in line then tries.
    ///
    /// # Cancel safety
    ///
    /// Dropping this future gives up the turn. If it was already handed a stack, the stack goes to the next task in
    /// line. A future that was handed a stack, and is neither polled nor dropped, keeps the stack from everybody else.
    pub async fn get(&self) -> Result<PooledStack<S>, Error> {
        let taken = {
            let mut state = self.0.lock();
            self.take(&mut state).ok_or_else(|| self.queue(&mut state))
        };
        let mut turn = match taken {
            Ok(permit) => return permit.made(),
            Err(turn) => turn,
        };
        let Ok(permit) = (&mut turn.receiver).await else { unreachable!("only the end of the turn drops its sender") };
        permit.made()
    }

    /// Takes a stack out of the pool, unless all are in use.
    ///
    /// # Errors
    ///
    /// Those of [`Stack::new`], if the pool must make a stack and cannot.
    pub fn try_get(&self) -> Result<Option<PooledStack<S>>, Error> {
        let permit = self.take(&mut self.0.lock());
        permit.map(Permit::made).transpose()
    }

    /// Returns how many stacks there are right now, and how many tasks wait for one.
    pub fn counts(&self) -> PoolCounts {
        let State { idle, in_use, created, peak, waiting, .. } = &*self.0.lock();
        PoolCounts { idle: idle.len(), in_use: *in_use, created: *created, peak: *peak, waiting: waiting.len() }
    }

    /// Drops idle stacks until at most `idle` are left, the least recently used first. Stacks in use are not affected,
    /// and still return to the pool.
    ///
    /// This releases memory after a peak. The pool makes new stacks when it needs them.
    pub fn shrink_to(&self, idle: usize) {
        let mut state = self.0.lock();
        let spare = state.idle.len().saturating_sub(idle);
        let spare: Vec<S> = state.idle.drain(..spare).collect();
        // Ending a stack takes system calls, so do it without the lock.
        drop(state);
        drop(spare);
    }

    fn take(&self, state: &mut State<S>) -> Option<Permit<S>> {
        if state.in_use == self.0.max {
            return None;
        }
        state.in_use += 1;
        state.peak = state.peak.max(state.in_use);
        Some(Permit { stack: state.idle.pop(), pool: self.0.clone() })
    }

    fn queue(&self, state: &mut State<S>) -> Turn<'_, S> {
        let (sender, receiver) = oneshot::channel();
        let number = state.next;
        state.next += 1;
        state.waiting.insert(number, sender);
        Turn { pool: &self.0, number, receiver, given_up: None }
    }
}

impl<S> Shared<S> {
    fn lock(&self) -> MutexGuard<'_, State<S>> {
        // Nothing panics half-way while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Stack> Permit<S> {
    fn made(mut self) -> Result<PooledStack<S>, Error> {
        if self.stack.is_none() {
            let mut stack = S::new(self.pool.size)?;
            (self.pool.setup)(&mut stack);
            self.stack = Some(stack);
            self.pool.lock().created += 1;
        }
        Ok(PooledStack(self))
    }
}

impl<S> Drop for Permit<S> {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        let Some((_, sender)) = state.waiting.pop_first() else {
            state.in_use -= 1;
            state.idle.extend(self.stack.take());
            return;
        };
        // Sending runs the waker of the task that waits, so the lock must be released.
        drop(state);
        // If the receiver has just gone away, `send` returns the permit. Dropping it here hands it to the next in line.
        let _ = sender.send(Self { stack: self.stack.take(), pool: self.pool.clone() });
    }
}

/// A task's turn in the queue. Dropping it gives up the turn.
struct Turn<'a, S> {
    pool: &'a Shared<S>,
    number: u64,
    receiver: oneshot::Receiver<Permit<S>>,
    /// The sender, once it is off the queue. It must be dropped after the receiver, because otherwise it would wake the
    /// receiver's task.
    given_up: Option<oneshot::Sender<Permit<S>>>,
}

impl<S> Drop for Turn<'_, S> {
    fn drop(&mut self) {
        self.given_up = self.pool.lock().waiting.remove(&self.number);
    }
}

impl<S: Stack> Clone for Pool<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S: Stack> Deref for PooledStack<S> {
    type Target = S;

    fn deref(&self) -> &S {
        self.0.stack.as_ref().expect("it was made")
    }
}

impl<S: Stack> DerefMut for PooledStack<S> {
    fn deref_mut(&mut self) -> &mut S {
        self.0.stack.as_mut().expect("it was made")
    }
}

impl<S: Stack> fmt::Debug for Pool<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("max", &self.0.max)
            .field("size", &self.0.size)
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}

impl<S: Stack> fmt::Debug for PooledStack<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PooledStack").field("size", &self.size()).finish_non_exhaustive()
    }
}
