//! The SQLite store as the tortured program sees it.

use crate::{
    fault::{Broken, Point, die},
    stuck,
};
use smallhands_graph::{
    Durability, Lease, Record, RunHead, SqliteStore, StateStore, StoreError, store_around,
};
use std::{
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

/// An append that was acknowledged and is not written.
#[derive(Debug)]
struct Held(Lease, u64, Vec<Record>, Option<RunHead>, Durability);

/// The wrapper.
#[derive(Debug)]
pub struct Faulty {
    inner: SqliteStore,
    dir: PathBuf,
    point: Option<Point>,
    broken: Option<Broken>,
    appends: AtomicU64,
    finished: AtomicU64,
    /// Records that were acknowledged and dropped: the driver counts them, the journal does not.
    dropped: AtomicU64,
    held: Mutex<Vec<Held>>,
}

impl Faulty {
    /// Around a store.
    pub fn new(
        inner: SqliteStore,
        dir: &Path,
        point: Option<Point>,
        broken: Option<Broken>,
    ) -> Self {
        Self {
            inner,
            dir: dir.to_owned(),
            point,
            broken,
            appends: 0.into(),
            finished: 0.into(),
            dropped: 0.into(),
            held: Mutex::default(),
        }
    }

    /// Appends in this life so far.
    pub fn appends(&self) -> u64 {
        self.appends.load(SeqCst)
    }

    async fn write(&self, a: Held) -> Result<u64, StoreError> {
        let Held(lease, after, records, head, level) = a;
        self.inner.append(&lease, after, records, head, level).await
    }

    async fn broken(&self, b: Broken, n: u64, mut a: Held) -> Result<u64, StoreError> {
        let count = a.2.len() as u64;
        let says = a.1 + count;
        match b {
            Broken::Forgets(which) if which == n => {
                self.dropped.fetch_add(count, SeqCst);
            }
            Broken::Forgets(_) => {
                let behind = self.dropped.load(SeqCst);
                a.1 = a.1.saturating_sub(behind);
                self.write(a).await?;
            }
            Broken::AcksEarly => self.write_late(Some(a), 3).await?,
        }
        Ok(says)
    }

    /// Writes what is held, but for the last `keep`.
    async fn write_late(&self, new: Option<Held>, keep: usize) -> Result<(), StoreError> {
        let due: Vec<_> = {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            held.extend(new);
            let n = held.len().saturating_sub(keep);
            held.drain(..n).collect()
        };
        for a in due {
            self.write(a).await?;
        }
        Ok(())
    }
}

fn finishes(records: &[Record]) -> u64 {
    let done = |r: &&Record| r.kind == "ended" && r.body().contains(r#""outcome":{"done""#);
    records.iter().filter(done).count() as u64
}

store_around!(Faulty, inner, {
    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        self.write_late(None, 0).await?;
        self.inner.release(lease).await
    }
    async fn append(
        &self,
        lease: &Lease,
        after: u64,
        records: Vec<Record>,
        head: Option<RunHead>,
        level: Durability,
    ) -> Result<u64, StoreError> {
        let n = self.appends.fetch_add(1, SeqCst) + 1;
        let finished = self.finished.fetch_add(finishes(&records), SeqCst) + finishes(&records);
        match self.point {
            Some(Point::Before(k)) if k == n => die(),
            Some(Point::Within(k)) if k == n => stuck::at(&self.dir, records.len() as u64, after),
            _ => {}
        }
        let written = async {
            let append = Held(lease.clone(), after, records, head, level);
            match self.broken {
                Some(b) => self.broken(b, n, append).await,
                None => self.write(append).await,
            }
        };
        if self.point == Some(Point::During(n)) {
            tokio::select! {
                biased;
                r = written => drop(r),
                () = tokio::task::yield_now() => {}
            }
            die();
        }
        let written = written.await;
        match self.point {
            Some(Point::After(k)) if k == n => die(),
            Some(Point::Finished(k)) if finished >= k => die(),
            _ => written,
        }
    }
});
