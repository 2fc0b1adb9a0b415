//! Stacks for many tasks: a bounded number, reused, waited for in order.

use crate::stack::available::DefaultStack;
use crate::stack::check_size;
use crate::{Error, Stack};
use futures::channel::oneshot;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A bounded pool of stacks, shared by its clones, on any number of threads.
///
/// It bounds how many calls are in flight, and so how much address space and memory they take: who finds all stacks in
/// use waits for one. Stacks are made when they are first needed, reused by whoever comes next, the one used last first,
/// and kept until the pool, its clones and all stacks taken from it are dropped, or until [`shrink_to`](Self::shrink_to) is called.
///
/// A task that holds a stack and waits for another can wait for ever, if all the others do the same: give calls within
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

/// How many stacks a [`Pool`] has, and how many wait for one, from [`Pool::counts`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolCounts {
    /// How many stacks are ready to be used.
    pub idle: usize,
    /// How many are in use, being made, or given to a task that has yet to look.
    pub in_use: usize,
    /// How many were ever made.
    pub created: usize,
    /// The greatest `in_use` so far.
    pub peak: usize,
    /// How many tasks wait for a stack.
    pub waiting: usize,
}

/// A stack of a [`Pool`], which it goes back to when this is dropped: to whoever has waited longest, if anybody has.
///
/// It is handed on as it was left: with what [`Stack::set_ambient`] has set, say. One that is forgotten counts as in
/// use for ever.
#[must_use = "dropped, the stack goes back to its pool at once"]
pub struct PooledStack<S: Stack = DefaultStack>(Place<S>);

struct Shared<S> {
    /// The greatest number of stacks in use.
    max: usize,
    /// The size of each, in bytes.
    size: usize,
    state: Mutex<State<S>>,
}

struct State<S> {
    idle: Vec<S>,
    in_use: usize,
    created: usize,
    peak: usize,
    /// Those who wait for a place, by the order in which they came. There are none unless all places are taken.
    waiting: BTreeMap<u64, oneshot::Sender<Place<S>>>,
    /// The number of the next one.
    next: u64,
}

/// The right to use one stack, and the stack, once it is made. Handed to the next in line when dropped, be it in the
/// hands of somebody who was given it and has gone away since.
struct Place<S> {
    stack: Option<S>,
    pool: Arc<Shared<S>>,
}

impl<S: Stack> Pool<S> {
    /// A pool of at most `max` stacks of `size` bytes each. None is made yet.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyPool`] if `max` is 0, [`Error::StackSize`] if no stack of this size can work.
    pub fn new(max: usize, size: usize) -> Result<Self, Error> {
        if max == 0 {
            return Err(Error::EmptyPool);
        }
        let size = check_size(size)?;
        let state = State { idle: Vec::new(), in_use: 0, created: 0, peak: 0, waiting: BTreeMap::new(), next: 0 };
        Ok(Self(Arc::new(Shared { max, size, state: Mutex::new(state) })))
    }

    /// A stack, as soon as one is not in use. Those who wait are served in the order of their first polls.
    ///
    /// # Errors
    ///
    /// Those of [`Stack::new`], if a stack must be made and cannot. The next in line then tries its luck.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, this gives up its turn; a stack that it was already given goes to the next in line. Neither
    /// polled nor dropped, it keeps what it was given from all others.
    pub async fn get(&self) -> Result<PooledStack<S>, Error> {
        let taken = {
            let mut state = self.0.lock();
            self.take(&mut state).ok_or_else(|| self.queue(&mut state))
        };
        let mut turn = match taken {
            Ok(place) => return place.made(),
            Err(turn) => turn,
        };
        let Ok(place) = (&mut turn.receiver).await else { unreachable!("only the end of the turn drops its sender") };
        place.made()
    }

    /// A stack, unless all are in use.
    ///
    /// # Errors
    ///
    /// Those of [`Stack::new`], if a stack must be made and cannot.
    pub fn try_get(&self) -> Result<Option<PooledStack<S>>, Error> {
        let place = self.take(&mut self.0.lock());
        place.map(Place::made).transpose()
    }

    /// How many stacks there are just now, and how many wait for one.
    pub fn counts(&self) -> PoolCounts {
        let State { idle, in_use, created, peak, waiting, .. } = &*self.0.lock();
        PoolCounts { idle: idle.len(), in_use: *in_use, created: *created, peak: *peak, waiting: waiting.len() }
    }

    /// Drops idle stacks until at most `idle` are left, those that were used least recently first. Stacks that are in use are
    /// not touched, and come back to the pool.
    ///
    /// After a peak, this gives memory back. What is dropped is made anew when it is needed.
    pub fn shrink_to(&self, idle: usize) {
        let mut state = self.0.lock();
        let spare = state.idle.len().saturating_sub(idle);
        let spare: Vec<S> = state.idle.drain(..spare).collect();
        // To end a stack takes system calls.
        drop(state);
        drop(spare);
    }

    fn take(&self, state: &mut State<S>) -> Option<Place<S>> {
        if state.in_use == self.0.max {
            return None;
        }
        state.in_use += 1;
        state.peak = state.peak.max(state.in_use);
        Some(Place { stack: state.idle.pop(), pool: self.0.clone() })
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
        // Nothing that is done with the lock held panics half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Stack> Place<S> {
    fn made(mut self) -> Result<PooledStack<S>, Error> {
        if self.stack.is_none() {
            self.stack = Some(S::new(self.pool.size)?);
            self.pool.lock().created += 1;
        }
        Ok(PooledStack(self))
    }
}

impl<S> Drop for Place<S> {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        let Some((_, sender)) = state.waiting.pop_first() else {
            state.in_use -= 1;
            state.idle.extend(self.stack.take());
            return;
        };
        // Sending runs the waker of whoever waits.
        drop(state);
        // Comes back from one who has just gone, and by being dropped goes to the next in line.
        let _ = sender.send(Self { stack: self.stack.take(), pool: self.pool.clone() });
    }
}

/// Somebody's turn in the queue, given up when dropped.
struct Turn<'a, S> {
    pool: &'a Shared<S>,
    number: u64,
    receiver: oneshot::Receiver<Place<S>>,
    /// The other end, once it is off the queue: to be dropped after the receiver, whose task it would wake.
    given_up: Option<oneshot::Sender<Place<S>>>,
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
