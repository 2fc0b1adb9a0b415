//! Makes a component of a module for preview 1, with the adapter that wasmtime maintains. The module must be a program.
//!
//! ```text
//! cargo run --release -p wasmtime-async-wasi --example component -- MODULE.wasm COMPONENT.wasm
//! ```

use std::{env, fs};
use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER,
};
use wasmtime::error::Context as _;
use wasmtime::{Result, bail, format_err};
use wit_component::ComponentEncoder;

fn main() -> Result<()> {
    let names: Vec<_> = env::args_os().skip(1).collect();
    let [module, component] = names.as_slice() else { bail!("usage: component MODULE.wasm COMPONENT.wasm") };
    let bytes = fs::read(module).with_context(|| format!("cannot read {}", module.display()))?;
    let bytes = ComponentEncoder::default()
        .module(&bytes)
        .and_then(|encoder| {
            encoder.adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER)
        })
        .and_then(|mut encoder| encoder.encode())
        .map_err(|error| format_err!("{error:#}"))
        .with_context(|| format!("cannot make a component of {}", module.display()))?;
    fs::write(component, bytes).with_context(|| format!("cannot write {}", component.display()))
}
