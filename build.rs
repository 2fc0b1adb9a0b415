//! Sets `cfg(fiber_stack)` where `FiberStack` exists: the feature `fiber` is on, and the target has stack switching. There it
//! also sets `cfg(thread_list)` if wasmtime's per-thread list of activations is looked for, and otherwise `cfg(call_hook)`.
//! `cfg(next_wasmtime)` is set by `.ci/next`.

use std::env;

/// The processors for which there are both corosensei's coroutines and wasmtime's fibers, seen to work. `Cargo.toml`
/// has the same list.
///
/// `riscv64` is not among them. Printing the backtrace of a panic under a compiled guest crashes there, at the root of the
/// coroutine (corosensei 0.3.4).
const PROCESSORS: [&str; 5] = ["x86_64", "aarch64", "arm", "x86", "loongarch64"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=WITHOUT_THREAD_LIST");
    println!("cargo::rustc-check-cfg=cfg(fiber_stack, thread_list, call_hook, next_wasmtime)");
    let of_target = |name| env::var(name).expect("cargo says which");
    let has_feature = |name| env::var_os(format!("CARGO_FEATURE_{name}")).is_some();
    let (system, processor) = (of_target("CARGO_CFG_TARGET_OS"), of_target("CARGO_CFG_TARGET_ARCH"));
    // Systems whose mappings `src/stack/fiber/memory.rs` knows how to ask for.
    let has_maps =
        of_target("CARGO_CFG_TARGET_VENDOR") == "apple" || ["linux", "android", "freebsd"].contains(&&*system);
    let has_coroutines = has_maps && PROCESSORS.contains(&&*processor);
    // Windows has fibers of its own. On other processors `src/stack/fiber/windows_fiber.rs` does not know where the
    // current one is.
    let has_fibers = system == "windows" && processor == "x86_64";
    if has_feature("FIBER") && (has_coroutines || has_fibers) {
        println!("cargo::rustc-cfg=fiber_stack");
        // `WITHOUT_THREAD_LIST` is for tests, on Linux, of what the crate does on other systems: see `CONTRIBUTING.md`.
        // `Cargo.toml` asks for wasmtime's feature `call-hook` there.
        let has_list = system == "windows" || system == "linux" && env::var_os("WITHOUT_THREAD_LIST").is_none();
        println!("cargo::rustc-cfg={}", if has_list { "thread_list" } else { "call_hook" });
    }
}
