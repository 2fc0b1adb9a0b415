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
    // The list is read in pieces. If a thread ends in between, a mapping may be missing, or be there twice.
    let mut ranges = large_ranges();
    loop {
        let again = large_ranges();
        if again == ranges {
            break;
        }
        ranges = again;
    }
    // The system merges neighbours into one mapping.
    let parts: usize = ranges.iter().map(|(start, end)| (end - start) / FIBER_SIZE).sum();
    assert!(parts.is_multiple_of(2), "half a stack is mapped");
    Some(parts / 2)
}

/// Where the mappings are that are large enough for a fiber stack.
fn large_ranges() -> Vec<(usize, usize)> {
    let maps = fs::read_to_string("/proc/self/maps").expect("this runs on Linux");
    let ranges = maps.lines().map(|line| {
        let (range, _) = line.split_once(' ').expect("a line starts with a range");
        let (start, end) = range.split_once('-').expect("a range has two ends");
        let address = |text| usize::from_str_radix(text, 16).expect("is hexadecimal");
        (address(start), address(end))
    });
    ranges.filter(|(start, end)| end - start >= FIBER_SIZE).collect()
}
