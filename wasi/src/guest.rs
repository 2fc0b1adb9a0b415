//! What a WASI function gets from the guest that called it.

use crate::{Error, Result};
use wasmtime::{AsContextMut, Caller, Extern};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p1::wasi_snapshot_preview1::WasiSnapshotPreview1;
use wiggle::GuestMemory;

/// The memory that the guest exports.
pub(crate) fn memory<T>(caller: &mut Caller<'_, T>) -> Result<Extern> {
    match caller.get_export("memory") {
        Some(memory @ (Extern::Memory(_) | Extern::SharedMemory(_))) => Ok(memory),
        _ => Err(Error::NoMemory.into()),
    }
}

/// The bytes of that memory, and the context in the store's data.
pub(crate) fn parts<'a, T>(
    caller: &'a mut Caller<'_, T>,
    memory: &'a Extern,
    get: impl Fn(&mut T) -> &mut WasiP1Ctx,
) -> Result<(GuestMemory<'a>, &'a mut WasiP1Ctx)> {
    // This bounds how much the host copies for the guest in this call.
    let fuel = caller.as_context_mut().hostcall_fuel();
    let (memory, data) = match memory {
        Extern::Memory(memory) => {
            let (bytes, data) = memory.data_and_store_mut(caller);
            (GuestMemory::Unshared(bytes), data)
        }
        Extern::SharedMemory(memory) => (GuestMemory::Shared(memory.data()), caller.data_mut()),
        _ => return Err(Error::NoMemory.into()),
    };
    let context = get(data);
    context.set_hostcall_fuel(fuel);
    Ok((memory, context))
}
