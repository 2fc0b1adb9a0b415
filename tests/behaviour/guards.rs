//! What lies below a stack.

use crate::child;
use crate::support::futures::finish;
use crate::support::guest::{stack, store};
use crate::support::{AnyStack, Code, matrix};
use std::hint::black_box;
use wasmtime::Result;

matrix!(overflow_of_a_host_function_ends_the_process);

/// A host function that recurses without end comes to a guard page, and not to memory of something else's.
fn overflow_of_a_host_function_ends_the_process<S: AnyStack>(code: Code) -> Result<()> {
    fn recurse(depth: usize) -> usize {
        let mut words = [depth; 16];
        black_box(&mut words);
        if depth == usize::MAX { 0 } else { recurse(depth + 1) + words[3] }
    }

    if child::is_child() {
        let mut stack = stack::<S>();
        // Neighbours on both sides, as likely as not.
        let _others: [S; 4] = std::array::from_fn(|_| self::stack());
        let result = finish(stack.go(&mut store(code), |_| Ok(recurse(0))));
        panic!("went on with {result:?}");
    }
    let output = child::run(|_| ());
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    // Ended by a signal, and not by a panic, which is how tests fail.
    assert!(!text.contains("panicked"), "{text}");
    #[cfg(unix)]
    assert!(std::os::unix::process::ExitStatusExt::signal(&output.status).is_some() || child::emulator().is_some());
    Ok(())
}
