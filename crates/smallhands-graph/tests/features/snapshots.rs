//! Snapshots save time, and nothing else.

use crate::kit::{Ledger, engine, engine_on, memory, note, run, sqlite, states, stores};
use serde_json::{Value, json};
use smallhands_core::{Question, TaskContext, TaskSpec, worker};
use smallhands_graph::{
    Durability, Engine, Event, FindingKind, Record, ResumeFailed, RunState, RunStatus, Snapshot,
    SqliteStore, StateStore, SystemClock,
};
use std::{fs, path::PathBuf, sync::Arc, time::Duration};

/// A run of eight tasks that waits for an answer, and then does the last.
async fn waiting(store: &Arc<dyn StateStore>, l: &Ledger) -> Engine {
    let ask = worker("ask", |_: Value, cx: TaskContext| async move {
        cx.ask("q", Question::new("?")).await
    });
    let e = engine(store, [note(l), ask]);
    let chain = (1..7).map(|i| TaskSpec::new(format!("t{i}"), "note").needs(format!("t{}", i - 1)));
    let tasks = [TaskSpec::new("t0", "note")].into_iter().chain(chain);
    let tasks = tasks.chain([
        TaskSpec::new("ask", "ask").needs("t6"),
        TaskSpec::new("end", "note")
            .needs("ask")
            .bind("", "ask", ""),
    ]);
    assert_eq!(run(&e, tasks).await.status, RunStatus::Waiting);
    e
}

async fn snapshot(e: &Engine, run: &str) -> Option<Snapshot> {
    e.info(&run.into()).await.unwrap().head.snapshot
}

async fn folded(store: &dyn StateStore, run: &str, until: u64) -> RunState {
    let mut state = RunState::default();
    let all = store.read(&run.into(), 0, 10_000).await.unwrap();
    for s in all.into_iter().take_while(|s| s.seq <= until) {
        let event = Event::from_record(&s.record).unwrap();
        state.apply(s.seq, s.record.at, &event).unwrap();
    }
    state
}

async fn finishes(e: &Engine, l: &Ledger) {
    let id = "r".into();
    e.answer(&id, &"ask".into(), &"q".into(), json!(1))
        .await
        .unwrap();
    let h = e.resume(&id, ResumeFailed::No).await.unwrap();
    let done = h.wait().await.unwrap();
    assert_eq!(done.status, RunStatus::Succeeded);
    assert_eq!(done.state.value("end"), Some(&json!(1)));
    assert_eq!(l.all().len(), 8, "{:?}", l.all());
}

fn file(dir: &std::path::Path, s: &Snapshot) -> PathBuf {
    let hex = s.blob.digest.hex();
    dir.join("blobs").join(&hex[..2]).join(&hex[2..])
}

#[tokio::test]
async fn it_is_used_and_kept_by_whoever_writes_next() {
    let (stores, _dir) = stores();
    for store in stores {
        let l = Ledger::default();
        let e = waiting(&store, &l).await;
        let s = snapshot(&e, "r").await.unwrap();
        let last = e.info(&"r".into()).await.unwrap().last;
        assert!(s.seq > 3 && s.seq < last, "{s:?} of {last}");
        let read = e.load(&"r".into()).await.unwrap();
        read.check_same(&folded(&*store, "r", last).await).unwrap();
        // Records before it are not looked at.
        let all: Vec<_> = (1..=last).collect();
        for at in all {
            let then = RunState::load_until(&*store, &"r".into(), at)
                .await
                .unwrap();
            then.check_same(&folded(&*store, "r", at).await).unwrap();
        }
        let q = (&"ask".into(), &"q".into());
        e.answer(&"r".into(), q.0, q.1, json!(1)).await.unwrap();
        assert_eq!(snapshot(&e, "r").await, Some(s));
    }
}

#[tokio::test]
async fn one_that_is_gone_or_damaged_costs_time_only() {
    for damage in [
        |f: &PathBuf| fs::remove_file(f).unwrap(),
        |f: &PathBuf| {
            let mut bytes = fs::read(f).unwrap();
            let n = bytes.len() / 2;
            bytes[n] ^= 1;
            fs::write(f, bytes).unwrap();
        },
        |f: &PathBuf| fs::write(f, "").unwrap(),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (store, l) = (sqlite(dir.path()), Ledger::default());
        let e = waiting(&store, &l).await;
        let s = snapshot(&e, "r").await.unwrap();
        damage(&file(dir.path(), &s));
        let found = SqliteStore::check(dir.path(), &*store.blobs())
            .await
            .unwrap();
        let kinds: Vec<_> = found.findings.iter().map(|f| f.kind).collect();
        assert_eq!(kinds, [FindingKind::Snapshot]);
        assert!(found.findings[0].to_string().contains("no harm"));
        let read = e.load(&"r".into()).await.unwrap();
        read.check_same(&folded(&*store, "r", read.seq).await)
            .unwrap();
        finishes(&e, &l).await;
        let found = SqliteStore::check(dir.path(), &*store.blobs())
            .await
            .unwrap();
        assert!(found.is_sound(), "a new one took its place: {found:?}");
    }
}

