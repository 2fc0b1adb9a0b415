//! The memory of a fiber stack: one mapping, with the stacks of the coroutine and of its parking fiber, and the stack aside.
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
//! The stack aside is below the coroutine's, so that wasmtime's limit, which is an address on the latter, stops guests that are
//! entered there at once.
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

/// What is mapped: memory that counts when it is used, on Linux kept from being backed by huge pages. (To FreeBSD, `MAP_STACK`
/// is a stack that grows.)
const FLAGS: libc::c_int = cfg_select! {
    any(target_os = "linux", target_os = "android") => {
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK
    }
    target_os = "freebsd" => libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
    _ => libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
};

/// A mapping that is taken down when this is dropped.
pub(super) struct Memory {
    /// The lowest address.
    start: NonZeroUsize,
    /// Of the whole mapping, in bytes.
    len: usize,
    /// Of the coroutine's stack, in bytes.
    size: usize,
    /// Of a guard, in bytes.
    page: usize,
    /// Tells Valgrind that there are three stacks, so that it does not take a switch for growth.
    _valgrind: [ValgrindStackRegistration; 3],
}

impl Memory {
    /// Maps memory for a coroutine's stack of at least `size` bytes, which is small enough not to overflow.
    pub(super) fn new(size: usize) -> io::Result<Self> {
        let page = page_size();
        let size = size.next_multiple_of(page);
        let len = page + size + page + size + page + PARKING_SIZE;
        // SAFETY: asks for a new mapping anywhere.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, FLAGS, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonZeroUsize::new(start.addr()).ok_or(io::ErrorKind::OutOfMemory)?;
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

    /// The stacks in a mapping, without their guards: the one aside, the coroutine's, the parking fiber's.
    fn stacks(end: usize, size: usize, page: usize) -> [Range<usize>; 3] {
        let parking = end - PARKING_SIZE..end;
        let coroutine = parking.start - page - size..parking.start - page;
        let aside = coroutine.start - page - size..coroutine.start - page;
        [aside, coroutine, parking]
    }

    fn own_stacks(&self) -> [Range<usize>; 3] {
        Self::stacks(self.start.get() + self.len, self.size, self.page)
    }

    /// The parking fiber's part.
    pub(super) fn parking_range(&self) -> Range<usize> {
        let [_, _, parking] = self.own_stacks();
        parking
    }

    /// The stack aside, for as long as this is there.
    pub(super) fn aside(&self) -> Aside {
        let [Range { start, end }, ..] = self.own_stacks();
        let address = |address| NonZeroUsize::new(address).expect("is within the mapping");
        Aside { guard: address(start - self.page), end: address(end), page: self.page }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let start = ptr::with_exposed_provenance_mut(self.start.get());
        // SAFETY: the mapping that `new` made. All its stacks have been left for good.
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
        let [_, Range { end, .. }, _] = self.own_stacks();
        // SAFETY: within the mapping, so not null.
        unsafe { StackPointer::new_unchecked(end) }
    }

    fn limit(&self) -> StackPointer {
        let [_, Range { start, .. }, _] = self.own_stacks();
        // SAFETY: as above.
        unsafe { StackPointer::new_unchecked(start - self.page) }
    }
}

/// The stack aside. Copies of it are the same stack.
#[derive(Clone, Copy, Debug)]
pub(super) struct Aside {
    /// Where its guard is, once there is one.
    guard: StackPointer,
    end: StackPointer,
    page: usize,
}

impl Aside {
    /// With its guard, in bytes.
    pub(super) fn size(&self) -> usize {
        self.end.get() - self.guard.get()
    }

    /// How much there is below an address on this stack, or on the coroutine's, which is as large and lies above.
    pub(super) fn room_below(&self, address: usize) -> Option<usize> {
        let size = self.size();
        let above = address.checked_sub(self.guard.get()).filter(|above| *above < 2 * size)?;
        (above % size).checked_sub(self.page)
    }

    /// Makes its guard. Only stacks on which there are nested calls need one, and each takes a system call.
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

// SAFETY: as for `Memory`; whoever has this keeps the memory, and uses it for one thing at a time.
unsafe impl Stack for Aside {
    fn base(&self) -> StackPointer {
        self.end
    }

    fn limit(&self) -> StackPointer {
        self.guard
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
