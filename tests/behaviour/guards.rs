//! The guard page below a stack.

use crate::common::child;
use crate::common::futures::finish;
use crate::support::guest::{stack, store};
use crate::support::{Code, Kind, matrix};
use std::hint::black_box;
use std::process;
use wasmtime::Result;
use wasmtime_async::Stack;

matrix!(overflow_of_a_host_function_ends_the_process);

/// A host function that recurses without end reaches a guard page, and not somebody else's memory.
fn overflow_of_a_host_function_ends_the_process<K: Kind>(code: Code) -> Result<()> {
    /// Recurses until it is stopped, or until it is below a stack that ends at `end`.
    fn recurse(end: usize) -> usize {
        let mut words = [end; 16];
        let here = black_box(&mut words).as_ptr().addr();
        if here < end {
            // Exits in a way that looks like success to the parent, and therefore fails the test.
            process::exit(0);
        }
        recurse(end) + words[3]
    }

    if child::is_child() {
        let mut stack = stack::<K>();
        // Something to run into: memory that is mapped later probably lies below.
        let _others: [K::Stack; 4] = std::array::from_fn(|_| self::stack::<K>());
        let size = stack.size();
        let result = finish(stack.run_send(&mut store(code), move |_| {
            // Starts some way from the top, so that the end is in the guard page or below it.
            let mut here = 0_u8;
            Ok(recurse(std::ptr::from_mut(black_box(&mut here)).addr() - size))
        }));
        panic!("went on with {result:?}");
    }
    let output = child::run(|_| ());
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    // The process ended with a signal, not with a panic as failing tests do.
    assert!(!text.contains("panicked"), "{text}");
    #[cfg(unix)]
    assert!(std::os::unix::process::ExitStatusExt::signal(&output.status).is_some() || child::emulator().is_some());
    Ok(())
}
