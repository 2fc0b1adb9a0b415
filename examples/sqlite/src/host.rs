//! The guest's imports: its file operations, as async host functions.
//!
//! In each of them, the other databases get a turn: its future is pending, the guest's stack is suspended, and the
//! thread runs another guest. The operation itself is one of std's, and runs on this thread, because `tokio::fs` would
//! need a pool of threads.

use crate::disk::Disk;
use crate::stats::Stats;
use std::cell::Cell;
use std::future::pending;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::rc::Rc;
use std::time::SystemTime;
use tokio::sync::Notify;
use tokio::task::yield_now;
use wasmtime::error::Context as _;
use wasmtime::{Caller, Engine, Extern, Linker, Result};
use wasmtime_async::LinkerExt;

/// The data of a guest's store.
pub struct Host {
    pub disk: Disk,
    pub stats: Rc<Stats>,
    pub outage: Option<Rc<Outage>>,
}

/// A future power failure: one of the writes to the database never finishes.
pub struct Outage {
    /// How many writes finish first.
    pub writes_left: Cell<u32>,
    /// Is notified when the power fails.
    pub begun: Notify,
}

/// Defines the imports of `guest/vfs.c`.
pub fn linker(engine: &Engine) -> Result<Linker<Host>> {
    let mut linker = Linker::new(engine);
    linker
        .func_wrap_suspending("disk", "open", open)?
        .func_wrap_suspending("disk", "close", close)?
        .func_wrap_suspending("disk", "read", read)?
        .func_wrap_suspending("disk", "write", write)?
        .func_wrap_suspending("disk", "truncate", truncate)?
        .func_wrap_suspending("disk", "sync", sync)?
        .func_wrap_suspending("disk", "size", size)?
        .func_wrap_suspending("disk", "delete", delete)?
        .func_wrap_suspending("disk", "exists", exists)?
        .func_wrap("disk", "random", random)?
        .func_wrap("disk", "now", now)?;
    Ok(linker)
}

async fn open(mut caller: Caller<'_, Host>, name: u32, len: u32, create: i32) -> Result<i32> {
    caller.data().turn().await;
    let (memory, host) = split(&mut caller)?;
    Ok(answer(host.disk.open(part(memory, name, len)?, create != 0)))
}

async fn close(mut caller: Caller<'_, Host>, handle: u32) -> i32 {
    caller.data().turn().await;
    answer(caller.data_mut().disk.close(handle).map(|()| 0))
}

async fn read(mut caller: Caller<'_, Host>, handle: u32, to: u32, len: u32, offset: u64) -> Result<i32> {
    caller.data().turn().await;
    let (memory, host) = split(&mut caller)?;
    Ok(answer(host.disk.read(handle, part(memory, to, len)?, offset)))
}

/// Writes in two halves, and lets other guests run in between. So a dropped call leaves a torn page, as a power failure
/// would.
async fn write(mut caller: Caller<'_, Host>, handle: u32, from: u32, len: u32, offset: u64) -> Result<i32> {
    let half = len / 2;
    let (memory, host) = split(&mut caller)?;
    let first = host.disk.write(handle, part(memory, from, half)?, offset);
    host.turn_within_write(handle).await;
    let (memory, host) = split(&mut caller)?;
    let rest = &part(memory, from, len)?[half as usize..];
    Ok(answer(first.and_then(|()| host.disk.write(handle, rest, offset + u64::from(half))).map(|()| 0)))
}

async fn truncate(caller: Caller<'_, Host>, handle: u32, size: u64) -> i32 {
    caller.data().turn().await;
    answer(caller.data().disk.truncate(handle, size).map(|()| 0))
}

async fn sync(caller: Caller<'_, Host>, handle: u32) -> i32 {
    caller.data().turn().await;
    answer(caller.data().disk.sync(handle).map(|()| 0))
}

async fn size(caller: Caller<'_, Host>, handle: u32) -> i64 {
    caller.data().turn().await;
    answer(caller.data().disk.size(handle))
}

async fn delete(mut caller: Caller<'_, Host>, name: u32, len: u32, sync: i32) -> Result<i32> {
    caller.data().turn().await;
    let (memory, host) = split(&mut caller)?;
    Ok(answer(host.disk.delete(part(memory, name, len)?, sync != 0).map(|()| 0)))
}

async fn exists(mut caller: Caller<'_, Host>, name: u32, len: u32) -> Result<i32> {
    caller.data().turn().await;
    let (memory, host) = split(&mut caller)?;
    Ok(answer(host.disk.exists(part(memory, name, len)?)))
}

fn random(mut caller: Caller<'_, Host>, to: u32, len: u32) -> Result<()> {
    let (memory, _) = split(&mut caller)?;
    for bytes in part(memory, to, len)?.chunks_mut(8) {
        let random = RandomState::new().hash_one(0).to_ne_bytes();
        bytes.copy_from_slice(&random[..bytes.len()]);
    }
    Ok(())
}

/// Milliseconds since 1970.
fn now() -> Result<i64> {
    Ok(i64::try_from(SystemTime::UNIX_EPOCH.elapsed()?.as_millis())?)
}

impl Host {
    /// Lets the other databases run.
    async fn turn(&self) {
        self.stats.count(yield_now()).await;
    }

    /// The time that passes during a write. If the power fails, it never ends.
    async fn turn_within_write(&self, handle: u32) {
        if let Some(outage) = &self.outage
            && self.disk.is_database(handle)
        {
            if outage.writes_left.get() == 0 {
                outage.begun.notify_one();
                self.stats.count(pending::<()>()).await;
            }
            outage.writes_left.update(|n| n - 1);
        }
        self.turn().await;
    }
}

/// The guest's memory and the data of its store.
fn split<'a>(caller: &'a mut Caller<'_, Host>) -> Result<(&'a mut [u8], &'a mut Host)> {
    let memory = caller.get_export("memory").and_then(Extern::into_memory).context("the guest has no memory")?;
    Ok(memory.data_and_store_mut(caller))
}

/// The part of memory that the guest refers to.
fn part(memory: &mut [u8], at: u32, len: u32) -> Result<&mut [u8]> {
    let rest = memory.get_mut(at as usize..).unwrap_or_default();
    rest.get_mut(..len as usize).context("the guest points outside its memory")
}

/// The value for the guest: a result, or -1.
fn answer<T: TryInto<R>, R: From<i8>>(result: io::Result<T>) -> R {
    let result = result.and_then(|value| value.try_into().map_err(|_| io::Error::other("too large a number")));
    result.unwrap_or_else(|error| {
        eprintln!("a guest's file operation failed: {error}");
        R::from(-1)
    })
}
