//! Where wasmtime keeps a thread's list of activations, found by looking at what changes.
//!
//! The word is found by calling a host function on stacks of known ranges and comparing all words of the thread's static
//! and dynamic TLS blocks: it must be the only one that is empty but for bit 0 outside, and points into the stack with
//! bit 0 set inside. The field is found by calling host functions from within each other, to several depths, and comparing
//! the first words of all activations: it must be the only one that has the address of the next older activation in each,
//! and nothing in the oldest. Both are looked for on two threads, which must agree.
#![expect(unsafe_code, reason = "looks at thread-local variables and activations of another crate")]

use super::activation::in_activation;
use super::list::{Head, ThreadList, read_word};
use super::memory::Memory;
use super::self_test::parking_works;
use crate::Result;
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

/// Where things are, the same on each thread of the process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Layout {
    word: Place,
    /// How far into an activation the address of the next older one is, in bytes.
    pub(super) prev: u32,
    /// Whether calls may be parked by setting the word.
    pub(super) parks: bool,
}

/// A word in the TLS block of a module (program or library).
#[derive(Clone, Copy, Debug, PartialEq)]
struct Place {
    module: usize,
    offset: usize,
}

impl Layout {
    /// Found once for the process. `None` if it is not known for certain, or there are no threads to look on.
    pub(super) fn of_process() -> Option<Self> {
        static LAYOUT: OnceLock<Option<Layout>> = OnceLock::new();
        if let Some(layout) = LAYOUT.get() {
            return *layout;
        }
        let found = || on_a_thread(Self::find);
        let (first, second) = (found()?, found()?);
        let layout = first.filter(|_| first == second);
        let tested = match layout {
            Some(layout) => Some(on_a_thread(move || layout.tested())?),
            None => None,
        };
        *LAYOUT.get_or_init(|| tested)
    }

    fn find() -> Option<Self> {
        // Once outside, so that all blocks and lazily made values are there.
        Engine::tls_eager_initialize();
        in_activation(|| Ok(())).ok()?;
        let word = find_word()?;
        let without_field = Self { word, prev: 0, parks: false };
        let prev = find_field(ThreadList::with_layout(without_field)?)?;
        Some(Self { prev, ..without_field })
    }

    /// The same layout, with what the self-test says of it on this thread.
    fn tested(self) -> Self {
        let works = || ThreadList::with_layout(self).is_some_and(parking_works);
        Self { parks: cfg!(feature = "direct-parking") && works(), ..self }
    }

    /// The word of the calling thread, not to be used on another one.
    pub(super) fn word_of_this_thread(self) -> Option<*mut *mut ()> {
        // Before looking for the block, because a library's block comes to be when it is first used.
        Engine::tls_eager_initialize();
        let block = tls_blocks().into_iter().find(|block| block.module == self.word.module)?;
        Some(ptr::from_ref(block.words.get(self.word.offset)?).cast_mut().cast())
    }
}

/// Runs something on a thread of its own, which is in no activation. `None` if there is none to be had.
fn on_a_thread<R: Send + 'static>(f: impl FnOnce() -> R + Send + 'static) -> Option<R> {
    thread::Builder::new().spawn(f).ok()?.join().ok()
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
    let mut candidates = None::<Vec<Place>>;
    for _ in 0..3 {
        let (stack, during) = snapshot_on_stack()?;
        let outside = Snapshot::take();
        let fits = |place: &Place| {
            let during = during.value(*place);
            outside.value(*place) == Some(Head::EMPTY.addr())
                && during.is_some_and(|word| word & 1 == 1 && stack.contains(&word))
        };
        candidates = Some(match candidates {
            None => outside.places().filter(fits).collect(),
            Some(candidates) => candidates.into_iter().filter(fits).collect(),
        });
    }
    only(&candidates?)
}

fn only<T: Copy>(candidates: &[T]) -> Option<T> {
    match candidates {
        [candidate] => Some(*candidate),
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

/// How many of the first words of an activation are looked at. Below the oldest one are more of its thread's frames.
const WORDS: usize = 32;
/// From within so many activations.
const DEPTH: usize = 4;

/// The offset of the only field of activations that makes a list of them, on a thread that is in none.
fn find_field(list: ThreadList) -> Option<u32> {
    /// The activations from the oldest, each with its first words, as the youngest sees them.
    fn nest(list: ThreadList, heads: &mut Vec<usize>, seen: &mut Vec<(usize, [usize; WORDS])>) -> Result<()> {
        in_activation(|| {
            heads.push(list.head().addr() & !1);
            if heads.len() < DEPTH {
                return nest(list, heads, seen);
            }
            // SAFETY: what lies above the address of an activation is its stack, in use, of which nobody writes meanwhile.
            let word = |head, n| unsafe { read_word(head + n * mem::size_of::<usize>()) };
            seen.extend(heads.iter().map(|&head| (head, std::array::from_fn(|n| word(head, n)))));
            Ok(())
        })
    }

    let mut seen = Vec::new();
    nest(list, &mut Vec::new(), &mut seen).ok()?;
    let is_list = |&n: &usize| {
        let olders = std::iter::once(0).chain(seen.iter().map(|(head, _)| *head));
        seen.iter().zip(olders).all(|((_, words), older)| words[n] == older)
    };
    let fields: Vec<_> = (0..WORDS).filter(is_list).collect();
    u32::try_from(only(&fields)? * mem::size_of::<usize>()).ok()
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    /// A word beside wasmtime's that is like an empty list.
    fn decoy() -> Layout {
        thread_local!(static DECOY: Cell<usize> = const { Cell::new(1) });
        let layout = Layout::of_process().expect("the list is found where these tests run");
        let address = DECOY.with(|word| ptr::from_ref(word).addr());
        let place = tls_blocks().into_iter().find_map(|Block { module, words }| {
            let offset = words.iter().position(|word| ptr::from_ref(word).addr() == address)?;
            Some(Place { module, offset })
        });
        Layout { word: place.expect("the decoy is in a block of this thread"), ..layout }
    }

    #[test]
    fn nothing_is_parked_by_a_word_that_is_not_the_list() {
        thread::spawn(|| assert!(!decoy().tested().parks)).join().expect("the self-test comes to an end");
    }

    #[test]
    fn calls_are_parked_by_the_list_that_was_found() {
        let layout = Layout::of_process().expect("the list is found where these tests run");
        assert_eq!(layout.parks, cfg!(feature = "direct-parking"));
    }

    #[test]
    fn a_wrong_word_or_field_is_seen_on_each_thread() {
        thread::spawn(|| {
            let is_right = |layout| ThreadList::with_layout(layout).is_some_and(ThreadList::is_right);
            let layout = Layout::of_process().expect("the list is found where these tests run");
            assert!(is_right(layout));
            assert!(!is_right(decoy()));
            for prev in (0..32).map(|n| n * (usize::BITS / 8)).filter(|prev| *prev != layout.prev) {
                assert!(!is_right(Layout { prev, ..layout }), "field at {prev}");
            }
        })
        .join()
        .expect("the list is told from others");
    }
}
