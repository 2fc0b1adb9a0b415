//! What the process has.

use std::fs;
use std::sync::LazyLock;

/// Of fiber stacks, in bytes. Nothing else in this program maps as much at once.
pub(crate) const FIBER_SIZE: usize = 256 << 20;

/// How many mappings there are of the size of a fiber stack. `None` if there were some when this was first asked: a
/// sanitizer's, which come and go as it likes.
pub(crate) fn fiber_mappings() -> Option<usize> {
    static ARE_OURS: LazyLock<bool> = LazyLock::new(|| large_mappings() == 0);
    ARE_OURS.then(large_mappings)
}

fn large_mappings() -> usize {
    let maps = fs::read_to_string("/proc/self/maps").expect("this runs on Linux");
    let large = maps.lines().map(|line| {
        let (range, _) = line.split_once(' ').expect("a line starts with a range");
        let (start, end) = range.split_once('-').expect("a range has two ends");
        let address = |text| usize::from_str_radix(text, 16).expect("is hexadecimal");
        // Neighbours count as one mapping.
        (address(end) - address(start)) / FIBER_SIZE
    });
    large.sum()
}

/// How many threads there are.
#[cfg(feature = "thread-backend")]
pub(crate) fn threads() -> usize {
    fs::read_dir("/proc/self/task").expect("this runs on Linux").count()
}

/// Waits until there are that many, since a thread takes a moment to end.
#[cfg(feature = "thread-backend")]
pub(crate) fn await_threads(expected: usize) {
    use std::time::{Duration, Instant};

    let deadline = Instant::now() + Duration::from_secs(20);
    while threads() != expected && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(threads(), expected, "threads, when all stacks are gone but those of forgotten calls");
}
