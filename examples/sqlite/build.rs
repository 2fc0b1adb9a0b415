//! Compiles SQLite, with the VFS in `guest/`, to wasm.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Command, exit};

const INSTALL: &str = "\
This example compiles SQLite to wasm with clang, which needs lld, wasi-libc and its own runtime library for wasm32.
On Debian 12:
    apt-get install clang lld wasi-libc libclang-rt-14-dev-wasm32
Elsewhere the number, clang's version, may be another one. The environment variable CLANG names another clang, for
example that of a WASI SDK.";

const OPTIONS: [&str; 10] = [
    "--target=wasm32-wasi",
    "-O2",
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
    println!("cargo:rerun-if-env-changed=CLANG");

    let out = env::var_os("OUT_DIR").expect("set by cargo");
    let out = Path::new(&out);
    let sources = env::var_os("DEP_SQLITE3_INCLUDE").expect("set by the build script of libsqlite3-sys");
    let amalgamation = Path::new(&sources).join("sqlite3.c");
    println!("cargo:rerun-if-changed={}", amalgamation.display());

    // Compiles a few bytes first, so that a missing tool is noticed before half a minute has passed.
    let probe = out.join("probe.c");
    fs::write(&probe, "#include <stdlib.h>\nvoid *probe(long n) { return malloc(n); }\n").expect("write to OUT_DIR");
    clang(["-Wl,--export=probe".as_ref(), probe.as_os_str()], &out.join("probe.wasm"));

    let mut arguments = EXPORTS.map(|name| format!("-Wl,--export={name}").into()).to_vec();
    arguments.extend(["-I".into(), sources, amalgamation.into(), "guest/vfs.c".into()]);
    clang(arguments, &out.join("sqlite.wasm"));
}

fn clang(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>, output: &Path) {
    let clang = env::var_os("CLANG").unwrap_or_else(|| "clang".into());
    match Command::new(&clang).args(OPTIONS).args(arguments).arg("-o").arg(output).output() {
        Ok(ended) if ended.status.success() => {}
        Ok(ended) => give_up(&String::from_utf8_lossy(&ended.stderr)),
        Err(error) => give_up(&format!("cannot run `{}`: {error}", clang.display())),
    }
}

fn give_up(reason: &str) -> ! {
    eprintln!("{reason}\n\n{INSTALL}");
    exit(1);
}
