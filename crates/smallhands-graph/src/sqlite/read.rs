use super::{
    big,
    fork::parts,
    tables::{self, id, sql, time},
    write::row,
};
use crate::{Record, RunHead, RunInfo, StoreError, Stored};
use rusqlite::{Connection, OptionalExtension, Row, params, types::ValueRef};
use smallhands_core::{BlobStore, RunId, Timestamp};

/// A record as it lies in the table.
pub(super) struct Raw {
    pub(super) seq: u64,
    pub(super) at: Timestamp,
    pub(super) kind: String,
    pub(super) version: u16,
    pub(super) body: RawBody,
}

pub(super) enum RawBody {
    Text(String),
    Reference(Vec<u8>),
}

pub(super) const COLUMNS: &str = "id, at, kind, version, body";

impl Raw {
    pub(super) fn of(r: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            seq: tables::parts(r.get(0)?).1,
            at: time(r.get(1)?),
            kind: r.get(2)?,
            version: r.get(3)?,
            body: match r.get_ref(4)? {
                ValueRef::Blob(b) => RawBody::Reference(b.into()),
                _ => RawBody::Text(r.get(4)?),
            },
        })
    }

    pub(super) async fn stored(
        self,
        run: &RunId,
        blobs: &dyn BlobStore,
    ) -> Result<Stored, StoreError> {
        let body = match self.body {
            RawBody::Text(t) => t,
            RawBody::Reference(r) => big::fetch(run, self.seq, &r, blobs).await?,
        };
        Ok(Stored {
            seq: self.seq,
            record: Record::new(self.kind, self.version, self.at, body),
        })
    }
}

pub(super) fn rows(
    conn: &mut Connection,
    run: &RunId,
    after: u64,
    limit: usize,
) -> Result<Vec<Raw>, StoreError> {
    // One state of the file: the run may be deleted or its parent cut meanwhile.
    let tx = conn.transaction()?;
    let Some(run) = row(&tx, run)? else {
        return Ok(Vec::new());
    };
    let mut all = Vec::new();
    let mut q = tx.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM records WHERE id >= ?1 AND id <= ?2 ORDER BY id LIMIT ?3"
    ))?;
    for p in parts(&tx, run.n, after)? {
        let first = p.first.max(after.saturating_add(1));
        let left = (limit - all.len()) as u64;
        let keys = params![id(p.n, first), id(p.n, p.last), sql(left)];
        for raw in q.query_map(keys, Raw::of)? {
            all.push(raw?);
        }
    }
    Ok(all)
}

pub(super) fn runs(
    conn: &Connection,
    from: Option<&RunId>,
    limit: usize,
) -> Result<Vec<RunInfo>, StoreError> {
    let mut q = conn.prepare_cached(
        "SELECT run, head, last, bytes, forked, parent_seq FROM ends
         WHERE run > ?1 AND last > 0 ORDER BY run LIMIT ?2",
    )?;
    let from = from.map(RunId::as_str).unwrap_or_default();
    let rows = q.query_map(params![from, sql(limit as u64)], |r| {
        let forked: Option<String> = r.get(4)?;
        let at = r.get::<_, i64>(5)?.unsigned_abs();
        Ok((
            r.get::<_, Option<String>>(1)?,
            RunInfo {
                id: r.get::<_, String>(0)?.into(),
                head: RunHead::default(),
                last: r.get::<_, i64>(2)?.unsigned_abs(),
                bytes: r.get::<_, i64>(3)?.unsigned_abs(),
                forked: forked.map(|f| (f.into(), at)),
            },
        ))
    })?;
    rows.map(|row| {
        let (head, mut info) = row?;
        if let Some(head) = head {
            info.head = serde_json::from_str(&head)
                .map_err(|e| StoreError::Damaged(format!("the head of `{}`: {e}", info.id)))?;
        }
        Ok(info)
    })
    .collect()
}

pub(super) fn owner(conn: &Connection, run: &RunId) -> Result<Option<(String, u64)>, StoreError> {
    let mut q = conn.prepare_cached("SELECT owner, epoch FROM runs WHERE run = ?1")?;
    let row = q.query_row(params![run.as_str()], |r| {
        Ok((r.get(0)?, r.get::<_, i64>(1)?.unsigned_abs()))
    });
    Ok(row.optional()?)
}

pub(super) fn last(conn: &Connection, run: &RunId) -> Result<Option<u64>, StoreError> {
    Ok(row(conn, run)?.map(|r| r.last))
}

/// Changes with each commit of another connection.
pub(super) fn version(conn: &Connection) -> Result<i64, StoreError> {
    let mut q = conn.prepare_cached("PRAGMA data_version")?;
    Ok(q.query_row([], |r| r.get(0))?)
}
