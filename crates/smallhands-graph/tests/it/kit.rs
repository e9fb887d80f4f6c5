use smallhands_core::{Ambient, NoGuard, NoSecrets, TaskSpec, Worker};
use smallhands_exec::InProcess;
use smallhands_graph::{
    DirBlobs, Engine, MemoryStore, SqliteStore, StateStore, SystemClock, TaskGraph,
};
use std::{path::Path, sync::Arc};

pub(crate) fn memory() -> Arc<dyn StateStore> {
    Arc::new(MemoryStore::new(Arc::new(SystemClock)))
}

pub(crate) fn sqlite(dir: &Path) -> Arc<dyn StateStore> {
    let blobs = Arc::new(DirBlobs::open(dir.join("blobs")).unwrap());
    Arc::new(SqliteStore::open(dir, blobs).unwrap())
}

pub(crate) fn engine(
    store: &Arc<dyn StateStore>,
    workers: impl IntoIterator<Item = Arc<dyn Worker>>,
) -> Engine {
    let ambient = Ambient {
        clock: Arc::new(SystemClock),
        blobs: store.blobs(),
        guard: Arc::new(NoGuard),
        secrets: Arc::new(NoSecrets),
    };
    let exec = Arc::new(InProcess::new(workers, ambient));
    Engine::new(store.clone(), exec, Arc::new(SystemClock)).snapshot_every(3)
}

pub(crate) fn graph(tasks: impl IntoIterator<Item = TaskSpec>) -> TaskGraph {
    TaskGraph::from_tasks(tasks).unwrap()
}
