//! SQLite on this machine, built from the same source. The guests are compared with it.

use crate::{Row, Value};
use rusqlite::fallible_iterator::FallibleIterator as _;
use rusqlite::{Batch, Connection};
use std::path::Path;
use wasmtime::Result;

/// Runs a script, and returns the rows of all its queries.
pub fn run(file: &Path, script: &str) -> Result<Vec<Row>> {
    let db = Connection::open(file)?;
    let mut rows = Vec::new();
    let mut batch = Batch::new(&db, script);
    while let Some(mut statement) = batch.next()? {
        let columns = statement.column_count();
        let mut found = statement.raw_query();
        while let Some(row) = found.next()? {
            rows.push((0..columns).map(|column| row.get(column)).collect::<Result<_, _>>()?);
        }
    }
    Ok(rows)
}

/// Whether SQLite finds that a file is intact.
pub fn is_intact(file: &Path) -> bool {
    run(file, "PRAGMA integrity_check").is_ok_and(|rows| rows == [[Value::Text("ok".into())]])
}

/// All rows of all tables.
pub fn content(file: &Path) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for table in run(file, "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")? {
        if let [Value::Text(name)] = table.as_slice() {
            rows.extend(run(file, &format!("SELECT * FROM \"{name}\" ORDER BY 1, 2"))?);
        }
        rows.push(table);
    }
    Ok(rows)
}
