//! Compiles the program in `guest/` to wasm.

use std::env;
use std::path::Path;
use std::process::{Command, exit};

const INSTALL: &str = "\
This example compiles a C program to wasm with clang, which needs lld, wasi-libc and its own runtime library for wasm32.
On Debian 12:
    apt-get install clang lld wasi-libc libclang-rt-14-dev-wasm32
Elsewhere the number, clang's version, may be another one. The environment variable CLANG names another clang, for
example that of a WASI SDK.";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=guest");
    println!("cargo:rerun-if-env-changed=CLANG");

    let out = env::var_os("OUT_DIR").expect("set by cargo");
    let output = Path::new(&out).join("visitor.wasm");
    let clang = env::var_os("CLANG").unwrap_or_else(|| "clang".into());
    let mut command = Command::new(&clang);
    command.args(["--target=wasm32-wasi", "-O2", "-Wall", "-Werror", "guest/visitor.c", "-o"]).arg(output);
    match command.output() {
        Ok(ended) if ended.status.success() => {}
        Ok(ended) => give_up(&String::from_utf8_lossy(&ended.stderr)),
        Err(error) => give_up(&format!("cannot run `{}`: {error}", clang.display())),
    }
}

fn give_up(reason: &str) -> ! {
    eprintln!("{reason}\n\n{INSTALL}");
    exit(1);
}
