//! Sets `cfg(fiber_stack)` where `FiberStack` exists: the feature `fiber` is on, and the target has stack switching.

use std::env;

/// The processors for which there are both corosensei's coroutines and wasmtime's fibers, seen to work. `Cargo.toml`
/// has the same list.
///
/// `riscv64` is not among them: to print the backtrace of a panic under a compiled guest crashes there, at the root of
/// the coroutine (corosensei 0.3.4).
const PROCESSORS: [&str; 5] = ["x86_64", "aarch64", "arm", "x86", "loongarch64"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(fiber_stack)");
    let processor = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo says which");
    if env::var_os("CARGO_FEATURE_FIBER").is_some()
        && env::var_os("CARGO_CFG_UNIX").is_some()
        && PROCESSORS.contains(&processor.as_str())
    {
        println!("cargo::rustc-cfg=fiber_stack");
    }
}
