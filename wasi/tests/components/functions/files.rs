//! What a guest does with files.

use super::cases::{BYTES, EMPTY, FILE, LINK, OTHER, prepare};
use super::{Guest, Host};

/// Opens things, reads, writes and renames them, and asks for what is not there.
pub(super) async fn files<H: Host>(guest: &mut Guest<H>) {
    let dir = prepare(guest).await;
    let path = |flags: u64, name: [u64; 2]| vec![dir, flags, name[0], name[1]];
    let file = guest.call("types-descriptor-open-at", [dir, 1, FILE[0], FILE[1], 0, 3]).await.handle();
    guest.call("types-descriptor-open-at", [dir, 1, OTHER[0], OTHER[1], 0, 3]).await;
    guest.call("types-descriptor-open-at", [dir, 0, LINK[0], LINK[1], 0, 1]).await;
    let empty = guest.call("types-descriptor-open-at", [dir, 0, EMPTY[0], EMPTY[1], 2, 1]).await.handle();
    for name in ["get-flags", "get-type", "sync", "sync-data"] {
        for descriptor in [file, dir] {
            guest.call(&format!("types-descriptor-{name}"), [descriptor]).await;
        }
    }
    guest.call("types-descriptor-advise", [file, 0, 5, 3]).await;
    guest.call("types-descriptor-advise", [dir, 0, 5, 3]).await;
    guest.call("types-descriptor-write", [file, BYTES, 5, 3]).await;
    guest.call("types-descriptor-set-size", [file, 10]).await;
    guest.call("types-descriptor-set-times", [file, 2, 5, 6, 2, 7, 8]).await;
    let read = guest.call("types-descriptor-read", [file, 100, 2]).await;
    guest.peek(read.u32(4), read.u32(8)).await;
    guest.call("types-descriptor-read", [dir, 100, 2]).await;
    stat(guest, "types-descriptor-stat", &[file]).await;
    guest.call("types-descriptor-set-times-at", [path(0, FILE), vec![1, 0, 0, 2, 9, 10]].concat()).await;
    for name in [FILE, LINK, OTHER] {
        stat(guest, "types-descriptor-stat-at", &path(1, name)).await;
        guest.call("types-descriptor-metadata-hash-at", path(0, name)).await;
        guest.wipe(8..24);
    }
    stat(guest, "types-descriptor-stat-at", &path(0, LINK)).await;
    // When it was made.
    guest.wipe(64..80);
    guest.call("types-descriptor-metadata-hash", [file]).await;
    guest.wipe(8..24);
    guest.call("types-descriptor-is-same-object", [file, file]).await;
    guest.call("types-descriptor-is-same-object", [file, dir]).await;
    entries(guest, dir).await;
    names(guest, dir).await;
    errors(guest, file, empty).await;
}

/// All that a file's `stat` says, except when it was last changed or read.
async fn stat<H: Host>(guest: &mut Guest<H>, name: &str, arguments: &[u64]) {
    guest.call(name, arguments).await;
    guest.wipe(40..56);
    guest.wipe(88..104);
}

/// The names in the directory. In which order they come is up to the system.
async fn entries<H: Host>(guest: &mut Guest<H>, dir: u64) {
    let entries = guest.call("types-descriptor-read-directory", [dir]).await.handle();
    let mut names = Vec::new();
    loop {
        let entry = guest.call("types-directory-entry-stream-read-directory-entry", [entries]).await;
        guest.wipe(0..128);
        if entry.0[4] == 0 {
            break;
        }
        names.push(guest.peek(entry.u32(12), entry.u32(16)).await);
        guest.log.pop();
    }
    names.sort();
    guest.log.push(("names".into(), names.concat()));
    guest.call("types-drop-directory-entry-stream", [entries]).await;
}

/// Each of these twice, of which the second fails.
async fn names<H: Host>(guest: &mut Guest<H>, dir: u64) {
    let pair = |a: [u64; 2], b: [u64; 2]| vec![dir, a[0], a[1], dir, b[0], b[1]];
    let one = |name: [u64; 2]| vec![dir, name[0], name[1]];
    for (name, arguments) in [
        ("link-at", vec![dir, 0, FILE[0], FILE[1], dir, OTHER[0], OTHER[1]]),
        ("unlink-file-at", one(OTHER)),
        ("create-directory-at", one(OTHER)),
        ("remove-directory-at", one(OTHER)),
        ("symlink-at", vec![dir, FILE[0], FILE[1], OTHER[0], OTHER[1]]),
        ("rename-at", pair(FILE, LINK)),
    ] {
        for _ in 0..2 {
            guest.call(&format!("types-descriptor-{name}"), &arguments).await;
        }
    }
    for name in [OTHER, LINK] {
        let target = guest.call("types-descriptor-readlink-at", one(name)).await;
        if target.0[0] == 0 {
            guest.peek(target.u32(4), target.u32(8)).await;
        }
    }
}

/// What a stream says of a file that is a directory, or that cannot be written.
async fn errors<H: Host>(guest: &mut Guest<H>, file: u64, empty: u64) {
    for name in ["read-via-stream", "write-via-stream"] {
        guest.call(&format!("types-descriptor-{name}"), [empty, 0]).await;
    }
    guest.call("types-descriptor-append-via-stream", [empty]).await;
    for descriptor in [file, empty] {
        guest.call("types-drop-descriptor", [descriptor]).await;
    }
}
