//! Components.

#[cfg(feature = "component-model")]
mod generated;
mod in_closures;
#[cfg(feature = "component-model")]
mod on_stacks;
#[cfg(feature = "component-model")]
mod resources;

/// Greets twice with a host function, and counts in a global how often its `post-return` function ran.
const GREETER: &str = r#"(component
    (import "greet" (func $greet (param "name" string) (result string)))
    (core module $memory
        (memory (export "memory") 1)
        (global $next (mut i32) (i32.const 1024))
        (func (export "realloc") (param i32 i32 i32 i32) (result i32)
            (local $place i32)
            (local.set $place (global.get $next))
            (global.set $next (i32.add (global.get $next) (local.get 3)))
            (local.get $place)))
    (core instance $memory (instantiate $memory))
    (core func $greet (canon lower (func $greet)
        (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
    (core module $guest
        (import "" "memory" (memory 1))
        (import "" "greet" (func $greet (param i32 i32 i32)))
        (global $returned (mut i32) (i32.const 0))
        (func (export "run") (param i32 i32) (result i32)
            (call $greet (local.get 0) (local.get 1) (i32.const 16))
            (call $greet (i32.load (i32.const 16)) (i32.load (i32.const 20)) (i32.const 16))
            (if (i32.eqz (local.get 1)) (then unreachable))
            (i32.const 16))
        (func (export "after run") (param i32)
            (global.set $returned (i32.add (global.get $returned) (i32.const 1))))
        (func (export "returned") (result i32) (global.get $returned)))
    (core instance $guest (instantiate $guest
        (with "" (instance (export "memory" (memory $memory "memory")) (export "greet" (func $greet))))))
    (func (export "run") (param "name" string) (result string)
        (canon lift (core func $guest "run")
            (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))
            (post-return (core func $guest "after run"))))
    (func (export "returned") (result u32) (canon lift (core func $guest "returned"))))"#;
