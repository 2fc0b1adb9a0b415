//! Parking wasm's activations by setting wasmtime's per-thread word, which no public API does.
//!
//! All that wasmtime keeps for a thread's list of activations is one thread-local word (`TLS` in
//! `runtime/vm/sys/std_tls.rs`): the address of the youngest activation, with bit 0 set once the thread is initialised
//! (`tls::raw` in `runtime/vm/traphandlers.rs`). To park a call is to put back the word that was there before it was
//! entered; to go on with it is to set the one that was there when it was left.
//!
//! # What this relies on
//!
//! - That the word is where and what it was seen to be. It is found once for a process, by calling a host function on
//!   three stacks of known ranges and comparing all words of the thread's static and dynamic TLS blocks before, during
//!   and after: it must be the only one that is empty but for bit 0 outside, and points into the stack with bit 0 set
//!   inside. On each thread it is checked again by such a call before it is used. Whatever does not fit, a platform
//!   without `dl_iterate_phdr` included, leaves all parking to the fiber.
//! - That a call which parks this way starts with an empty list and never changes threads, so that its activations link
//!   to none but its own. [`Runner::prepare`](super::runner::Runner::prepare) sees to the former, `FiberStack` calls not
//!   being `Send` to the latter.
//! - That wasmtime reads the word anew at each use. It does so in functions of their own that are not inlined
//!   (`tls::raw`), because its own fibers change it too.
#![expect(unsafe_code, reason = "finds and sets a thread-local variable of another crate")]

use super::memory::Memory;
use crate::activation::in_activation;
use corosensei::stack::Stack as _;
use corosensei::{Coroutine, CoroutineResult};
use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::mem;
use std::ops::Range;
use std::ptr;
use std::slice;
use std::sync::OnceLock;
use std::thread;
use wasmtime::Engine;

/// The list of activations of a thread: the address of wasmtime's word.
#[derive(Clone, Copy, Debug)]
pub(super) struct ThreadList(*mut *mut ());

/// A value of that word.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Head(*mut ());

impl Head {
    /// No activation, on a thread that is initialised.
    pub(super) const EMPTY: Self = Self(ptr::without_provenance_mut(1));
}

thread_local! {
    static FOUND: Cell<Found> = const { Cell::new(Found::NotYet) };
}

/// What is known of a thread's word.
#[derive(Clone, Copy)]
enum Found {
    NotYet,
    /// It cannot be had, or is just being looked for.
    Not,
    At(ThreadList),
}

impl ThreadList {
    /// The list of this thread, if it can be had.
    #[inline]
    pub(super) fn of_this_thread() -> Option<Self> {
        match FOUND.get() {
            Found::At(list) => Some(list),
            Found::Not => None,
            Found::NotYet => Self::look_up(),
        }
    }

    #[cold]
    fn look_up() -> Option<Self> {
        FOUND.set(Found::Not);
        let list = Place::of_word().and_then(Place::on_this_thread).filter(|list| list.is_right())?;
        FOUND.set(Found::At(list));
        Some(list)
    }

    /// The youngest activation of this thread.
    #[inline]
    pub(super) fn head(self) -> Head {
        // SAFETY: a variable of this thread, to which nobody holds a reference.
        Head(unsafe { self.0.read() })
    }

    /// Replaces the whole list.
    ///
    /// # Safety
    ///
    /// On the thread of this list. What is put in is what was taken off before, with its activations still there and
    /// those of no other call among them; and all that is taken off is put back before its stack goes on.
    #[inline]
    pub(super) unsafe fn replace(self, head: Head) -> Head {
        // SAFETY: a variable of this thread, to which nobody holds a reference.
        Head(unsafe { self.0.replace(head.0) })
    }

    /// Whether the word changes as it should when wasm's world is entered and left.
    fn is_right(self) -> bool {
        Engine::tls_eager_initialize();
        let before = self.head();
        let mut during = Head::EMPTY;
        let here = ptr::from_mut(&mut during).addr();
        let entered = in_activation(|| during = self.head()).is_some();
        // Less than this lies between two frames of the same stack that are a few calls apart.
        let below = here.saturating_sub(256 << 10)..here;
        let (outside, inside) = (before.0.addr(), during.0.addr());
        entered && outside & 1 == 1 && inside & 1 == 1 && below.contains(&inside) && self.head() == before
    }
}

/// Where the word is: in the TLS block of which module (program or library), and how far in.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Place {
    module: usize,
    offset: usize,
}

