//! The program to run: reads its file, compiles it, and finds its imports.

use crate::arguments::{Arguments, StackKind};
use std::fs;
use wasmtime::component::{self, Component};
use wasmtime::error::Context as _;
use wasmtime::{Config, Engine, Linker, Module, Result, bail};
use wasmtime_async::{Carries, Stack, Store};
use wasmtime_async_wasi::{command, p0, p1, p2};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p2::bindings::sync::Command;
use wasmtime_wasi::{FsPerms, I32Exit, WasiCtx};

pub(crate) struct Program {
    pub(crate) engine: Engine,
    code: Code,
}

enum Code {
    Module(Module, Linker<WasiP1Ctx>),
    Component(Component, component::Linker<WasiP1Ctx>),
}

impl Program {
    /// Reads the program from its file.
    pub(crate) fn load(arguments: &Arguments) -> Result<Self> {
        let name = arguments.program.display();
        let bytes = fs::read(&arguments.program).with_context(|| format!("cannot read {name}"))?;
        let mut config = Config::new();
        // Newer compilers use this for `setjmp` and for C++ exceptions.
        config.wasm_exceptions(true);
        // This can stop a guest that never calls the host. It makes guests a little slower.
        config.epoch_interruption(arguments.timeout.is_some());
        let engine = Engine::new(&config)?;
        // The first bytes say whether this is a module or a component.
        let code = match bytes.get(..8) {
            Some(b"\0asm\x01\0\0\0") => module(&engine, &bytes, arguments),
            Some([b'\0', b'a', b's', b'm', .., 1, 0]) => component(&engine, &bytes, arguments.stack),
            Some([b'\0', b'a', b's', b'm', ..]) => bail!("{name} is WebAssembly of a version that is not known"),
            _ => bail!("{name} is not WebAssembly: convert text with `wasm-tools parse TEXT.wat -o PROGRAM.wasm`"),
        };
        Ok(Self { engine, code: code.with_context(|| format!("cannot run {name}"))? })
    }

    /// Returns the exit code.
    pub(crate) async fn run<S>(&self, stack: &mut S, store: &mut Store<WasiP1Ctx>) -> Result<i32>
    where
        S: Stack + Carries<WasiP1Ctx>,
    {
        match &self.code {
            Code::Module(module, linker) => command::run(stack, store, linker, module).await,
            Code::Component(component, linker) => command::run_component(stack, store, linker, component).await,
        }
    }

    /// Does the same without a stack, on this thread, which must not be in a tokio runtime.
    pub(crate) fn run_without(&self, store: &mut Store<WasiP1Ctx>) -> Result<i32> {
        let ended = match &self.code {
            Code::Module(module, linker) => linker
                .instantiate(&mut *store, module)
                .and_then(|instance| instance.get_typed_func::<(), ()>(&mut *store, "_start")?.call(store, ()))
                .map(|()| 0),
            Code::Component(component, linker) => Command::instantiate(&mut *store, component, linker)
                .and_then(|program| program.wasi_cli_run().call_run(store))
                .map(|ended| ended.map_or(1, |()| 0)),
        };
        ended.or_else(|error| error.downcast_ref().map(|exit: &I32Exit| exit.0).ok_or(error))
    }
}

fn module(engine: &Engine, bytes: &[u8], arguments: &Arguments) -> Result<Code> {
    let module = Module::from_binary(engine, bytes).context("it cannot be compiled")?;
    let mut linker = Linker::new(engine);
    match arguments.stack {
        StackKind::Fiber | StackKind::Thread => {
            p1::add_to_linker(&mut linker, |wasi| wasi)?;
            p0::add_to_linker(&mut linker, |wasi| wasi)?;
        }
        StackKind::Send => {
            p1::add_to_linker_send(&mut linker, |wasi| wasi)?;
            p0::add_to_linker_send(&mut linker, |wasi| wasi)?;
        }
        StackKind::Without => {
            wasmtime_wasi::p1::add_to_linker_sync(&mut linker, |wasi| wasi)?;
            wasmtime_wasi::p0::add_to_linker_sync(&mut linker, |wasi| wasi)?;
        }
    }
    if arguments.trap_unknown_imports {
        linker.define_unknown_imports_as_traps(&module)?;
    }
    check_imports(&module, &linker, arguments)?;
    Ok(Code::Module(module, linker))
}

fn component(engine: &Engine, bytes: &[u8], stack: StackKind) -> Result<Code> {
    let component = Component::from_binary(engine, bytes).map_err(|error| {
        let is_async = error.root_cause().to_string().contains("component model async");
        let problem =
            if is_async { "it is for WASI 0.3, and components get WASI 0.2" } else { "it cannot be compiled" };
        error.context(problem)
    })?;
    let mut linker = component::Linker::new(engine);
    match stack {
        StackKind::Fiber | StackKind::Thread => p2::add_to_linker(&mut linker)?,
        StackKind::Send => p2::add_to_linker_send(&mut linker)?,
        StackKind::Without => wasmtime_wasi::p2::add_to_linker_sync(&mut linker)?,
    }
    linker
        .instantiate_pre(&component)
        .context("it imports something that is not defined here, or is for another version of WASI")?;
    Ok(Code::Component(component, linker))
}

/// Fails if an import is missing, and explains the first such import.
fn check_imports(module: &Module, linker: &Linker<WasiP1Ctx>, arguments: &Arguments) -> Result<()> {
    let mut store = wasmtime::Store::new(linker.engine(), context(arguments)?);
    for import in module.imports() {
        if linker.get_by_import(&mut store, &import).is_none() {
            let (from, name) = (import.module(), import.name());
            if from.starts_with("wasi") && !["wasi_snapshot_preview1", "wasi_unstable"].contains(&from) {
                bail!(
                    "it is for another WASI: it imports `{name}` from `{from}`, and modules get `wasi_snapshot_preview1` and \
                     `wasi_unstable`"
                );
            }
            bail!("it imports `{name}` from `{from}`, which is not there");
        }
    }
    Ok(())
}

/// The program's arguments, environment, directories and streams.
pub(crate) fn context(arguments: &Arguments) -> Result<WasiP1Ctx> {
    let mut wasi = WasiCtx::builder();
    wasi.arg(arguments.program.file_name().unwrap_or_default().to_string_lossy()).args(&arguments.rest);
    wasi.envs(&arguments.env).inherit_stdout().inherit_stderr();
    if arguments.copies.is_none_or(|copies| copies == 1) {
        wasi.inherit_stdin();
    }
    for (host, guest) in &arguments.dirs {
        wasi.preopened_dir(host, guest, FsPerms::ReadWrite)
            .with_context(|| format!("cannot open the directory {}", host.display()))?;
    }
    Ok(wasi.build_p1())
}
