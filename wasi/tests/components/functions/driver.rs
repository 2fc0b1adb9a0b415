//! A component that has nothing but the host's functions: an export for each function that it imports and each resource that it
//! can drop. An export takes what the import takes in core wasm: handles, flags, addresses in the guest's memory.

use crate::guests::ENGINE;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::LazyLock;
use wasi_preview1_component_adapter_provider::WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER;
use wasmtime::component::Component;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata, metadata};
use wit_parser::abi::{AbiVariant, WasmType};
use wit_parser::{Function, InterfaceId, Resolve, Type, TypeDefKind, WorldItem};

/// How many bytes of a result an export returns.
pub(crate) const RESULT_LEN: usize = 128;

/// The component, compiled once for all tests, and its exports.
pub(crate) static DRIVER: LazyLock<Driver> = LazyLock::new(Driver::new);

pub(crate) struct Driver {
    pub(crate) component: Component,
    /// By name: whether its result can be an error.
    pub(crate) exports: BTreeMap<String, bool>,
}

/// What is written for all functions.
#[derive(Default)]
struct Text {
    wit: String,
    imports: String,
    exports: String,
    names: BTreeMap<String, bool>,
}

impl Driver {
    fn new() -> Self {
        // The adapter knows WASI's interfaces.
        let mut wit = metadata::decode(WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER).unwrap().1.resolve;
        let text = Text::of(&wit);
        let package = wit.push_str("driver.wit", &text.wit()).unwrap();
        let world = wit.select_world(&[package], None).unwrap();
        let mut module = wat::parse_str(text.module()).unwrap();
        embed_component_metadata(&mut module, &wit, world, StringEncoding::UTF8).unwrap();
        let component = ComponentEncoder::default().module(&module).unwrap().encode().unwrap();
        Self { component: Component::from_binary(&ENGINE, &component).unwrap(), exports: text.names }
    }
}

impl Text {
    fn of(wit: &Resolve) -> Self {
        let mut text = Self::default();
        let world = wit.worlds.iter().map(|(_, world)| world).find(|world| world.imports.len() > 10).unwrap();
        for (key, item) in &world.imports {
            let WorldItem::Interface { id, .. } = item else { continue };
            let name = wit.name_world_key(key);
            writeln!(text.wit, "import {name};").unwrap();
            text.add_interface(wit, *id, &name);
        }
        text
    }

    fn add_interface(&mut self, wit: &Resolve, id: InterfaceId, name: &str) {
        let interface = &wit.interfaces[id];
        let prefix = interface.name.as_ref().unwrap();
        for function in interface.functions.values() {
            let export = format!("{prefix}-{}", function.name.replace("[method]", "").replace('.', "-"));
            self.add_function(wit, function, name, export);
        }
        for (resource, id) in &interface.types {
            if matches!(wit.types[*id].kind, TypeDefKind::Resource) {
                let import = format!("[resource-drop]{resource}");
                self.add(name, &import, format!("{prefix}-drop-{resource}"), &["i32"], None, false);
            }
        }
    }

    fn add_function(&mut self, wit: &Resolve, function: &Function, interface: &str, export: String) {
        let signature = wit.wasm_signature(AbiVariant::GuestImport, function);
        let params: Vec<_> = signature.params.iter().copied().map(core_type).collect();
        let result = signature.results.first().copied().map(core_type);
        let fallible = match function.result {
            Some(Type::Id(id)) => matches!(wit.types[id].kind, TypeDefKind::Result(_)),
            _ => false,
        };
        self.names.insert(export.clone(), fallible);
        self.add(interface, &function.name, export, &params, result, signature.retptr);
    }

    /// Adds the export, which calls the import, and says that it has come back. A result is left where results are.
    fn add(
        &mut self,
        interface: &str,
        import: &str,
        export: String,
        params: &[&str],
        result: Option<&str>,
        by_pointer: bool,
    ) {
        let (all, results) = (params.join(" "), result.unwrap_or_default());
        writeln!(
            self.imports,
            r#"(import "{interface}" "{import}" (func ${export} (param {all}) (result {results})))"#
        )
        .unwrap();
        let own = &params[..params.len() - usize::from(by_pointer)];
        let types: Vec<_> = own.iter().enumerate().map(|(n, ty)| format!("p{n}: {}", ty.replace('i', "u"))).collect();
        writeln!(self.wit, "export {export}: func({}) -> list<u8>;", types.join(", ")).unwrap();
        let arguments: Vec<_> = (0..own.len()).map(|n| format!("(local.get {n})")).collect();
        let pointer = if by_pointer { "(global.get $result)" } else { "" };
        let call = format!("(call ${export} {} {pointer})", arguments.join(" "));
        let call = result.map_or(call.clone(), |ty| format!("({ty}.store (global.get $result) {call})"));
        writeln!(
            self.exports,
            r#"(func (export "{export}") (param {}) (result i32)
                (memory.fill (global.get $result) (i32.const 0) (i32.const {RESULT_LEN}))
                {call}
                (call $came_back)
                (call $list (global.get $result) (i32.const {RESULT_LEN})))"#,
            own.join(" ")
        )
        .unwrap();
        self.names.entry(export).or_default();
    }

    fn wit(&self) -> String {
        format!(
            "package test:driver;
            world driver {{
                import came-back: func();
                export peek: func(at: u32, len: u32) -> list<u8>;
                export poke: func(at: u32, word: u32) -> list<u8>;
                {}
            }}",
            self.wit
        )
    }

    /// The lower half of the first page is the tests'. What the host allocates is above, until the next `peek`.
    fn module(&self) -> String {
        format!(
            r#"(module
                (import "$root" "came-back" (func $came_back))
                {}
                (memory (export "memory") 40)
                (global $result i32 (i32.const 32768))
                (global $heap (mut i32) (i32.const 65536))
                (func $list (param $at i32) (param $len i32) (result i32)
                    (i32.store (i32.const 40000) (local.get $at))
                    (i32.store (i32.const 40004) (local.get $len))
                    (i32.const 40000))
                (func (export "cabi_realloc") (param i32 i32 i32) (param $len i32) (result i32)
                    (global.get $heap)
                    (global.set $heap
                        (i32.and (i32.add (i32.add (global.get $heap) (local.get $len)) (i32.const 15)) (i32.const -8))))
                (func (export "peek") (param i32 i32) (result i32)
                    (global.set $heap (i32.const 65536))
                    (call $list (local.get 0) (local.get 1)))
                (func (export "poke") (param i32 i32) (result i32)
                    (i32.store (local.get 0) (local.get 1))
                    (call $list (i32.const 0) (i32.const 0)))
                {})"#,
            self.imports, self.exports
        )
    }
}

fn core_type(ty: WasmType) -> &'static str {
    match ty {
        WasmType::I32 | WasmType::Pointer | WasmType::Length => "i32",
        WasmType::I64 | WasmType::PointerOrI64 => "i64",
        WasmType::F32 => "f32",
        WasmType::F64 => "f64",
    }
}