impl Place {
    /// Found once for the process. `None` if there is not exactly one candidate.
    fn of_word() -> Option<Self> {
        static PLACE: OnceLock<Option<Place>> = OnceLock::new();
        // On a thread of its own, which is in no activation.
        *PLACE.get_or_init(|| thread::Builder::new().spawn(find_word).ok()?.join().ok()?)
    }

    fn on_this_thread(self) -> Option<ThreadList> {
        // Before looking for the block, because a library's block comes to be when it is first used.
        Engine::tls_eager_initialize();
        let block = tls_blocks().into_iter().find(|block| block.module == self.module)?;
        let word = block.words.get(self.offset)?;
        Some(ThreadList(ptr::from_ref(word).cast_mut().cast()))
    }
}

/// The TLS block of one module on the calling thread.
struct Block {
    module: usize,
    words: &'static [Cell<usize>],
}

/// The TLS blocks that the calling thread has, to be used on it alone, and not after it.
fn tls_blocks() -> Vec<Block> {
    unsafe extern "C" fn visit(info: *mut libc::dl_phdr_info, size: usize, blocks: *mut c_void) -> c_int {
        // SAFETY: `dl_iterate_phdr` passes what it describes,
        let info = unsafe { &*info };
        // SAFETY: … and the pointer that it was given.
        let blocks = unsafe { &mut *blocks.cast::<Vec<Block>>() };
        // The fields about TLS are the last, and not there in an old C library.
        if size < mem::size_of::<libc::dl_phdr_info>() || info.dlpi_tls_data.is_null() {
            return 0;
        }
        // SAFETY: the module's program headers, as many as it says.
        let headers = unsafe { slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
        for header in headers.iter().filter(|header| header.p_type == libc::PT_TLS) {
            let start = info.dlpi_tls_data.cast::<Cell<usize>>();
            let bytes = usize::try_from(header.p_memsz).unwrap_or(0);
            if start.is_aligned() {
                // SAFETY: the block belongs to this thread, and is as large as the header says. All of it can be read
                // as words: on the fresh thread that looks for the word, nothing else writes there.
                let words = unsafe { slice::from_raw_parts(start, bytes / mem::size_of::<usize>()) };
                blocks.push(Block { module: info.dlpi_tls_modid, words });
            }
        }
        0
    }

    let mut blocks = Vec::new();
    // SAFETY: `visit` takes what it is passed for what this passes.
    unsafe { libc::dl_iterate_phdr(Some(visit), ptr::from_mut(&mut blocks).cast()) };
    blocks
}

/// The only word of this thread that is the head of a list of activations.
fn find_word() -> Option<Place> {
    // Once outside, so that all blocks and lazily made values are there.
    Engine::tls_eager_initialize();
    in_activation(|| ())?;

    let mut candidates = None::<Vec<Place>>;
    for _ in 0..3 {
        let (stack, during) = snapshot_on_stack()?;
        let outside = Snapshot::take();
        let fits = |place: &Place| {
            let during = during.value(*place);
            outside.value(*place) == Some(Head::EMPTY.0.addr())
                && during.is_some_and(|word| word & 1 == 1 && stack.contains(&word))
        };
        candidates = Some(match candidates {
            None => outside.places().filter(fits).collect(),
            Some(candidates) => candidates.into_iter().filter(fits).collect(),
        });
    }
    match candidates?[..] {
        [place] => Some(place),
        _ => None,
    }
}

/// A copy of all of a thread's words.
#[derive(Default)]
struct Snapshot(Vec<(usize, Vec<usize>)>);

impl Snapshot {
    fn take() -> Self {
        let words = |block: Block| (block.module, block.words.iter().map(Cell::get).collect());
        Self(tls_blocks().into_iter().map(words).collect())
    }

    fn value(&self, place: Place) -> Option<usize> {
        let (_, words) = self.0.iter().find(|(module, _)| *module == place.module)?;
        words.get(place.offset).copied()
    }

    fn places(&self) -> impl Iterator<Item = Place> {
        self.0.iter().flat_map(|&(module, ref words)| (0..words.len()).map(move |offset| Place { module, offset }))
    }
}

/// The words within an activation that lies on a stack of a known range.
fn snapshot_on_stack() -> Option<(Range<usize>, Snapshot)> {
    let memory = Memory::new(256 << 10).ok()?;
    let range = memory.limit().get()..memory.base().get();
    let mut coroutine = Coroutine::<(), (), Option<Snapshot>, _>::with_stack(memory, |_, ()| {
        let mut words = Snapshot::default();
        in_activation(|| words = Snapshot::take())?;
        Some(words)
    });
    match coroutine.resume(()) {
        CoroutineResult::Return(words) => Some((range, words?)),
        CoroutineResult::Yield(()) => None,
    }
}
