//! What must not compile. Next to each case is a twin that differs only in the point of the case, and that compiles and
//! runs.
//!
//! The compiler's message is stored next to each case (`TRYBUILD=overwrite` writes it). This makes sure that a case
//! fails for the right reason, and that the messages stay readable for users. This runs without the feature
//! `component-model`, because its types have the same names, so the compiler would use longer names.
#![cfg(all(fiber_stack, feature = "thread-backend", not(feature = "component-model"), not(feature = "loom")))]

use std::process::Command;

macro_rules! twins {
    ($($case:ident: $twin:literal,)*) => {
        $(#[path = $twin]
        mod $case;)*

        #[test]
        fn twins_compile() {
            $($case::main();)*
        }

        #[test]
        fn cases_do_not_compile() {
            // The compiler's words change from one version to the next.
            let version = Command::new("rustc").arg("--version").output().expect("this is compiled by rustc");
            assert!(version.status.success(), "{version:?}");
            let version = String::from_utf8(version.stdout).expect("a version is text");
            if !version.starts_with(concat!("rustc ", env!("CARGO_PKG_RUST_VERSION"))) {
                println!("left out: what was expected is not what {version} says");
                return;
            }
            let tests = trybuild::TestCases::new();
            $(tests.compile_fail(concat!("tests/must_not_compile/cases/", stringify!($case), ".rs"));)*
        }
    };
}

twins! {
    fiber_call_on_another_thread: "cases/twins/fiber_call_on_another_thread.rs",
    fiber_call_spawned: "cases/twins/fiber_call_spawned.rs",
    stack_used_twice: "cases/twins/stack_used_twice.rs",
    stack_dropped_in_use: "cases/twins/stack_dropped_in_use.rs",
    stack_of_ones_own: "cases/twins/stack_of_ones_own.rs",
    pooled_stack_passed_by_itself: "cases/twins/pooled_stack_passed_by_itself.rs",
    store_used_in_call: "cases/twins/store_used_in_call.rs",
    store_leaves_closure: "cases/twins/store_leaves_closure.rs",
    caller_outlives_call: "cases/twins/caller_outlives_call.rs",
    nested_call_outlives_host_function: "cases/twins/nested_call_outlives_host_function.rs",
    call_on_with_caller: "cases/twins/call_on_with_caller.rs",
    typed_call_with_caller: "cases/twins/typed_call_with_caller.rs",
    instantiate_with_caller: "cases/twins/instantiate_with_caller.rs",
    call_on_with_wasmtime_store: "cases/twins/call_on_with_wasmtime_store.rs",
    carried_by_decree: "cases/twins/carried_by_decree.rs",
    closure_borrows: "cases/twins/closure_borrows.rs",
    host_function_not_send: "cases/twins/host_function_not_send.rs",
    host_function_of_another_shape: "cases/twins/host_function_of_another_shape.rs",
    send_host_function_holds_rc: "cases/twins/send_host_function_holds_rc.rs",
    send_host_function_captures: "cases/twins/send_host_function_captures.rs",
    send_host_function_keeps_caller: "cases/twins/send_host_function_keeps_caller.rs",
    store_not_send_on_thread: "cases/twins/store_not_send_on_thread.rs",
    store_not_send_on_send_fiber: "cases/twins/store_not_send_on_send_fiber.rs",
    closure_not_send_on_thread: "cases/twins/closure_not_send_on_thread.rs",
    result_not_send_on_thread: "cases/twins/result_not_send_on_thread.rs",
    generic_closure: "cases/twins/generic_closure.rs",
    generic_spawned: "cases/twins/generic_spawned.rs",
}
