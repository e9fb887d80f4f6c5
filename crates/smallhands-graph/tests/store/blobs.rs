use smallhands_core::{BlobStore, RunId, Timestamp};
use smallhands_graph::{DirBlobs, Durability, Record, SqliteStore, StateStore, StoreError, Swept};
use std::{
    fs::{self, File},
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

const TTL: Duration = Duration::from_secs(30);

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut all = Vec::new();
    for e in fs::read_dir(dir).unwrap() {
        let path = e.unwrap().path();
        match path.is_dir() {
            true => all.extend(files(&path)),
            false => all.push(path),
        }
    }
    all
}

fn aged(path: &Path, by: Duration) -> File {
    let f = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .unwrap();
    #[expect(
        clippy::disallowed_methods,
        reason = "the age of a file is in wall time"
    )]
    f.set_modified(SystemTime::now() - by).unwrap();
    f
}

#[test]
fn what_a_dead_writer_left_is_cleaned_and_a_living_one_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(DirBlobs::open(dir.path()).unwrap());
    let new = dir.path().join(".new");
    drop(aged(&new.join("1-0-dead"), Duration::from_secs(3600)));
    drop(aged(&new.join("2-0-just-begun"), Duration::ZERO));
    let living = aged(&new.join("3-0-living"), Duration::from_secs(3600));
    living.try_lock().unwrap();
    drop(DirBlobs::open(dir.path()).unwrap());
    let mut left: Vec<_> = files(&new)
        .into_iter()
        .map(|p| p.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    left.sort();
    assert_eq!(left, ["2-0-just-begun", "3-0-living"]);
}

#[tokio::test]
async fn a_sweep_deletes_what_is_old_and_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = DirBlobs::open(dir.path()).unwrap();
    let kept = blobs.put(b"kept".to_vec()).await.unwrap();
    let old = blobs.put(b"older".to_vec()).await.unwrap();
    let again = blobs.put(b"put again".to_vec()).await.unwrap();
    for f in files(dir.path()) {
        drop(aged(&f, Duration::from_secs(7200)));
    }
    let young = blobs.put(b"young".to_vec()).await.unwrap();
    blobs.put(b"put again".to_vec()).await.unwrap();
    let hour = Duration::from_secs(3600);
    let swept = blobs.sweep(&|d| *d == kept.digest, hour).unwrap();
    assert_eq!(swept, Swept { count: 1, bytes: 5 });
    for b in [&kept, &again, &young] {
        blobs.get(b).await.unwrap();
    }
    assert_eq!(blobs.get(&old).await.unwrap_err().code, "blob.missing");
}

/// A store that holds one body of 300 KiB, and the file where that lies.
async fn with_a_big_body(dir: &Path) -> (SqliteStore, std::path::PathBuf) {
    let blobs = Arc::new(DirBlobs::open(dir.join("blobs")).unwrap());
    let store = SqliteStore::open(dir, blobs).unwrap();
    let l = store.lease(&"r".into(), "me", TTL).await.unwrap();
    let small = Record::new("k", 1, Timestamp(1), "1");
    let big = Record::new(
        "k",
        1,
        Timestamp(1),
        format!("\"{}\"", "x".repeat(300 * 1024)),
    );
    store
        .append(&l, 0, vec![small, big.clone()], None, Durability::PowerLoss)
        .await
        .unwrap();
    store.release(&l).await.unwrap();
    let read = store.read(&"r".into(), 1, 9).await.unwrap();
    assert_eq!(read[0].record.body(), big.body());
    let mut all = files(&dir.join("blobs"));
    assert_eq!(all.len(), 1, "the big one only");
    (store, all.remove(0))
}

#[tokio::test]
async fn a_big_body_without_its_blob_names_run_record_and_blob() {
    let dir = tempfile::tempdir().unwrap();
    let (store, file) = with_a_big_body(dir.path()).await;
    assert!(
        fs::metadata(dir.path().join("journal.db-wal"))
            .unwrap()
            .len()
            < 100_000
    );
    let mut bytes = fs::read(&file).unwrap();
    bytes[7] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let run: RunId = "r".into();
    for why in ["is damaged", "is not in the store"] {
        let e = store.read(&run, 0, 9).await.unwrap_err();
        let text = e.to_string();
        assert!(
            matches!(&e, StoreError::Blob { run, seq: 2, .. } if run.as_str() == "r"),
            "{e}"
        );
        assert!(
            text.contains("record 2 of run `r`") && text.contains(why),
            "{e}"
        );
        assert_eq!(e.code(), "store.blob");
        drop(fs::remove_file(&file));
    }
    // What lies before it is read.
    assert_eq!(store.read(&run, 0, 1).await.unwrap().len(), 1);
}

#[test]
fn a_store_needs_no_runtime_of_tokio_for_big_bodies() {
    let dir = tempfile::tempdir().unwrap();
    struct Here(std::thread::Thread);
    impl std::task::Wake for Here {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Here(std::thread::current())).into();
    let mut cx = std::task::Context::from_waker(&waker);
    let mut work = Box::pin(with_a_big_body(dir.path()));
    while work.as_mut().poll(&mut cx).is_pending() {
        std::thread::park();
    }
}
