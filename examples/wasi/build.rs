//! Compiles the program in `guest/` to wasm.

#[path = "../clang/mod.rs"]
mod clang;

use clang::clang;
use std::env;
use std::path::Path;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=guest");

    let out = env::var_os("OUT_DIR").expect("set by cargo");
    clang(["-Wall", "-Werror", "guest/visitor.c"], &Path::new(&out).join("visitor.wasm"));
}
