//! Finds where wasmtime keeps a thread's list of activations, by observing what changes.
//!
//! To find the word, this calls a host function on stacks of known ranges, and compares all words of the thread's
//! variables (`words`). Exactly one word must be empty outside except for bit 0, and must point into the stack inside,
//! with bit 0 set. To find the field, this calls host functions from within each other, to several depths, and compares
//! the first words of all activations. Exactly one field must contain the address of the next older activation in each,
//! and nothing in the oldest. Both are looked for on two threads, which must agree.
#![expect(unsafe_code, reason = "looks at activations of another crate")]

use super::activation::in_activation;
use super::list::{Head, ThreadList, read_word};
#[cfg(not(windows))]
use super::self_test::parking_works;
use super::words::{Place, Snapshot, Word, snapshot_on_stack};
use crate::Result;
use std::mem;
use std::sync::OnceLock;
use std::thread;
use wasmtime::Engine;

/// The places of the word and the field. They are the same on each thread of the process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Layout {
    word: Place,
    /// The offset of the next older activation's address within an activation, in bytes.
    pub(super) prev: u32,
    /// Whether calls may be parked by setting the word.
    pub(super) parks: bool,
}

impl Layout {
    /// Finds the layout once for the process. `None` if it is not certain, or if there are no threads to look on.
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
        // Enters once outside, so that all blocks and lazily made values exist.
        Engine::tls_eager_initialize();
        in_activation(|| Ok(())).ok()?;
        let word = find_word()?;
        let without_field = Self { word, prev: 0, parks: false };
        let prev = find_field(ThreadList::with_layout(without_field)?)?;
        Some(Self { prev, ..without_field })
    }

    /// Adds the result of the self-test on this thread.
    #[cfg(not(windows))]
    fn tested(self) -> Self {
        let works = || ThreadList::with_layout(self).is_some_and(parking_works);
        Self { parks: cfg!(feature = "direct-parking") && works(), ..self }
    }

    /// Adds nothing. On Windows, fibers park calls, because they make the thread a fiber.
    #[cfg(windows)]
    fn tested(self) -> Self {
        self
    }

    /// The word of the calling thread. It must not be used on another thread.
    pub(super) fn word_of_this_thread(self) -> Option<Word> {
        self.word.on_this_thread()
    }
}

/// Runs a closure on a new thread, which is in no activation. `None` if the system provides no thread.
fn on_a_thread<R: Send + 'static>(f: impl FnOnce() -> R + Send + 'static) -> Option<R> {
    thread::Builder::new().spawn(f).ok()?.join().ok()
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

/// How many of the first words of an activation are compared. At higher addresses than the oldest one are more frames
/// of its thread.
const WORDS: usize = 32;
/// The number of activations within each other.
const DEPTH: usize = 4;

/// The offset of the only field that makes a list of the activations, on a thread that is in none.
fn find_field(list: ThreadList) -> Option<u32> {
    /// Collects the activations from the oldest on, each with its first words, as the youngest one sees them.
    fn nest(list: ThreadList, heads: &mut Vec<*const ()>, seen: &mut Vec<(usize, [usize; WORDS])>) -> Result<()> {
        in_activation(|| {
            heads.push(list.head().activation());
            if heads.len() < DEPTH {
                return nest(list, heads, seen);
            }
            // SAFETY: above the address of an activation is its stack, which is in use, and nothing writes to it in the
            // meantime.
            let word = |head: *const (), n| unsafe { read_word(head.cast::<usize>().wrapping_add(n)) };
            seen.extend(heads.iter().map(|&head| (head.addr(), std::array::from_fn(|n| word(head, n)))));
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
    use std::cell::Cell;
    use std::ptr;

    /// A word next to wasmtime's that looks like an empty list.
    fn decoy() -> Layout {
        thread_local!(static DECOY: Cell<usize> = const { Cell::new(1) });
        let layout = Layout::of_process().expect("the list is found where these tests run");
        let place = Place::of(DECOY.with(|word| ptr::from_ref(word).addr()));
        Layout { word: place.expect("the decoy is a variable of this thread"), ..layout }
    }

    #[test]
    fn nothing_is_parked_by_a_word_that_is_not_the_list() {
        thread::spawn(|| assert!(!decoy().tested().parks)).join().expect("the self-test comes to an end");
    }

    #[test]
    fn calls_are_parked_by_the_list_that_was_found() {
        let layout = Layout::of_process().expect("the list is found where these tests run");
        assert_eq!(layout.parks, cfg!(all(feature = "direct-parking", not(windows))));
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
