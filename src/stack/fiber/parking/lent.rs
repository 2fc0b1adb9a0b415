//! Parts of the coroutines' memory, which are lent to wasmtime as stacks of its fibers.
#![expect(unsafe_code, reason = "lends wasmtime a stack")]

use super::PARKING_SIZE;
use std::cell::Cell;
use std::ops::Range;
use std::ptr;
use std::sync::Arc;
use wasmtime::{Config, StackCreator, StackMemory};

thread_local! {
    /// The memory of the fiber that is being made.
    static NEXT_STACK: Cell<Option<Range<usize>>> = const { Cell::new(None) };
}

/// Lends this memory to the fiber that is being made.
pub(super) fn lending<R>(memory: &Range<usize>, make: impl FnOnce() -> R) -> R {
    debug_assert_eq!(memory.len(), PARKING_SIZE);
    NEXT_STACK.set(Some(memory.clone()));
    let result = make();
    NEXT_STACK.set(None);
    result
}

/// Makes an engine create its fibers on memory that is lent to it.
pub(super) fn use_lent_stacks(config: &mut Config) {
    config.with_host_stack(Arc::new(LentStacks));
}

struct LentStacks;

/// A part of a coroutine's memory.
struct LentStack(Range<usize>);

// SAFETY: each stack is the part of a mapping that `ParkingFiber::new` got for it alone. It is page-aligned and zero,
// and lies above a guard page.
unsafe impl StackCreator for LentStacks {
    fn new_stack(&self, _size: usize, _zeroed: bool) -> wasmtime::Result<Box<dyn StackMemory>> {
        let memory = NEXT_STACK.take().ok_or_else(|| wasmtime::format_err!("no stack was lent"))?;
        Ok(Box::new(LentStack(memory)))
    }
}

// SAFETY: the memory is the fiber's alone, as above.
unsafe impl StackMemory for LentStack {
    fn top(&self) -> *mut u8 {
        ptr::with_exposed_provenance_mut(self.0.end)
    }

    fn range(&self) -> Range<usize> {
        self.0.clone()
    }

    fn guard_range(&self) -> Range<*mut u8> {
        // wasmtime only compares faulting addresses with it, for a message.
        ptr::null_mut()..ptr::null_mut()
    }
}
