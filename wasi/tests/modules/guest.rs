//! A guest that has nothing but the host's functions: for each import an export of the same name that calls it, counts that
//! it came back, and returns its result.

use std::fmt::Write as _;
use std::sync::LazyLock;
use wasmtime::{Engine, Linker, Module, Store, ValType};
use wasmtime_wasi::WasiCtx;
use wasmtime_wasi::p1::WasiP1Ctx;

/// A version of WASI for modules.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Version {
    P0,
    P1,
}

pub(crate) const VERSIONS: [Version; 2] = [Version::P0, Version::P1];

impl Version {
    pub(crate) fn module(self) -> &'static str {
        match self {
            Self::P0 => "wasi_unstable",
            Self::P1 => "wasi_snapshot_preview1",
        }
    }

    /// wasmtime-wasi's own synchronous functions.
    pub(crate) fn upstream(self, engine: &Engine) -> Linker<WasiP1Ctx> {
        let mut linker = Linker::new(engine);
        match self {
            Self::P0 => wasmtime_wasi::p0::add_to_linker_sync(&mut linker, |wasi| wasi).unwrap(),
            Self::P1 => wasmtime_wasi::p1::add_to_linker_sync(&mut linker, |wasi| wasi).unwrap(),
        }
        linker
    }
}

/// Names and types of all that a linker has.
pub(crate) fn functions(linker: &Linker<WasiP1Ctx>) -> Vec<(String, Vec<ValType>, Vec<ValType>)> {
    let mut store = Store::new(linker.engine(), WasiCtx::builder().build_p1());
    let all: Vec<_> = linker
        .iter(&mut store)
        .map(|(module, name, function)| (format!("{module} {name}"), function.into_func().unwrap()))
        .collect();
    let mut functions: Vec<_> = all
        .into_iter()
        .map(|(name, function)| {
            let ty = function.ty(&store);
            (name, ty.params().collect(), ty.results().collect())
        })
        .collect();
    functions.sort_by(|a: &(String, Vec<ValType>, Vec<ValType>), b| a.0.cmp(&b.0));
    functions
}

/// For all tests, which compile both guests only once.
pub(crate) static ENGINE: LazyLock<Engine> = LazyLock::new(Engine::default);

/// The guest for a version. Its memory has one page, its global `returned` says how many host functions came back.
pub(crate) fn guest(version: Version) -> &'static Module {
    static GUESTS: LazyLock<[Module; 2]> = LazyLock::new(|| VERSIONS.map(compile));
    &GUESTS[version as usize]
}

fn compile(version: Version) -> Module {
    let (mut imports, mut exports) = (String::new(), String::new());
    for (name, params, results) in functions(&version.upstream(&ENGINE)) {
        let (_, name) = name.split_once(' ').unwrap();
        let list = |what: &str, types: &[ValType]| {
            let types: Vec<_> = types.iter().map(ValType::to_string).collect();
            format!("({what} {})", types.join(" "))
        };
        let arguments: Vec<_> = (0..params.len()).map(|n| format!("(local.get {n})")).collect();
        let arguments = arguments.join(" ");
        let (params, results) = (list("param", &params), list("result", &results));
        let module = version.module();
        writeln!(imports, r#"(import "{module}" "{name}" (func ${name}{params}{results}))"#).unwrap();
        writeln!(exports, r#"(func (export "{name}"){params}{results} (call ${name} {arguments}) (call $came_back))"#)
            .unwrap();
    }
    let text = format!(
        r#"(module {imports}
            (memory (export "memory") 1)
            (global $returned (export "returned") (mut i32) (i32.const 0))
            (func $came_back (global.set $returned (i32.add (global.get $returned) (i32.const 1))))
            {exports})"#
    );
    Module::new(&ENGINE, text).unwrap()
}
