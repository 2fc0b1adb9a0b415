//! What the tests have in common.

pub(crate) mod guest;
mod stack;

pub(crate) use stack::{AnyStack, Host, Log};

use crate::common::number;
use wasmtime::{Config, Engine};

/// What the guests' code is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// Machine code from Cranelift. Only on targets that Cranelift compiles for.
    #[cfg_attr(
        not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64", target_arch = "s390x")),
        expect(dead_code)
    )]
    Native,
    /// Pulley's bytecode, interpreted.
    Pulley,
}

impl Code {
    pub(crate) fn config(self) -> Config {
        let mut config = Config::new();
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

/// How many calls are in flight in a test that is about many.
pub(crate) fn many() -> usize {
    number("MATRIX_CALLS").map_or(1000, |calls| usize::try_from(calls).expect("a number of calls"))
}

/// Makes tests out of functions `fn name<S: AnyStack>(code: Code) -> wasmtime::Result<()>`: one for each backend that
/// the build has, with each kind of code that runs on the target.
macro_rules! matrix {
    ($($test:ident),+ $(,)?) => {
        #[cfg(fiber_stack)]
        mod fiber_stack {
            $crate::support::matrix!(@code wasmtime_async::FiberStack, $($test),+);
        }

        #[cfg(feature = "thread-backend")]
        mod thread_stack {
            $crate::support::matrix!(@code wasmtime_async::ThreadStack, $($test),+);
        }
    };
    (@code $stack:ty, $($test:ident),+) => {
        #[cfg(any(
            target_arch = "x86_64",
            target_arch = "aarch64",
            target_arch = "riscv64",
            target_arch = "s390x"
        ))]
        mod native {
            $crate::support::matrix!(@tests $stack, Native, $($test),+);
        }

        mod pulley {
            $crate::support::matrix!(@tests $stack, Pulley, $($test),+);
        }
    };
    (@tests $stack:ty, $code:ident, $($test:ident),+) => {
        $(
            #[test]
            fn $test() -> wasmtime::Result<()> {
                $crate::common::watchdog::watched(|_| {
                    super::super::$test::<$stack>($crate::support::Code::$code)
                })
            }
        )+
    };
}
pub(crate) use matrix;
