use crate::bed::Result;
use rusqlite::{Connection, params, types::Value};
use smallhands_graph::Durability;
use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

/// A row of the journal, as SQLite holds it.
pub(crate) struct Row {
    at: i64,
    kind: String,
    version: i64,
    /// Text, or the reference to a body that lies in the blob store.
    body: Value,
}

impl Row {
    /// Bytes of the body as the row holds it.
    pub(crate) fn len(&self) -> usize {
        match &self.body {
            Value::Text(t) => t.len(),
            Value::Blob(b) => b.len(),
            _ => 0,
        }
    }
}

/// What a store wrote for the run.
pub(crate) fn rows(store: &Path) -> Result<Vec<Row>> {
    let conn = Connection::open(store.join("journal.db"))?;
    let mut q = conn.prepare("SELECT at, kind, version, body FROM records ORDER BY id")?;
    let rows = q.query_map([], |r| {
        Ok(Row {
            at: r.get(0)?,
            kind: r.get(1)?,
            version: r.get(2)?,
            body: r.get(3)?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The large bodies that a store keeps beside its journal.
pub(crate) fn blobs(store: &Path) -> Result<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    let mut dirs = vec![store.join("blobs")];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            match entry.file_type()?.is_dir() {
                true => dirs.push(entry.path()),
                false => found.push(fs::read(entry.path())?),
            }
        }
    }
    Ok(found)
}

/// Size of the journal once all of it is in the one file.
pub(crate) fn journal_mb(store: &Path) -> Result<f64> {
    let path = store.join("journal.db");
    let conn = Connection::open(&path)?;
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    Ok(path.metadata()?.len() as f64 / 1e6)
}

/// The same SQLite, table and pragmas: these rows in these batches, with a head in each, after the
/// large bodies, each a file synced and renamed; and no engine, no JSON, no second thread.
pub(crate) fn write(
    dir: &Path,
    level: Durability,
    rows: &[Row],
    blobs: &[Vec<u8>],
    batches: &[usize],
) -> Result<Duration> {
    let mut conn = Connection::open(dir.join("floor.db"))?;
    conn.pragma_update(None, "journal_mode", "WAL")?;
    let synchronous = match level {
        Durability::PowerLoss => "FULL",
        Durability::ProcessCrash => "NORMAL",
    };
    conn.pragma_update(None, "synchronous", synchronous)?;
    conn.execute_batch(
        "CREATE TABLE runs(n INTEGER PRIMARY KEY, run TEXT UNIQUE, last INTEGER NOT NULL, head TEXT);
         CREATE TABLE records(
           id INTEGER PRIMARY KEY, at INTEGER NOT NULL, kind TEXT NOT NULL,
           version INTEGER NOT NULL, body TEXT NOT NULL
         );
         INSERT INTO runs VALUES(1, 'run', 0, NULL)",
    )?;
    let head = "x".repeat(200);
    let begin = Instant::now();
    for (n, bytes) in blobs.iter().enumerate() {
        let (new, path) = (dir.join("new"), dir.join(format!("blob-{n}")));
        let mut file = File::create(&new)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        fs::rename(new, path)?;
        File::open(dir)?.sync_all()?;
    }
    let (mut rest, mut id) = (rows, 1_i64 << 40);
    for n in batches {
        let (batch, later) = rest.split_at((*n).min(rest.len()));
        rest = later;
        let tx = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        {
            let mut insert = tx.prepare_cached("INSERT INTO records VALUES(?1, ?2, ?3, ?4, ?5)")?;
            for r in batch {
                id += 1;
                insert.execute(params![id, r.at, r.kind, r.version, r.body])?;
            }
            tx.prepare_cached("UPDATE runs SET last = ?2, head = ?3 WHERE n = ?1")?
                .execute(params![1, id & ((1 << 40) - 1), head])?;
        }
        tx.commit()?;
    }
    Ok(begin.elapsed())
}
