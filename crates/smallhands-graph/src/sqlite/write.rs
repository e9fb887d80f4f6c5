//! The thread that writes: jobs, and what each does within the transaction of its batch.
use super::{
    big::{self, Bodies},
    fork,
    tables::{id, sql},
};
use crate::{Durability, Lease, Record, RunHead, StoreError, group::Sink, waiting::Waiting};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params, types::ToSqlOutput};
use smallhands_core::{BlobStore, RunId};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, oneshot},
};

pub(super) type Reply = Result<u64, StoreError>;

pub(super) struct Job {
    pub(super) what: Work,
    /// Given back once it is told.
    pub(super) room: OwnedSemaphorePermit,
    /// Of who asked: blobs may need it.
    pub(super) runtime: Option<Handle>,
    pub(super) done: oneshot::Sender<Reply>,
}

pub(super) enum Work {
    Lease {
        run: RunId,
        owner: String,
    },
    Append {
        lease: Lease,
        after: u64,
        records: Vec<Record>,
        head: Option<RunHead>,
        level: Durability,
    },
    Fork {
        from: RunId,
        at: u64,
        to: RunId,
        head: RunHead,
    },
    Delete {
        lease: Lease,
    },
}

impl Work {
    /// About how many bytes of bodies it brings.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Append { records, .. } => records.iter().map(Record::weight).sum(),
            _ => 0,
        }
    }
    fn level(&self) -> Durability {
        match self {
            Self::Lease { .. } => Durability::ProcessCrash,
            Self::Append { level, .. } => *level,
            // Rare, and nobody says what the run was promised.
            Self::Fork { .. } | Self::Delete { .. } => Durability::PowerLoss,
        }
    }
}

pub(super) struct Writer {
    pub(super) conn: Connection,
    pub(super) synced: Durability,
    pub(super) blobs: Arc<dyn BlobStore>,
    pub(super) inline: Arc<AtomicUsize>,
    pub(super) waiting: Arc<Waiting>,
    pub(super) unsaid: Unsaid,
}

/// Bytes appended to runs and not yet in their rows.
pub(super) type Unsaid = HashMap<i64, u64>;
/// So many bytes may be lost from a run's size, which is for people, when the process dies.
const UNSAID: u64 = 64 << 10;

impl Sink for Writer {
    type Job = Job;
    type Reply = Reply;

    fn write(&mut self, batch: &[Job]) -> Result<Vec<Reply>, Reply> {
        let levels = batch.iter().map(|j| j.what.level());
        let level = levels.max().unwrap_or_default();
        let inline = self.inline.load(Ordering::Relaxed);
        // Before the transaction: a blob is durable before the row that names it, and encoding
        // keeps no other process waiting.
        let bodies: Vec<_> = batch
            .iter()
            .map(|j| match &j.what {
                Work::Append { records, .. } => {
                    let _context = j.runtime.as_ref().map(Handle::enter);
                    big::bodies(records, inline, &*self.blobs)
                }
                _ => Ok(Bodies::default()),
            })
            .collect();
        self.set_level(level)
            .and_then(|()| transact(&mut self.conn, batch, bodies, &mut self.unsaid))
            .map_err(|e| Err(e.into()))
    }

    fn again(&self, failure: &Reply) -> Reply {
        match failure {
            Ok(n) => Ok(*n),
            Err(e) => Err(duplicate(e)),
        }
    }

    fn tell(&mut self, job: Job, reply: Reply) {
        if let (Work::Append { lease, .. }, Ok(last)) = (&job.what, &reply) {
            self.waiting.tell(&lease.run, *last);
        }
        let Job {
            what, room, done, ..
        } = job;
        drop((what, room));
        // Whoever asked may be gone; what was done counts all the same.
        drop(done.send(reply));
    }
}

impl Writer {
    fn set_level(&mut self, want: Durability) -> rusqlite::Result<()> {
        if self.synced != want {
            let mode = match want {
                Durability::ProcessCrash => "NORMAL",
                Durability::PowerLoss => "FULL",
            };
            self.conn.pragma_update(None, "synchronous", mode)?;
            self.synced = want;
        }
        Ok(())
    }
}

