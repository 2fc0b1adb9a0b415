//! A database in a guest: SQLite's own C functions, called from async Rust.

use crate::host::Host;
use crate::{Row, Value};
use wasmtime::error::Context as _;
use wasmtime::{Instance, Linker, Memory, Module, Result, TypedFunc, bail};
use wasmtime_async::{AsyncFunc, DEFAULT_STACK_SIZE, DefaultStack, LinkerExt, Stack, Store};

// From `sqlite3.h`.
const OK: i32 = 0;
const ROW: i32 = 100;
const DONE: i32 = 101;
const INTEGER: i32 = 1;
const FLOAT: i32 = 2;
const TEXT: i32 = 3;
const BLOB: i32 = 4;

/// An address in the guest's memory.
type Pointer = u32;

/// An open database. It has an instance of SQLite of its own, and a stack of its own.
pub struct Database {
    stack: DefaultStack,
    store: Store<Host>,
    memory: Memory,
    sqlite: Sqlite,
    db: Pointer,
}

/// The guest's functions.
struct Sqlite {
    // These may read or write files. They run on the stack, where they can be suspended.
    open: AsyncFunc<(Pointer, Pointer), i32>,
    close: AsyncFunc<Pointer, i32>,
    prepare: AsyncFunc<(Pointer, Pointer, i32, Pointer, Pointer), i32>,
    step: AsyncFunc<Pointer, i32>,
    finalize: AsyncFunc<Pointer, i32>,
    // These do neither, so they can be called directly.
    errmsg: TypedFunc<Pointer, Pointer>,
    column_count: TypedFunc<Pointer, i32>,
    column_type: TypedFunc<(Pointer, i32), i32>,
    column_int64: TypedFunc<(Pointer, i32), i64>,
    column_double: TypedFunc<(Pointer, i32), f64>,
    column_blob: TypedFunc<(Pointer, i32), Pointer>,
    column_bytes: TypedFunc<(Pointer, i32), u32>,
    malloc: TypedFunc<u32, Pointer>,
    free: TypedFunc<Pointer, ()>,
}

impl Database {
    /// Makes an instance of SQLite, and opens a file with it.
    pub async fn open(module: &Module, linker: &Linker<Host>, host: Host, name: &str) -> Result<Self> {
        let mut stack = DefaultStack::new(DEFAULT_STACK_SIZE)?;
        let mut store = Store::new(module.engine(), host);
        let instance = linker.instantiate_on(&mut stack, &mut store, module).await?;
        let initialize = AsyncFunc::from(instance.get_typed_func::<(), ()>(&mut store, "_initialize")?);
        initialize.call(&mut stack, &mut store, ()).await?;

        let memory = instance.get_memory(&mut store, "memory").context("the guest has no memory")?;
        let sqlite = Sqlite::new(&instance, &mut store)?;
        let mut this = Self { stack, store, memory, sqlite, db: 0 };
        let name = this.new_text(name)?;
        let place = this.allocate(4)?;
        let status = this.sqlite.open.call(&mut this.stack, &mut this.store, (name, place)).await?;
        this.db = this.pointer_at(place)?;
        this.check(status)?;
        this.free(name)?;
        this.free(place)?;
        Ok(this)
    }