/// Puts another blob in the place of a snapshot, under a head that names it.
async fn instead(e: &Engine, store: &dyn StateStore, change: impl Fn(String) -> String, more: u64) {
    let info = e.info(&"r".into()).await.unwrap();
    let mut head = info.head;
    let s = head.snapshot.take().unwrap();
    let text = String::from_utf8(store.blobs().get(&s.blob).await.unwrap()).unwrap();
    let blob = store.blobs().put(change(text).into_bytes()).await.unwrap();
    let seq = s.seq + more;
    head.snapshot = Some(Snapshot { seq, blob });
    let l = store
        .lease(&"r".into(), "me", Duration::from_secs(9))
        .await
        .unwrap();
    let (owner, epoch) = ("me".into(), l.epoch);
    let again = Record::of(Arc::new(Event::Opened { owner, epoch }), head.updated);
    let level = Durability::ProcessCrash;
    store
        .append(&l, info.last, vec![again], Some(head), level)
        .await
        .unwrap();
    store.release(&l).await.unwrap();
}

#[tokio::test]
async fn one_of_another_program_or_record_is_passed_over() {
    type Change = fn(String) -> String;
    let changes: [(Change, u64); 5] = [
        (|s| s.replacen("snapshot 1", "snapshot 2", 1), 0),
        (|s| s.replacen("snapshot 1", "snapshot", 1), 0),
        (|s| s.lines().take(4).collect(), 0),
        // One of another record than the head says, and one of a record that is still to come.
        (|s| s, 1),
        (|s| s, 1_000),
    ];
    for (change, more) in changes {
        let (stores, _dir) = stores();
        for store in stores {
            let l = Ledger::default();
            let e = waiting(&store, &l).await;
            instead(&e, &*store, change, more).await;
            let read = e.load(&"r".into()).await.unwrap();
            read.check_same(&folded(&*store, "r", read.seq).await)
                .unwrap();
            finishes(&e, &l).await;
        }
    }
}

#[tokio::test]
async fn a_fork_has_that_of_its_origin_if_it_shares_what_is_in_it() {
    let (stores, _dir) = stores();
    for store in stores {
        let l = Ledger::default();
        let e = waiting(&store, &l).await;
        let s = snapshot(&e, "r").await.unwrap();
        let id = "r".into();
        e.fork(&id, s.seq, &"after".into()).await.unwrap();
        e.fork(&id, s.seq - 1, &"before".into()).await.unwrap();
        assert_eq!(snapshot(&e, "after").await, Some(s));
        assert_eq!(snapshot(&e, "before").await, None);
        for fork in ["after", "before"] {
            let read = e.load(&fork.into()).await.unwrap();
            read.check_same(&folded(&*store, fork, read.seq).await)
                .unwrap();
            let h = e.resume(&fork.into(), ResumeFailed::No).await.unwrap();
            let there = h.wait().await.unwrap();
            assert_eq!(states(&there.state, ["t6", "ask"]), ["done", "suspended"]);
        }
    }
}

#[tokio::test]
async fn a_sweep_leaves_it_and_a_file_leaves_it_out() {
    let dir = tempfile::tempdir().unwrap();
    let (store, l) = (sqlite(dir.path()), Ledger::default());
    let e = waiting(&store, &l).await;
    let s = snapshot(&e, "r").await.unwrap();
    let used = e.used_blobs().await.unwrap();
    assert!(used.contains(&s.blob.digest));
    let mut text = Vec::new();
    e.export(&"r".into(), &mut text).await.unwrap();
    let there = engine(&sqlite(&dir.path().join("other")), []);
    there
        .import(std::io::Cursor::new(&text), None)
        .await
        .unwrap();
    assert_eq!(snapshot(&there, "r").await, None);
    assert!(
        !String::from_utf8(text)
            .unwrap()
            .contains(s.blob.digest.hex())
    );
}

#[tokio::test]
async fn by_default_a_small_run_has_none() {
    let (store, l) = (memory(), Ledger::default());
    let e = engine_on(&store, Arc::new(SystemClock), [note(&l)]);
    run(&e, [TaskSpec::new("t", "note")]).await;
    assert_eq!(snapshot(&e, "r").await, None);
}
