//! Random numbers that can be reproduced.

/// Pseudo-random numbers (`SplitMix64`).
#[derive(Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % end
    }

    /// Starts another sequence.
    pub(crate) fn fork(&mut self) -> Self {
        Self(self.below(u64::MAX))
    }

    pub(crate) fn small(&mut self, end: i32) -> i32 {
        i32::try_from(self.below(end.unsigned_abs().into())).expect("is below an i32")
    }

    /// Picks any of them, if there is one.
    pub(crate) fn take<T>(&mut self, from: &mut Vec<T>) -> Option<T> {
        let which = self.below(from.len().max(1) as u64);
        (!from.is_empty()).then(|| from.swap_remove(usize::try_from(which).expect("is below a usize")))
    }
}
