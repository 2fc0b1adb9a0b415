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
    let of_target = |name| env::var(name).expect("cargo says which");
    let processor = of_target("CARGO_CFG_TARGET_ARCH");
    // Systems whose mappings `src/stack/fiber/memory.rs` knows how to ask for.
    let has_maps = of_target("CARGO_CFG_TARGET_VENDOR") == "apple"
        || ["linux", "android"].contains(&&*of_target("CARGO_CFG_TARGET_OS"));
    if env::var_os("CARGO_FEATURE_FIBER").is_some() && has_maps && PROCESSORS.contains(&processor.as_str()) {
        println!("cargo::rustc-cfg=fiber_stack");
    }
}