    /// Runs a script, and returns the rows of all its queries.
    pub async fn run(&mut self, script: &str) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        let text = self.new_text(script)?;
        let place = self.allocate(8)?;
        let (mut rest, end) = (text, text + u32::try_from(script.len())?);
        while rest < end {
            let parameters = (self.db, rest, -1, place, place + 4);
            let status = self.sqlite.prepare.call(&mut self.stack, &mut self.store, parameters).await?;
            self.check(status)?;
            rest = self.pointer_at(place + 4)?;
            // Text of only spaces and comments contains no statement.
            match self.pointer_at(place)? {
                0 => {}
                statement => self.run_statement(statement, &mut rows).await?,
            }
        }
        self.free(text)?;
        self.free(place)?;
        Ok(rows)
    }

    async fn run_statement(&mut self, statement: Pointer, rows: &mut Vec<Row>) -> Result<()> {
        loop {
            match self.sqlite.step.call(&mut self.stack, &mut self.store, statement).await? {
                ROW => rows.push(self.row(statement)?),
                DONE => break,
                status => self.check(status)?,
            }
        }
        let status = self.sqlite.finalize.call(&mut self.stack, &mut self.store, statement).await?;
        self.check(status)?;
        self.store.data().stats.statements.update(|n| n + 1);
        Ok(())
    }

    pub async fn close(mut self) -> Result<()> {
        let status = self.sqlite.close.call(&mut self.stack, &mut self.store, self.db).await?;
        self.check(status)
    }

    fn row(&mut self, statement: Pointer) -> Result<Row> {
        let columns = self.sqlite.column_count.call(&mut self.store, statement)?;
        (0..columns).map(|column| self.value(statement, column)).collect()
    }

    fn value(&mut self, statement: Pointer, column: i32) -> Result<Value> {
        let (sqlite, at) = (&self.sqlite, (statement, column));
        Ok(match sqlite.column_type.call(&mut self.store, at)? {
            INTEGER => Value::Integer(sqlite.column_int64.call(&mut self.store, at)?),
            FLOAT => Value::Real(sqlite.column_double.call(&mut self.store, at)?),
            kind @ (TEXT | BLOB) => {
                let start = sqlite.column_blob.call(&mut self.store, at)? as usize;
                let len = sqlite.column_bytes.call(&mut self.store, at)? as usize;
                let bytes = self.bytes(start).get(..len).context("a value lies outside memory")?.to_vec();
                if kind == TEXT { Value::Text(String::from_utf8(bytes)?) } else { Value::Blob(bytes) }
            }
            _ => Value::Null,
        })
    }

    /// Turns a status other than `OK` into an error, with SQLite's message.
    fn check(&mut self, status: i32) -> Result<()> {
        if status == OK {
            return Ok(());
        }
        let message = self.sqlite.errmsg.call(&mut self.store, self.db)? as usize;
        let message = self.bytes(message).split(|&byte| byte == 0).next().unwrap_or_default();
        bail!("SQLite in the guest: {} ({status})", String::from_utf8_lossy(message))
    }

    /// The guest's memory, starting at an address.
    fn bytes(&self, start: usize) -> &[u8] {
        self.memory.data(&self.store).get(start..).unwrap_or_default()
    }

    fn pointer_at(&self, place: Pointer) -> Result<Pointer> {
        let bytes = self.bytes(place as usize).first_chunk().context("a pointer lies outside memory")?;
        Ok(Pointer::from_le_bytes(*bytes))
    }

    /// Reads a C string from the guest's memory.
    fn new_text(&mut self, text: &str) -> Result<Pointer> {
        let place = self.allocate(u32::try_from(text.len() + 1)?)?;
        self.memory.write(&mut self.store, place as usize, &[text.as_bytes(), &[0]].concat())?;
        Ok(place)
    }

    fn allocate(&mut self, len: u32) -> Result<Pointer> {
        match self.sqlite.malloc.call(&mut self.store, len)? {
            0 => bail!("the guest is out of memory"),
            place => Ok(place),
        }
    }

    fn free(&mut self, place: Pointer) -> Result<()> {
        self.sqlite.free.call(&mut self.store, place)
    }
}

impl Sqlite {
    fn new(instance: &Instance, store: &mut Store<Host>) -> Result<Self> {
        Ok(Self {
            open: instance.get_typed_func(&mut *store, "sqlite3_open")?.into(),
            close: instance.get_typed_func(&mut *store, "sqlite3_close")?.into(),
            prepare: instance.get_typed_func(&mut *store, "sqlite3_prepare_v2")?.into(),
            step: instance.get_typed_func(&mut *store, "sqlite3_step")?.into(),
            finalize: instance.get_typed_func(&mut *store, "sqlite3_finalize")?.into(),
            errmsg: instance.get_typed_func(&mut *store, "sqlite3_errmsg")?,
            column_count: instance.get_typed_func(&mut *store, "sqlite3_column_count")?,
            column_type: instance.get_typed_func(&mut *store, "sqlite3_column_type")?,
            column_int64: instance.get_typed_func(&mut *store, "sqlite3_column_int64")?,
            column_double: instance.get_typed_func(&mut *store, "sqlite3_column_double")?,
            column_blob: instance.get_typed_func(&mut *store, "sqlite3_column_blob")?,
            column_bytes: instance.get_typed_func(&mut *store, "sqlite3_column_bytes")?,
            malloc: instance.get_typed_func(&mut *store, "malloc")?,
            free: instance.get_typed_func(&mut *store, "free")?,
        })
    }
}
