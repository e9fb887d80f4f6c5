use serde_json::Value;
use smallhands_core::{
    Ambient, Clock, Failure, FailureClass, Halt, NoGuard, NoSecrets, TaskContext, TaskSpec, Worker,
    worker,
};
use smallhands_exec::InProcess;
use smallhands_graph::{
    DirBlobs, Engine, Event, MemoryStore, NewRun, NodeState, ResumeFailed, RunHandle, RunResult,
    RunState, SqliteStore, StateStore, SystemClock, TaskGraph,
};
use smallhands_testkit::SimClock;
use std::{
    path::Path,
    sync::{Arc, Mutex},
};

pub(crate) fn memory() -> Arc<dyn StateStore> {
    Arc::new(MemoryStore::new(Arc::new(SystemClock)))
}

pub(crate) fn sqlite(dir: &Path) -> Arc<dyn StateStore> {
    let blobs = Arc::new(DirBlobs::open(dir.join("blobs")).unwrap());
    Arc::new(SqliteStore::open(dir, blobs).unwrap())
}

/// One of each kind, and what keeps the second alive.
pub(crate) fn stores() -> ([Arc<dyn StateStore>; 2], tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    ([memory(), sqlite(dir.path())], dir)
}

/// What was done, in order: the world outside.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger(Arc<Mutex<Vec<String>>>);

impl Ledger {
    pub(crate) fn add(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }
    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
    pub(crate) fn count(&self, what: &str) -> usize {
        self.all().iter().filter(|w| *w == what).count()
    }
    pub(crate) fn clear(&self) {
        self.0.lock().unwrap().clear();
    }
}

/// Returns its input.
pub(crate) fn echo() -> Arc<dyn Worker> {
    worker("echo", |v: Value, _| async move { Ok(v) })
}
/// Returns its input, and its task is in the ledger.
pub(crate) fn note(l: &Ledger) -> Arc<dyn Worker> {
    let l = l.clone();
    worker("note", move |v: Value, cx: TaskContext| {
        l.add(cx.key().task.as_str());
        async { Ok(v) }
    })
}
pub(crate) fn failure() -> Failure {
    Failure::new("test.fail", FailureClass::Task, "no")
}
pub(crate) fn fail() -> Arc<dyn Worker> {
    worker("fail", |_: Value, _| async {
        Err::<(), _>(failure().into())
    })
}
/// Fails if its input, or the field `fail` of it, is `true` or `"bad"`.
pub(crate) fn picky(l: &Ledger) -> Arc<dyn Worker> {
    let l = l.clone();
    worker("picky", move |v: Value, cx: TaskContext| {
        l.add(cx.key().task.as_str());
        let own = v.get("fail").unwrap_or(&v);
        let bad = *own == Value::Bool(true) || own == "bad";
        async move {
            match bad {
                true => Err(Halt::from(failure())),
                false => Ok(v),
            }
        }
    })
}
/// Runs until it is asked to stop; that it began, and that it stopped, is in the ledger.
pub(crate) fn wait(l: &Ledger) -> Arc<dyn Worker> {
    let l = l.clone();
    worker("wait", move |_: Value, cx: TaskContext| {
        let l = l.clone();
        async move {
            l.add(format!("{} began", cx.key().task));
            cx.cancel().cancelled().await;
            l.add(format!("{} stopped", cx.key().task));
            Err::<(), _>(Halt::Cancelled)
        }
    })
}

pub(crate) fn engine_on(
    store: &Arc<dyn StateStore>,
    clock: Arc<dyn Clock>,
    workers: impl IntoIterator<Item = Arc<dyn Worker>>,
) -> Engine {
    let ambient = Ambient {
        clock: clock.clone(),
        blobs: store.blobs(),
        guard: Arc::new(NoGuard),
        secrets: Arc::new(NoSecrets),
    };
    let exec = Arc::new(InProcess::new(workers, ambient));
    Engine::new(store.clone(), exec, clock)
}

pub(crate) fn engine(
    store: &Arc<dyn StateStore>,
    workers: impl IntoIterator<Item = Arc<dyn Worker>>,
) -> Engine {
    // So that whatever is resumed or read is so from a snapshot.
    engine_on(store, Arc::new(SystemClock), workers).snapshot_every(4)
}

/// A memory store and a clock that runs by itself on the clock's runtime.
pub(crate) fn simulated() -> (SimClock, Arc<dyn StateStore>) {
    let clock = SimClock::default();
    let store = Arc::new(MemoryStore::new(Arc::new(clock.clone())));
    (clock, store)
}

pub(crate) fn graph(tasks: impl IntoIterator<Item = TaskSpec>) -> TaskGraph {
    TaskGraph::from_tasks(tasks).unwrap()
}

pub(crate) async fn start(e: &Engine, tasks: impl IntoIterator<Item = TaskSpec>) -> RunHandle {
    e.start(NewRun::new("r", graph(tasks))).await.unwrap()
}

pub(crate) async fn run(e: &Engine, tasks: impl IntoIterator<Item = TaskSpec>) -> RunResult {
    start(e, tasks).await.wait().await.unwrap()
}

pub(crate) async fn again(e: &Engine, failed: ResumeFailed) -> RunResult {
    let h = e.resume(&"r".into(), failed).await.unwrap();
    h.wait().await.unwrap()
}

pub(crate) fn state(s: &RunState, id: &str) -> &'static str {
    s.nodes.get(&id.into()).map_or("none", |n| n.state.as_str())
}
pub(crate) fn states<const N: usize>(s: &RunState, ids: [&str; N]) -> [&'static str; N] {
    ids.map(|id| state(s, id))
}
pub(crate) fn code(s: &RunState, id: &str) -> String {
    match s.nodes.get(&id.into()).map(|n| &n.state) {
        Some(NodeState::Failed(f)) => f.code.to_string(),
        other => format!("{other:?}"),
    }
}

pub(crate) async fn events(store: &Arc<dyn StateStore>, run: &str) -> Vec<Event> {
    let all = store.read(&run.into(), 0, 100_000).await.unwrap();
    let event = |s: smallhands_graph::Stored| Event::from_record(&s.record).unwrap();
    all.into_iter().map(event).collect()
}

/// Waits until the journal of the run holds such an event.
pub(crate) async fn until(e: &Engine, run: &str, wanted: impl Fn(&Event) -> bool) -> u64 {
    let mut all = e.events(&run.into(), 0);
    loop {
        let (seq, _, event) = all.next().await.unwrap();
        if wanted(&event) {
            return seq;
        }
    }
}

/// Waits until the ledger holds it.
pub(crate) async fn seen(l: &Ledger, what: &str) {
    while l.count(what) == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}
