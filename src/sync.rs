//! The cells and locks for state that two threads share: those of std, `parking_lot` and crossbeam, or those of loom.
//!
//! This is the only file that knows about loom. The models in `loom-tests` compile the sources of the thread backend a
//! second time, together with this file, and use loom's types. The library itself never does, whatever features are on.
//! The two families have different methods. Where they differ, std's types get loom's methods (`UnsafeCell::with`), or
//! loom's types get those of `parking_lot` (`Mutex::lock`), so that code looks the same with either.

#[cfg(not(all(test, feature = "loom")))]
pub(crate) use real::*;

#[cfg(all(test, feature = "loom"))]
pub(crate) use model::*;

#[cfg(not(all(test, feature = "loom")))]
mod real {
    pub(crate) mod cell {
        pub(crate) use std::cell::Cell;

        /// `std::cell::UnsafeCell`, with loom's methods.
        #[derive(Debug)]
        pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

        impl<T> UnsafeCell<T> {
            pub(crate) fn new(value: T) -> Self {
                Self(std::cell::UnsafeCell::new(value))
            }

            #[inline]
            pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
                f(self.0.get())
            }

            #[inline]
            pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
                f(self.0.get())
            }
        }
    }

    /// A thread-local cell whose first value is a constant.
    macro_rules! thread_cell {
        ($(#[$attr:meta])* static $name:ident: $type:ty = $init:expr;) => {
            thread_local! {
                $(#[$attr])*
                static $name: std::cell::Cell<$type> = const { std::cell::Cell::new($init) };
            }
        };
    }
    pub(crate) use thread_cell;

    #[cfg(feature = "thread-backend")]
    pub(crate) use backend::*;

    #[cfg(feature = "thread-backend")]
    mod backend {
        pub(crate) use crossbeam_channel as channel;
        pub(crate) use parking_lot::{Condvar, Mutex};
        pub(crate) use std::hint::spin_loop;
        pub(crate) use std::sync::{Arc, atomic};

        use std::sync::LazyLock;
        use std::time::Instant;

        /// How many spins take as long as going to sleep and being woken: ten microseconds.
        pub(crate) fn max_spins() -> u32 {
            /// Processors pause for 3 to 50 ns, so it is measured: the quickest of a few tries, as any may be interrupted.
            static SPINS: LazyLock<u32> = LazyLock::new(|| {
                let hundred = || {
                    let begun = Instant::now();
                    (0..100).for_each(|_| spin_loop());
                    begun.elapsed().as_nanos()
                };
                let quickest = (0..5).map(|_| hundred()).min().unwrap_or(0).max(1);
                u32::try_from(100 * 10_000 / quickest).unwrap_or(u32::MAX).clamp(100, 10_000)
            });
            *SPINS
        }

        /// Starts a thread whose code has `size` bytes of stack.
        pub(crate) fn spawn(size: usize, f: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
            let size = size.saturating_add(crate::stack::thread::carved()?);
            std::thread::Builder::new().name("wasm-stack".to_owned()).stack_size(size).spawn(f).map(drop)
        }
    }
}

#[cfg(all(test, feature = "loom"))]
#[allow(dead_code, reason = "the library's own unit tests are compiled with it as well, and use less than the models")]
mod model {
    pub(crate) use loom::hint::spin_loop;
    pub(crate) use loom::sync::{Arc, atomic};

    pub(crate) mod cell {
        pub(crate) use loom::cell::{Cell, UnsafeCell};
    }

    /// One spin before sleep: enough to take both ways.
    pub(crate) fn max_spins() -> u32 {
        1
    }

    macro_rules! thread_cell {
        ($(#[$attr:meta])* static $name:ident: $type:ty = $init:expr;) => {
            loom::thread_local! {
                $(#[$attr])*
                static $name: std::cell::Cell<$type> = std::cell::Cell::new($init);
            }
        };
    }
    pub(crate) use thread_cell;

    /// Starts a thread. Loom decides the size of its stack. With `usize::MAX` bytes this fails.
    pub(crate) fn spawn(size: usize, f: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        if size == usize::MAX {
            return Err(std::io::ErrorKind::OutOfMemory.into());
        }
        loom::thread::spawn(f);
        STARTED.set(STARTED.get() + 1);
        Ok(())
    }

    // Loom runs all threads of a model on the thread of its test, so a thread-local cell of std belongs to the model.
    std::thread_local! {
        static STARTED: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
        static FOR_NO_REASON: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
    }

    /// How many threads [`spawn`] has started since the last call of this function.
    pub(crate) fn threads_started() -> u32 {
        STARTED.take()
    }

    /// Wakes the next `times` waiters of this module's condition variables at once.
    pub(crate) fn wake_for_no_reason(times: u32) {
        FOR_NO_REASON.set(times);
    }

    #[derive(Debug)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    /// Always `Some`, except while a condition variable has taken it.
    pub(crate) struct MutexGuard<'a, T>(Option<loom::sync::MutexGuard<'a, T>>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            MutexGuard(Some(self.0.lock().unwrap()))
        }
    }

    impl<T> std::ops::Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.0.as_ref().unwrap()
        }
    }

    impl<T> std::ops::DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.0.as_mut().unwrap()
        }
    }

    #[derive(Debug)]
    pub(crate) struct Condvar(loom::sync::Condvar);

    impl Condvar {
        pub(crate) fn new() -> Self {
            Self(loom::sync::Condvar::new())
        }

        pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
            if let Some(left) = FOR_NO_REASON.get().checked_sub(1) {
                FOR_NO_REASON.set(left);
                return;
            }
            guard.0 = guard.0.take().map(|guard| self.0.wait(guard).unwrap());
        }

        pub(crate) fn notify_one(&self) {
            self.0.notify_one();
        }
    }

    /// The part of crossbeam-channel that the cache needs.
    pub(crate) mod channel {
        pub(crate) use crossbeam_channel::{RecvError, RecvTimeoutError, SendError};

        use super::{Arc, Condvar, Mutex};
        use std::collections::VecDeque;
        use std::time::Duration;

        struct Channel<T> {
            state: Mutex<State<T>>,
            changed: Condvar,
        }

        struct State<T> {
            queue: VecDeque<T>,
            sender: bool,
            receiver: bool,
        }

        pub(crate) struct Sender<T>(Arc<Channel<T>>);
        pub(crate) struct Receiver<T>(Arc<Channel<T>>);

        /// A channel that does not check its bound. Otherwise a blocked sender would look like a deadlock of the model.
        pub(crate) fn bounded<T>(_bound: usize) -> (Sender<T>, Receiver<T>) {
            let state = Mutex::new(State { queue: VecDeque::new(), sender: true, receiver: true });
            let channel = Arc::new(Channel { state, changed: Condvar::new() });
            (Sender(channel.clone()), Receiver(channel))
        }

        impl<T> Sender<T> {
            pub(crate) fn send(&self, message: T) -> Result<(), SendError<T>> {
                let mut state = self.0.state.lock();
                if !state.receiver {
                    return Err(SendError(message));
                }
                state.queue.push_back(message);
                drop(state);
                self.0.changed.notify_one();
                Ok(())
            }
        }

        impl<T> Receiver<T> {
            pub(crate) fn recv(&self) -> Result<T, RecvError> {
                let mut state = self.0.state.lock();
                loop {
                    if let Some(message) = state.queue.pop_front() {
                        return Ok(message);
                    }
                    if !state.sender {
                        return Err(RecvError);
                    }
                    self.0.changed.wait(&mut state);
                }
            }

            /// Time never passes, except that a limit of zero has always expired. Because loom delays threads at will,
            /// that covers every moment.
            pub(crate) fn recv_timeout(&self, limit: Duration) -> Result<T, RecvTimeoutError> {
                if limit > Duration::ZERO {
                    return self.recv().map_err(|RecvError| RecvTimeoutError::Disconnected);
                }
                let mut state = self.0.state.lock();
                match state.queue.pop_front() {
                    Some(message) => Ok(message),
                    None if !state.sender => Err(RecvTimeoutError::Disconnected),
                    None => Err(RecvTimeoutError::Timeout),
                }
            }
        }

        impl<T> Drop for Sender<T> {
            fn drop(&mut self) {
                self.0.state.lock().sender = false;
                self.0.changed.notify_one();
            }
        }

        impl<T> Drop for Receiver<T> {
            fn drop(&mut self) {
                self.0.state.lock().receiver = false;
            }
        }
    }
}
