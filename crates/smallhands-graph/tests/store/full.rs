//! A whole run whose disk is full in the middle of it.
use crate::{child, trouble::on_a_small_disk};
use serde_json::Value;
use smallhands_core::{
    Ambient, Effect, NoGuard, NoSecrets, PriorStep, Step, TaskContext, TaskId, TaskSpec, worker,
};
use smallhands_exec::InProcess;
use smallhands_graph::{
    DirBlobs, Engine, Event, GraphError, NewRun, Node, NodeState, ResumeFailed, RunState,
    RunStatus, SqliteStore, StateStore, StoreError, Stored, SystemClock, TaskGraph, Update,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::{Arc, Mutex},
};

/// How often each step acted: the world outside, which is on another disk.
type Acts = Arc<Mutex<BTreeMap<TaskId, u32>>>;

fn open(dir: &Path) -> Arc<dyn StateStore> {
    let blobs = Arc::new(DirBlobs::open(dir.join("blobs")).unwrap());
    Arc::new(SqliteStore::open(dir, blobs).unwrap())
}

fn engine(store: &Arc<dyn StateStore>, acts: &Acts) -> Engine {
    let ambient = Ambient {
        clock: Arc::new(SystemClock),
        blobs: store.blobs(),
        guard: Arc::new(NoGuard),
        secrets: Arc::new(NoSecrets),
    };
    let acts = acts.clone();
    let writes = worker("writes", move |_: Value, cx: TaskContext| {
        let acts = acts.clone();
        async move {
            let task = cx.key().task.clone();
            let act = move |_| {
                *acts.lock().unwrap().entry(task).or_default() += 1;
                async { Ok(()) }
            };
            cx.step(Step::new("act").effect(Effect::Idempotent), act)
                .await?;
            Ok("x".repeat(9_000))
        }
    });
    let exec = Arc::new(InProcess::new([writes], ambient));
    Engine::new(store.clone(), exec, Arc::new(SystemClock)).max_parallel(4)
}

async fn events_of(store: &Arc<dyn StateStore>, after: u64) -> Vec<Event> {
    let all = store.read(&"r".into(), after, 9_999).await.unwrap();
    let event = |s: &Stored| Event::from_record(&s.record).unwrap();
    all.iter().map(event).collect()
}

/// Three beside each other, twenty after each other.
fn graph() -> TaskGraph {
    let tasks = (0..60).map(|n| {
        let t = TaskSpec::new(format!("t{n}"), "writes");
        match n {
            0..3 => t,
            _ => t.needs(format!("t{}", n - 3)),
        }
    });
    TaskGraph::from_tasks(tasks).unwrap()
}

fn full(e: &GraphError) {
    assert!(
        matches!(e, GraphError::Store(StoreError::DiskFull(_))),
        "{e}"
    );
    assert_eq!(e.code(), "store.disk_full");
    let says = e.to_string();
    assert!(says.contains("free some and resume the run"), "{says}");
}

/// Tasks whose step is recorded as done, of those `wanted`.
fn acted(s: &RunState, wanted: impl Fn(&Node) -> bool) -> BTreeSet<TaskId> {
    let acted = |n: &Node| n.steps.iter().any(|s| matches!(s, PriorStep::Done(_)));
    let nodes = s.nodes.iter().filter(|(_, n)| acted(n) && wanted(n));
    nodes.map(|(id, _)| id.clone()).collect()
}

/// Runs until the disk is full, then makes room and goes on.
pub(crate) async fn run(dir: &Path) {
    let ballast = dir.join("ballast");
    fs::write(&ballast, vec![1; 1_600_000]).unwrap();
    let acts = Acts::default();
    let store = open(dir);
    let e = engine(&store, &acts);
    let mut h = e.start(NewRun::new("r", graph())).await.unwrap();
    let mut updates = h.updates();
    full(&h.wait().await.unwrap_err());
    // As long as it is full it stays as it is.
    full(&e.resume(&"r".into(), ResumeFailed::No).await.unwrap_err());
    drop((e, store));

    fs::remove_file(&ballast).unwrap();
    let store = open(dir);
    let kept = events_of(&store, 0).await;
    let mut told = 0;
    while let Some(u) = updates.next().await {
        if let Update::Event { seq, event, .. } = u {
            assert_eq!(kept.get(usize::try_from(seq).unwrap() - 1), Some(&*event));
            told += 1;
        }
    }
    assert!(told > 3 && updates.missed() == 0, "{told}");
    let before = RunState::load(&*store, &"r".into()).await.unwrap();
    let (tasks, steps) = (
        acted(&before, |n| n.state == NodeState::Done),
        acted(&before, |_| true),
    );
    assert!(!tasks.is_empty() && tasks.len() < 60, "{tasks:?}");
    let counted = acts.lock().unwrap().clone();

    let e = engine(&store, &acts);
    let h = e.resume(&"r".into(), ResumeFailed::No).await.unwrap();
    let r = h.wait().await.unwrap();
    assert_eq!(r.status, RunStatus::Succeeded);
    for id in &steps {
        assert_eq!(acts.lock().unwrap()[id], counted[id], "`{id}` acted again");
    }
    let again = events_of(&store, before.seq).await;
    let mut again = again.iter().filter_map(Event::task);
    assert_eq!(again.find(|t| tasks.contains(t)), None, "it is over");
    child::say("filled, freed and finished");
}

#[test]
fn a_run_whose_disk_is_full_stops_and_goes_on_when_there_is_room() {
    on_a_small_disk("run", "filled, freed and finished");
}
