//! What the tests share.

pub(crate) mod guest;
mod host;
mod stack;

pub(crate) use host::{Host, Log, OnDrop};
pub(crate) use stack::*;

use crate::common::moving::moving;
use crate::common::number;
use crate::common::watchdog::watched;
use wasmtime::{Config, Engine, Result};

/// The kind of code that guests consist of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// Machine code from Cranelift. Only on targets that Cranelift compiles for.
    #[cfg_attr(
        not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64", target_arch = "s390x")),
        expect(dead_code)
    )]
    Native,
    /// Pulley's bytecode, which is interpreted.
    Pulley,
}

impl Code {
    pub(crate) fn config(self) -> Config {
        let mut config = Config::new();
        if cfg!(target_pointer_width = "32") {
            // There is little address space, and calls that are forgotten keep theirs.
            config.memory_reservation(1 << 20).memory_guard_size(1 << 16);
        }
        if self == Code::Pulley {
            let target = match (cfg!(target_pointer_width = "64"), cfg!(target_endian = "little")) {
                (true, true) => "pulley64",
                (true, false) => "pulley64be",
                (false, true) => "pulley32",
                (false, false) => "pulley32be",
            };
            config.target(target).expect("wasmtime knows its own targets");
        }
        config
    }

    pub(crate) fn engine(self) -> Engine {
        Engine::new(&self.config()).expect("the default configuration is valid")
    }
}

/// How many calls are in flight in a test with many calls.
pub(crate) fn many() -> usize {
    number("MATRIX_CALLS").map_or(1000, |calls| usize::try_from(calls).expect("a number of calls"))
}

/// Runs one test of the matrix.
pub(crate) fn run<K: Kind>(test: fn(Code) -> Result<()>, code: Code) -> Result<()> {
    watched(|_| if K::MOVES { moving(|| test(code)) } else { test(code) })
}

/// Makes tests from functions `fn name<K: Kind>(code: Code) -> wasmtime::Result<()>`: one for each [`Kind`] of stack in
/// the build, with each kind of code that runs on the target. A prefix selects some kinds only:
///
/// - `anything:` stacks that suspend anything,
/// - `checked:` the others, which suspend known frames,
/// - `local:` stacks whose host functions may wait for what is not `Send`,
/// - `by_new:` stacks that `Stack::new` makes.
macro_rules! matrix {
    (anything: $($test:ident),+ $(,)?) => {
        mod anything {
            $crate::support::matrix!(@unchecked [super::super::super] $($test),+);
            $crate::support::matrix!(@thread [super::super::super] $($test),+);
        }
    };
    (checked: $($test:ident),+ $(,)?) => {
        mod checked {
            $crate::support::matrix!(@fiber [super::super::super] $($test),+);
            $crate::support::matrix!(@send_fiber [super::super::super] $($test),+);
        }
    };
    (local: $($test:ident),+ $(,)?) => {
        mod local {
            $crate::support::matrix!(@fiber [super::super::super] $($test),+);
            $crate::support::matrix!(@unchecked [super::super::super] $($test),+);
            $crate::support::matrix!(@thread [super::super::super] $($test),+);
        }
    };
    (within: $($test:ident),+ $(,)?) => {
        mod within {
            $crate::support::matrix!(@fiber [super::super::super] $($test),+);
            $crate::support::matrix!(@unchecked [super::super::super] $($test),+);
            $crate::support::matrix!(@send_fiber [super::super::super] $($test),+);
            $crate::support::matrix!(@thread [super::super::super] $($test),+);
        }
    };
    (by_new: $($test:ident),+ $(,)?) => {
        mod by_new {
            $crate::support::matrix!(@fiber [super::super::super] $($test),+);
            $crate::support::matrix!(@send_fiber [super::super::super] $($test),+);
            $crate::support::matrix!(@thread [super::super::super] $($test),+);
        }
    };
    ($($test:ident),+ $(,)?) => {
        $crate::support::matrix!(@fiber [super::super] $($test),+);
        $crate::support::matrix!(@unchecked [super::super] $($test),+);
        $crate::support::matrix!(@send_fiber [super::super] $($test),+);
        $crate::support::matrix!(@thread [super::super] $($test),+);
    };
    (@fiber $file:tt $($test:ident),+) => {
        #[cfg(fiber_stack)]
        mod fiber_stack {
            $crate::support::matrix!(@code Fiber $file $($test),+);
        }
    };
    (@unchecked $file:tt $($test:ident),+) => {
        #[cfg(fiber_stack)]
        mod unchecked_fiber_stack {
            $crate::support::matrix!(@code Unchecked $file $($test),+);
        }
    };
    (@send_fiber $file:tt $($test:ident),+) => {
        #[cfg(fiber_stack)]
        mod send_fiber_stack {
            $crate::support::matrix!(@code SendFiber $file $($test),+);
        }
    };
    (@thread $file:tt $($test:ident),+) => {
        #[cfg(feature = "thread-backend")]
        mod thread_stack {
            $crate::support::matrix!(@code Thread $file $($test),+);
        }
    };
    (@code $kind:ident $file:tt $($test:ident),+) => {
        #[cfg(any(
            target_arch = "x86_64",
            target_arch = "aarch64",
            target_arch = "riscv64",
            target_arch = "s390x"
        ))]
        mod native {
            $crate::support::matrix!(@tests $kind Native $file $($test),+);
        }

        mod pulley {
            $crate::support::matrix!(@tests $kind Pulley $file $($test),+);
        }
    };
    (@tests $kind:ident $code:ident $file:tt $($test:ident),+) => {
        $($crate::support::matrix!(@test $kind $code $file $test);)+
    };
    (@test $kind:ident $code:ident [$($file:tt)+] $test:ident) => {
        #[test]
        fn $test() -> wasmtime::Result<()> {
            use $crate::support::{$kind as Kind, Code, run};
            run::<Kind>($($file)+::$test::<Kind>, Code::$code)
        }
    };
}
pub(crate) use matrix;
