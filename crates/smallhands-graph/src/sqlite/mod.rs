mod big;
mod check;
mod fork;
mod read;
mod salvage;
mod tables;
mod write;

pub use check::{CheckReport, Finding, FindingKind};
pub use salvage::{SalvageReport, Salvaged};

use crate::{
    Durability, Lease, Record, RunHead, RunInfo, StateStore, StoreError, Stored, SystemClock,
    group, waiting::Waiting,
};
use rusqlite::Connection;
use smallhands_core::{BlobStore, Clock, Digest, RunId, async_trait};
use std::{
    collections::HashMap,
    fmt,
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};
use tables::io_error;
use tokio::sync::{mpsc, oneshot};
use write::{Job, Work, Writer, lost};

/// Journals in one SQLite file: many processes read it, and for each run one process writes.
///
/// One thread writes: it takes whatever waits, appends it in one transaction and only then
/// acknowledges (group commit). A lease is a lock on a file of its own, which the system frees when
/// its process dies, however it dies, and not before: one that hangs keeps its runs, whatever their
/// `ttl`, until it is ended or they are [taken](Self::take_from_holder) from it. Bodies over [`INLINE`](Self::INLINE) bytes lie in the blob
/// store.
pub struct SqliteStore {
    dir: PathBuf,
    blobs: Arc<dyn BlobStore>,
    inline: Arc<AtomicUsize>,
    writer: mpsc::Sender<Job>,
    room: group::Room,
    waiting: Arc<Waiting>,
    reader: Mutex<Connection>,
    locks: Mutex<HashMap<RunId, (u64, File)>>,
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SqliteStore({})", self.dir.display())
    }
}

/// So many jobs wait at most; then appends wait for the disk.
const QUEUE: usize = 1024;
/// And so many bytes of bodies. A larger append waits until nothing else does.
const ROOM: usize = 64 << 20;
/// How often the appends of other processes are looked for.
const POLL: Duration = Duration::from_millis(25);

impl SqliteStore {
    /// Bodies up to this many bytes lie in the journal itself.
    pub const INLINE: usize = 256 * 1024;

    /// Opens or creates `journal.db` in a directory. A file system with working locks is needed.
    ///
    /// # Errors
    /// The directory cannot be used; the file is of another layout or damaged.
    pub fn open(dir: impl Into<PathBuf>, blobs: Arc<dyn BlobStore>) -> Result<Self, StoreError> {
        let dir = dir.into();
        let new = !dir.join(tables::FILE).exists();
        fs::create_dir_all(dir.join("locks")).map_err(|e| io_error(&e))?;
        let conn = tables::create(&dir.join(tables::FILE))?;
        if new {
            sync_names(&dir);
        }
        let reader = tables::connect(&dir.join(tables::FILE))?;
        reader.pragma_update(None, "query_only", true)?;
        let (writer, jobs) = mpsc::channel(QUEUE);
        let (inline, waiting) = (Arc::new(AtomicUsize::new(Self::INLINE)), Arc::default());
        let mut sink = Writer {
            unsaid: HashMap::new(),
            conn,
            synced: Durability::ProcessCrash,
            blobs: blobs.clone(),
            inline: Arc::clone(&inline),
            waiting: Arc::clone(&waiting),
        };
        thread::Builder::new()
            .name("smallhands-journal".into())
            .spawn(move || group::run(jobs, QUEUE, &mut sink))
            .map_err(|e| io_error(&e))?;
        Ok(Self {
            dir,
            blobs,
            inline,
            writer,
            room: group::Room::of(ROOM),
            waiting,
            reader: Mutex::new(reader),
            locks: Mutex::default(),
        })
    }

    /// Bodies over this many bytes go to the blob store, in place of [`INLINE`](Self::INLINE). What
    /// was written before is read all the same.
    #[must_use]
    pub fn inline_up_to(self, bytes: usize) -> Self {
        self.inline.store(bytes, Ordering::Relaxed);
        self
    }

