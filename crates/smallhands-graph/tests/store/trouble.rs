//! A full disk, a directory that cannot be written, a layout of the future.
use crate::child::{self, Other};
use smallhands_core::Timestamp;
use smallhands_graph::{
    DirBlobs, Durability, MemoryBlobs, Record, SqliteStore, StateStore, StoreError,
};
use std::{fs, path::Path, sync::Arc, time::Duration};

const TTL: Duration = Duration::from_secs(30);

fn open(dir: &Path) -> Result<SqliteStore, StoreError> {
    SqliteStore::open(dir, Arc::new(MemoryBlobs::default()))
}

fn note(n: u64, len: usize) -> Vec<Record> {
    vec![Record::new(
        "k",
        1,
        Timestamp(n),
        format!("\"{n:06}{}\"", "x".repeat(len)),
    )]
}

/// In a small file system of its own: fills it, frees some, goes on.
pub(crate) async fn fill(dir: &Path) {
    let ballast = dir.join("ballast");
    fs::write(&ballast, vec![1; 600_000]).unwrap();
    let blobs = Arc::new(DirBlobs::open(dir.join("blobs")).unwrap());
    let store = SqliteStore::open(dir, blobs).unwrap();
    let l = store.lease(&"r".into(), "me", TTL).await.unwrap();
    let level = Durability::PowerLoss;
    let mut acked = 0;
    let full = loop {
        match store
            .append(&l, acked, note(acked + 1, 9_000), None, level)
            .await
        {
            Ok(last) => acked = last,
            Err(e) => break e,
        }
    };
    assert!(acked > 0);
    assert!(matches!(full, StoreError::DiskFull(_)), "{full}");
    // Again, and for a body that would lie apart.
    for len in [9_000, 900_000] {
        let e = store
            .append(&l, acked, note(0, len), None, level)
            .await
            .unwrap_err();
        assert!(matches!(e, StoreError::DiskFull(_)), "{e}");
    }
    let read = store.read(&"r".into(), 0, 9_999).await.unwrap();
    assert_eq!(
        read.len() as u64,
        acked,
        "what was acknowledged, and no more"
    );
    fs::remove_file(&ballast).unwrap();
    for n in acked..acked + 5 {
        let last = store
            .append(&l, n, note(n + 1, 9_000), None, level)
            .await
            .unwrap();
        assert_eq!(last, n + 1);
    }
    drop(store);
    let again = open(dir).unwrap();
    let read = again.read(&"r".into(), 0, 9_999).await.unwrap();
    assert_eq!(read.len() as u64, acked + 5);
    for (n, r) in (1..).zip(&read) {
        assert_eq!(r.record, note(n, 9_000)[0]);
    }
    child::say("filled and freed");
}

/// Runs a role of this program where the disk is small.
#[expect(clippy::print_stderr, reason = "what is skipped is told")]
pub(crate) fn on_a_small_disk(role: &str, want: &str) {
    let dir = tempfile::tempdir().unwrap();
    let mount = "mount -t tmpfs -o size=2m none \"$0\" && echo 'child: mounted' && exec \"$@\"";
    let at = dir.path().to_str().unwrap();
    // As root, or as root of a user namespace.
    for unshare in ["-m", "-rm"] {
        let under = ["unshare", unshare, "sh", "-c", mount, at];
        let Ok(mut other) = Other::try_start(child::command(&under, role, dir.path())) else {
            continue;
        };
        // No line: it could not be mounted.
        if other.hear().is_some() {
            assert_eq!(other.hear().as_deref(), Some(want));
            return;
        }
    }
    eprintln!("SKIPPED: no small file system can be mounted here");
}

#[test]
fn a_full_disk_is_told_and_loses_nothing() {
    on_a_small_disk("fill", "filled and freed");
}

