use crate::StoreError;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};
use smallhands_core::Timestamp;
use std::{io, path::Path, thread, time::Duration};

/// The file in the directory of a store.
pub(super) const FILE: &str = "journal.db";
/// The layout of the tables, in `PRAGMA user_version`.
pub(super) const LAYOUT: i64 = 2;

/// `records.id` is the number of the run and the number in the run in one integer: such a table is
/// appended to at its end, which fills its pages, and repeats no id of a run. A body that lies in
/// the blob store is a reference of type BLOB; any other is TEXT.
///
/// `runs.last` may be behind: an append that changes nothing of the head leaves the row, and with it
/// a page, alone. `ends` has the true one.
///
/// A run without a name was deleted; forks of it need some of its records still.
const TABLES: &str = "
CREATE TABLE IF NOT EXISTS runs(
  n INTEGER PRIMARY KEY, run TEXT UNIQUE, epoch INTEGER NOT NULL, owner TEXT NOT NULL,
  last INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0, head TEXT,
  parent INTEGER, parent_seq INTEGER NOT NULL DEFAULT 0, forked TEXT
);
CREATE VIEW IF NOT EXISTS ends AS SELECT
  n, run, epoch, owner, bytes, head, parent, parent_seq, forked,
  max(last, COALESCE((
    SELECT id & ((1 << 40) - 1) FROM records WHERE id > n << 40 AND id < (n + 1) << 40 ORDER BY id DESC LIMIT 1
  ), 0)) AS last
FROM runs;
CREATE INDEX IF NOT EXISTS children ON runs(parent) WHERE parent IS NOT NULL;
CREATE TABLE IF NOT EXISTS records(
  id INTEGER PRIMARY KEY, at INTEGER NOT NULL, kind TEXT NOT NULL, version INTEGER NOT NULL, body TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS deleted(one INTEGER PRIMARY KEY CHECK(one = 1), epoch INTEGER NOT NULL);";

const SEQ_BITS: u32 = 40;

/// The key of a record.
pub(super) fn id(n: i64, seq: u64) -> i64 {
    (n << SEQ_BITS) | sql(seq).min((1 << SEQ_BITS) - 1)
}
/// The run's number and the record's, from a key.
pub(super) fn parts(id: i64) -> (i64, u64) {
    (id >> SEQ_BITS, (id & ((1 << SEQ_BITS) - 1)).unsigned_abs())
}

pub(super) fn sql(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
pub(super) fn time(ms: i64) -> Timestamp {
    Timestamp(ms.unsigned_abs())
}

/// Opens the file, creating it and its tables.
pub(super) fn create(path: &Path) -> Result<Connection, StoreError> {
    let mut conn = connect(path)?;
    if refuse_newer(&conn, path)? < LAYOUT {
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Another process may have been first.
        if refuse_newer(&tx, path)? < LAYOUT {
            match has_layout_1(&tx)? {
                true => tx.execute_batch(&FROM_LAYOUT_1.replace("-- tables", TABLES))?,
                false => tx.execute_batch(TABLES)?,
            }
            tx.pragma_update(None, "user_version", LAYOUT)?;
        }
        tx.commit()?;
    }
    Ok(conn)
}

/// Layout 1 repeated the id of its run in each record.
fn has_layout_1(conn: &Connection) -> rusqlite::Result<bool> {
    let sql = "SELECT count(*) > 0 FROM pragma_table_info('records') WHERE name = 'run'";
    conn.query_row(sql, [], |r| r.get(0))
}

const FROM_LAYOUT_1: &str = "
ALTER TABLE runs RENAME TO runs1;
ALTER TABLE records RENAME TO records1;
-- tables
INSERT INTO runs(run, epoch, owner, last, head) SELECT run, epoch, owner, last, head FROM runs1;
INSERT INTO records SELECT n << 40 | seq, at, kind, version, body FROM records1 JOIN runs USING(run);
UPDATE runs SET bytes =
  (SELECT COALESCE(SUM(LENGTH(body)), 0) FROM records WHERE id > n << 40 AND id < (n + 1) << 40);
DROP TABLE records1;
DROP TABLE runs1;";

/// The layout that the file has, if this program knows it.
pub(super) fn refuse_newer(conn: &Connection, path: &Path) -> Result<i64, StoreError> {
    let found: i64 = conn.query_row("PRAGMA user_version", [], |r| r.get(0))?;
    match found > LAYOUT {
        true => Err(StoreError::Damaged(format!(
            "{} has layout {found}, this program knows {LAYOUT}; use a newer program",
            path.display()
        ))),
        false => Ok(found),
    }
}

/// SQLite asks no busy handler while a file is made a write-ahead one, nor while the last to close
/// it takes its log away: then it says "locked" at once, and a little later all is well.
pub(super) fn connect(path: &Path) -> Result<Connection, StoreError> {
    const TRIES: u32 = 500;
    let mut tries = 0;
    loop {
        match connect_once(path) {
            Err(e) if e.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && tries < TRIES => {
                tries += 1;
                thread::sleep(Duration::from_millis(5));
            }
            done => return Ok(done?),
        }
    }
}

fn connect_once(path: &Path) -> rusqlite::Result<Connection> {
    let conn = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    conn.busy_timeout(Duration::from_secs(10))?;
    conn.pragma_update(None, "journal_mode", "WAL")?;
    conn.pragma_update(None, "synchronous", "NORMAL")?;
    Ok(conn)
}

pub(super) fn io_error(e: &io::Error) -> StoreError {
    use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    match e.kind() {
        StorageFull | QuotaExceeded => StoreError::DiskFull(e.to_string()),
        PermissionDenied | ReadOnlyFilesystem => StoreError::ReadOnly(e.to_string()),
        _ => StoreError::Io(e.to_string()),
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(e: rusqlite::Error) -> Self {
        let text = e.to_string();
        match e.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::DiskFull(text),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged(text),
            Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
                Self::ReadOnly(text)
            }
            _ => Self::Io(text),
        }
    }
}
