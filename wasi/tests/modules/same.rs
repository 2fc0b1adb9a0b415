//! Each function gives the guest what wasmtime-wasi's own synchronous function gives it.

use crate::common::on_each_stack;
use crate::guest::{ENGINE, VERSIONS, Version, functions};
use crate::stacks::Kind;
use crate::steps::{Outcome, Step, call, run_ours, run_upstream};
use futures::executor::block_on;
use std::collections::HashSet;
use std::fs;
use std::path::Path;
use tempfile::TempDir;
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p2::pipe::{MemoryInputPipe, MemoryOutputPipe};
use wasmtime_wasi::{FsPerms, WasiCtx};

on_each_stack! { same_functions same_results without_tokio in_tokio }

/// The same names with the same types.
fn same_functions<S: Kind>() {
    for version in VERSIONS {
        let same = |(ours, upstream): (&_, &_)| format!("{ours:?}") == format!("{upstream:?}");
        let (ours, upstream) = (functions(&S::linker(&ENGINE, version)), functions(&version.upstream(&ENGINE)));
        assert_eq!(ours.len(), upstream.len());
        assert!(ours.iter().zip(&upstream).all(same), "{ours:?} {upstream:?}");
    }
}

/// A directory with a file in it.
fn dir() -> TempDir {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("file"), "what is in the file").unwrap();
    dir
}

fn wasi(dir: &Path, output: &MemoryOutputPipe, may_block: bool) -> WasiP1Ctx {
    let mut wasi = WasiCtx::builder();
    wasi.allow_blocking_current_thread(may_block);
    wasi.args(&["program", "argument"]).env("NAME", "value").preopened_dir(dir, "/dir", FsPerms::ReadWrite).unwrap();
    wasi.stdin(MemoryInputPipe::new("input")).stdout(output.clone()).build_p1()
}

const PATH: i32 = 100;
const OTHER_PATH: i32 = 200;
const IOVECS: i32 = 300;
const SUBSCRIPTIONS: i32 = 400;
const DATA: i32 = 1000;
const RESULT: i32 = 2000;

/// All of the rights that there are in the first version.
const RIGHTS: i64 = (1 << 28) - 1;

fn write(at: i32, bytes: impl AsRef<[u8]>) -> Step {
    Step::Write(at.try_into().unwrap(), bytes.as_ref().to_vec())
}

/// Takes out what differs from run to run.
fn wipe(at: i32, len: usize) -> Step {
    Step::Wipe(at.try_into().unwrap(), len)
}

/// Every function at least once, most also with what they refuse.
fn steps(version: Version) -> Vec<Step> {
    let mut steps = surroundings();
    steps.extend(files());
    steps.extend(names());
    steps.extend([
        // Streams.
        call!(fd_read 0, IOVECS, 2, RESULT + 1200),
        call!(fd_read 0, IOVECS, 2, RESULT + 1204),
        call!(fd_write 1, IOVECS, 2, RESULT + 1208),
        call!(fd_seek 1, 0i64, 0, RESULT + 1216),
        // What is not of files.
        call!(sock_recv 0, IOVECS, 2, 0, RESULT + 1300, RESULT + 1304),
        call!(sock_send 0, IOVECS, 2, 0, RESULT + 1308),
        call!(sock_shutdown 0, 1),
        call!(sock_send 99, IOVECS, 2, 0, RESULT + 1308),
        call!(proc_raise 6),
        call!(sched_yield),
    ]);
    steps.extend(polls(version));
    if version == Version::P1 {
        steps.extend([call!(sock_accept 0, 0, RESULT + 1600), call!(sock_accept 99, 0, RESULT + 1600)]);
    }
    steps.extend([call!(proc_exit 200), call!(proc_exit 42)]);
    steps
}

/// The program's surroundings.
fn surroundings() -> Vec<Step> {
    let two_iovecs: Vec<u8> = [DATA, 5, DATA + 5, 7].into_iter().flat_map(i32::to_le_bytes).collect();
    vec![
        write(PATH, "file"),
        write(OTHER_PATH, "other"),
        write(IOVECS, two_iovecs),
        call!(args_sizes_get RESULT, RESULT + 4),
        call!(args_get RESULT + 8, RESULT + 100),
        call!(environ_sizes_get RESULT + 200, RESULT + 204),
        call!(environ_get RESULT + 208, RESULT + 300),
        call!(clock_res_get 0, RESULT + 400),
        call!(clock_time_get 1, 1i64, RESULT + 400),
        wipe(RESULT + 400, 8),
        call!(clock_time_get 77, 1i64, RESULT + 400),
        call!(random_get RESULT + 400, 16),
        wipe(RESULT + 400, 16),
        call!(random_get - 1, 16),
        call!(fd_prestat_get 3, RESULT + 412),
        call!(fd_prestat_dir_name 3, RESULT + 424, 4),
        call!(fd_prestat_get 9, RESULT + 412),
    ]
}

