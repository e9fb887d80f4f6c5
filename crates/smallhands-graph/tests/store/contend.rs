//! Several processes and one journal.
use crate::child::{self, Other};
use smallhands_core::{RunId, Timestamp};
use smallhands_graph::{
    DirBlobs, Durability, MemoryBlobs, Record, SqliteStore, StateStore, StoreError,
};
use std::{path::Path, sync::Arc, time::Duration};

const TTL: Duration = Duration::from_secs(30);
const TRIES: u64 = 1_000;

fn open(dir: &Path) -> SqliteStore {
    SqliteStore::open(dir, Arc::new(MemoryBlobs::default())).unwrap()
}

fn note(n: u64) -> Vec<Record> {
    vec![Record::new("k", 1, Timestamp(n), n.to_string())]
}

/// Tries to lease when told to; the winner appends one record.
pub(crate) async fn role(dir: &Path) {
    let store = open(dir);
    let run: RunId = "r".into();
    child::say("ready");
    let mut held = None;
    while let Some(line) = child::told() {
        if line == "release" {
            if let Some(l) = held.take() {
                store.release(&l).await.unwrap();
            }
            child::say("released");
            continue;
        }
        if let Some(after) = line.strip_prefix("more ") {
            let (l, after) = (held.as_ref().unwrap(), after.parse().unwrap());
            let level = Durability::ProcessCrash;
            let appended = store.append(l, after, note(99), None, level).await;
            let said = [appended.map(drop), store.renew(l, TTL).await].map(|r| match r {
                Ok(()) => "done",
                Err(StoreError::LeaseLost { .. }) => "lost",
                Err(e) => panic!("{e}"),
            });
            child::say(&said.join(" "));
            continue;
        }
        let after: u64 = line.parse().unwrap();
        match store.lease(&run, "one of two", TTL).await {
            Ok(l) => {
                let level = Durability::ProcessCrash;
                store
                    .append(&l, after, note(after + 1), None, level)
                    .await
                    .unwrap();
                child::say(&format!("won {}", l.epoch));
                held = Some(l);
            }
            Err(StoreError::Held { .. }) => child::say("held"),
            Err(e) => panic!("{e}"),
        }
    }
}

#[tokio::test]
async fn of_two_processes_exactly_one_has_the_lease() {
    let dir = tempfile::tempdir().unwrap();
    let mut both = [(); 2].map(|()| Other::start(child::command(&[], "lease", dir.path())));
    for o in &mut both {
        assert_eq!(o.hear().unwrap(), "ready");
    }
    let mut epochs = Vec::new();
    for n in 0..TRIES {
        // Each is told first as often as the other.
        both.rotate_left(1);
        for o in &mut both {
            o.tell(&n.to_string());
        }
        let said = both.each_mut().map(|o| o.hear().unwrap());
        let won: Vec<_> = said.iter().filter_map(|s| s.strip_prefix("won ")).collect();
        assert_eq!(won.len(), 1, "try {n}: {said:?}");
        epochs.push(won[0].parse::<u64>().unwrap());
        for o in &mut both {
            o.tell("release");
        }
        for o in &mut both {
            assert_eq!(o.hear().unwrap(), "released");
        }
    }
    assert!(
        epochs.is_sorted_by(|a, b| a < b),
        "each lease has a higher epoch"
    );
    let all = open(dir.path()).read(&"r".into(), 0, 9_999).await.unwrap();
    let seqs: Vec<_> = all.iter().map(|r| r.seq).collect();
    assert_eq!(seqs, (1..=TRIES).collect::<Vec<_>>());
}

#[test]
fn many_may_make_one_journal_at_once() {
    for _ in 0..50 {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| drop(open(dir.path())));
            }
        });
    }
}

