//! The cases: what a guest calls in a request.

/// What a guest calls in a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Case {
    /// One host function that is ready at once.
    Ready,
    /// One that sleeps for a millisecond.
    Timer,
    /// One that sends a number to another process over TCP, and receives it again.
    Tcp,
    /// A thousand that are ready at once.
    ThousandReady,
    /// Thirty that let other tasks run.
    ThirtyYields,
}

impl Case {
    pub(crate) const ALL: [Self; 5] = [Self::Ready, Self::Timer, Self::Tcp, Self::ThousandReady, Self::ThirtyYields];

    /// The name of the case, which is also the name of the guest's function.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Timer => "timer_1ms",
            Self::Tcp => "tcp_echo",
            Self::ThousandReady => "ready_1000",
            Self::ThirtyYields => "yields_30",
        }
    }

    /// Whether everything that the guest calls is ready at once.
    pub(crate) fn never_waits(self) -> bool {
        matches!(self, Self::Ready | Self::ThousandReady)
    }

    /// What the guest's function returns.
    pub(crate) fn answer(self) -> i32 {
        match self {
            Self::Ready | Self::Timer => 1,
            Self::Tcp => 7,
            Self::ThousandReady => 1000,
            Self::ThirtyYields => 30,
        }
    }
}

/// The guest, with a memory of two pages.
pub(crate) const GUEST: &str = r#"
    (module
        (import "host" "ready" (func $ready (result i32)))
        (import "host" "sleep" (func $sleep (param i32)))
        (import "host" "echo" (func $echo (param i32) (result i32)))
        (import "host" "yield" (func $yield))
        (memory 2)
        (func (export "ready") (result i32) (call $ready))
        (func (export "timer_1ms") (result i32) (call $sleep (i32.const 1)) (i32.const 1))
        (func (export "tcp_echo") (result i32) (call $echo (i32.const 7)))
        (func (export "ready_1000") (result i32)
            (local $sum i32)
            (loop $again
                (local.set $sum (i32.add (local.get $sum) (call $ready)))
                (br_if $again (i32.lt_u (local.get $sum) (i32.const 1000))))
            (local.get $sum))
        (func (export "yields_30") (result i32)
            (local $times i32)
            (loop $again
                (call $yield)
                (local.set $times (i32.add (local.get $times) (i32.const 1)))
                (br_if $again (i32.lt_u (local.get $times) (i32.const 30))))
            (local.get $times)))
"#;
