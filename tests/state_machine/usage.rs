//! The resources of the process.

use std::{env, fs};

/// The size of fiber stacks, in bytes. Nothing else in this program maps as much at once.
pub(crate) const FIBER_SIZE: usize = 256 << 20;

/// How many fiber stacks are mapped. Each has two mappings of that size. `None` under the address sanitizer, which has
/// such mappings of its own that come and go.
pub(crate) fn fiber_mappings() -> Option<usize> {
    if env::var_os("ASAN_OPTIONS").is_some() {
        return None;
    }
    let maps = fs::read_to_string("/proc/self/maps").expect("this runs on Linux");
    let parts = maps.lines().map(|line| {
        let (range, _) = line.split_once(' ').expect("a line starts with a range");
        let (start, end) = range.split_once('-').expect("a range has two ends");
        let address = |text| usize::from_str_radix(text, 16).expect("is hexadecimal");
        // The system merges neighbours into one mapping.
        (address(end) - address(start)) / FIBER_SIZE
    });
    let parts: usize = parts.sum();
    assert!(parts.is_multiple_of(2), "half a stack is mapped");
    Some(parts / 2)
}
