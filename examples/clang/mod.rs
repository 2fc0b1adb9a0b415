//! Compiles C to wasm with clang, for the build scripts of examples.

use std::env;
use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, exit};

const INSTALL: &str = "\
This example compiles C to wasm with clang, which needs lld, wasi-libc and its own runtime library for wasm32.
On Debian 12:
    apt-get install clang lld wasi-libc libclang-rt-14-dev-wasm32
Elsewhere the number, clang's version, may be another one. The environment variable CLANG names another clang, for
example that of a WASI SDK.";

/// Compiles and links what the arguments name. Without success, ends the build with clang's words, or with what to install.
pub(crate) fn clang(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>, output: &Path) {
    println!("cargo:rerun-if-changed=../clang");
    println!("cargo:rerun-if-env-changed=CLANG");
    let clang = env::var_os("CLANG").unwrap_or_else(|| "clang".into());
    match Command::new(&clang).args(["--target=wasm32-wasi", "-O2"]).args(arguments).arg("-o").arg(output).output() {
        Ok(ended) if ended.status.success() => {}
        Ok(ended) => give_up(&String::from_utf8_lossy(&ended.stderr)),
        Err(error) => give_up(&format!("cannot run `{}`: {error}", clang.display())),
    }
}

fn give_up(reason: &str) -> ! {
    eprintln!("{reason}\n\n{INSTALL}");
    exit(1);
}
