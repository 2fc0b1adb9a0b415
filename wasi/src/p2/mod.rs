//! WASI for components: version 0.2, which programs for the target `wasm32-wasip2` import.

mod answer;
mod interfaces;
mod view;

pub use view::View;

use crate::Result;
use interfaces::{define, define_send, for_each_function};
use view::{cli, filesystem, random, sockets, table};
use wasmtime::StoreContextMut;
use wasmtime::component::{HasData, Linker, Resource, ResourceTable, ResourceType};
use wasmtime_async::component::LinkerInstanceExt;
use wasmtime_wasi::cli::WasiCli;
use wasmtime_wasi::filesystem::WasiFilesystem;
use wasmtime_wasi::p2::bindings::clocks::{monotonic_clock, wall_clock};
use wasmtime_wasi::p2::bindings::filesystem::types;
use wasmtime_wasi::p2::bindings::random::random as random_bytes;
use wasmtime_wasi::p2::bindings::sockets::{ip_name_lookup, tcp, udp, udp_create_socket};
use wasmtime_wasi::random::WasiRandom;
use wasmtime_wasi::sockets::WasiSockets;
use wasmtime_wasi_io::bindings::wasi::io::{error, poll, streams};

/// Defines the whole world `wasi:cli/imports`, for a [`FiberStack`](wasmtime_async::FiberStack) or a `ThreadStack`. Functions
/// that are unstable in WASI are not defined. The store's data may be anything that has a context: see [`View`].
///
/// If a tokio runtime polls the component, it must have time and I/O enabled
/// ([`enable_all`](tokio::runtime::Builder::enable_all)). Otherwise, the first function that sleeps panics.
///
/// # Errors
///
/// If one of the names is taken, and the linker does not allow shadowing.
///
/// # Examples
///
/// See [`command::run_component`](crate::command::run_component).
pub fn add_to_linker<T: View + 'static>(linker: &mut Linker<T>) -> Result<()> {
    for_each_function!(define linker:);
    add_rest(linker)
}

/// Does the same as [`add_to_linker`] for every stack, including [`SendFiberStack`](wasmtime_async::SendFiberStack). The store's
/// data must be `Send`, and each call of an async host function allocates a box.
///
/// # Errors
///
/// As for [`add_to_linker`].
pub fn add_to_linker_send<T: View + Send + 'static>(linker: &mut Linker<T>) -> Result<()> {
    for_each_function!(define_send linker:);
    add_rest(linker)
}

struct Table;

impl HasData for Table {
    type Data<'a> = &'a mut ResourceTable;
}

/// Defines the interfaces that do not wait, and that programs do not call in loops. The functions are wasmtime-wasi's own.
fn add_rest<T: View + 'static>(linker: &mut Linker<T>) -> Result<()> {
    use wasmtime_wasi::p2::bindings::{cli as programs, filesystem as files, random as numbers, sockets as nets};

    error::add_to_linker::<T, Table>(linker, table)?;
    files::preopens::add_to_linker::<T, WasiFilesystem>(linker, filesystem)?;
    numbers::insecure::add_to_linker::<T, WasiRandom>(linker, random)?;
    numbers::insecure_seed::add_to_linker::<T, WasiRandom>(linker, random)?;
    programs::exit::add_to_linker::<T, WasiCli>(linker, cli)?;
    programs::environment::add_to_linker::<T, WasiCli>(linker, cli)?;
    programs::stdin::add_to_linker::<T, WasiCli>(linker, cli)?;
    programs::stdout::add_to_linker::<T, WasiCli>(linker, cli)?;
    programs::stderr::add_to_linker::<T, WasiCli>(linker, cli)?;
    programs::terminal_input::add_to_linker::<T, WasiCli>(linker, cli)?;
    programs::terminal_output::add_to_linker::<T, WasiCli>(linker, cli)?;
    programs::terminal_stdin::add_to_linker::<T, WasiCli>(linker, cli)?;
    programs::terminal_stdout::add_to_linker::<T, WasiCli>(linker, cli)?;
    programs::terminal_stderr::add_to_linker::<T, WasiCli>(linker, cli)?;
    nets::tcp_create_socket::add_to_linker::<T, WasiSockets>(linker, sockets)?;
    nets::instance_network::add_to_linker::<T, WasiSockets>(linker, sockets)?;
    nets::network::add_to_linker::<T, WasiSockets>(linker, &nets::network::LinkOptions::default(), sockets)
}
