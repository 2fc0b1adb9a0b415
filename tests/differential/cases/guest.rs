//! Guests: modules with deep structure of our own making, and arbitrary ones of wasm-smith's.
//!
//! Every guest ends by itself or by running out of fuel. Recursion without end is kept apart from everything else, in
//! functions that change nothing but the stack: how deep it goes depends on where on its stack a guest was entered, and
//! a nested call has a fresh limit in wasmtime's own async and its caller's here, so that what such a recursion leaves
//! behind could not be compared.

use crate::cases::case::IMPORTS;
use crate::cases::choices::Choices;
use std::fmt::{self, Write as _};
use wasm_smith::{Config, Module};

/// A module.
#[derive(Debug)]
pub(crate) enum Guest {
    /// Text of our own generator.
    Deep(String),
    /// Binary of wasm-smith's.
    Arbitrary(Vec<u8>),
}

impl Guest {
    /// Any bytes make a guest.
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let mut choices = Choices::new(bytes);
        if choices.one_in(4) { arbitrary(choices) } else { deep(&mut choices) }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Deep(text) => text.as_bytes(),
            Self::Arbitrary(binary) => binary,
        }
    }
}

impl fmt::Display for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deep(text) => f.write_str(text),
            Self::Arbitrary(binary) => {
                write!(f, "module of wasm-smith's, {} bytes: ", binary.len())?;
                binary.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ty {
    I32,
    I64,
    F32,
    F64,
}

const TYPES: [Ty; 4] = [Ty::I32, Ty::I64, Ty::F32, Ty::F64];

impl Ty {
    fn name(self) -> &'static str {
        match self {
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::F32 => "f32",
            Self::F64 => "f64",
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Signature {
    params: Vec<Ty>,
    results: Vec<Ty>,
}

impl Signature {
    fn new(params: &[Ty], results: &[Ty]) -> Self {
        Self { params: params.to_vec(), results: results.to_vec() }
    }

    fn any(choices: &mut Choices<'_>) -> Self {
        let [i32, i64, f32, f64] = TYPES;
        match choices.below(6) {
            0 => Self::new(&[], &[]),
            1 => Self::new(&[i32], &[i32]),
            2 => Self::new(&[i64, i32], &[i32, f64]),
            3 => Self::new(&[f32, f64], &[f32]),
            _ => {
                let mut some = |max| (0..choices.below(max)).map(|_| choices.pick(&TYPES)).collect();
                Self { params: some(5), results: some(4) }
            }
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (word, types) in [("param", &self.params), ("result", &self.results)] {
            if !types.is_empty() {
                let names: Vec<_> = types.iter().map(|ty| ty.name()).collect();
                let _ = write!(text, " ({word} {})", names.join(" "));
            }
        }
        text
    }
}

/// How many elements the table has. The last one stays empty, the one before it is always a function.
const TABLE: usize = 8;
/// The elements that change.
const ELEMENTS: usize = TABLE - 2;
const GLOBALS: [Ty; 5] = [Ty::I32, Ty::I64, Ty::F32, Ty::F64, Ty::I32];

/// A module with loops, calls, bounded recursion, indirect calls, growing memories and tables, several results, traps.
fn deep(choices: &mut Choices<'_>) -> Guest {
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
    // Functions call each other downwards, by number, so that nothing recurses unawares: the ones in the upper half make
    // indirect calls, the ones in the lower half can be called indirectly.
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
    // Recursion that is bounded, with something on the way down and up.
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

/// Something that traps, with nothing but globals.
fn trap(choices: &mut Choices<'_>) -> &'static str {
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
struct Body<'a, 'b> {
    choices: &'a mut Choices<'b>,
    functions: &'a [Signature],
    number: usize,
    first_in_table: usize,
    loops: usize,
    out: &'a mut String,
}

impl Body<'_, '_> {
    fn function(&mut self) {
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

    /// Mostly within the first page.
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

/// An arbitrary module of wasm-smith's, whose imports are all host functions.
fn arbitrary(mut choices: Choices<'_>) -> Guest {
    let mut imports = String::new();
    for (number, signature) in IMPORTS.iter().enumerate() {
        let _ = writeln!(imports, "(import \"host\" \"h{number}\" (func {signature}))");
    }
    let config = Config {
        available_imports: Some(wat::parse_str(format!("(module {imports})")).expect("is a module")),
        disallow_traps: choices.one_in(4),
        export_everything: true,
        max_imports: 8,
        max_funcs: 6,
        max_instructions: 60,
        max_memory32_bytes: 8 << 16,
        max_tables: 2,
        max_table_elements: 100,
        // What wasmtime does not do, or not by default.
        compact_imports_enabled: false,
        exceptions_enabled: false,
        gc_enabled: false,
        memory64_enabled: false,
        relaxed_simd_enabled: false,
        shared_everything_threads_enabled: false,
        threads_enabled: false,
        wide_arithmetic_enabled: false,
        ..Config::default()
    };
    let module = Module::new(config, &mut choices.0).map(|module| module.to_bytes());
    Guest::Arbitrary(module.unwrap_or_else(|_| wat::parse_str("(module)").expect("is a module")))
}