    /// Makes the lease of a run free although the process that holds it lives: for one that hangs and
    /// cannot be ended. From the next lease on whatever it appends is [`StoreError::LeaseLost`]. What
    /// it has started goes on: make sure that nothing of it is still at work, or let it be found by
    /// whoever resumes the run.
    ///
    /// # Errors
    /// The lock cannot be removed.
    pub fn take_from_holder(&self, run: &RunId) -> Result<(), StoreError> {
        match fs::remove_file(self.lock_path(run)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error(&e)),
            _ => Ok(()),
        }
    }

    fn lock_path(&self, run: &RunId) -> PathBuf {
        self.dir.join("locks").join(lock_name(run))
    }

    async fn submit(&self, what: Work) -> Result<u64, StoreError> {
        let gone = || StoreError::Io("the writer thread is gone".into());
        let (done, result) = oneshot::channel();
        let room = self.room.take(what.weight()).await.map_err(|_| gone())?;
        let runtime = tokio::runtime::Handle::try_current().ok();
        let job = Job {
            what,
            room,
            runtime,
            done,
        };
        self.writer.send(job).await.map_err(|_| gone())?;
        result.await.map_err(|_| gone())?
    }

    fn reader(&self) -> MutexGuard<'_, Connection> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn locks(&self) -> MutexGuard<'_, HashMap<RunId, (u64, File)>> {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this store holds the lock of that very lease.
    fn holds(&self, l: &Lease) -> Result<(), StoreError> {
        match self.locks().get(&l.run) {
            Some((epoch, _)) if *epoch == l.epoch => Ok(()),
            _ => Err(lost(l)),
        }
    }

    fn held(&self, run: &RunId) -> Result<StoreError, StoreError> {
        let (owner, epoch) =
            read::owner(&self.reader(), run)?.unwrap_or_else(|| ("another process".into(), 0));
        Ok(StoreError::Held {
            run: run.clone(),
            owner,
            epoch,
        })
    }

    /// Whether the run has a record after `after`; asks only if anything was committed since.
    fn moved(&self, seen: &mut Option<i64>, run: &RunId, after: u64) -> Result<bool, StoreError> {
        let conn = self.reader();
        let version = Some(read::version(&conn)?);
        if *seen == version {
            return Ok(false);
        }
        *seen = version;
        Ok(read::last(&conn, run)?.is_some_and(|last| last > after))
    }
}

/// A new file survives a loss of power only once the names on the way to it do.
fn sync_names(dir: &Path) {
    for d in [Some(dir), dir.parent()].into_iter().flatten() {
        // Not every system lets a directory be opened; then it needs no syncing either.
        drop(File::open(d).and_then(|f| f.sync_all()));
    }
}

/// File names for runs: ids may hold anything.
fn lock_name(run: &RunId) -> String {
    let digest = Digest::of_bytes(run.as_str().as_bytes());
    format!("{}.lock", &digest.hex()[..32])
}

#[async_trait]
impl StateStore for SqliteStore {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    async fn lease(&self, run: &RunId, owner: &str, _: Duration) -> Result<Lease, StoreError> {
        let mut options = File::options();
        let file = options.create(true).truncate(false).write(true);
        let file = file.open(self.lock_path(run));
        let file = file.map_err(|e| io_error(&e))?;
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
        self.locks().insert(run.clone(), (epoch, file));
        Ok(Lease {
            run: run.clone(),
            owner: owner.into(),
            epoch,
        })
    }

    async fn renew(&self, lease: &Lease, _: Duration) -> Result<(), StoreError> {
        self.holds(lease)?;
        // It may have been taken; then better heard now than with the next append.
        match read::owner(&self.reader(), &lease.run)? {
            Some((_, epoch)) if epoch == lease.epoch => Ok(()),
            _ => Err(lost(lease)),
        }
    }

    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        self.holds(lease)?;
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
        self.holds(lease)?;
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
        let rows = read::rows(&mut self.reader(), run, after, limit)?;
        let mut all = Vec::with_capacity(rows.len());
        for row in rows {
            all.push(row.stored(run, &*self.blobs).await?);
        }
        Ok(all)
    }

    async fn runs(&self, from: Option<RunId>, limit: usize) -> Result<Vec<RunInfo>, StoreError> {
        read::runs(&self.reader(), from.as_ref(), limit)
    }

    async fn changed(&self, run: &RunId, after: u64, patience: Duration) -> Result<(), StoreError> {
        let clock = SystemClock;
        let mut told = self.waiting.join(run);
        let (mut seen, begin) = (None, clock.monotonic());
        while !self.moved(&mut seen, run, after)? {
            let left = patience.saturating_sub(clock.monotonic() - begin);
            if left.is_zero() {
                break;
            }
            tokio::select! {
                () = told.beyond(after) => break,
                () = clock.sleep(left.min(POLL)) => {}
            }
        }
        Ok(())
    }

    async fn fork(
        &self,
        from: &RunId,
        at: u64,
        to: &RunId,
        head: RunHead,
    ) -> Result<(), StoreError> {
        let last = self
            .submit(Work::Fork {
                from: from.clone(),
                at,
                to: to.clone(),
                head,
            })
            .await?;
        self.waiting.tell(to, last);
        Ok(())
    }

    async fn delete(&self, lease: &Lease) -> Result<(), StoreError> {
        self.holds(lease)?;
        let work = Work::Delete {
            lease: lease.clone(),
        };
        self.submit(work).await?;
        drop(self.locks().remove(&lease.run));
        Ok(())
    }

    fn blobs(&self) -> Arc<dyn BlobStore> {
        self.blobs.clone()
    }
}
