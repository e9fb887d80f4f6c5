//! A writer thread that never comes to the end of its transaction: a trigger counts for ever.

use crate::{Result, fault::die, text};
use rusqlite::{Connection, ErrorCode};
use std::{path::Path, thread, time::Duration};

const VIEW: &str = "CREATE VIEW IF NOT EXISTS endless AS
  WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) AS n FROM c";

/// Takes away what the life before left behind.
///
/// # Errors
/// The journal cannot be written.
pub fn undo(dir: &Path) -> Result {
    let path = dir.join("journal.db");
    if !path.exists() {
        return Ok(());
    }
    let conn = Connection::open(path).map_err(text)?;
    conn.busy_timeout(Duration::from_secs(10)).map_err(text)?;
    let left: i64 = conn
        .query_row(
            "SELECT count(*) FROM sqlite_master WHERE name IN ('stuck', 'endless')",
            [],
            |r| r.get(0),
        )
        .map_err(text)?;
    match left {
        0 => Ok(()),
        _ => conn
            .execute_batch("DROP TRIGGER IF EXISTS stuck; DROP VIEW IF EXISTS endless")
            .map_err(text),
    }
}

/// The append of so many records after `after` gets stuck half way, and the process dies there.
pub(crate) fn at(dir: &Path, count: u64, after: u64) {
    let path = dir.join("journal.db");
    let half = after + 1 + count / 2;
    let Ok(conn) = Connection::open(path) else {
        die()
    };
    // The number of a record in its run is in the low bits of its key.
    let trigger = format!(
        "{VIEW}; CREATE TRIGGER stuck AFTER INSERT ON records
         WHEN (NEW.id & 1099511627775) = {half} BEGIN SELECT n FROM endless; END"
    );
    let set = conn
        .busy_timeout(Duration::from_secs(10))
        .and_then(|()| conn.execute_batch(&trigger));
    if set.is_err() || conn.busy_timeout(Duration::ZERO).is_err() {
        die();
    }
    thread::spawn(move || {
        while !is_busy(&conn) {
            thread::sleep(Duration::from_millis(1));
        }
        // From the begin of the transaction to the trigger is less than this.
        thread::sleep(Duration::from_millis(4));
        die();
    });
}

/// Whether somebody writes.
fn is_busy(conn: &Connection) -> bool {
    match conn.execute_batch("BEGIN IMMEDIATE; ROLLBACK") {
        Ok(()) => false,
        Err(e) => e.sqlite_error_code() == Some(ErrorCode::DatabaseBusy),
    }
}