#[tokio::test]
async fn a_dead_process_gives_its_lease_back_and_a_waiter_sees_what_it_wrote() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let run: RunId = "r".into();
    let mut other = Other::start(child::command(&[], "lease", dir.path()));
    assert_eq!(other.hear().unwrap(), "ready");
    other.tell("0");
    // Returns only because the other process appended.
    let ever = Duration::from_secs(3600);
    store.changed(&run, 0, ever).await.unwrap();
    assert_eq!(store.read(&run, 0, 9).await.unwrap().len(), 1);
    assert_eq!(other.hear().unwrap(), "won 1");
    let e = store.lease(&run, "me", TTL).await.unwrap_err();
    assert!(
        matches!(&e, StoreError::Held { owner, .. } if owner == "one of two"),
        "{e}"
    );
    drop(other);
    let l = store.lease(&run, "me", TTL).await.unwrap();
    assert_eq!(l.epoch, 2);
    store
        .append(&l, 1, note(2), None, Durability::PowerLoss)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_process_that_hangs_keeps_its_lease_until_it_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let run: RunId = "r".into();
    let level = Durability::ProcessCrash;
    let mut other = Other::start(child::command(&[], "lease", dir.path()));
    assert_eq!(other.hear().unwrap(), "ready");
    other.tell("0");
    assert_eq!(other.hear().unwrap(), "won 1");
    other.signal("STOP");
    let held = store.lease(&run, "me", Duration::ZERO).await;
    assert!(matches!(held, Err(StoreError::Held { .. })), "{held:?}");
    // It goes on as if nothing had been.
    other.signal("CONT");
    other.tell("more 1");
    assert_eq!(other.hear().unwrap(), "done done");
    other.signal("STOP");
    store.take_from_holder(&run).unwrap();
    let mine = store.lease(&run, "me", TTL).await.unwrap();
    assert_eq!(mine.epoch, 2);
    let before = store.append(&mine, 2, note(3), None, level).await.unwrap();
    other.signal("CONT");
    for after in [2, 3] {
        other.tell(&format!("more {after}"));
        assert_eq!(other.hear().unwrap(), "lost lost");
    }
    store
        .append(&mine, before, note(4), None, level)
        .await
        .unwrap();
    let all = store.read(&run, 0, 9).await.unwrap();
    let at: Vec<_> = all.iter().map(|s| s.record.at.0).collect();
    assert_eq!(at, [1, 99, 3, 4], "nothing of it is written after that");
    // The new lock is as good as the old one.
    let held = open(dir.path()).lease(&run, "third", TTL).await;
    assert!(
        matches!(held, Err(StoreError::Held { epoch: 2, .. })),
        "{held:?}"
    );
    store.take_from_holder(&"no such run".into()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_tasks_exactly_one_has_the_lease() {
    let dir = tempfile::tempdir().unwrap();
    let stores = [Arc::new(open(dir.path())), Arc::new(open(dir.path()))];
    for n in 0..200 {
        let run: RunId = format!("r{n}").into();
        let tries = (0..4).map(|i| {
            let (store, run) = (stores[i % 2].clone(), run.clone());
            tokio::spawn(async move { store.lease(&run, "me", TTL).await })
        });
        let mut won = 0;
        for t in tries.collect::<Vec<_>>() {
            match t.await.unwrap() {
                Ok(_) => won += 1,
                Err(StoreError::Held { .. }) => {}
                Err(e) => panic!("{e}"),
            }
        }
        assert_eq!(won, 1);
    }
}

#[tokio::test]
async fn appends_of_many_at_once_are_all_there() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(dir.path()));
    let runs = (0..16).map(|i| {
        let store = store.clone();
        tokio::spawn(async move {
            let run: RunId = format!("r{i:02}").into();
            let l = store.lease(&run, "me", TTL).await.unwrap();
            for n in 0..50 {
                // Nobody waits for every fifth; it counts all the same.
                let append = store.append(&l, n, note(n + 1), None, Durability::PowerLoss);
                match n % 5 {
                    4 => {
                        let now = std::future::poll_fn(|_| std::task::Poll::Ready(()));
                        tokio::select! { biased; r = append => drop(r.unwrap()), () = now => {} }
                        store
                            .changed(&run, n, Duration::from_secs(3600))
                            .await
                            .unwrap();
                    }
                    _ => assert_eq!(append.await.unwrap(), n + 1),
                }
            }
        })
    });
    for r in runs.collect::<Vec<_>>() {
        r.await.unwrap();
    }
    let listed = store.runs(None, 99).await.unwrap();
    assert_eq!(listed.len(), 16);
    assert!(listed.iter().all(|r| r.last == 50));
}

/// More bytes than may wait, and one append that is larger than all of that.
#[tokio::test]
async fn appends_that_do_not_fit_the_queue_wait_their_turn() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Arc::new(DirBlobs::open(dir.path().join("blobs")).unwrap());
    let store = Arc::new(SqliteStore::open(dir.path(), blobs).unwrap());
    let mut all = tokio::task::JoinSet::new();
    for (n, megabytes) in [40, 70, 40, 1, 1].into_iter().enumerate() {
        let store = Arc::clone(&store);
        all.spawn(async move {
            let run = RunId::from(format!("r{n}"));
            let lease = store.lease(&run, "me", TTL).await.unwrap();
            let body = format!("\"{}\"", "x".repeat(megabytes << 20));
            let big = vec![Record::new("note", 1, Timestamp(1), body)];
            let level = Durability::ProcessCrash;
            let last = store.append(&lease, 0, big, None, level).await.unwrap();
            (megabytes << 20, last, store.read(&run, 0, 9).await.unwrap())
        });
    }
    for (len, last, read) in all.join_all().await {
        assert_eq!((last, read.len()), (1, 1));
        assert_eq!(read[0].record.body().len(), len + 2);
    }
}