/// Jobs that are refused change nothing; an error of the system fails the whole transaction.
fn transact(
    conn: &mut Connection,
    batch: &[Job],
    bodies: Vec<Result<Bodies, StoreError>>,
    unsaid: &mut Unsaid,
) -> rusqlite::Result<Vec<Reply>> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut replies = Vec::with_capacity(batch.len());
    for (job, bodies) in batch.iter().zip(bodies) {
        replies.push(match (&job.what, bodies) {
            (_, Err(e)) => Err(e),
            (Work::Lease { run, owner }, _) => Ok(lease(&tx, run, owner)?),
            (Work::Fork { from, at, to, head }, _) => fork::fork(&tx, from, *at, to, head)?,
            (Work::Delete { lease }, _) => fork::delete(&tx, lease)?,
            (
                Work::Append {
                    lease,
                    after,
                    records,
                    head,
                    ..
                },
                Ok(bodies),
            ) => append(&tx, lease, *after, records, &bodies, head.as_ref(), unsaid)?,
        });
    }
    tx.commit()?;
    Ok(replies)
}

fn lease(tx: &Connection, run: &RunId, owner: &str) -> rusqlite::Result<u64> {
    // A run that has the id of a deleted one begins above its epochs: an old lease stays old.
    let epoch: i64 = tx
        .prepare_cached(
            "INSERT INTO runs(run, epoch, owner) VALUES(?1, 1 + COALESCE((SELECT epoch FROM deleted), 0), ?2)
             ON CONFLICT(run) DO UPDATE SET epoch = epoch + 1, owner = excluded.owner RETURNING epoch",
        )?
        .query_row(params![run.as_str(), owner], |r| r.get(0))?;
    Ok(epoch.unsigned_abs())
}

/// A run as the writer needs it.
pub(super) struct Row {
    pub(super) n: i64,
    pub(super) epoch: u64,
    pub(super) last: u64,
}

pub(super) fn row(tx: &Connection, run: &RunId) -> rusqlite::Result<Option<Row>> {
    tx.prepare_cached("SELECT n, epoch, last FROM ends WHERE run = ?1")?
        .query_row(params![run.as_str()], |r| {
            Ok(Row {
                n: r.get(0)?,
                epoch: r.get::<_, i64>(1)?.unsigned_abs(),
                last: r.get::<_, i64>(2)?.unsigned_abs(),
            })
        })
        .optional()
}

/// The run of a lease, if the lease is the current one.
pub(super) fn leased(tx: &Connection, l: &Lease) -> rusqlite::Result<Result<Row, StoreError>> {
    Ok(match row(tx, &l.run)? {
        Some(row) if row.epoch == l.epoch => Ok(row),
        _ => Err(lost(l)),
    })
}

fn append(
    tx: &Connection,
    l: &Lease,
    after: u64,
    records: &[Record],
    bodies: &Bodies,
    head: Option<&RunHead>,
    unsaid: &mut Unsaid,
) -> rusqlite::Result<Reply> {
    let run = match leased(tx, l)? {
        Ok(run) => run,
        Err(e) => return Ok(Err(e)),
    };
    if run.last != after {
        return Ok(Err(StoreError::Conflict {
            expected: after,
            is: run.last,
        }));
    }
    let mut insert = tx.prepare_cached("INSERT INTO records VALUES(?1, ?2, ?3, ?4, ?5)")?;
    let mut bytes = 0;
    for (seq, (r, (body, len))) in (after + 1..).zip(records.iter().zip(bodies.iter())) {
        bytes += len;
        insert.execute(params![
            id(run.n, seq),
            sql(r.at.0),
            r.kind,
            r.version,
            ToSqlOutput::Borrowed(body)
        ])?;
    }
    let last = after + records.len() as u64;
    let unsaid = unsaid.entry(run.n).or_default();
    *unsaid += bytes;
    if head.is_some() || *unsaid > UNSAID {
        let head = head.and_then(|h| serde_json::to_string(h).ok());
        tx.prepare_cached(
            "UPDATE runs SET last = ?2, bytes = bytes + ?3, head = COALESCE(?4, head) WHERE n = ?1",
        )?
        .execute(params![run.n, sql(last), sql(*unsaid), head])?;
        *unsaid = 0;
    }
    Ok(Ok(last))
}

pub(super) fn lost(l: &Lease) -> StoreError {
    StoreError::LeaseLost {
        run: l.run.clone(),
        epoch: l.epoch,
    }
}

/// The same failure for each job of a transaction that failed as a whole.
fn duplicate(e: &StoreError) -> StoreError {
    match e {
        StoreError::DiskFull(s) => StoreError::DiskFull(s.clone()),
        StoreError::ReadOnly(s) => StoreError::ReadOnly(s.clone()),
        StoreError::Damaged(s) => StoreError::Damaged(s.clone()),
        StoreError::Io(s) => StoreError::Io(s.clone()),
        other => StoreError::Io(other.to_string()),
    }
}
