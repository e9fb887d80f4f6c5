//! Both stores keep the contract of the journal.
#![cfg(all(feature = "sqlite", feature = "blobs"))]
#![allow(clippy::unwrap_used, reason = "tests")]
use smallhands_core::{BoxFuture, Clock, Timestamp};
use smallhands_graph::{DirBlobs, MemoryStore, SqliteStore, SystemClock};
use smallhands_testkit::{journal, journal_expiry};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

fn pass(checks: Vec<smallhands_testkit::Check>) {
    for c in checks {
        let name = c.name;
        if let Err(e) = c.run() {
            panic!("{name}: {e}");
        }
    }
}

#[test]
fn memory() {
    pass(journal(|| {
        Arc::new(MemoryStore::new(Arc::new(SystemClock)))
    }));
}

#[test]
fn sqlite() {
    let dir = tempfile::tempdir().unwrap();
    let (path, n) = (dir.path().to_owned(), std::sync::atomic::AtomicU32::new(0));
    pass(journal(move || {
        let n = n.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let dir = path.join(n.to_string());
        let blobs = Arc::new(DirBlobs::open(dir.join("blobs")).unwrap());
        Arc::new(SqliteStore::open(dir, blobs).unwrap())
    }));
}

/// Stands still until it is turned.
#[derive(Debug, Default)]
struct Turned(AtomicU64);

impl Clock for Turned {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
}

#[test]
fn memory_leases_end_by_its_clock() {
    pass(journal_expiry(|| {
        let clock = Arc::new(Turned::default());
        let turn = clock.clone();
        let store: Arc<dyn smallhands_graph::StateStore> = Arc::new(MemoryStore::new(clock));
        (store, move |d: Duration| {
            let ms = u64::try_from(d.as_millis()).unwrap();
            turn.0.fetch_add(ms, Ordering::Relaxed);
        })
    }));
}
