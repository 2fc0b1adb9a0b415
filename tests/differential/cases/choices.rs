//! The source of a generator's decisions: a string of bytes that is read from the front.
//!
//! When the bytes have run out, every decision takes its first and simplest alternative. So any string of bytes is a
//! case, and removing bytes or setting them to zero simplifies a case. This is how failing cases are reduced.

use arbitrary::Unstructured;
use std::ops::RangeInclusive;

/// A source of decisions.
pub(crate) struct Choices<'a>(pub(crate) Unstructured<'a>);

impl<'a> Choices<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(Unstructured::new(bytes))
    }

    /// A number in the range, or the start of the range when the bytes have run out.
    pub(crate) fn within(&mut self, range: RangeInclusive<usize>) -> usize {
        let start = *range.start();
        self.0.int_in_range(range).unwrap_or(start)
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.within(0..=end - 1)
    }

    /// True once in `n` times.
    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == n - 1
    }

    /// One of these.
    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// Any 64 bits, usually only a few of them set.
    pub(crate) fn bits(&mut self) -> u64 {
        match self.below(4) {
            0 => self.below(8) as u64,
            1 => self.0.arbitrary::<u8>().unwrap_or(0).into(),
            2 => self.0.arbitrary::<u32>().unwrap_or(0).into(),
            _ => self.0.arbitrary().unwrap_or(0),
        }
    }
}
