//! The guest, and its host functions.

use compio::BufResult;
use compio::io::{AsyncRead, AsyncWriteExt};
use compio::net::TcpStream;
use std::rc::Rc;
use wasmtime::{Caller, Engine, InstancePre, Linker, Memory, Module, Result, format_err};
use wasmtime_async::{AsyncFunc, FiberStack, InstancePreExt, LinkerExt, Stack, Store};

/// Sends back what it receives, until the other side ends the connection, and counts the bytes.
const GUEST: &str = r#"
    (module
        (import "host" "receive" (func $receive (param $at i32) (param $most i32) (result i32)))
        (import "host" "send" (func $send (param $at i32) (param $length i32)))
        (memory (export "memory") 1)
        (func (export "serve") (result i64)
            (local $length i32) (local $bytes i64)
            (loop $again
                (local.set $length (call $receive (i32.const 0) (i32.const 1024)))
                (if (local.get $length) (then
                    (call $send (i32.const 0) (local.get $length))
                    (local.set $bytes (i64.add (local.get $bytes) (i64.extend_i32_u (local.get $length))))
                    (br $again))))
            (local.get $bytes)))
"#;

/// The space that a stack has in addition to what guests may use, in bytes.
const HOST_ROOM: usize = 128 << 10;
/// The space that guests may use on a stack, in bytes.
const GUEST_ROOM: usize = 64 << 10;

/// The most that the host receives at once, in bytes.
const MOST_AT_ONCE: usize = 64 << 10;

/// The compiled guest.
pub(crate) struct Guests(InstancePre<Connection>);

/// The data of a store. Host functions keep the stream while they wait, and it is not `Send`.
struct Connection {
    stream: Rc<TcpStream>,
}

impl Guests {
    pub(crate) fn new() -> Result<Self> {
        // Small stacks and memories, because there are many.
        let mut config = wasmtime::Config::new();
        config.max_wasm_stack(GUEST_ROOM).memory_reservation(1 << 16).memory_guard_size(0);
        let engine = Engine::new(&config)?;
        let mut linker = Linker::new(&engine);
        linker.func_wrap_suspending("host", "receive", receive)?;
        linker.func_wrap_suspending("host", "send", send)?;
        Ok(Self(linker.instantiate_pre(&Module::new(&engine, GUEST)?)?))
    }

    /// Serves one connection with a guest of its own. Returns how many bytes the guest sent back.
    pub(crate) async fn serve(self: Rc<Self>, stream: TcpStream) -> Result<u64> {
        let mut stack = FiberStack::new(GUEST_ROOM + HOST_ROOM)?;
        let mut store = Store::new(self.0.module().engine(), Connection { stream: Rc::new(stream) });
        let instance = self.0.instantiate_on(&mut stack, &mut store).await?;
        let serve = AsyncFunc::from(instance.get_typed_func::<(), u64>(&mut store, "serve")?);
        serve.call(&mut stack, &mut store, ()).await
    }
}

async fn receive(mut caller: Caller<'_, Connection>, at: u32, most: u32) -> Result<u32> {
    let stream = Rc::clone(&caller.data().stream);
    // The guest must not decide how much memory the host allocates.
    let most = usize::try_from(most)?.min(MOST_AT_ONCE);
    // The kernel must own the buffer until it is done, so it cannot write into the guest's memory.
    let BufResult(length, bytes) = (&*stream).read(Vec::with_capacity(most)).await;
    let length = length?;
    memory(&mut caller)?.write(&mut caller, usize::try_from(at)?, &bytes[..length])?;
    Ok(u32::try_from(length)?)
}

async fn send(mut caller: Caller<'_, Connection>, at: u32, length: u32) -> Result<()> {
    let stream = Rc::clone(&caller.data().stream);
    let (at, length) = (usize::try_from(at)?, usize::try_from(length)?);
    let memory = memory(&mut caller)?;
    let bytes = memory.data(&caller).get(at..).and_then(|bytes| bytes.get(..length));
    let bytes = bytes.ok_or_else(|| format_err!("{length} bytes at {at} are not in the guest's memory"))?.to_vec();
    let BufResult(result, _) = (&*stream).write_all(bytes).await;
    Ok(result?)
}

fn memory(caller: &mut Caller<'_, Connection>) -> Result<Memory> {
    caller
        .get_export("memory")
        .and_then(wasmtime::Extern::into_memory)
        .ok_or_else(|| format_err!("the guest exports no memory"))
}
