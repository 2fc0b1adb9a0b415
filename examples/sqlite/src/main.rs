//! Unmodified SQLite as wasm: many databases at the same time on one thread. Async Rust serves their files.
//!
//! ```text
//! cargo run --release -p sqlite-example -- --databases 50
//! ```
//!
//! SQLite is C code that knows nothing about async. It calls "read this page" and expects the page when the call
//! returns. Here that call is an async host function. While it waits, the guest's stack is suspended, and the thread
//! runs another database. (`build.rs` compiles SQLite, and says what that needs.)
//!
//! - `guest/vfs.c`: SQLite's interface to its files. Each operation is an import.
//! - `host.rs`: these imports as async host functions, based on the files in `disk.rs`
//! - `guest.rs`: a database from the point of view of async Rust
//! - `native.rs`: the same with SQLite compiled for this machine, for comparison
//!
//! First, every database runs `script.sql`. The rows of its queries and the contents of the file afterwards must be the
//! same as with native SQLite. Then each database runs a large transaction, `crash.sql`. In the middle of it, a page is
//! half written and the call is dropped, as in a power failure. Native SQLite must find the file as it was before the
//! transaction.
//!
//! The files are in a directory below `TMPDIR`. Most of the time is spent waiting for that disk to sync.

mod disk;
mod guest;
mod host;
mod native;
mod stats;

use disk::Disk;
use guest::Database;
use host::{Host, Outage};
use rusqlite::types::Value;
use stats::Stats;
use std::cell::Cell;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Instant;
use std::{env, fs, process};
use tokio::sync::Notify;
use tokio::task::{LocalSet, spawn_local};
use wasmtime::{Engine, Linker, Module, Result, bail};

const SQLITE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/sqlite.wasm"));
const SCRIPT: &str = include_str!("script.sql");
const CRASH: &str = include_str!("crash.sql");

type Row = Vec<Value>;

fn main() -> ExitCode {
    let Some(databases) = databases_asked_for() else {
        eprintln!("usage: sqlite-example [--databases N], N being 1 or more, 50 unless said otherwise");
        return ExitCode::from(2);
    };
    let dir = env::temp_dir().join(format!("sqlite-example-{}", process::id()));
    if let Err(error) = fs::create_dir(&dir) {
        eprintln!("error: cannot make {}: {error}", dir.display());
        return ExitCode::FAILURE;
    }
    match show(databases, &dir) {
        Ok(true) => {
            if let Err(error) = fs::remove_dir_all(&dir) {
                eprintln!("cannot remove {}: {error}", dir.display());
            }
            return ExitCode::SUCCESS;
        }
        Ok(false) => {}
        Err(error) => eprintln!("error: {error:?}"),
    }
    eprintln!("the files are in {}", dir.display());
    ExitCode::FAILURE
}

fn databases_asked_for() -> Option<usize> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => Some(50),
        ["--databases", n] => n.parse().ok().filter(|&n| n > 0),
        _ => None,
    }
}

/// Runs everything, and returns whether all was well.
fn show(databases: usize, dir: &Path) -> Result<bool> {
    let started = Instant::now();
    let engine = Engine::default();
    let world = Rc::new(World {
        module: Module::new(&engine, SQLITE)?,
        linker: host::linker(&engine)?,
        dir: dir.into(),
        stats: Rc::default(),
    });
    println!("compiled SQLite to machine code in {} ms", started.elapsed().as_millis());

    let native = dir.join("native.db");
    let expected_rows = native::run(&native, SCRIPT)?;
    let committed = native::content(&native)?;

    let started = Instant::now();
    let results = at_once((0..databases).map(|index| run_script(world.clone(), index)))?;
    let ms = started.elapsed().as_millis();
    println!("{databases} databases ran the script in {ms} ms and gave {} rows each", expected_rows.len());
    let (mut same_as_native, mut integrity) = (true, true);
    for (index, rows) in results.into_iter().enumerate() {
        let file = world.file(index);
        let name = file.display();
        same_as_native &= check(&name, "gave the rows that native SQLite gives", rows? == expected_rows);
        same_as_native &= check(&name, "holds what native SQLite stores", native::content(&file)? == committed);
        integrity &= check(&name, "is intact", native::is_intact(&file));
    }

    for result in at_once((0..databases).map(|index| lose_power(world.clone(), index)))? {
        result?;
    }
    let mut recovered = true;
    for index in 0..databases {
        recovered &= is_recovered(&world.file(index), &committed)?;
    }

    let Stats { statements, suspensions, threads, most_suspended, .. } = &*world.stats;
    println!("{} databases were suspended at the same moment", most_suspended.get());
    println!(
        "databases={databases} threads={} statements={} suspensions={} same_as_native={} integrity={} recovered={}",
        threads.get(),
        statements.get(),
        suspensions.get(),
        if same_as_native { "yes" } else { "no" },
        if integrity { "ok" } else { "no" },
        if recovered { "yes" } else { "no" },
    );
    let all_at_once = check("this process", "had all databases suspended at once", most_suspended.get() == databases);
    let one_thread = check("this process", "has one thread", threads.get() == 1);
    Ok(same_as_native && integrity && recovered && all_at_once && one_thread)
}

