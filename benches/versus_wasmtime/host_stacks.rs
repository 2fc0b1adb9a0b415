//! An engine of wasmtime's own async that takes its stacks from a pool of the host's (`Config::with_host_stack`). It
//! allocates everything else on demand.
#![expect(unsafe_code, reason = "gives wasmtime stacks")]

use corosensei::stack::{DefaultStack, Stack as _};
use rustix::param::page_size;
use std::ops::Range;
use std::ptr;
use std::sync::{Arc, Mutex};
use wasmtime::{Config, Engine, Result, StackCreator, StackMemory};

pub(crate) fn engine() -> Engine {
    Engine::new(Config::new().with_host_stack(Arc::new(Pool::default()))).expect("the engine can be set up")
}

#[derive(Clone, Default)]
struct Pool(Arc<Mutex<Vec<DefaultStack>>>);

// SAFETY: each stack is a mapping of its own, aligned to pages, above a guard. wasmtime does not ask for zeroed stacks.
unsafe impl StackCreator for Pool {
    fn new_stack(&self, size: usize, zeroed: bool) -> Result<Box<dyn StackMemory>> {
        assert!(!zeroed);
        let idle = self.0.lock().expect("nothing panics with the lock held").pop();
        let memory = idle.map_or_else(|| DefaultStack::new(size), Ok)?;
        Ok(Box::new(Stack { memory: Some(memory), pool: self.clone() }))
    }
}

/// A stack that goes back to its pool.
struct Stack {
    memory: Option<DefaultStack>,
    pool: Pool,
}

impl Stack {
    /// The guard, and what lies above it.
    fn parts(&self) -> [Range<usize>; 2] {
        let memory = self.memory.as_ref().expect("is taken by `drop`");
        let (low, high) = (memory.limit().get(), memory.base().get());
        [low..low + page_size(), low + page_size()..high]
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.pool.0.lock().expect("nothing panics with the lock held").extend(self.memory.take());
    }
}

// SAFETY: the memory belongs to this stack alone.
unsafe impl StackMemory for Stack {
    fn top(&self) -> *mut u8 {
        ptr::with_exposed_provenance_mut(self.range().end)
    }

    fn range(&self) -> Range<usize> {
        let [_, stack] = self.parts();
        stack
    }

    fn guard_range(&self) -> Range<*mut u8> {
        let [Range { start, end }, _] = self.parts();
        ptr::with_exposed_provenance_mut(start)..ptr::with_exposed_provenance_mut(end)
    }
}
