//! The resources of the process.
#![expect(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{fmt, fs, thread};

/// A value that must be dropped. It is counted as long as it exists.
pub(crate) static ALIVE: AtomicU64 = AtomicU64::new(0);

#[derive(Debug)]
pub(crate) struct Alive;

impl Alive {
    pub(crate) fn new() -> Self {
        // ORDERING: this is only a count. It is read after all threads that change it have been joined.
        ALIVE.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        // ORDERING: this is only a count. It is read after all threads that change it have been joined.
        ALIVE.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts the bytes that are allocated and not freed.
struct Counting;

static ALLOCATED: AtomicU64 = AtomicU64::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: forwards everything to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // ORDERING: this is only a count. It is read after all threads that change it have been joined.
        ALLOCATED.fetch_add(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: up to the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // ORDERING: this is only a count. It is read after all threads that change it have been joined.
        ALLOCATED.fetch_sub(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: up to the caller.
        unsafe { System.dealloc(ptr, layout) }
    }
}

/// The resources of the process.
#[derive(Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) threads: u64,
    pub(crate) mappings: u64,
    pub(crate) resident: u64,
    pub(crate) addresses: u64,
    pub(crate) allocated: u64,
}

impl Usage {
    pub(crate) fn now() -> Self {
        // ORDERING: this is only a count.
        let allocated = ALLOCATED.load(Ordering::Relaxed);
        let status = fs::read_to_string("/proc/self/status").expect("this runs on Linux");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("Linux tells");
            let number = line.trim_start_matches(':').split_whitespace().next().expect("is a number");
            number.parse::<u64>().expect("is a number")
        };
        let maps = fs::read_to_string("/proc/self/maps").expect("this runs on Linux");
        Self {
            threads: field("Threads"),
            mappings: maps.lines().count() as u64,
            resident: field("VmRSS") << 10,
            addresses: field("VmSize") << 10,
            allocated,
        }
    }

    /// Reads the figures after threads that are about to end have ended.
    pub(crate) fn settled(threads: u64) -> Self {
        let begun = Instant::now();
        loop {
            // Before the figures are read, so that they are read once more after a pause that takes all the time.
            let is_late = begun.elapsed() > Duration::from_mins(5);
            let now = Self::now();
            if now.threads <= threads || is_late {
                return now;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { threads, mappings, resident, addresses, allocated } = self;
        let [resident, addresses, allocated] = [resident >> 20, addresses >> 20, allocated >> 10];
        write!(
            f,
            "rss={resident}MiB allocated={allocated}KiB addresses={addresses}MiB threads={threads} mappings={mappings}"
        )
    }
}
