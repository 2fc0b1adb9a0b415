//! The memory of a fiber stack: one mapping with the stacks of the coroutine and of its parking fiber, and the stack
//! aside.
//!
//! ```text
//! high   the parking fiber's stack, `PARKING_SIZE`
//!        guard page
//!        the coroutine's stack, as large as was asked for, rounded up to pages
//!        guard page
//!        the stack aside, as large
//! low    guard page, made when the stack aside is first used
//! ```
//!
//! The stack aside is below the coroutine's. wasmtime's limit is an address on the coroutine's stack, so it stops
//! guests that are entered aside at once.
#![expect(unsafe_code, reason = "maps memory")]

use super::parking::PARKING_SIZE;
use crate::nesting::StepAside;
use corosensei::on_stack;
use corosensei::stack::valgrind::ValgrindStackRegistration;
use corosensei::stack::{Stack, StackPointer};
use std::io;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::ptr;
#[cfg(target_os = "linux")]
use std::sync::OnceLock;

/// How memory is mapped: it only counts when it is used, and on Linux huge pages do not back it. (On FreeBSD,
/// `MAP_STACK` means a stack that grows.)
const FLAGS: libc::c_int = cfg_select! {
    any(target_os = "linux", target_os = "android") => {
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK
    }
    target_os = "freebsd" => libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
    _ => libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
};

/// A mapping that is unmapped when this is dropped.
pub(super) struct Memory {
    /// The lowest address.
    start: NonZeroUsize,
    /// The size of the whole mapping, in bytes.
    len: usize,
    /// The size of the coroutine's stack, in bytes.
    size: usize,
    /// The size of a guard, in bytes.
    page: usize,
    /// Tells Valgrind that there are three stacks, so that it does not mistake a switch for growth.
    _valgrind: [ValgrindStackRegistration; 3],
}

impl Memory {
    /// Maps memory for a coroutine's stack of at least `size` bytes. The size must be small enough not to overflow.
    pub(super) fn new(size: usize) -> io::Result<Self> {
        let page = page_size();
        let size = size.next_multiple_of(page);
        let len = page + size + page + size + page + PARKING_SIZE;
        // SAFETY: this makes a new mapping, anywhere.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, FLAGS, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonZeroUsize::new(start.expose_provenance()).ok_or(io::ErrorKind::OutOfMemory)?;
        let [aside, coroutine, parking] = Self::stacks(start.get() + len, size, page);
        let registered = |Range { start, end }: Range<usize>| {
            ValgrindStackRegistration::new(ptr::with_exposed_provenance_mut(start), end - start)
        };
        let valgrind = [&aside, &coroutine, &parking].map(|stack| registered(stack.clone()));
        let memory = Self { start, len, size, page, _valgrind: valgrind };
        for stack in [coroutine, parking] {
            guard(stack.start - page, page)?;
        }
        Ok(memory)
    }

    /// The stacks in a mapping, without their guards: the stack aside, the coroutine's, the parking fiber's.
    fn stacks(end: usize, size: usize, page: usize) -> [Range<usize>; 3] {
        let parking = end - PARKING_SIZE..end;
        let coroutine = parking.start - page - size..parking.start - page;
        let aside = coroutine.start - page - size..coroutine.start - page;
        [aside, coroutine, parking]
    }

    fn own_stacks(&self) -> [Range<usize>; 3] {
        Self::stacks(self.start.get() + self.len, self.size, self.page)
    }

    /// The coroutine's own part.
    #[cfg(call_hook)]
    pub(super) fn coroutine_range(&self) -> Range<usize> {
        let [_, coroutine, _] = self.own_stacks();
        coroutine
    }

    /// The parking fiber's part.
    pub(super) fn parking_range(&self) -> Range<usize> {
        let [_, _, parking] = self.own_stacks();
        parking
    }

