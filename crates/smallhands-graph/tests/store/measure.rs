//! Where a body should lie: `cargo test --release .. --test store -- --ignored --nocapture inline`.
use smallhands_core::Timestamp;
use smallhands_graph::{DirBlobs, Durability, Record, SqliteStore, StateStore};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

#[tokio::test]
#[ignore = "a measurement"]
async fn inline_or_apart() {
    let root = std::env::temp_dir();
    for level in [Durability::ProcessCrash, Durability::PowerLoss] {
        for kib in [16, 64, 256, 1024, 4096] {
            let mut row = format!("{level:?} {kib:>5} KiB:");
            // In turn, so that a busy machine treats both alike.
            let mut stores = Vec::new();
            for inline in [usize::MAX, 0] {
                let dir = tempfile::tempdir_in(&root).unwrap();
                let blobs = Arc::new(DirBlobs::open(dir.path().join("blobs")).unwrap());
                let store = SqliteStore::open(dir.path(), blobs).unwrap();
                let store = store.inline_up_to(inline);
                let lease = store.lease(&"r".into(), "me", Duration::MAX).await.unwrap();
                stores.push((dir, store, lease, Vec::new(), Vec::new()));
            }
            let n = (32 * 1024 / kib).clamp(12, 200);
            for i in 0..n {
                for (_, store, lease, times, _) in &mut stores {
                    let body = format!("\"{i:08}{}\"", "x".repeat(kib as usize * 1024));
                    let record = vec![Record::new("k", 1, Timestamp(1), body)];
                    let begin = Instant::now();
                    store.append(lease, i, record, None, level).await.unwrap();
                    times.push(begin.elapsed());
                }
            }
            for i in 0..n {
                for (_, store, _, _, times) in &mut stores {
                    let begin = Instant::now();
                    store.read(&"r".into(), i, 1).await.unwrap();
                    times.push(begin.elapsed());
                }
            }
            for (name, (.., append, read)) in ["inline", "apart"].iter().zip(&mut stores) {
                append.sort();
                read.sort();
                let mean = append.iter().sum::<Duration>() / n as u32;
                let (a, r) = (append[append.len() / 2], read[read.len() / 2]);
                row +=
                    &format!("  {name} append p50 {a:>9.2?} mean {mean:>9.2?} read p50 {r:>9.2?}");
            }
            println!("{row}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn small_appends() {
    let body = format!("{{\"task\":\"a/1\",\"x\":\"{}\"}}", "x".repeat(120));
    let root = std::env::temp_dir();
    for (tasks, n, batch) in [(1, 5_000, 1), (64, 500, 1), (1, 1_000, 50), (16, 100, 50)] {
        let dir = tempfile::tempdir_in(&root).unwrap();
        let blobs = Arc::new(DirBlobs::open(dir.path().join("blobs")).unwrap());
        let store = Arc::new(SqliteStore::open(dir.path(), blobs).unwrap());
        let begin = Instant::now();
        let all = (0..tasks).map(|t| {
            let (store, body) = (store.clone(), body.clone());
            tokio::spawn(async move {
                let run = format!("run-2026-11-23-{t:03}").into();
                let l = store.lease(&run, "me", Duration::MAX).await.unwrap();
                for i in 0..n {
                    let r = (0..batch).map(|_| {
                        Record::new("step_ended", 1, Timestamp(1_732_333_333_333), body.as_str())
                    });
                    let (r, level) = (r.collect(), Durability::ProcessCrash);
                    let head = smallhands_graph::RunHead::default();
                    store
                        .append(&l, i * batch, r, Some(head), level)
                        .await
                        .unwrap();
                }
            })
        });
        for t in all.collect::<Vec<_>>() {
            t.await.unwrap();
        }
        let records = (tasks * n * batch) as f64;
        let rate = records / begin.elapsed().as_secs_f64();
        let size: u64 = ["journal.db", "journal.db-wal"]
            .iter()
            .map(|f| std::fs::metadata(dir.path().join(f)).map_or(0, |m| m.len()))
            .sum();
        let begin = Instant::now();
        let last = (n * batch) as usize;
        let run = "run-2026-11-23-000".into();
        assert_eq!(store.read(&run, 0, last).await.unwrap().len(), last);
        let read = begin.elapsed().as_secs_f64() * 1e6 / last as f64;
        println!(
            "{tasks:>3} tasks x {n} appends x {batch}: {rate:>8.0} records/s, {:.0} B/record with wal, read {read:.2} us/record",
            size as f64 / records
        );
    }
}