/// As a user who can only read.
pub(crate) fn read_only(dir: &Path) {
    let new = open(&dir.join("new")).unwrap_err();
    let old = open(dir).unwrap_err();
    for e in [new, old] {
        assert!(matches!(e, StoreError::ReadOnly(_)), "{e:?}");
        assert!(e.to_string().contains("make its directory writable"), "{e}");
        assert_eq!(e.code(), "store.read_only");
    }
    child::say("refused");
}

#[cfg(unix)]
#[test]
fn a_directory_that_cannot_be_written_is_told() {
    use std::os::unix::{fs::PermissionsExt, process::CommandExt};
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).unwrap());
    let mut child = child::command(&[], "read-only", dir.path());
    // Root may write anywhere: another user, then, who must reach this program and the directory.
    let is_root =
        fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0);
    if is_root {
        child.uid(65_534).current_dir("/");
    }
    for (path, mode) in [("", 0o555), ("journal.db", 0o444)] {
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(dir.path().join(path), mode).unwrap();
    }
    let other = Other::try_start(child);
    let said = other.map(|mut o| o.hear());
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    match said {
        Ok(said) => assert_eq!(said.as_deref(), Some("refused")),
        Err(e) => eprintln!("SKIPPED: another user cannot run this program: {e}"),
    }
}

#[tokio::test]
async fn the_first_layout_is_brought_to_the_present() {
    let dir = tempfile::tempdir().unwrap();
    let raw = rusqlite::Connection::open(dir.path().join("journal.db")).unwrap();
    raw.execute_batch(
        r#"CREATE TABLE runs(run TEXT PRIMARY KEY, epoch INTEGER NOT NULL, owner TEXT NOT NULL,
             last INTEGER NOT NULL DEFAULT 0, head TEXT) WITHOUT ROWID;
           CREATE TABLE records(run TEXT NOT NULL, seq INTEGER NOT NULL, at INTEGER NOT NULL,
             kind TEXT NOT NULL, version INTEGER NOT NULL, body TEXT NOT NULL,
             PRIMARY KEY(run, seq)) WITHOUT ROWID;
           INSERT INTO runs VALUES('b', 3, 'ann', 2, NULL), ('a', 1, 'bob', 1, NULL);
           INSERT INTO records VALUES('b', 1, 7, 'opened', 1, '{"x":1}'),
             ('b', 2, 8, 'cancel_requested', 1, 'null'), ('a', 1, 9, 'opened', 1, '{}');
           PRAGMA user_version = 1;"#,
    )
    .unwrap();
    drop(raw);
    for _ in 0..2 {
        let store = open(dir.path()).unwrap();
        let runs = store.runs(None, 9).await.unwrap();
        let listed: Vec<_> = runs
            .iter()
            .map(|r| (r.id.as_str(), r.last, r.bytes))
            .collect();
        assert_eq!(listed, [("a", 1, 2), ("b", 2, 11)]);
        let read = store.read(&"b".into(), 0, 9).await.unwrap();
        let read: Vec<_> = read
            .iter()
            .map(|s| {
                (
                    s.seq,
                    s.record.at.0,
                    s.record.kind.as_ref(),
                    s.record.body(),
                )
            })
            .collect();
        assert_eq!(
            read,
            [
                (1, 7, "opened", r#"{"x":1}"#.into()),
                (2, 8, "cancel_requested", "null".into())
            ]
        );
    }
}

#[test]
fn a_layout_of_the_future_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).unwrap());
    let raw = rusqlite::Connection::open(dir.path().join("journal.db")).unwrap();
    raw.pragma_update(None, "user_version", 3).unwrap();
    let e = open(dir.path()).unwrap_err();
    assert!(matches!(e, StoreError::Damaged(_)), "{e:?}");
    assert!(
        e.to_string()
            .contains("has layout 3, this program knows 2; use a newer program"),
        "{e}"
    );
    fs::write(dir.path().join("journal.db"), [7; 8192]).unwrap();
    drop(raw);
    let e = open(dir.path()).unwrap_err();
    assert!(matches!(e, StoreError::Damaged(_)), "{e:?}");
}
