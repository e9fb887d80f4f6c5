use crate::kit::{engine, graph, memory, sqlite};
use serde_json::{Value, json};
use smallhands_core::{BlobRef, Effect, Question, Step, TaskContext, TaskSpec, Worker, worker};
use smallhands_graph::{
    DirBlobs, Engine, GraphError, NewRun, ResumeFailed, RunStatus, SqliteStore, StateStore,
};
use std::{
    io::Cursor,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

/// Bytes that are no text, and a blob that names another one.
async fn leaves(store: &Arc<dyn StateStore>) -> (BlobRef, BlobRef) {
    let inner = store.blobs().put(vec![0, 159, 146, 150]).await.unwrap();
    let outer = json!({"parts": [inner]}).to_string().into_bytes();
    (inner, store.blobs().put(outer).await.unwrap())
}

fn workers(store: &Arc<dyn StateStore>, acts: &Arc<AtomicUsize>) -> [Arc<dyn Worker>; 2] {
    let (store, acts) = (store.clone(), acts.clone());
    let first = worker("first", move |_: Value, cx: TaskContext| {
        let (store, acts) = (store.clone(), acts.clone());
        async move {
            let act = |_| async move { Ok(acts.fetch_add(1, SeqCst)) };
            cx.step(Step::new("pay").effect(Effect::AtMostOnce), act)
                .await?;
            let (_, outer) = leaves(&store).await;
            Ok::<_, smallhands_core::Halt>(json!({"tree": outer, "text": "x".repeat(300)}))
        }
    });
    let asks = worker("asks", |_: Value, cx: TaskContext| async move {
        cx.ask("go", Question::new("go?")).await
    });
    [first, asks]
}

/// A run that waits for an answer after a task that is done.
async fn waiting(store: &Arc<dyn StateStore>, acts: &Arc<AtomicUsize>) -> Engine {
    let e = engine(store, workers(store, acts));
    let tasks = [
        TaskSpec::new("a", "first"),
        TaskSpec::new("b", "asks").needs("a"),
    ];
    let mut new = NewRun::new("r", graph(tasks));
    new.config = json!({"of": "the run"});
    let r = e.start(new).await.unwrap().wait().await.unwrap();
    assert_eq!(r.status, RunStatus::Waiting);
    e
}

async fn exported(e: &Engine) -> Vec<u8> {
    let mut file = Vec::new();
    let told = e.export(&"r".into(), &mut file).await.unwrap();
    assert_eq!((told.blobs, told.bytes), (3, file.len() as u64));
    file
}

/// With bodies over 100 bytes as blobs.
fn small(dir: &Path) -> Arc<dyn StateStore> {
    let blobs = Arc::new(DirBlobs::open(dir.join("blobs")).unwrap());
    Arc::new(SqliteStore::open(dir, blobs).unwrap().inline_up_to(100))
}

#[tokio::test]
async fn a_run_goes_on_in_another_store() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (from, to) in [
        (small(one.path()), sqlite(two.path())),
        (memory(), memory()),
    ] {
        let acts = Arc::new(AtomicUsize::new(0));
        let e = waiting(&from, &acts).await;
        let file = exported(&e).await;
        let there = engine(&to, workers(&to, &acts));
        let told = there.import(Cursor::new(&file), Some("s".into())).await;
        assert_eq!(told.unwrap().run.as_str(), "s");
        let id = "s".into();
        assert_eq!(
            to.read(&id, 0, 999).await.unwrap(),
            from.read(&"r".into(), 0, 999).await.unwrap()
        );
        let info = there.info(&id).await.unwrap();
        assert_eq!(
            (info.head.status.as_str(), info.head.settled),
            ("waiting", 1)
        );
        // Exported once more, it is the same but for its name.
        let mut again = Vec::new();
        there.export(&id, &mut again).await.unwrap();
        assert_eq!(lines(&again)[1..3], lines(&file)[1..3]);

        there
            .answer(&id, &"b".into(), &"go".into(), json!(7))
            .await
            .unwrap();
        let h = there.resume(&id, ResumeFailed::No).await.unwrap();
        let r = h.wait().await.unwrap();
        assert_eq!((r.status, acts.load(SeqCst)), (RunStatus::Succeeded, 1));
        let outer = r.state.value("a").unwrap()["tree"].clone();
        let outer: BlobRef = serde_json::from_value(outer).unwrap();
        let inner: Value = serde_json::from_slice(&to.blobs().get(&outer).await.unwrap()).unwrap();
        let inner: BlobRef = serde_json::from_value(inner["parts"][0].clone()).unwrap();
        assert_eq!(to.blobs().get(&inner).await.unwrap().len(), 4);

        let taken = there.import(Cursor::new(&file), Some("s".into())).await;
        assert!(matches!(taken, Err(GraphError::RunExists(_))), "{taken:?}");
        // The refused import gave its lease back.
        there.delete(&id).await.unwrap();
        assert_eq!(
            there
                .import(Cursor::new(&file), None)
                .await
                .unwrap()
                .run
                .as_str(),
            "r"
        );
    }
}

