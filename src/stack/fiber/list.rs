//! The list of activations that wasmtime keeps for each thread. It is read to see what is on a stack, and set to park
//! that.
//!
//! wasmtime keeps a single thread-local word for a thread's list (`TLS` in `runtime/vm/sys/std_tls.rs`): the address of
//! the youngest activation, with bit 0 set once the thread is initialised (`tls::raw` in `runtime/vm/traphandlers.rs`).
//! Each activation refers to the next older one with its field `prev` (`CallThreadState`, in the same file). To park a
//! call means to restore the word that was there before the call was entered. To resume it means to set the word that
//! was there when it was left.
//!
//! # What this relies on
//!
//! - The word and the field are where, and what, they were seen to be: see [`find`](super::find). They are found once
//!   for a process, and are checked on each thread before they are used there. If anything does not fit, including a
//!   platform without `dl_iterate_phdr`, checked fiber stacks are an error, and the fiber does all parking.
//! - A call that parks this way starts with an empty list, so that its activations only link to its own.
//!   [`Runner::prepare`](super::runner::Runner::prepare) makes sure of that.
//! - wasmtime reads the word again at each use. It does so in functions of their own that are not inlined (`tls::raw`),
//!   because its own fibers change the word, and the thread, too.
#![expect(unsafe_code, reason = "reads and sets a thread-local variable of another crate")]

use super::activation::in_activation;
use super::find::Layout;
use super::words::Word;
use std::arch::asm;
use std::cell::Cell;
use std::ptr;
use wasmtime::Engine;

/// The list of the thread that looked it up. It must not be used on another thread.
#[derive(Clone, Copy, Debug)]
pub(super) struct ThreadList {
    word: Word,
    /// See [`Layout`].
    prev: u32,
    parks: bool,
}

/// The youngest activation of a list, as the word stores it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Head(*mut ());

impl Head {
    /// No activation, on a thread that is initialised.
    pub(super) const EMPTY: Self = Self(ptr::without_provenance_mut(1));

    pub(super) fn addr(self) -> usize {
        self.0.addr()
    }

    /// The activation itself. Null if there is none.
    pub(super) fn activation(self) -> *const () {
        self.0.map_addr(|head| head & !1)
    }
}

thread_local! {
    static FOUND: Cell<Found> = const { Cell::new(Found::NotYet) };
}

/// What is known about a thread's list.
#[derive(Clone, Copy)]
enum Found {
    NotYet,
    /// The list is being looked for at the moment.
    Not,
    At(ThreadList),
}

impl ThreadList {
    /// The list of this thread, if it is available.
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
        // For the code below, which enters wasmtime.
        FOUND.set(Found::Not);
        let list = Layout::of_process().and_then(Self::with_layout).filter(|list| list.is_right());
        // If it was not found because no thread was available, it may be found later.
        FOUND.set(list.map_or(Found::NotYet, Found::At));
        list
    }

    /// This thread's list, if the thread has the layout's word. This does not check anything else.
    pub(super) fn with_layout(layout: Layout) -> Option<Self> {
        Some(Self { word: layout.word_of_this_thread()?, prev: layout.prev, parks: layout.parks })
    }

    /// Whether this list can park a call that begins now. This requires that parking was tested and works, and that the
    /// list is empty, so that nothing of the call is ever linked to an activation further out.
    #[inline]
    pub(super) fn can_park(self) -> bool {
        self.parks && self.head() == Head::EMPTY
    }

    /// The youngest activation of this thread.
    #[inline]
    pub(super) fn head(self) -> Head {
        Head(self.word.read())
    }

    /// The activation that was the head when the current one was entered.
    #[inline]
    pub(super) fn before_head(self) -> Option<usize> {
        let activation = self.head().activation();
        if activation.is_null() {
            return None;
        }
        // SAFETY: the head is an activation on a stack of this thread, which has this field.
        Some(unsafe { read_word(activation.wrapping_byte_add(self.prev as usize).cast()) })
    }

    /// Replaces the whole list.
    ///
    /// # Safety
    ///
    /// This runs on the thread of this list. What is put in was taken off before, its activations still exist, and none
    /// of them belongs to another call. Everything that is taken off is put back before its stack resumes.
    #[inline]
    pub(super) unsafe fn replace(self, head: Head) -> Head {
        // SAFETY: up to the caller.
        Head(unsafe { self.word.replace(head.0) })
    }

    /// Checks that word and field change correctly when wasm is entered and left, once and then a second time from
    /// inside.
    pub(super) fn is_right(self) -> bool {
        Engine::tls_eager_initialize();
        let before = self.head();
        let mut fits = before.addr() & 1 == 1;
        let entered = in_activation(|| {
            let first = self.head();
            fits &= self.is_entered_from(before, ptr::from_ref(&first).addr());
            in_activation(|| {
                fits &= self.is_entered_from(first, ptr::from_ref(&first).addr());
                Ok(())
            })
        });
        entered.is_ok() && fits && self.head() == before
    }

    /// Whether the head is an activation on the running stack, close to an address there, and `before` is the next one.
    fn is_entered_from(self, before: Head, here: usize) -> bool {
        // Two frames of the same stack that are a few calls apart are closer than this.
        const NEAR: usize = 256 << 10;
        let head = self.head().addr();
        head & 1 == 1
            && head != before.addr()
            && head.abs_diff(here) < NEAR
            && self.before_head() == Some(before.addr() & !1)
    }
}

/// A word of memory that Rust knows nothing about. It may be a part of anything, and may never have been written.
///
/// The instruction is hidden from the compiler, to which such a read would be undefined, and from the address sanitizer,
/// to which the space between a stack's variables is out of bounds.
///
/// # Safety
///
/// The memory at this address can be read. The address is aligned, and no other thread writes there in the meantime.
#[inline]
pub(super) unsafe fn read_word(address: *const usize) -> usize {
    macro_rules! read {
        ($instruction:literal) => {{
            let word;
            // SAFETY: up to the caller.
            unsafe { asm!($instruction, out(reg) word, in(reg) address, options(nostack, readonly, preserves_flags)) };
            word
        }};
    }
    cfg_select! {
        any(target_arch = "x86_64", target_arch = "x86") => read!("mov {}, [{}]"),
        any(target_arch = "aarch64", target_arch = "arm") => read!("ldr {}, [{}]"),
        target_arch = "loongarch64" => read!("ld.d {}, {}, 0"),
    }
}

/// Where a call's part of a thread's list begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Root(Option<Head>);

impl Root {
    /// For a call whose list cannot be read.
    pub(crate) const UNSEEN: Self = Self(None);

    /// For a call that is about to be entered on the thread of this list.
    #[inline]
    pub(super) fn of(list: Option<ThreadList>) -> Self {
        Self(list.map(ThreadList::head))
    }

    /// For a call that is about to be entered on this thread.
    pub(crate) fn here() -> Self {
        Self::of(ThreadList::of_this_thread())
    }

    /// Whether the list can be read at all.
    pub(crate) fn is_seen(self) -> bool {
        self.0.is_some()
    }

    /// Whether exactly one activation is above the root on this thread. If the list cannot be read, the answer is no.
    pub(crate) fn is_one_activation_away(self) -> bool {
        let (Some(root), Some(list)) = (self.0, ThreadList::of_this_thread()) else { return false };
        list.before_head() == Some(root.addr() & !1)
    }
}
