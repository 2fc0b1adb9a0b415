//! Takes the place of `words` on Windows: the block of the thread's variables that belong to this program or library,
//! and what the thread's slots refer to. The target decides where std keeps its variables.
#![expect(unsafe_code, reason = "looks at thread-local variables of another crate")]

use super::activation::in_activation;
use super::list::read_word;
use crate::stack::here;
use std::arch::asm;
use std::collections::HashMap;
use std::ffi::c_void;
use std::hint::black_box;
use std::ops::Range;
use std::ptr;
use wasmtime::Engine;
use windows_sys::Win32::System::Diagnostics::Debug::ReadProcessMemory;
use windows_sys::Win32::System::Threading::{GetCurrentProcess, TlsGetValue};

/// A word that each thread has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// In this module's block (program or library). The offset is in words.
    Block { offset: usize },
    /// The first word of what a slot refers to.
    Slot { index: u32 },
}

/// A word of the thread that looks at it. What a slot refers to is created again when a thread's destructors run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word(Place);

impl Place {
    pub(super) fn on_this_thread(self) -> Option<Word> {
        // Comes before looking for it, because what a slot refers to is created when it is first used.
        Engine::tls_eager_initialize();
        Word(self).address().map(|_| Word(self))
    }

    /// The place of the word at this address.
    #[cfg(all(test, not(feature = "loom")))]
    pub(super) fn of(address: usize) -> Option<Self> {
        let is_there = |place: &Self| Word(*place).address().is_some_and(|word| word.addr() == address);
        Snapshot::take().places().find(is_there)
    }
}

impl Word {
    /// Null if this thread does not have one now.
    pub(super) fn read(self) -> *mut () {
        // SAFETY: this is a variable of this thread, and nothing holds a reference to it.
        self.address().map_or(ptr::null_mut(), |word| unsafe { word.read() })
    }

    /// # Safety
    ///
    /// The variable may have this value.
    pub(super) unsafe fn replace(self, value: *mut ()) -> *mut () {
        let word = self.address().expect("there is one where a call is entered");
        // SAFETY: up to the caller. This is a variable of this thread, and nothing holds a reference to it.
        unsafe { word.replace(value) }
    }

    fn address(self) -> Option<*mut *mut ()> {
        match self.0 {
            Place::Block { offset } => {
                let (start, len) = block()?;
                (offset < len).then(|| start.wrapping_add(offset))
            }
            Place::Slot { index } => {
                let value = slot(index);
                // std stores 1 there while a variable is being destroyed.
                (value.addr() > 1).then(|| value.cast())
            }
        }
    }
}

/// How many slots a thread can have: 64 in its own block, and the others elsewhere.
const SLOTS: u32 = 64 + 1024;

fn slot(index: u32) -> *mut c_void {
    // SAFETY: this accepts any index.
    unsafe { TlsGetValue(index) }
}

/// The TLS block of this module on the calling thread, and its length in words. It must only be used on that thread, and
/// not after its end. (No reference, because the variables there are borrowed by whoever uses them.)
fn block() -> Option<(*mut *mut (), usize)> {
    /// The head of an `IMAGE_TLS_DIRECTORY64`.
    #[repr(C)]
    struct Directory {
        start: usize,
        end: usize,
        index: usize,
    }
    unsafe extern "C" {
        /// The C runtime makes it, with or without such variables. std refers to it, too.
        #[link_name = "_tls_used"]
        static DIRECTORY: Directory;
    }

    // SAFETY: it exists, and the loader has finished with it.
    let Directory { start, end, index } = unsafe { &DIRECTORY };
    // SAFETY: the loader has put the module's number there.
    let index = unsafe { ptr::with_exposed_provenance::<u32>(*index).read() };
    let blocks: *const *mut *mut ();
    // SAFETY: this reads the field `ThreadLocalStoragePointer` of the thread's block, where each access to such a
    // variable finds it.
    unsafe { asm!("mov {}, gs:[0x58]", out(reg) blocks, options(nostack, readonly, preserves_flags)) };
    if blocks.is_null() {
        return None;
    }
    // SAFETY: the array has an entry for each module that has a number.
    let block = unsafe { blocks.add(index as usize) };
    // SAFETY: the entry is in the array, and nothing writes to it in the meantime.
    let block = unsafe { block.read() };
    // The loader has made the block as a copy of the memory between these addresses.
    (!block.is_null() && block.is_aligned()).then(|| (block, (end - start) / size_of::<usize>()))
}

/// The first word at an address, which may also be something else than an address.
fn word_at(address: *mut c_void) -> Option<usize> {
    if address.addr() <= 1 || !address.cast::<usize>().is_aligned() {
        return None;
    }
    let mut word = 0_usize;
    let to = (&raw mut word).cast();
    // SAFETY: this has no requirement.
    let process = unsafe { GetCurrentProcess() };
    // SAFETY: this writes a word to `word`. If it cannot read the address, it returns an error.
    let done = unsafe { ReadProcessMemory(process, address, to, size_of::<usize>(), ptr::null_mut()) };
    (done != 0).then_some(word)
}

/// A copy of all of a thread's words.
#[derive(Default)]
pub(super) struct Snapshot(HashMap<Place, usize>);

impl Snapshot {
    pub(super) fn take() -> Self {
        let (start, len) = block().unwrap_or((ptr::null_mut(), 0));
        let in_block = (0..len).map(|offset| {
            // SAFETY: the word is in the thread's block, which is aligned. The thread is new, so no other one writes there.
            let word = unsafe { read_word(start.wrapping_add(offset).cast()) };
            (Place::Block { offset }, word)
        });
        let in_slots = (0..SLOTS).filter_map(|index| Some((Place::Slot { index }, word_at(slot(index))?)));
        Self(in_block.chain(in_slots).collect())
    }

    pub(super) fn value(&self, place: Place) -> Option<usize> {
        self.0.get(&place).copied()
    }

    pub(super) fn places(&self) -> impl Iterator<Item = Place> {
        self.0.keys().copied()
    }
}

/// The words within an activation, and the range of addresses in which that activation lies.
#[inline(never)]
pub(super) fn snapshot_on_stack() -> Option<(Range<usize>, Snapshot)> {
    fn inside() -> Option<(usize, Snapshot)> {
        let mut seen = None;
        in_activation(|| {
            seen = Some((here(), Snapshot::take()));
            Ok(())
        })
        .ok()?;
        seen
    }

    let local = 0_u8;
    let above = black_box(&raw const local).addr();
    // In a function of its own, so that all its variables lie below.
    let (below, words) = black_box(inside as fn() -> _)()?;
    Some((below..above, words))
}
