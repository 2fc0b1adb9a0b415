//! Where the decisions of a generator come from: a string of bytes, read from the front.
//!
//! When the bytes have run out, every decision falls on its first, plainest alternative. So any string of bytes is a
//! case, and leaving bytes out or setting them to zero makes a case plainer: that is how failing cases are reduced.

use arbitrary::Unstructured;
use std::ops::RangeInclusive;

/// A source of decisions.
pub(crate) struct Choices<'a>(pub(crate) Unstructured<'a>);

impl<'a> Choices<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(Unstructured::new(bytes))
    }

    /// A number in the range; its start when there is nothing left to decide with.
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

    /// Any 64 bits, most often few of them.
    pub(crate) fn bits(&mut self) -> u64 {
        match self.below(4) {
            0 => self.below(8) as u64,
            1 => self.0.arbitrary::<u8>().unwrap_or(0).into(),
            2 => self.0.arbitrary::<u32>().unwrap_or(0).into(),
            _ => self.0.arbitrary().unwrap_or(0),
        }
    }
}
