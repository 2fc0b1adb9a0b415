//! What is compared: everything that can be observed about a run of a case.

use std::any::Any;
use std::fmt;
use std::panic;
use std::sync::{Arc, Mutex, PoisonError};
use wasmtime::{AsContext, AsContextMut, Extern, Instance, Ref, Trap, Val, WasmBacktrace};
use wasmtime_async::Between;

/// A value that can be compared: floats by their bits, references by what they refer to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Value {
    I32(i32),
    I64(i64),
    F32(u32),
    F64(u64),
    V128(u128),
    Extern(u32),
    Null,
    /// A reference that cannot be distinguished from others of its kind.
    Reference,
}

impl Value {
    pub(crate) fn new(store: &impl AsContext, value: &Val) -> Self {
        match value {
            Val::I32(n) => Self::I32(*n),
            Val::I64(n) => Self::I64(*n),
            Val::F32(bits) => Self::F32(*bits),
            Val::F64(bits) => Self::F64(*bits),
            Val::V128(bits) => Self::V128(bits.as_u128()),
            Val::ExternRef(Some(reference)) => {
                let data = reference.data(store.as_context()).expect("belongs to the store");
                data.and_then(<dyn Any + Send + Sync>::downcast_ref).map_or(Self::Reference, |n| Self::Extern(*n))
            }
            Val::ExternRef(None) | Val::FuncRef(None) => Self::Null,
            _ => Self::Reference,
        }
    }
}

/// The error of a host function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct HostError(pub(crate) u32);

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error {} of a host function", self.0)
    }
}

impl std::error::Error for HostError {}

/// The payload of a host function's panic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct HostPanic(pub(crate) u32);

/// Suppresses the reports of panics that host functions are told to make.
pub(crate) fn quiet_host_panics() {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if info.payload().downcast_ref::<HostPanic>().is_none() {
            report(info);
        }
    }));
}

/// How a step, or a call back into the guest, ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Ending {
    Returned(Vec<Value>),
    Trapped(Trap),
    Failed(HostError),
    Panicked(HostPanic),
    Dropped,
    /// Something wanted to wait where its stack does not suspend. Never in wasmtime's own async.
    Refused(Between),
    /// An error of another kind, with its text.
    Other(String),
}

impl Ending {
    pub(crate) fn of_error(error: &wasmtime::Error) -> Self {
        if let Some(trap) = error.downcast_ref::<Trap>() {
            Self::Trapped(*trap)
        } else if let Some(error) = error.downcast_ref::<HostError>() {
            Self::Failed(*error)
        } else if let Some(wasmtime_async::Error::ForeignFrames { between, .. }) = error.downcast_ref() {
            Self::Refused(*between)
        } else {
            // Only the first line. The backtrace follows, and is compared separately.
            let text = error.root_cause().to_string();
            Self::Other(text.lines().next().unwrap_or_default().to_owned())
        }
    }

    /// # Panics
    ///
    /// With the payload, if it does not come from one of the host functions.
    pub(crate) fn of_panic(payload: Box<dyn Any + Send>) -> Self {
        match payload.downcast() {
            Ok(payload) => Self::Panicked(*payload),
            Err(payload) => std::panic::resume_unwind(payload),
        }
    }

    /// The name under which this is counted.
    pub(crate) fn kind(&self) -> String {
        match self {
            Self::Returned(_) => "returned".to_owned(),
            Self::Trapped(trap) => format!("{trap:?}"),
            Self::Failed(_) => "host-error".to_owned(),
            Self::Panicked(_) => "host-panic".to_owned(),
            Self::Dropped => "dropped".to_owned(),
            Self::Refused(_) => "refused".to_owned(),
            Self::Other(_) => "other-error".to_owned(),
        }
    }
}

/// Something that a host function saw or did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    /// A host function was called.
    Called { import: usize, depth: usize, arguments: Vec<Value> },
    /// Its future continued after it was pending.
    Resumed { import: usize },
    /// It is about to call the guest as a future, at this depth, with or without something next to it.
    CallsWithin { depth: usize, beside: bool },
    /// The guest that it called as a future ended in an endless recursion.
    Overflowed,
    /// It called the guest, which ended.
    CalledBack { export: usize, ending: Ending },
    /// It called the guest of another store.
    CalledElsewhere { result: Option<i32> },
    /// It grew the memory from this number of pages, or could not.
    Grew(Option<u64>),
    /// It returned.
    Returned { import: usize },
    /// It was dropped or unwound in the middle.
    CutShort { import: usize },
}

/// What a store's host functions saw, and how often one of their futures was pending.
#[derive(Clone, Default, Debug)]
pub(crate) struct Log(Arc<Mutex<Vec<Event>>>);

impl Log {
    pub(crate) fn add(&self, event: Event) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }

    pub(crate) fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What a store contains at the end.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct State {
    /// The number of pages, and a digest of their contents.
    pub(crate) memories: Vec<(u64, u64)>,
    pub(crate) globals: Vec<Value>,
    pub(crate) tables: Vec<Vec<Value>>,
}

impl State {
    pub(crate) fn new(mut store: impl AsContextMut, instance: Instance) -> Self {
        let mut state = Self::default();
        let externs: Vec<_> = instance.exports(&mut store).map(wasmtime::Export::into_extern).collect();
        for item in externs {
            match item {
                Extern::Memory(memory) => {
                    state.memories.push((memory.size(&store), digest(memory.data(&store))));
                }
                Extern::Global(global) => {
                    let value = global.get(&mut store);
                    state.globals.push(Value::new(&store, &value));
                }
                Extern::Table(table) => {
                    let elements = (0..table.size(&store)).map(|index| {
                        let element = table.get(&mut store, index).expect("is within the table");
                        match element {
                            Ref::Extern(Some(reference)) => Value::new(&store, &Val::ExternRef(Some(reference))),
                            other if other.is_null() => Value::Null,
                            _ => Value::Reference,
                        }
                    });
                    state.tables.push(elements.collect());
                }
                _ => {}
            }
        }
        state
    }
}

fn digest(bytes: &[u8]) -> u64 {
    let (words, _) = bytes.as_chunks();
    words
        .iter()
        .fold(0, |sum: u64, word| (sum ^ u64::from_le_bytes(*word)).wrapping_mul(0x100_0000_01b3).rotate_left(23))
}

/// Everything that can be observed about one step: the instantiation, or a call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Record {
    pub(crate) ending: Ending,
    /// The guest's frames at the trap, as function indices.
    pub(crate) frames: Vec<u32>,
    /// How often the call was pending.
    pub(crate) pendings: u32,
    pub(crate) events: Vec<Event>,
    pub(crate) state: State,
    /// The remaining fuel.
    pub(crate) fuel: u64,
}

pub(crate) fn frames(error: &wasmtime::Error) -> Vec<u32> {
    let frames = error.downcast_ref::<WasmBacktrace>().map_or(&[][..], WasmBacktrace::frames);
    frames.iter().map(wasmtime::FrameInfo::func_index).collect()
}
