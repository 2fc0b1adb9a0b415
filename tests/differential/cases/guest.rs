//! Guests: deeply structured modules of our own, and arbitrary modules from wasm-smith.
//!
//! Every guest ends by itself or runs out of fuel. Endless recursion is kept separate, in functions that change nothing
//! but the stack, because its depth depends on where on its stack a guest was entered. A nested call has a new limit in
//! wasmtime's own async, and its caller's limit here. So the effects of such a recursion could not be compared.

mod body;
mod deep;
mod types;

use crate::cases::case::IMPORTS;
use crate::cases::choices::Choices;
use deep::deep;
use std::fmt::{self, Write as _};
use wasm_smith::{Config, Module};

/// A module.
#[derive(Debug)]
pub(crate) enum Guest {
    /// Text from our own generator.
    Deep(String),
    /// A binary from wasm-smith.
    Arbitrary(Vec<u8>),
}

impl Guest {
    /// Makes a guest from any bytes.
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

/// An arbitrary module from wasm-smith that only imports host functions.
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
        // What wasmtime does not support, or not by default.
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