/// What all databases share.
struct World {
    module: Module,
    linker: Linker<Host>,
    dir: PathBuf,
    stats: Rc<Stats>,
}

impl World {
    fn file(&self, index: usize) -> PathBuf {
        self.dir.join(format!("{index}.db"))
    }

    async fn open(&self, index: usize, outage: Option<Rc<Outage>>) -> Result<Database> {
        let host = Host { disk: Disk::new(&self.dir), stats: self.stats.clone(), outage };
        Database::open(&self.module, &self.linker, host, &format!("{index}.db")).await
    }
}

async fn run_script(world: Rc<World>, index: usize) -> Result<Vec<Row>> {
    let mut database = world.open(index, None).await?;
    let rows = database.run(SCRIPT).await?;
    database.close().await?;
    world.stats.look_at_threads()?;
    Ok(rows)
}

/// Begins a transaction, and drops the call while it is suspended in one of its writes, as `select!` drops the futures
/// that it no longer needs.
async fn lose_power(world: Rc<World>, index: usize) -> Result<()> {
    // The transaction takes about 410 writes. The failure is somewhere within, at another point for each database.
    let writes_left = Cell::new(u32::try_from(index * 37 % 400)?);
    let outage = Rc::new(Outage { writes_left, begun: Notify::new() });
    let mut database = world.open(index, Some(outage.clone())).await?;
    tokio::select! {
        biased; // so that the counts are the same each time
        ended = database.run(CRASH) => bail!("the transaction was to be cut short, but it ended: {ended:?}"),
        () = outage.begun.notified() => world.stats.look_at_threads(),
    }
}

/// Runs futures that need not be `Send` at the same time, on this thread.
fn at_once<F: Future<Output: 'static> + 'static>(futures: impl Iterator<Item = F>) -> Result<Vec<F::Output>> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    LocalSet::new().block_on(&runtime, async {
        let tasks: Vec<_> = futures.map(spawn_local).collect();
        let mut outputs = Vec::new();
        for task in tasks {
            outputs.push(task.await?);
        }
        Ok(outputs)
    })
}

/// Opens a file whose transaction was cut short with native SQLite, and checks that it contains what was committed.
fn is_recovered(file: &Path, committed: &[Row]) -> Result<bool> {
    let journal = file.with_extension("db-journal");
    let interrupted = journal.metadata().is_ok_and(|journal| journal.len() > 0);
    // Without its journal, the file must be broken. Otherwise there was nothing to recover.
    let alone = file.with_extension("alone.db");
    fs::copy(file, &alone)?;
    let damaged = native::content(&alone).ok().as_deref() != Some(committed);

    let name = file.display();
    let restored = native::content(file).ok().as_deref() == Some(committed);
    Ok(check(&name, "was left with a journal", interrupted)
        & check(&name, "was changed by the transaction that was cut short", damaged)
        & check(&name, "was recovered", restored)
        & check(&name, "is intact after recovery", native::is_intact(file))
        & check(&name, "has no journal after recovery", !journal.try_exists()?))
}

/// Reports conditions that should hold and do not.
fn check(subject: impl Display, what: &str, holds: bool) -> bool {
    if !holds {
        eprintln!("FAILED: {subject} {what}");
    }
    holds
}
