//! Both stores keep the contract of the journal.
#![cfg(all(feature = "sqlite", feature = "blobs"))]
#![allow(clippy::unwrap_used, reason = "tests")]
use smallhands_graph::{DirBlobs, MemoryStore, SqliteStore, SystemClock};
use smallhands_testkit::journal;
use std::sync::Arc;

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