    /// The stack aside. It exists as long as this does.
    pub(super) fn aside(&self) -> Aside {
        let [Range { start, end }, ..] = self.own_stacks();
        let address = |address| NonZeroUsize::new(address).expect("is within the mapping");
        Aside { guard: address(start - self.page), end: address(end), page: self.page }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let start = ptr::with_exposed_provenance_mut(self.start.get());
        // SAFETY: this is the mapping that `new` made. All its stacks have been left for good.
        if unsafe { libc::munmap(start, self.len) } != 0 {
            // The system may have merged this mapping with its neighbours. Unmapping would split them, and the process
            // may have reached its limit of mappings. Then this returns the memory, and only the addresses are lost.
            // SAFETY: this is the mapping that `new` made. All its stacks have been left for good.
            unsafe { libc::madvise(start, self.len, libc::MADV_DONTNEED) };
        }
    }
}

// SAFETY: the range is mapped, and readable and writable except for a guard page below. It is larger than corosensei's
// minimum, and nothing else uses it.
unsafe impl Stack for Memory {
    fn base(&self) -> StackPointer {
        let [_, Range { end, .. }, _] = self.own_stacks();
        // SAFETY: this is within the mapping, so it is not null.
        unsafe { StackPointer::new_unchecked(end) }
    }

    fn limit(&self) -> StackPointer {
        let [_, Range { start, .. }, _] = self.own_stacks();
        // SAFETY: this is within the mapping, so it is not null.
        unsafe { StackPointer::new_unchecked(start - self.page) }
    }
}

/// The stack aside. Copies of this refer to the same stack.
#[derive(Clone, Copy, Debug)]
pub(super) struct Aside {
    /// Where its guard is, once it has one.
    guard: StackPointer,
    end: StackPointer,
    page: usize,
}

impl Aside {
    /// Its size with its guard, in bytes.
    pub(super) fn size(&self) -> usize {
        self.end.get() - self.guard.get()
    }

    /// How much space there is below an address on this stack or on the coroutine's, which has the same size and lies
    /// above.
    pub(super) fn room_below(&self, address: usize) -> Option<usize> {
        let size = self.size();
        let above = address.checked_sub(self.guard.get()).filter(|above| *above < 2 * size)?;
        (above % size).checked_sub(self.page)
    }

    /// Makes its guard. Only stacks with nested calls need one, and each guard takes a system call.
    pub(super) fn make_guard(&self) -> io::Result<()> {
        guard(self.guard.get(), self.page)
    }
}

impl StepAside for Aside {
    #[inline(always)]
    fn step_aside(&self, f: impl FnOnce()) {
        on_stack(*self, f);
    }
}

// SAFETY: the same as for `Memory`. The owner of this keeps the memory, and uses it for one thing at a time.
unsafe impl Stack for Aside {
    fn base(&self) -> StackPointer {
        self.end
    }

    fn limit(&self) -> StackPointer {
        self.guard
    }
}

/// Makes accesses to a page of one of our new mappings fault.
fn guard(address: usize, page: usize) -> io::Result<()> {
    let address = ptr::with_exposed_provenance_mut(address);
    #[cfg(target_os = "linux")]
    if guard_by_advice(address, page) {
        return Ok(());
    }
    // SAFETY: this is our own page, and it contains nothing.
    match unsafe { libc::mprotect(address, page, libc::PROT_NONE) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A guard by advice (Linux 6.13) does not split the mapping, of which a process may have 65,530.
#[cfg(target_os = "linux")]
fn guard_by_advice(address: *mut libc::c_void, page: usize) -> bool {
    /// From Linux's `include/uapi/asm-generic/mman-common.h`.
    const MADV_GUARD_INSTALL: libc::c_int = 102;
    const MADV_POPULATE_READ: libc::c_int = 22;
    /// Emulators accept any advice and do nothing. This is detected once: then the page can still be read.
    static WORKS: OnceLock<bool> = OnceLock::new();

    // SAFETY: this is our own page, and it contains nothing.
    let advise = |advice| unsafe { libc::madvise(address, page, advice) } == 0;
    *WORKS.get().unwrap_or(&true) && advise(MADV_GUARD_INSTALL) && *WORKS.get_or_init(|| !advise(MADV_POPULATE_READ))
}

fn page_size() -> usize {
    // SAFETY: this has no requirement.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).expect("a system has a page size")
}
