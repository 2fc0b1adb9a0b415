//! What the tests of modules and of components have in common.

use std::fmt::Debug;
use std::fs;
use std::future::Future;
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use wasmtime_async::{DEFAULT_STACK_SIZE, FiberStack, SendFiberStack, Stack, ThreadStack, tokio_runtime};

/// A test of each of these generic functions for each kind of stack.
macro_rules! on_each_stack {
    ($($test:ident)*) => {$(
        mod $test {
            #[test]
            fn on_a_fiber_stack() {
                super::$test::<wasmtime_async::FiberStack>();
            }

            #[test]
            fn on_a_send_fiber_stack() {
                super::$test::<wasmtime_async::SendFiberStack>();
            }

            #[test]
            fn on_a_thread_stack() {
                super::$test::<wasmtime_async::ThreadStack>();
            }
        }
    )*};
}
pub(crate) use on_each_stack;

/// Makes a stack that knows the tokio runtime of the test.
pub(crate) trait NewStack: Stack {
    fn new_stack() -> Self {
        Self::new(DEFAULT_STACK_SIZE).unwrap()
    }
}

impl NewStack for FiberStack {}

impl NewStack for SendFiberStack {}

impl NewStack for ThreadStack {
    fn new_stack() -> Self {
        let mut stack = Self::new(DEFAULT_STACK_SIZE).unwrap();
        stack.set_ambient(tokio_runtime);
        stack
    }
}

/// Polls by hand, and counts wake-ups.
#[derive(Default)]
pub(crate) struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Wakes {
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    pub(crate) fn poll<F: Future>(self: &Arc<Self>, future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(&Arc::clone(self).into()))
    }
}

/// Polls a future once, which must be pending, and drops it.
pub(crate) fn poll_and_drop<F: Future>(future: F) {
    assert!(Arc::new(Wakes::default()).poll(pin!(future)).is_pending(), "this was to wait");
}

/// Polls a future again and again, which must stay pending although the other tasks of the thread get their turns.
pub(crate) async fn stays_pending<F: Future<Output: Debug>>(mut future: Pin<&mut F>) {
    for _ in 0..100 {
        let polled = futures::poll!(future.as_mut());
        assert!(polled.is_pending(), "this was to wait: {polled:?}");
        tokio::task::yield_now().await;
    }
}

/// Has one thread for blocking work, such as with files.
pub(crate) fn runtime() -> Runtime {
    Builder::new_current_thread().max_blocking_threads(1).enable_all().build().unwrap()
}

/// Keeps the runtime's only thread for blocking work busy, until what is returned is dropped.
pub(crate) fn keep_busy(runtime: &Runtime) -> mpsc::Sender<()> {
    let (release, released) = mpsc::channel();
    runtime.spawn_blocking(move || _ = released.recv());
    release
}

/// A directory with a file, a link, and a directory in it.
pub(crate) fn dir() -> TempDir {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("file"), "what is in the file").unwrap();
    fs::create_dir(dir.path().join("empty")).unwrap();
    std::os::unix::fs::symlink("file", dir.path().join("link")).unwrap();
    dir
}

/// How many descriptors of this process are of files in there.
pub(crate) fn open_in(dir: &Path) -> usize {
    let dir = dir.canonicalize().unwrap();
    let descriptors = fs::read_dir("/proc/self/fd").unwrap();
    descriptors
        .filter_map(|descriptor| fs::read_link(descriptor.ok()?.path()).ok())
        .filter(|file| file.starts_with(&dir))
        .count()
}
