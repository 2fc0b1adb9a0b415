//! The words of a thread's variables: all of its static and dynamic TLS blocks.
#![expect(unsafe_code, reason = "looks at thread-local variables of another crate")]

use super::activation::in_activation;
use super::list::read_word;
use super::memory::Memory;
use corosensei::stack::Stack as _;
use corosensei::{Coroutine, CoroutineResult};
use std::ffi::{c_int, c_void};
use std::mem;
use std::ops::Range;
use std::ptr;
use std::slice;
use wasmtime::Engine;

/// A word in the TLS block of a module (program or library).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Place {
    module: usize,
    offset: usize,
}

/// A word of the thread that looked it up. It must not be used on another thread.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word(*mut *mut ());

impl Place {
    /// The word of the calling thread.
    pub(super) fn on_this_thread(self) -> Option<Word> {
        // Comes before looking for the block, because a library's block is created when it is first used.
        Engine::tls_eager_initialize();
        let block = tls_blocks().into_iter().find(|block| block.module == self.module)?;
        (self.offset < block.len).then(|| Word(block.start.wrapping_add(self.offset)))
    }

    /// The place of the word at this address of the calling thread.
    #[cfg(all(test, not(feature = "loom")))]
    pub(super) fn of(address: usize) -> Option<Self> {
        tls_blocks().into_iter().find_map(|Block { module, start, len }| {
            let offset = (0..len).find(|offset| start.wrapping_add(*offset).addr() == address)?;
            Some(Self { module, offset })
        })
    }
}

impl Word {
    #[inline]
    pub(super) fn read(self) -> *mut () {
        // SAFETY: this is a variable of this thread, and nothing holds a reference to it.
        unsafe { self.0.read() }
    }

    /// # Safety
    ///
    /// The variable may have this value.
    #[inline]
    pub(super) unsafe fn replace(self, value: *mut ()) -> *mut () {
        // SAFETY: up to the caller. This is a variable of this thread, and nothing holds a reference to it.
        unsafe { self.0.replace(value) }
    }
}

/// The TLS block of one module on the calling thread. (No references, because the variables there are borrowed by
/// whoever uses them.)
struct Block {
    module: usize,
    start: *mut *mut (),
    /// In words.
    len: usize,
}

/// The TLS blocks of the calling thread. They must only be used on it, and not after its end.
fn tls_blocks() -> Vec<Block> {
    unsafe extern "C" fn visit(info: *mut libc::dl_phdr_info, size: usize, blocks: *mut c_void) -> c_int {
        // SAFETY: `dl_iterate_phdr` passes what it describes,
        let info = unsafe { &*info };
        // SAFETY: … and the pointer that it was given.
        let blocks = unsafe { &mut *blocks.cast::<Vec<Block>>() };
        // The fields about TLS are the last ones, and are missing in an old C library.
        if size < mem::size_of::<libc::dl_phdr_info>() || info.dlpi_tls_data.is_null() {
            return 0;
        }
        // SAFETY: these are the module's program headers, as many as it says.
        let headers = unsafe { slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
        for header in headers.iter().filter(|header| header.p_type == libc::PT_TLS) {
            let start = info.dlpi_tls_data.cast::<*mut ()>();
            let bytes = usize::try_from(header.p_memsz).unwrap_or(0);
            if start.is_aligned() {
                let len = bytes / mem::size_of::<usize>();
                blocks.push(Block { module: info.dlpi_tls_modid, start, len });
            }
        }
        0
    }

    let mut blocks = Vec::new();
    // SAFETY: `visit` uses its argument as what is passed here.
    unsafe { libc::dl_iterate_phdr(Some(visit), ptr::from_mut(&mut blocks).cast()) };
    blocks
}

/// A copy of all of a thread's words.
#[derive(Default)]
pub(super) struct Snapshot(Vec<(usize, Vec<usize>)>);

impl Snapshot {
    pub(super) fn take() -> Self {
        // SAFETY: the block is aligned, and is as large as the header says. It belongs to this thread, which is new, so no
        // other thread writes there.
        let word = |Block { start, .. }: &Block, n| unsafe { read_word(start.wrapping_add(n).cast()) };
        let words = |block: &Block| (block.module, (0..block.len).map(|n| word(block, n)).collect());
        Self(tls_blocks().iter().map(words).collect())
    }

    pub(super) fn value(&self, place: Place) -> Option<usize> {
        let (_, words) = self.0.iter().find(|(module, _)| *module == place.module)?;
        words.get(place.offset).copied()
    }

    pub(super) fn places(&self) -> impl Iterator<Item = Place> {
        self.0.iter().flat_map(|&(module, ref words)| (0..words.len()).map(move |offset| Place { module, offset }))
    }
}

/// The words within an activation that lies on a stack of a known range.
pub(super) fn snapshot_on_stack() -> Option<(Range<usize>, Snapshot)> {
    let memory = Memory::new(256 << 10).ok()?;
    let range = memory.limit().get()..memory.base().get();
    let mut coroutine = Coroutine::<(), (), Option<Snapshot>, _>::with_stack(memory, |_, ()| {
        let mut words = Snapshot::default();
        let taken = in_activation(|| {
            words = Snapshot::take();
            Ok(())
        });
        taken.is_ok().then_some(words)
    });
    match coroutine.resume(()) {
        CoroutineResult::Return(words) => Some((range, words?)),
        CoroutineResult::Yield(()) => None,
    }
}
