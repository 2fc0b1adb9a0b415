//! What the functions of deeply structured modules do.

use super::deep::{ELEMENTS, GLOBALS, TABLE};
use super::types::{Signature, TYPES, Ty};
use crate::cases::case::IMPORTS;
use crate::cases::choices::Choices;
use std::fmt::Write as _;

/// Something that traps and needs nothing but globals.
pub(super) fn trap(choices: &mut Choices<'_>) -> &'static str {
    choices.pick(&[
        "(unreachable)",
        "(drop (i32.load (i32.const -8)))",
        "(drop (table.get (i32.const 99)))",
        "(drop (i32.div_s (global.get $g0) (i32.const 0)))",
        "(drop (i64.div_s (i64.const 0x8000000000000000) (i64.const -1)))",
        "(drop (i32.trunc_f64_s (f64.const nan)))",
        "(drop (i32.trunc_f32_u (f32.const 1e20)))",
        "(call_indirect (type $none) (i32.const 7))",
        "(call_indirect (type $odd) (i64.const 1) (i32.const 6)) (drop) (drop) (drop) (drop)",
        "(call $fall)",
        "(drop (call $spin))",
    ])
}

/// The body of one function.
pub(super) struct Body<'a, 'b> {
    pub(super) choices: &'a mut Choices<'b>,
    pub(super) functions: &'a [Signature],
    pub(super) number: usize,
    pub(super) first_in_table: usize,
    pub(super) loops: usize,
    pub(super) out: &'a mut String,
}

impl Body<'_, '_> {
    pub(super) fn function(&mut self) {
        let Self { number, functions, .. } = *self;
        let signature = &functions[number];
        let _ = write!(self.out, "  (func $f{number} (export \"f{number}\") (type $t{number})");
        self.out.push_str(
            "\n    (local $i32 i32) (local $i64 i64) (local $f32 f32) (local $f64 f64) (local $ref externref)",
        );
        self.out.push_str("\n    (local $loop0 i32) (local $loop1 i32)");
        for (param, ty) in signature.params.iter().enumerate() {
            let _ = write!(self.out, "\n    (local.set ${} (local.get {param}))", ty.name());
        }
        self.statements(2, 2);
        for ty in &signature.results {
            let value = self.value(*ty, 2);
            let _ = write!(self.out, "\n    {value}");
        }
        self.out.push_str(")\n");
    }

    fn statements(&mut self, depth: usize, indent: usize) {
        for _ in 0..self.choices.within(1..=if depth == 2 { 5 } else { 2 }) {
            let _ = write!(self.out, "\n{:1$}", "", 2 * indent);
            self.statement(depth, indent);
        }
    }

    fn statement(&mut self, depth: usize, indent: usize) {
        let text = match self.choices.below(32) {
            28.. | 0..3 => {
                let import = self.choices.below(IMPORTS.len());
                self.host_call(import)
            }
            3..6 => {
                let ty = self.choices.pick(&TYPES);
                format!("(local.set ${} {})", ty.name(), self.value(ty, 2))
            }
            6..8 => {
                let global = self.choices.below(GLOBALS.len());
                format!("(global.set $g{global} {})", self.value(GLOBALS[global], 2))
            }
            8..11 => {
                let ty = self.choices.pick(&TYPES);
                format!("({}.store {} {})", ty.name(), self.address(), self.value(ty, 2))
            }
            11..13 if depth > 0 && self.loops < 2 => return self.repeat(depth, indent),
            13 | 14 if depth > 0 => {
                let condition = self.value(Ty::I32, 2);
                let _ = write!(self.out, "(if {condition} (then");
                self.statements(depth - 1, indent + 1);
                self.out.push_str(") (else");
                self.statements(depth - 1, indent + 1);
                self.out.push_str("))");
                return;
            }
            15 if depth > 0 => {
                self.out.push_str("(block $out");
                self.statements(depth - 1, indent + 1);
                let condition = self.value(Ty::I32, 2);
                let _ = write!(self.out, " (br_if $out {condition})");
                self.statements(depth - 1, indent + 1);
                self.out.push(')');
                return;
            }
            16 | 17 if self.number + 1 < self.functions.len() => {
                let target = self.number + 1 + self.choices.below(self.functions.len() - self.number - 1);
                let call = format!("(call $f{target}{})", self.arguments(target));
                self.use_results(call, target)
            }
            18..20 if self.number < self.first_in_table => {
                let like = self.choices.below(self.functions.len());
                let element = if self.choices.one_in(8) { TABLE + 1 } else { self.choices.below(TABLE) };
                let arguments = self.arguments(like);
                let call = format!("(call_indirect (type $t{like}){arguments} (i32.const {element}))");
                self.use_results(call, like)
            }
            20 => format!("(drop (memory.grow (i32.const {})))", self.choices.below(3)),
            21 => format!("(drop (table.grow (ref.null func) (i32.const {})))", self.choices.below(3)),
            22 => {
                let element = self.choices.below(ELEMENTS);
                if self.choices.one_in(2) {
                    format!("(table.set (i32.const {element}) (ref.null func))")
                } else {
                    let function = self.first_in_table + self.choices.below(self.functions.len() - self.first_in_table);
                    format!("(table.set (i32.const {element}) (ref.func $f{function}))")
                }
            }
            23 => {
                let (to, from) = (self.address(), self.address());
                format!("(memory.copy {to} {from} (i32.const {}))", self.choices.below(200))
            }
            24 => format!("(local.set $i32 (call $down {}))", self.value(Ty::I32, 1)),
            25 | 26 => {
                let condition = self.value(Ty::I32, 1);
                let trap = trap(self.choices);
                format!("(if (i32.eqz (i32.and {condition} (i32.const 3))) (then {trap}))")
            }
            _ => String::from("(nop)"),
        };
        self.out.push_str(&text);
    }

    /// A loop of a few rounds.
    fn repeat(&mut self, depth: usize, indent: usize) {
        let counter = self.loops;
        self.loops += 1;
        let _ = write!(self.out, "(local.set $loop{counter} (i32.const {}))", self.choices.within(1..=5));
        let _ = write!(self.out, "\n{:1$}(loop $again", "", 2 * indent);
        self.statements(depth - 1, indent + 1);
        let _ = write!(
            self.out,
            "\n{:1$}(br_if $again (local.tee $loop{counter} (i32.sub (local.get $loop{counter}) (i32.const 1)))))",
            "",
            2 * indent + 2
        );
        self.loops -= 1;
    }

    fn host_call(&mut self, import: usize) -> String {
        let [i32, i64, f32, f64] = TYPES;
        match import {
            0 => String::from("(call $h0)"),
            1 => format!("(local.set $i32 (call $h1 {}))", self.value(i32, 2)),
            2 => format!("(local.set $i64 (call $h2 {} {}))", self.value(i64, 1), self.value(f64, 1)),
            3 => format!(
                "(call $h3 {} {} {}) (local.set $i64) (local.set $i32)",
                self.value(i32, 1),
                self.value(i32, 1),
                self.value(i32, 1)
            ),
            4 => format!("(local.set $f64 (call $h4 {}))", self.value(f32, 2)),
            5 => {
                let from = self.choices.pick(&["(local.get $ref)", "(global.get $r)", "(ref.null extern)"]);
                let to = self.choices.pick(&["local.set $ref", "global.set $r"]);
                format!("({to} (call $h5 {from} {}))", self.value(i32, 1))
            }
            6 => {
                format!("(local.set $i32 (call $h6 (table.get (i32.const {}))))", self.choices.below(TABLE))
            }
            _ => String::from("(local.set $i64 (call $h7))"),
        }
    }

    fn arguments(&mut self, function: usize) -> String {
        let functions = self.functions;
        functions[function].params.iter().fold(String::new(), |text, ty| text + " " + &self.value(*ty, 1))
    }

    /// Takes the results of a call off the stack.
    fn use_results(&mut self, mut call: String, like: usize) -> String {
        for ty in self.functions[like].results.iter().rev() {
            let _ = write!(call, " (local.set ${})", ty.name());
        }
        call
    }

    /// An address, usually within the first page.
    fn address(&mut self) -> String {
        match self.choices.below(16) {
            0..8 => format!("(i32.const {})", self.choices.below(4096)),
            8..15 => format!("(i32.and {} (i32.const 0xfff))", self.value(Ty::I32, 1)),
            _ => self.value(Ty::I32, 1),
        }
    }

    fn value(&mut self, ty: Ty, depth: usize) -> String {
        let name = ty.name();
        let kind = self.choices.below(if depth == 0 { 3 } else { 15 });
        match kind {
            0 => {
                let bits = self.choices.bits();
                match ty {
                    #[expect(clippy::cast_possible_truncation, reason = "any bits will do")]
                    Ty::I32 => format!("(i32.const {})", bits as u32),
                    Ty::I64 => format!("(i64.const {bits})"),
                    Ty::F32 | Ty::F64 => format!("({name}.const {})", bits % 1_000_000),
                }
            }
            1 | 12.. => format!("(local.get ${name})"),
            2 => {
                let global = GLOBALS.iter().position(|global| *global == ty).expect("there is one of each type");
                format!("(global.get $g{global})")
            }
            3 => format!("({name}.load {})", self.address()),
            4 => {
                let condition = self.value(Ty::I32, depth - 1);
                let (one, other) = (self.value(ty, depth - 1), self.value(ty, depth - 1));
                format!("(if (result {name}) {condition} (then {one}) (else {other}))")
            }
            5 => {
                let (one, other) = (self.value(ty, depth - 1), self.value(ty, depth - 1));
                format!("(select {one} {other} {})", self.value(Ty::I32, depth - 1))
            }
            6 => self.conversion(ty, depth - 1),
            7 if ty == Ty::I32 => format!("(call $h1 {})", self.value(Ty::I32, depth - 1)),
            8 if ty == Ty::I32 => {
                let from = self.choices.pick(&["memory.size", "table.size", "ref.is_null (local.get $ref)"]);
                format!("({from})")
            }
            _ => {
                let operator = match ty {
                    Ty::I32 | Ty::I64 => {
                        self.choices.pick(&["add", "sub", "mul", "xor", "and", "rotl", "shr_u", "div_u"])
                    }
                    Ty::F32 | Ty::F64 => self.choices.pick(&["add", "sub", "mul", "div", "min", "copysign"]),
                };
                let (one, other) = (self.value(ty, depth - 1), self.value(ty, depth - 1));
                if operator == "div_u" && !self.choices.one_in(8) {
                    return format!("({name}.div_u {one} ({name}.or {other} ({name}.const 1)))");
                }
                format!("({name}.{operator} {one} {other})")
            }
        }
    }

    fn conversion(&mut self, to: Ty, depth: usize) -> String {
        let [i32, i64, f32, f64] = TYPES;
        let (from, operators): (_, &[&str]) = match to {
            Ty::I32 => match self.choices.below(3) {
                0 => (i64, &["i32.wrap_i64", "i64.eqz"]),
                1 => (f64, &["i32.trunc_sat_f64_s", "i32.trunc_sat_f64_u", "i32.trunc_f64_s"]),
                _ => (i32, &["i32.eqz", "i32.popcnt", "i32.clz", "i32.extend8_s"]),
            },
            Ty::I64 => match self.choices.below(2) {
                0 => (i32, &["i64.extend_i32_s", "i64.extend_i32_u"]),
                _ => (f64, &["i64.reinterpret_f64", "i64.trunc_sat_f64_s", "i64.trunc_f64_u"]),
            },
            Ty::F32 => match self.choices.below(2) {
                0 => (i32, &["f32.convert_i32_s", "f32.reinterpret_i32"]),
                _ => (f64, &["f32.demote_f64"]),
            },
            Ty::F64 => match self.choices.below(2) {
                0 => (i64, &["f64.convert_i64_u", "f64.reinterpret_i64"]),
                _ => (f32, &["f64.promote_f32"]),
            },
        };
        let operator = self.choices.pick(operators);
        format!("({operator} {})", self.value(from, depth))
    }
}
