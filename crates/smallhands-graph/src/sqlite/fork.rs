//! Runs that share records: a fork is a row that names its parent; a deleted run stays as a row
//! without a name for as long as a fork needs its records.
use super::{
    tables::{id, sql},
    write::{Reply, leased, row},
};
use crate::{Lease, RunHead, StoreError};
use rusqlite::{Connection, OptionalExtension, params};
use smallhands_core::RunId;

/// Which records of which run are a part of another's: from `first` to `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) n: i64,
    pub(super) first: u64,
    pub(super) last: u64,
}

/// The parts of a run's journal, the oldest first, without those that end before `after`.
pub(super) fn parts(conn: &Connection, n: i64, after: u64) -> rusqlite::Result<Vec<Part>> {
    let mut q = conn.prepare_cached("SELECT last, parent, parent_seq FROM ends WHERE n = ?1")?;
    let (mut parts, mut next, mut end) = (Vec::new(), Some(n), u64::MAX);
    while let Some(n) = next {
        let row = q
            .query_row(params![n], |r| {
                Ok((r.get::<_, i64>(0)?, r.get(1)?, r.get::<_, i64>(2)?))
            })
            .optional()?;
        let Some((last, parent, parent_seq)) = row else {
            break;
        };
        let (last, shared) = (end.min(last.unsigned_abs()), parent_seq.unsigned_abs());
        if last > shared {
            parts.push(Part {
                n,
                first: shared + 1,
                last,
            });
        }
        // Numbers only fall on the way up: a damaged row cannot make a circle.
        (next, end) = match shared > after && shared < end {
            true => (parent, shared),
            false => (None, end),
        };
    }
    parts.reverse();
    Ok(parts)
}

pub(super) fn fork(
    tx: &Connection,
    from: &RunId,
    at: u64,
    to: &RunId,
    head: &RunHead,
) -> rusqlite::Result<Reply> {
    let conflict = |is| Ok(Err(StoreError::Conflict { expected: at, is }));
    let last = |run| row(tx, run).map(|r| r.map_or(0, |r| r.last));
    let Some(parent) = row(tx, from)?.filter(|r| (1..=r.last).contains(&at)) else {
        return conflict(last(from)?);
    };
    // A run that was leased and has no record yet does not count as one.
    if let Some(other) = row(tx, to)?.filter(|r| r.last > 0) {
        return conflict(other.last);
    }
    // The parent is the run that holds record `at` itself, so that no part is empty.
    let owner = parts(tx, parent.n, 0)?
        .into_iter()
        .find(|p| p.last >= at)
        .map_or(parent.n, |p| p.n);
    let head = serde_json::to_string(head).unwrap_or_default();
    tx.execute(
        "INSERT INTO runs(run, epoch, owner, last, head, parent, parent_seq, forked)
         VALUES(?1, COALESCE((SELECT epoch FROM deleted), 0), '', ?2, ?3, ?4, ?2, ?5)
         ON CONFLICT(run) DO UPDATE SET last = excluded.last, head = excluded.head,
           parent = excluded.parent, parent_seq = excluded.parent_seq, forked = excluded.forked",
        params![to.as_str(), sql(at), head, owner, from.as_str()],
    )?;
    Ok(Ok(at))
}

pub(super) fn delete(tx: &Connection, l: &Lease) -> rusqlite::Result<Reply> {
    let run = match leased(tx, l)? {
        Ok(run) => run,
        Err(e) => return Ok(Err(e)),
    };
    tx.execute(
        "INSERT INTO deleted VALUES(1, ?1) ON CONFLICT(one) DO UPDATE SET epoch = max(epoch, ?1)",
        params![sql(run.epoch)],
    )?;
    tx.execute(
        "UPDATE runs SET run = NULL, head = NULL, forked = NULL WHERE n = ?1",
        params![run.n],
    )?;
    let mut next = Some(run.n);
    while let Some(n) = next {
        next = bury(tx, n)?;
    }
    Ok(Ok(run.last))
}

/// Removes what no fork needs of a run without a name; returns its parent if that may go as well.
fn bury(tx: &Connection, n: i64) -> rusqlite::Result<Option<i64>> {
    let (name, parent, last): (Option<String>, Option<i64>, i64) = tx.query_row(
        "SELECT run, parent, last FROM ends WHERE n = ?1",
        params![n],
        |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)),
    )?;
    if name.is_some() {
        return Ok(None);
    }
    let needed: Option<i64> = tx.query_row(
        "SELECT max(parent_seq) FROM runs WHERE parent = ?1",
        params![n],
        |r| r.get(0),
    )?;
    let keep = needed.unwrap_or_default().unsigned_abs();
    tx.execute(
        "DELETE FROM records WHERE id > ?1 AND id <= ?2",
        params![id(n, keep), id(n, last.unsigned_abs())],
    )?;
    if needed.is_some() {
        tx.execute(
            "UPDATE runs SET last = ?2 WHERE n = ?1",
            params![n, sql(keep)],
        )?;
        return Ok(None);
    }
    tx.execute("DELETE FROM runs WHERE n = ?1", params![n])?;
    Ok(parent)
}
