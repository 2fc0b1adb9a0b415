//! What the process has.

use std::{env, fs};

/// Of fiber stacks, in bytes. Nothing else in this program maps as much at once.
pub(crate) const FIBER_SIZE: usize = 256 << 20;

/// How many mappings there are of the size of a fiber stack. `None` under the address sanitizer, which has some of its own
/// that come and go as it likes.
pub(crate) fn fiber_mappings() -> Option<usize> {
    if env::var_os("ASAN_OPTIONS").is_some() {
        return None;
    }
    let maps = fs::read_to_string("/proc/self/maps").expect("this runs on Linux");
    let large = maps.lines().map(|line| {
        let (range, _) = line.split_once(' ').expect("a line starts with a range");
        let (start, end) = range.split_once('-').expect("a range has two ends");
        let address = |text| usize::from_str_radix(text, 16).expect("is hexadecimal");
        // Neighbours count as one mapping.
        (address(end) - address(start)) / FIBER_SIZE
    });
    Some(large.sum())
}
