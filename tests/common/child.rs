//! Tests that need a process of their own.

use std::env;
use std::process::{Command, Output};
use std::thread;

const MARK: &str = "TEST_IN_CHILD";

/// Whether [`run`] started this process for the test that calls this function.
pub(crate) fn is_child() -> bool {
    env::var(MARK).is_ok_and(|name| Some(&*name) == thread::current().name())
}

/// Runs the calling test once more, in a process of its own. `prepare` may change the command.
pub(crate) fn run(prepare: impl FnOnce(&mut Command)) -> Output {
    let name = thread::current().name().expect("tests have names").to_owned();
    let program = env::current_exe().expect("this program is a file");
    let mut command = match emulator() {
        Some(emulator) => {
            let mut words = emulator.split_whitespace();
            let mut command = Command::new(words.next().expect("the emulator has a name"));
            command.args(words).arg(program);
            command
        }
        None => Command::new(program),
    };
    command.args([&*name, "--exact", "--nocapture", "--test-threads=1"]).env(MARK, &name);
    prepare(&mut command);
    command.output().expect("the child can be started")
}

/// Runs the rest of the test in a process of its own, which must succeed. Returns true in that process.
pub(crate) fn alone() -> bool {
    alone_with(|_| ())
}

/// The same. `prepare` may change the command.
pub(crate) fn alone_with(prepare: impl FnOnce(&mut Command)) -> bool {
    if is_child() {
        return true;
    }
    let output = run(prepare);
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
    false
}

/// The program with which cargo runs programs for this processor, if it needs one.
pub(crate) fn emulator() -> Option<String> {
    let arch = format!("CARGO_TARGET_{}", env::consts::ARCH.to_uppercase());
    env::vars().find_map(|(name, value)| (name.starts_with(&arch) && name.ends_with("_RUNNER")).then_some(value))
}
