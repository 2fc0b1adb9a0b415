//! An engine of wasmtime's own async that takes its stacks from a pool of the host's (`Config::with_host_stack`). It
//! allocates everything else on demand.
#![expect(unsafe_code, reason = "gives wasmtime stacks")]

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use std::ops::Range;
use std::ptr;
use std::sync::{Arc, Mutex};
use wasmtime::{Config, Engine, Result, StackCreator, StackMemory};

/// The size of a guard, in bytes: a page of any system.
const GUARD: usize = 64 << 10;

pub(crate) fn engine() -> Engine {
    Engine::new(Config::new().with_host_stack(Arc::new(Pool::default()))).expect("the engine can be set up")
}

#[derive(Clone, Default)]
struct Pool(Arc<Mutex<Vec<Mapping>>>);

/// A stack above its guard.
struct Mapping {
    start: usize,
    len: usize,
}

impl Mapping {
    fn new(size: usize) -> Result<Self> {
        let len = GUARD + size.next_multiple_of(GUARD);
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: this makes a new mapping, anywhere.
        let start = unsafe { mmap_anonymous(ptr::null_mut(), len, prot, MapFlags::PRIVATE | MapFlags::NORESERVE) }?;
        let mapping = Self { start: start.expose_provenance(), len };
        // SAFETY: this is a part of the new mapping, which nothing uses.
        unsafe { mprotect(start, GUARD, MprotectFlags::empty()) }?;
        Ok(mapping)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that `new` made, and nothing is on it any more.
        unsafe { munmap(ptr::with_exposed_provenance_mut(self.start), self.len) }.expect("unmaps");
    }
}

// SAFETY: each stack is a mapping of its own, aligned to pages, above a guard. wasmtime does not ask for zeroed stacks.
unsafe impl StackCreator for Pool {
    fn new_stack(&self, size: usize, zeroed: bool) -> Result<Box<dyn StackMemory>> {
        assert!(!zeroed);
        let idle = self.0.lock().expect("nothing panics with the lock held").pop();
        let mapping = idle.map_or_else(|| Mapping::new(size), Ok)?;
        Ok(Box::new(Stack { mapping: Some(mapping), pool: self.clone() }))
    }
}

/// A stack that goes back to its pool.
struct Stack {
    mapping: Option<Mapping>,
    pool: Pool,
}

impl Stack {
    fn mapping(&self) -> &Mapping {
        self.mapping.as_ref().expect("is taken by `drop`")
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.pool.0.lock().expect("nothing panics with the lock held").extend(self.mapping.take());
    }
}

// SAFETY: the mapping belongs to this stack alone.
unsafe impl StackMemory for Stack {
    fn top(&self) -> *mut u8 {
        ptr::with_exposed_provenance_mut(self.mapping().start + self.mapping().len)
    }

    fn range(&self) -> Range<usize> {
        let Mapping { start, len } = self.mapping();
        start + GUARD..start + len
    }

    fn guard_range(&self) -> Range<*mut u8> {
        let start: *mut u8 = ptr::with_exposed_provenance_mut(self.mapping().start);
        start..start.wrapping_add(GUARD)
    }
}