/// A file, which becomes descriptor 4.
fn files() -> Vec<Step> {
    vec![
        call!(path_open 3, 1, PATH, 4, 0, RIGHTS, RIGHTS, 0, RESULT + 500),
        call!(path_open 3, 1, OTHER_PATH, 5, 0, RIGHTS, RIGHTS, 0, RESULT + 504),
        call!(fd_fdstat_get 4, RESULT + 512),
        call!(fd_fdstat_set_flags 4, 1),
        call!(fd_fdstat_set_flags 4, 0),
        call!(fd_fdstat_set_rights 4, RIGHTS, RIGHTS),
        call!(fd_read 4, IOVECS, 2, RESULT + 540),
        call!(fd_read 99, IOVECS, 2, RESULT + 540),
        call!(fd_read 4, -8, 2, RESULT + 540),
        call!(fd_tell 4, RESULT + 544),
        call!(fd_seek 4, 2i64, 0, RESULT + 552),
        call!(fd_seek 4, -1i64, 2, RESULT + 560),
        call!(fd_seek 4, -100i64, 0, RESULT + 560),
        call!(fd_pread 4, IOVECS, 2, 3i64, RESULT + 568),
        write(DATA, "hello, file!"),
        call!(fd_write 4, IOVECS, 2, RESULT + 572),
        call!(fd_pwrite 4, IOVECS, 2, 1i64, RESULT + 576),
        call!(fd_pread 4, IOVECS, 2, 1i64, RESULT + 580),
        call!(fd_advise 4, 0i64, 0i64, 0),
        call!(fd_advise 4, 0i64, 0i64, 77),
        call!(fd_allocate 4, 0i64, 100i64),
        call!(fd_datasync 4),
        call!(fd_sync 4),
        call!(fd_filestat_get 4, RESULT + 584),
        // Device and number of the file, and its times.
        wipe(RESULT + 584, 16),
        wipe(RESULT + 608, 40),
        call!(fd_filestat_set_size 4, 6i64),
        call!(fd_filestat_set_times 4, 1_000_000_000i64, 2_000_000_000i64, 5),
        call!(path_filestat_get 3, 1, PATH, 4, RESULT + 648),
        wipe(RESULT + 648, 16),
        wipe(RESULT + 696, 16),
        call!(path_filestat_set_times 3, 1, PATH, 4, 3_000_000_000i64, 4_000_000_000i64, 5),
        call!(fd_readdir 3, RESULT + 712, 200, 0i64, RESULT + 1000),
        call!(fd_readdir 4, RESULT + 712, 200, 0i64, RESULT + 1004),
        // The number of each file: three entries.
        wipe(RESULT + 712 + 8, 8),
        wipe(RESULT + 712 + 25 + 8, 8),
        wipe(RESULT + 712 + 25 + 26 + 8, 8),
    ]
}

/// Names in the directory.
fn names() -> Vec<Step> {
    vec![
        call!(path_link 3, 0, PATH, 4, 3, OTHER_PATH, 5),
        call!(path_link 3, 0, PATH, 4, 3, OTHER_PATH, 5),
        call!(path_unlink_file 3, OTHER_PATH, 5),
        call!(path_unlink_file 3, OTHER_PATH, 5),
        call!(path_create_directory 3, OTHER_PATH, 5),
        call!(path_remove_directory 3, OTHER_PATH, 5),
        call!(path_symlink PATH, 4, 3, OTHER_PATH, 5),
        call!(path_readlink 3, OTHER_PATH, 5, RESULT + 1100, 10, RESULT + 1120),
        call!(path_rename 3, PATH, 4, 3, OTHER_PATH, 5),
        call!(path_rename 3, PATH, 4, 3, OTHER_PATH, 5),
        call!(fd_renumber 4, 3),
        call!(fd_close 3),
        call!(fd_close 3),
    ]
}

/// In nanoseconds.
const AN_HOUR: u64 = 3_600_000_000_000;

