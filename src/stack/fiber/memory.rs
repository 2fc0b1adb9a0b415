//! The memory of a fiber stack: one mapping, with the stacks of the coroutine and of its parking fiber.
//!
//! ```text
//! high   the parking fiber's stack, `PARKING_SIZE`
//!        guard page
//!        the coroutine's stack, as large as was asked for, rounded up to pages
//! low    guard page
//! ```
#![expect(unsafe_code, reason = "maps memory")]

use corosensei::stack::valgrind::ValgrindStackRegistration;
use corosensei::stack::{Stack, StackPointer};
use std::io;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::ptr;
#[cfg(target_os = "linux")]
use std::sync::OnceLock;

/// The size of the stack that the parking fiber runs on, in bytes: a fixed handful of frames, with room for those of
/// an unoptimized build. Pages that are not touched cost nothing.
pub(super) const PARKING_SIZE: usize = 64 << 10;

/// Keeps Linux from backing stacks by huge pages; Apple's systems do not have it.
const MAP_STACK: libc::c_int = cfg_select! {
    target_vendor = "apple" => 0,
    _ => libc::MAP_STACK,
};

/// A mapping that is taken down when this is dropped.
pub(super) struct Memory {
    /// The lowest address.
    start: NonZeroUsize,
    /// Of the whole mapping, in bytes.
    len: usize,
    /// Of a guard, in bytes.
    page: usize,
    /// Tells Valgrind that there are two stacks, so that it does not take a switch for growth.
    _valgrind: [ValgrindStackRegistration; 2],
}

impl Memory {
    /// Maps memory for a coroutine's stack of at least `size` bytes, which is small enough not to overflow.
    pub(super) fn new(size: usize) -> io::Result<Self> {
        let page = page_size();
        let len = page + size.next_multiple_of(page) + page + PARKING_SIZE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | MAP_STACK;
        // SAFETY: asks for a new mapping anywhere.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonZeroUsize::new(start.addr()).ok_or(io::ErrorKind::OutOfMemory)?;
        let (start_of_parking, end) = (start.get() + len - PARKING_SIZE, start.get() + len);
        let registered = |stack: Range<usize>| {
            ValgrindStackRegistration::new(ptr::with_exposed_provenance_mut(stack.start), stack.len())
        };
        let valgrind = [registered(start.get()..start_of_parking - page), registered(start_of_parking..end)];
        let memory = Self { start, len, page, _valgrind: valgrind };
        guard(memory.start.get(), page)?;
        guard(memory.parking_range().start - page, page)?;
        Ok(memory)
    }

    /// The parking fiber's part, without its guard.
    pub(super) fn parking_range(&self) -> Range<usize> {
        let end = self.start.get() + self.len;
        end - PARKING_SIZE..end
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let start = ptr::with_exposed_provenance_mut(self.start.get());
        // SAFETY: the mapping that `new` made. Both stacks have been left for good.
        if unsafe { libc::munmap(start, self.len) } != 0 {
            // The system counts neighbours as one mapping, which would now become two, and the process may have no more.
            // The memory goes back all the same, only the addresses are lost.
            // SAFETY: as above.
            unsafe { libc::madvise(start, self.len, libc::MADV_DONTNEED) };
        }
    }
}

// SAFETY: the range is mapped, read-write but for a guard page below, larger than corosensei's least size, and nobody
// else's.
unsafe impl Stack for Memory {
    fn base(&self) -> StackPointer {
        // SAFETY: within the mapping, so not null.
        unsafe { StackPointer::new_unchecked(self.parking_range().start - self.page) }
    }

    fn limit(&self) -> StackPointer {
        self.start
    }
}

/// Makes accesses to a page of a fresh mapping of ours fault.
fn guard(address: usize, page: usize) -> io::Result<()> {
    let address = ptr::with_exposed_provenance_mut(address);
    #[cfg(target_os = "linux")]
    if guard_by_advice(address, page) {
        return Ok(());
    }
    // SAFETY: our own page, in which nothing is.
    match unsafe { libc::mprotect(address, page, libc::PROT_NONE) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A guard by advice (Linux 6.13) leaves the mapping in one piece, of which a process may have 65,530.
#[cfg(target_os = "linux")]
fn guard_by_advice(address: *mut libc::c_void, page: usize) -> bool {
    /// From Linux's `include/uapi/asm-generic/mman-common.h`.
    const MADV_GUARD_INSTALL: libc::c_int = 102;
    const MADV_POPULATE_READ: libc::c_int = 22;
    /// Emulators say yes to any advice, and do nothing. A page that can be read after all tells, once.
    static WORKS: OnceLock<bool> = OnceLock::new();

    // SAFETY: our own page, in which nothing is.
    let advise = |advice| unsafe { libc::madvise(address, page, advice) } == 0;
    *WORKS.get().unwrap_or(&true) && advise(MADV_GUARD_INSTALL) && *WORKS.get_or_init(|| !advise(MADV_POPULATE_READ))
}

fn page_size() -> usize {
    // SAFETY: has no requirement.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).expect("a system has a page size")
}
