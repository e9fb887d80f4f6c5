use crate::{Durability, Lease, Record, RunHead, RunInfo, StateStore, StoreError, Stored};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, params};
use smallhands_core::{BlobStore, RunId, Timestamp, async_trait};
use std::{
    collections::HashMap,
    fmt,
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::Duration,
};
use tokio::sync::oneshot;

/// Journals in one SQLite file: many processes read it, and for each run one process writes.
///
/// One thread writes: it takes whatever waits, appends it in one transaction and only then
/// acknowledges (group commit). A lease is a lock on a file of its own, which the system frees when
/// its process dies, however it dies.
pub struct SqliteStore {
    dir: PathBuf,
    blobs: Arc<dyn BlobStore>,
    writer: mpsc::SyncSender<Job>,
    reader: Mutex<Connection>,
    locks: Mutex<HashMap<RunId, File>>,
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SqliteStore({})", self.dir.display())
    }
}

struct Job {
    what: Work,
    done: oneshot::Sender<Result<u64, StoreError>>,
}

enum Work {
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
}

impl Work {
    fn level(&self) -> Durability {
        match self {
            Self::Lease { .. } => Durability::ProcessCrash,
            Self::Append { level, .. } => *level,
        }
    }
}

/// So many jobs wait at most; then appends wait for the disk.
const QUEUE: usize = 1024;
/// The layout of the tables, in `PRAGMA user_version`.
const LAYOUT: i64 = 1;

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS runs(
  run TEXT PRIMARY KEY, epoch INTEGER NOT NULL, owner TEXT NOT NULL, last INTEGER NOT NULL DEFAULT 0, head TEXT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS records(
  run TEXT NOT NULL, seq INTEGER NOT NULL, at INTEGER NOT NULL,
  kind TEXT NOT NULL, version INTEGER NOT NULL, body TEXT NOT NULL,
  PRIMARY KEY(run, seq)
) WITHOUT ROWID;";

impl SqliteStore {
    /// Opens or creates `journal.db` in a directory. A file system with working locks is needed.
    ///
    /// # Errors
    /// The directory cannot be used; the file is of another layout or damaged.
    pub fn open(dir: impl Into<PathBuf>, blobs: Arc<dyn BlobStore>) -> Result<Self, StoreError> {
        let dir = dir.into();
        fs::create_dir_all(dir.join("locks")).map_err(|e| io_error(&e))?;
        let path = dir.join("journal.db");
        let conn = connect(&path)?;
        let found: i64 = conn.query_row("PRAGMA user_version", [], |r| r.get(0))?;
        if found > LAYOUT {
            return Err(StoreError::Damaged(format!(
                "{} has layout {found}, this program knows {LAYOUT}; use a newer program",
                path.display()
            )));
        }
        conn.execute_batch(TABLES)?;
        conn.pragma_update(None, "user_version", LAYOUT)?;
        let reader = connect(&path)?;
        reader.pragma_update(None, "query_only", true)?;
        let (writer, jobs) = mpsc::sync_channel(QUEUE);
        thread::Builder::new()
            .name("smallhands-journal".into())
            .spawn(move || write_all(conn, &jobs))
            .map_err(|e| io_error(&e))?;
        Ok(Self {
            dir,
            blobs,
            writer,
            reader: Mutex::new(reader),
            locks: Mutex::default(),
        })
    }

    async fn submit(&self, what: Work) -> Result<u64, StoreError> {
        let gone = || StoreError::Io("the writer thread is gone".into());
        let (done, result) = oneshot::channel();
        let mut job = Job { what, done };
        // The queue is full only while the disk is slow; waiting must not block the runtime.
        loop {
            match self.writer.try_send(job) {
                Ok(()) => break,
                Err(mpsc::TrySendError::Disconnected(_)) => return Err(gone()),
                Err(mpsc::TrySendError::Full(j)) => {
                    job = j;
                    tokio::task::yield_now().await;
                }
            }
        }
        result.await.map_err(|_| gone())?
    }

    fn reader(&self) -> MutexGuard<'_, Connection> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn locks(&self) -> MutexGuard<'_, HashMap<RunId, File>> {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self, run: &RunId) -> Result<StoreError, StoreError> {
        let row = self
            .reader()
            .query_row(
                "SELECT owner, epoch FROM runs WHERE run = ?1",
                params![run.as_str()],
                |r| Ok((r.get(0)?, r.get::<_, i64>(1)?)),
            )
            .optional()?;
        let (owner, epoch) = row.unwrap_or_else(|| ("another process".into(), 0));
        Ok(StoreError::Held {
            run: run.clone(),
            owner,
            epoch: epoch.unsigned_abs(),
        })
    }
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
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

/// File names for runs: ids may hold anything.
fn lock_name(run: &RunId) -> String {
    format!(
        "{}.lock",
        &smallhands_core::Digest::of_bytes(run.as_str().as_bytes()).hex()[..32]
    )
}

#[async_trait]
impl StateStore for SqliteStore {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    async fn lease(&self, run: &RunId, owner: &str, _: Duration) -> Result<Lease, StoreError> {
        let path = self.dir.join("locks").join(lock_name(run));
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .map_err(|e| io_error(&e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(self.held(run)?),
            Err(TryLockError::Error(e)) => return Err(io_error(&e)),
        }
        let work = Work::Lease {
            run: run.clone(),
            owner: owner.into(),
        };
        let epoch = self.submit(work).await?;
        self.locks().insert(run.clone(), file);
        Ok(Lease {
            run: run.clone(),
            owner: owner.into(),
            epoch,
        })
    }

    async fn renew(&self, lease: &Lease, _: Duration) -> Result<(), StoreError> {
        match self.locks().contains_key(&lease.run) {
            true => Ok(()),
            false => Err(lost(lease)),
        }
    }

    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        drop(self.locks().remove(&lease.run));
        Ok(())
    }

    async fn append(
        &self,
        lease: &Lease,
        after: u64,
        records: Vec<Record>,
        head: Option<RunHead>,
        level: Durability,
    ) -> Result<u64, StoreError> {
        if !self.locks().contains_key(&lease.run) {
            return Err(lost(lease));
        }
        self.submit(Work::Append {
            lease: lease.clone(),
            after,
            records,
            head,
            level,
        })
        .await
    }

    async fn read(&self, run: &RunId, after: u64, limit: usize) -> Result<Vec<Stored>, StoreError> {
        let conn = self.reader();
        let mut q = conn.prepare_cached(
            "SELECT seq, at, kind, version, body FROM records WHERE run = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3",
        )?;
        let rows = q.query_map(params![run.as_str(), sql(after), sql(limit as u64)], |r| {
            Ok((
                r.get::<_, i64>(0)?,
                r.get::<_, i64>(1)?,
                r.get::<_, String>(2)?,
                r.get::<_, u16>(3)?,
                r.get::<_, String>(4)?,
            ))
        })?;
        rows.map(|row| {
            let (seq, at, kind, version, body) = row?;
            Ok(Stored {
                seq: seq.unsigned_abs(),
                record: Record::new(kind, version, Timestamp(at.unsigned_abs()), body),
            })
        })
        .collect()
    }

    async fn runs(&self, from: Option<RunId>, limit: usize) -> Result<Vec<RunInfo>, StoreError> {
        let conn = self.reader();
        let mut q = conn.prepare_cached(
            "SELECT run, head FROM runs WHERE run > ?1 AND head IS NOT NULL ORDER BY run LIMIT ?2",
        )?;
        let from = from.map(String::from).unwrap_or_default();
        let rows = q.query_map(params![from, sql(limit as u64)], |r| {
            Ok((r.get::<_, String>(0)?, r.get::<_, String>(1)?))
        })?;
        rows.map(|row| {
            let (run, head) = row?;
            let head = serde_json::from_str(&head)
                .map_err(|e| StoreError::Damaged(format!("the head of `{run}`: {e}")))?;
            Ok(RunInfo {
                id: run.into(),
                head,
                last: 0,
                bytes: 0,
                forked: None,
            })
        })
        .collect()
    }
    async fn changed(&self, _: &RunId, _: u64, _: Duration) -> Result<(), StoreError> {
        Ok(())
    }
    async fn fork(&self, _: &RunId, _: u64, _: &RunId, _: RunHead) -> Result<(), StoreError> {
        Err(StoreError::Io("not yet".into()))
    }
    async fn delete(&self, _: &Lease) -> Result<(), StoreError> {
        Err(StoreError::Io("not yet".into()))
    }

    fn blobs(&self) -> Arc<dyn BlobStore> {
        self.blobs.clone()
    }
}

// ---- the writer thread

fn write_all(mut conn: Connection, jobs: &mpsc::Receiver<Job>) {
    let mut synced = Durability::ProcessCrash;
    while let Ok(first) = jobs.recv() {
        let mut batch = vec![first];
        while batch.len() < QUEUE
            && let Ok(job) = jobs.try_recv()
        {
            batch.push(job);
        }
        let level = batch
            .iter()
            .map(|j| j.what.level())
            .max()
            .unwrap_or_default();
        let results =
            set_level(&conn, &mut synced, level).and_then(|()| write_batch(&mut conn, &batch));
        match results {
            Ok(results) => {
                for (job, r) in batch.into_iter().zip(results) {
                    // Whoever asked may be gone; the append counts all the same.
                    drop(job.done.send(r));
                }
            }
            Err(e) => {
                let e = StoreError::from(e);
                for job in batch {
                    drop(job.done.send(Err(e.duplicate())));
                }
            }
        }
    }
}

fn set_level(conn: &Connection, now: &mut Durability, want: Durability) -> rusqlite::Result<()> {
    if *now != want {
        let mode = match want {
            Durability::ProcessCrash => "NORMAL",
            Durability::PowerLoss => "FULL",
        };
        conn.pragma_update(None, "synchronous", mode)?;
        *now = want;
    }
    Ok(())
}

/// Jobs that are refused change nothing; an error of the system fails the whole transaction.
fn write_batch(
    conn: &mut Connection,
    batch: &[Job],
) -> rusqlite::Result<Vec<Result<u64, StoreError>>> {
    let tx = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let results = batch
        .iter()
        .map(|job| match &job.what {
            Work::Lease { run, owner } => lease(&tx, run, owner).map(Ok),
            Work::Append {
                lease,
                after,
                records,
                head,
                ..
            } => append(&tx, lease, *after, records, head.as_ref()),
        })
        .collect::<rusqlite::Result<Vec<_>>>()?;
    tx.commit()?;
    Ok(results)
}

fn lease(tx: &Connection, run: &RunId, owner: &str) -> rusqlite::Result<u64> {
    let epoch: i64 = tx.query_row(
        "INSERT INTO runs(run, epoch, owner) VALUES(?1, 1, ?2)
         ON CONFLICT(run) DO UPDATE SET epoch = epoch + 1, owner = excluded.owner RETURNING epoch",
        params![run.as_str(), owner],
        |r| r.get(0),
    )?;
    Ok(epoch.unsigned_abs())
}

fn append(
    tx: &Connection,
    l: &Lease,
    after: u64,
    records: &[Record],
    head: Option<&RunHead>,
) -> rusqlite::Result<Result<u64, StoreError>> {
    let row = tx
        .prepare_cached("SELECT epoch, last FROM runs WHERE run = ?1")?
        .query_row(params![l.run.as_str()], |r| {
            Ok((r.get::<_, i64>(0)?, r.get::<_, i64>(1)?))
        })
        .optional()?;
    let is = match row {
        Some((epoch, last)) if epoch.unsigned_abs() == l.epoch => last.unsigned_abs(),
        _ => return Ok(Err(lost(l))),
    };
    if is != after {
        return Ok(Err(StoreError::Conflict {
            expected: after,
            is,
        }));
    }
    let mut insert = tx.prepare_cached("INSERT INTO records VALUES(?1, ?2, ?3, ?4, ?5, ?6)")?;
    for (seq, r) in (is + 1..).zip(records) {
        insert.execute(params![
            l.run.as_str(),
            sql(seq),
            sql(r.at.0),
            r.kind,
            r.version,
            r.body()
        ])?;
    }
    let last = is + records.len() as u64;
    let head = head.and_then(|h| serde_json::to_string(h).ok());
    tx.prepare_cached("UPDATE runs SET last = ?2, head = COALESCE(?3, head) WHERE run = ?1")?
        .execute(params![l.run.as_str(), sql(last), head])?;
    Ok(Ok(last))
}

fn lost(l: &Lease) -> StoreError {
    StoreError::LeaseLost {
        run: l.run.clone(),
        epoch: l.epoch,
    }
}

fn sql(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn io_error(e: &std::io::Error) -> StoreError {
    match e.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            StoreError::DiskFull(e.to_string())
        }
        _ => StoreError::Io(e.to_string()),
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(e: rusqlite::Error) -> Self {
        let text = e.to_string();
        match e.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::DiskFull(text),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged(text),
            _ => Self::Io(text),
        }
    }
}

impl StoreError {
    /// The same failure for each append of a transaction that failed as a whole.
    fn duplicate(&self) -> Self {
        match self {
            Self::DiskFull(s) => Self::DiskFull(s.clone()),
            Self::Damaged(s) => Self::Damaged(s.clone()),
            other => Self::Io(other.to_string()),
        }
    }
}
