//! Compiles SQLite, with the VFS in `guest/`, to wasm.

#[path = "../clang/mod.rs"]
mod clang;

use clang::clang;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::Path;

const OPTIONS: [&str; 8] = [
    // A library without `main`: the host calls the functions that it wants.
    "-mexec-model=reactor",
    // A guest that exhausts its own stack, which lies in its memory, traps. Otherwise it would overwrite its data.
    "-Wl,--stack-first",
    "-Wl,-z,stack-size=262144",
    // `guest/vfs.c` is the operating system.
    "-DSQLITE_OS_OTHER=1",
    "-DSQLITE_THREADSAFE=0",
    "-DSQLITE_OMIT_LOAD_EXTENSION",
    // Temporary data stays in memory: tables, sorters, statement journals.
    "-DSQLITE_TEMP_STORE=2",
    "-DSQLITE_STMTJRNL_SPILL=-1",
];

/// The functions that the host calls: SQLite's own, and the allocator for the data that it passes to them.
const EXPORTS: [&str; 14] = [
    "malloc",
    "free",
    "sqlite3_open",
    "sqlite3_close",
    "sqlite3_errmsg",
    "sqlite3_prepare_v2",
    "sqlite3_step",
    "sqlite3_finalize",
    "sqlite3_column_count",
    "sqlite3_column_type",
    "sqlite3_column_int64",
    "sqlite3_column_double",
    "sqlite3_column_blob",
    "sqlite3_column_bytes",
];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=guest");

    let out = env::var_os("OUT_DIR").expect("set by cargo");
    let out = Path::new(&out);
    let sources = env::var_os("DEP_SQLITE3_INCLUDE").expect("set by the build script of libsqlite3-sys");
    let amalgamation = Path::new(&sources).join("sqlite3.c");
    println!("cargo:rerun-if-changed={}", amalgamation.display());

    // Compiles a few bytes first, so that a missing tool is noticed before half a minute has passed.
    let probe = out.join("probe.c");
    fs::write(&probe, "#include <stdlib.h>\nvoid *probe(long n) { return malloc(n); }\n").expect("write to OUT_DIR");
    compile(["-Wl,--export=probe".as_ref(), probe.as_os_str()], &out.join("probe.wasm"));

    let mut arguments = EXPORTS.map(|name| format!("-Wl,--export={name}").into()).to_vec();
    arguments.extend(["-I".into(), sources, amalgamation.into(), "guest/vfs.c".into()]);
    compile(arguments, &out.join("sqlite.wasm"));
}

fn compile(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>, output: &Path) {
    let arguments: Vec<_> = arguments.into_iter().map(|argument| argument.as_ref().to_owned()).collect();
    clang(OPTIONS.into_iter().map(OsString::from).chain(arguments), output);
}
