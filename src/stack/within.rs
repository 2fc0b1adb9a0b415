//! The stack of a host function, seen by the calls that it makes on top of itself.
#![expect(unsafe_code, reason = "reaches the frame of the host function by pointer")]

use crate::Error;
use crate::frame::Frame;
use crate::stack::Backend;
use wasmtime::Engine;

/// The frame of a host function's call. It exists as long as that call waits for this one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Within(*const Frame);

// SAFETY: the pointer is only used on the thread on which the frame is current.
unsafe impl Send for Within {}

impl Within {
    /// The call that this code is a host function of, or null.
    #[inline]
    pub(crate) fn here() -> Self {
        Self(Frame::current())
    }

    /// Returns the host function's frame, if this code is part of its call and not of a call within it.
    #[inline]
    pub(crate) fn host(&self) -> Option<&Frame> {
        if !Frame::is_current(self.0) {
            return None;
        }
        // SAFETY: a frame is only current while its stack runs code, which is this code, and it outlives that code.
        unsafe { self.0.as_ref() }
    }
}

cfg_select! {
    fiber_stack => {
        use super::fiber::{Root, resume};
        use crate::nesting::StepAside;
        use std::ptr::NonNull;

        /// The stack aside, for code that runs on it already.
        struct Here;

        impl StepAside for Here {
            #[inline(always)]
            fn step_aside(&self, f: impl FnOnce()) {
                f();
            }
        }

        /// The frame of a nested call. It is forgotten if its call is forgotten.
        #[derive(Debug)]
        pub(crate) struct Level {
            /// A leaked box.
            frame: NonNull<Frame>,
            /// Where the thread's list of activations ended when the call was suspended.
            left: Root,
        }

        impl Level {
            /// Whether the call can resume here: every entry into wasm since it was suspended has returned.
            pub(crate) fn is_youngest(&self) -> bool {
                self.left == Root::here()
            }
        }

        // SAFETY: this moves together with the host function's future, which two threads never poll at once. On a stack
        // whose calls change threads, everything on the stack is `Send`.
        unsafe impl Send for Level {}

        // SAFETY: `enter` runs the frame through `Frame::wait_for_nested` of the host function that waits on the stack,
        // and returns when that leaves the stack. The frame is current in the meantime. It has an address of its own,
        // which it keeps. A level that is forgotten keeps its memory.
        #[diagnostic::do_not_recommend]
        unsafe impl Backend for Within {
            type Runner = Level;

            fn take(&mut self, _: &Engine) -> Result<Level, Error> {
                let host = self.host().ok_or(Error::NotWithin)?;
                let frame = host.nesting.take_spare().unwrap_or_else(|| Box::new(host.nested()));
                Ok(Level { frame: NonNull::from(Box::leak(frame)), left: Root::UNSEEN })
            }

            unsafe fn put_back(&mut self, Level { frame, .. }: Level) {
                // SAFETY: `take` has leaked it. The call has ended, so nothing else refers to it.
                let frame = unsafe { Box::from_raw(frame.as_ptr()) };
                // A call can only end where its host function's frame is current.
                if let Some(host) = self.host() {
                    host.nesting.put_spare(frame);
                }
            }

            fn frame(level: &Level) -> &Frame {
                // SAFETY: the frame is valid until `put_back`.
                unsafe { level.frame.as_ref() }
            }

            #[inline(always)]
            unsafe fn enter(level: &mut Level) {
                let frame = Self::frame(level);
                // SAFETY: the caller has made sure that this code is part of the host function, whose frame is
                // therefore current.
                let host = unsafe { &*Frame::current() };
                if frame.is_to_start() {
                    host.nesting.begin(frame);
                    frame.limits.set_root(Root::here());
                }
                let _current = frame.make_current();
                let runner = frame.nesting.runner();
                let resume = || {
                    // SAFETY: the host function's future is polled aside, so nothing else is entering the stack.
                    unsafe { resume(runner) };
                };
                // SAFETY: this code runs aside itself.
                unsafe { frame.drive(resume, &Here) };
                if host.nesting.has_nested() {
                    level.left = Root::here();
                }
            }
        }
    }
    _ => {
        // SAFETY: there never is a runner.
        #[diagnostic::do_not_recommend]
        unsafe impl Backend for Within {
            type Runner = std::convert::Infallible;

            fn take(&mut self, _: &Engine) -> Result<Self::Runner, Error> {
                Err(Error::NotWithin)
            }

            unsafe fn put_back(&mut self, runner: Self::Runner) {
                match runner {}
            }

            fn frame(runner: &Self::Runner) -> &Frame {
                match *runner {}
            }

            unsafe fn enter(runner: &mut Self::Runner) {
                match *runner {}
            }
        }
    }
}
