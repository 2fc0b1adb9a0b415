//! Deeply structured modules.

use super::Guest;
use super::body::{Body, trap};
use super::types::{Signature, Ty};
use crate::cases::case::IMPORTS;
use crate::cases::choices::Choices;
use std::fmt::Write as _;

/// The number of elements in the table. The last one stays empty, and the one before it is always a function.
pub(super) const TABLE: usize = 8;
/// The number of elements that change.
pub(super) const ELEMENTS: usize = TABLE - 2;
pub(super) const GLOBALS: [Ty; 5] = [Ty::I32, Ty::I64, Ty::F32, Ty::F64, Ty::I32];

/// A module with loops, calls, bounded recursion, indirect calls, growing memories and tables, several results, traps.
pub(super) fn deep(choices: &mut Choices<'_>) -> Guest {
    let functions: Vec<_> = (0..choices.within(1..=4)).map(|_| Signature::any(choices)).collect();
    let mut text = String::from("(module\n");
    for (number, signature) in functions.iter().enumerate() {
        let _ = writeln!(text, "  (type $t{number} (func{}))", signature.text());
    }
    text.push_str("  (type $none (func))\n  (type $odd (func (param i64) (result f32 i64 f32 i64)))\n");
    for (number, signature) in IMPORTS.iter().enumerate() {
        let _ = writeln!(text, "  (import \"host\" \"h{number}\" (func $h{number} {signature}))");
    }
    text.push_str("  (import \"host\" \"refuel\" (func $refuel))\n");
    let _ = writeln!(text, "  (memory (export \"memory\") 1 {})", choices.within(1..=4));
    let _ = writeln!(text, "  (table (export \"table\") {TABLE} {} funcref)", TABLE + choices.below(8));
    let _ = writeln!(text, "  (global $r (export \"r\") (mut externref) (ref.null extern))");
    for (number, ty) in GLOBALS.iter().enumerate() {
        let ty = ty.name();
        let _ =
            writeln!(text, "  (global $g{number} (export \"g{number}\") (mut {ty}) ({ty}.const {}))", choices.below(9));
    }
    // Functions only call functions with lower numbers, so nothing recurses by accident. Those in the upper half make
    // indirect calls, and those in the lower half can be called indirectly.
    let first_in_table = functions.len() / 2;
    for element in 0..ELEMENTS {
        let function = first_in_table + choices.below(functions.len() - first_in_table + 1);
        if function < functions.len() {
            let _ = writeln!(text, "  (elem (i32.const {element}) func $f{function})");
        }
    }
    let _ = writeln!(text, "  (elem (i32.const {ELEMENTS}) func $f{})", functions.len() - 1);
    let _ = writeln!(text, "  (data (i32.const 16) \"some bytes to begin with\")");
    for number in 0..functions.len() {
        Body { choices, functions: &functions, number, first_in_table, loops: 0, out: &mut text }.function();
    }
    // Bounded recursion that does something on the way down and on the way up.
    text.push_str("  (func $down (export \"down\") (param i32) (result i32)\n    (local $depth i32)\n");
    let _ = writeln!(text, "    (local.set $depth (i32.rem_u (local.get 0) (i32.const {})))", choices.within(1..=40));
    text.push_str("    (if (i32.eqz (local.get $depth)) (then (return ");
    text.push_str(choices.pick(&["(i32.const 7)", "(call $h1 (i32.const 7))", "(unreachable)", "(call $spin)"]));
    text.push_str(")))\n    (global.set $g0 (i32.add (global.get $g0) (i32.const 1)))\n    ");
    text.push_str(choices.pick(&["(call $h0)", "(nop)", "(drop (memory.grow (i32.const 1)))"]));
    text.push_str(
        "\n    (i32.add (call $down (i32.sub (local.get $depth) (i32.const 1))) (i32.load8_u (local.get $depth))))\n",
    );
    let host = choices.pick(&["(call $h0)", "(drop (call $h1 (local.get 0)))", "(drop (call $h7))"]);
    let (one, other) = (trap(choices), trap(choices));
    let _ = writeln!(
        text,
        "  (func (export \"trap\") (param i32)\n    {host}\n    (if (i32.and (local.get 0) (i32.const 1)) (then {one}) \
         (else {other})))"
    );
    text.push_str(
        "  (func $spin (result i32) (loop $again (br $again)) (unreachable))
  (func $bottomless (param i32) (result i32)
    (i32.add (call $bottomless (i32.add (local.get 0) (i32.const 1))) (local.get 0)))
  (func $fall (call $refuel) (drop (call $bottomless (i32.const 0))))\n",
    );
    if let Some(start) = functions.iter().position(|f| f.params.is_empty() && f.results.is_empty())
        && choices.one_in(2)
    {
        let _ = writeln!(text, "  (start $f{start})");
    }
    text.push(')');
    Guest::Deep(text)
}