fn lines(file: &[u8]) -> Vec<&str> {
    std::str::from_utf8(file).unwrap().lines().collect()
}

#[tokio::test]
async fn a_fork_is_exported_whole() {
    let acts = Arc::default();
    let from = memory();
    let e = waiting(&from, &acts).await;
    e.rerun(&"r".into(), &"b".into(), &"f".into())
        .await
        .unwrap();
    let mut file = Vec::new();
    e.export(&"f".into(), &mut file).await.unwrap();
    let to = engine(&memory(), []);
    to.import(Cursor::new(&file), None).await.unwrap();
    let state = to.load(&"f".into()).await.unwrap();
    let was = e.load(&"f".into()).await.unwrap();
    assert_eq!(state.report(), was.report());
}

/// Each kind of damage is refused, and nothing is there afterwards.
#[tokio::test]
async fn a_damaged_file_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let from = sqlite(dir.path());
    let e = waiting(&from, &Arc::default()).await;
    let file = String::from_utf8(exported(&e).await).unwrap();
    let all: Vec<_> = file.split_inclusive('\n').collect();
    let without = |n: usize| {
        let kept = all.iter().enumerate().filter(|(i, _)| *i != n);
        kept.map(|(_, l)| *l).collect::<String>()
    };
    let blob = all.iter().position(|l| l.starts_with(r#"{"blob"#)).unwrap();
    let mut cases = vec![
        (String::new(), "its end is missing"),
        ("not a run\n".into(), "line 1 cannot be read"),
        (r#"{"format":"other"}"#.to_owned(), "line 1 cannot be read"),
        (without(0), "does not begin with a header"),
        (without(2), "record 3 follows 1"),
        (without(blob), "altered"),
        (without(all.len() - 1), "its end is missing"),
        (file.replacen("go?", "no?", 1), "altered"),
        (
            file.replacen(r#""version":1"#, r#""version":2"#, 1),
            "knows version 1",
        ),
        (
            file.replacen("smallhands.run", "bighands.run", 1),
            "its format is",
        ),
        (file.clone() + all[1], "comes after the end"),
        (all[0].to_owned() + &file, "a second header"),
    ];
    for at in (0..file.len()).step_by(97).skip(1) {
        cases.push((file[..at].into(), ""));
    }
    let there = tempfile::tempdir().unwrap();
    let to = sqlite(there.path());
    let e = engine(&to, []);
    for (text, why) in cases {
        match e.import(Cursor::new(text.as_bytes()), None).await {
            Err(GraphError::Import(is)) => assert!(is.contains(why), "{why}: {is}"),
            other => panic!("{why}: {other:?} {text}"),
        }
    }
    let binary = e.import(Cursor::new([0xff, 0xfe, b'\n']), None).await;
    assert!(matches!(binary, Err(GraphError::Import(_))), "{binary:?}");
    assert!(e.runs(|_| true).await.unwrap().is_empty());
    let blobs = DirBlobs::open(there.path().join("blobs")).unwrap();
    let left = blobs.sweep(&|_| false, Duration::ZERO).unwrap();
    assert_eq!(left.count, 0);
    assert!(e.import(Cursor::new(file.as_bytes()), None).await.is_ok());
}

#[tokio::test]
async fn blobs_of_another_hash_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let e = waiting(&sqlite(dir.path()), &Arc::default()).await;
    let file = exported(&e).await;
    let to = engine(&memory(), []);
    let refused = to.import(Cursor::new(&file), None).await;
    assert!(matches!(refused, Err(GraphError::Import(_))), "{refused:?}");
    assert!(to.runs(|_| true).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_a_run_needs_is_not_swept() {
    let dir = tempfile::tempdir().unwrap();
    let store = small(dir.path());
    let e = waiting(&store, &Arc::default()).await;
    let waste = store.blobs().put(b"waste".to_vec()).await.unwrap();
    let used = e.used_blobs().await.unwrap();
    assert!(!used.contains(&waste.digest));
    let blobs = DirBlobs::open(dir.path().join("blobs")).unwrap();
    let swept = blobs.sweep(&|d| used.contains(d), Duration::ZERO).unwrap();
    // Snapshots that others took the place of go as well.
    assert!(swept.count >= 1 && swept.bytes >= 5, "{swept:?}");
    assert!(store.blobs().get(&waste).await.is_err());
    exported(&e).await;
    let whole = SqliteStore::check(dir.path(), &*store.blobs())
        .await
        .unwrap();
    assert!(whole.is_sound(), "{whole:?}");
}