/// A clock alone, and standard input with a clock.
fn polls(version: Version) -> Vec<Step> {
    let mut steps = Vec::new();
    // An hour does not pass on any machine before what is in standard input is noticed.
    for timeout in [0, 1_000_000, AN_HOUR] {
        let (clock, stdin) = (clock(version, 7, 1, timeout), stdin(version, 8));
        let size = i32::try_from(clock.len()).unwrap();
        if timeout < AN_HOUR {
            steps.extend([
                write(SUBSCRIPTIONS, &clock),
                call!(poll_oneoff SUBSCRIPTIONS, RESULT + 1400, 1, RESULT + 1500),
                // How many bytes a clock has ready: upstream says 1 where it may block, otherwise 0.
                wipe(RESULT + 1400 + 16, 8),
                // Where it does not fit.
                call!(poll_oneoff SUBSCRIPTIONS, 65530, 1, RESULT + 1508),
            ]);
        } else {
            steps.extend([
                write(SUBSCRIPTIONS, &clock),
                write(SUBSCRIPTIONS + size, stdin),
                call!(poll_oneoff SUBSCRIPTIONS, RESULT + 1400, 2, RESULT + 1504),
            ]);
        }
    }
    // A clock that is none, none at all, and none that can be read.
    steps.extend([
        write(SUBSCRIPTIONS, clock(version, 9, 99, 1)),
        call!(poll_oneoff SUBSCRIPTIONS, RESULT + 1400, 1, RESULT + 1508),
        call!(poll_oneoff SUBSCRIPTIONS, RESULT + 1400, 0, RESULT + 1508),
        call!(poll_oneoff - 1, RESULT + 1400, 1, RESULT + 1508),
    ]);
    steps
}

/// A subscription to a clock, for so many nanoseconds from now on.
pub(crate) fn clock(version: Version, userdata: u64, clock: u64, timeout: u64) -> Vec<u8> {
    let words = match version {
        Version::P0 => vec![userdata, 0, 5, clock, timeout, 0, 0],
        Version::P1 => vec![userdata, 0, clock, timeout, 0, 0],
    };
    words.into_iter().flat_map(u64::to_le_bytes).collect()
}

/// A subscription to standard input.
pub(crate) fn stdin(version: Version, userdata: u64) -> Vec<u8> {
    let mut words = vec![userdata, 1, 0, 0, 0, 0];
    if version == Version::P0 {
        words.push(0);
    }
    words.into_iter().flat_map(u64::to_le_bytes).collect()
}

fn same_results<S: Kind>() {
    for version in VERSIONS {
        compare(version, |wasi, steps| block_on(run_ours::<S>(version, wasi, steps)), false);
    }
}

/// Files are read and written on the thread itself.
fn without_tokio<S: Kind>() {
    for version in VERSIONS {
        compare(version, |wasi, steps| block_on(run_ours::<S>(version, wasi, steps)), true);
    }
}

fn in_tokio<S: Kind>() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for version in VERSIONS {
        for may_block in [false, true] {
            compare(version, |wasi, steps| runtime.block_on(run_ours::<S>(version, wasi, steps)), may_block);
        }
    }
}

fn compare(version: Version, ours: impl FnOnce(WasiP1Ctx, &[Step]) -> Vec<Outcome>, may_block: bool) {
    let steps = steps(version);
    let (their_dir, our_dir) = (dir(), dir());
    let (their_output, our_output) = (MemoryOutputPipe::new(1 << 20), MemoryOutputPipe::new(1 << 20));
    let expected = run_upstream(version, wasi(their_dir.path(), &their_output, may_block), &steps);
    let found = ours(wasi(our_dir.path(), &our_output, may_block), &steps);

    let calls: Vec<_> = steps.iter().filter(|step| matches!(step, Step::Call(..))).collect();
    assert_eq!(found.len(), calls.len() + 1);
    let mut successes = HashSet::new();
    for (step, (found, expected)) in calls.iter().zip(found.iter().zip(&expected)) {
        assert_eq!(found, expected, "{version:?} {step:?}");
        if let (Step::Call(name, _), Outcome::Errno(0)) = (step, found) {
            successes.insert(*name);
        }
    }
    let (Some(Outcome::Memory(found)), Some(Outcome::Memory(expected))) = (found.last(), expected.last()) else {
        unreachable!()
    };
    let different = (0..found.len()).find(|at| found[*at] != expected[*at]);
    assert_eq!(different, None, "{version:?}: the guest's memory is another there");
    assert_eq!(our_output.contents(), their_output.contents());
    // What it has read from standard input.
    assert_eq!(our_output.contents(), "input");
    let names = |dir: &TempDir| {
        let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&our_dir), names(&their_dir));
    // What is not supported, and what never returns.
    let mut failing = vec!["fd_allocate", "fd_fdstat_set_rights", "proc_exit", "proc_raise"];
    failing.extend((version == Version::P1).then_some("sock_accept"));
    failing.extend(["sock_recv", "sock_send", "sock_shutdown"]);
    let all = functions(&version.upstream(&ENGINE));
    let all = all.iter().map(|(name, ..)| name.split_once(' ').unwrap().1);
    assert_eq!(all.filter(|name| !successes.contains(name)).collect::<Vec<_>>(), failing);
}
