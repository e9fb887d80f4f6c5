use smallhands_core::{Ambient, Executor, NoGuard, NoSecrets, RunId, TaskSpec, Worker, worker};
use smallhands_exec::InProcess;
use smallhands_graph::{
    DirBlobs, Durability, Engine, MemoryBlobs, NewRun, RunStatus, SqliteStore, StateStore,
    SystemClock, TaskGraph,
};
use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::runtime::Runtime;

pub(crate) type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// What every bench gets.
pub(crate) struct Bed<'a> {
    pub(crate) rt: Runtime,
    /// On the disk of the build, which `/tmp` may not be.
    pub(crate) dir: &'a Path,
    pub(crate) rounds: usize,
    /// Sizes are divided by it.
    pub(crate) shrink: usize,
    pub(crate) next: AtomicUsize,
    /// The Python that has LangGraph, when figures are to be taken beside it.
    pub(crate) langgraph: Option<PathBuf>,
}

/// The run that every bench makes, each in a store of its own.
pub(crate) const RUN: &str = "run";

impl Bed<'_> {
    /// An empty directory, never one from before: a store that was dropped closes its files later.
    pub(crate) fn fresh(&self, name: &str) -> Result<PathBuf> {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let dir = self.dir.join(format!("{name}-{n}"));
        fs::create_dir(&dir)?;
        Ok(dir)
    }

    /// Drives a graph to its end; how long that took, without building graph and engine.
    pub(crate) fn drive(&self, store: &Arc<dyn StateStore>, work: Work) -> Result<Duration> {
        let graph = TaskGraph::from_tasks(work.tasks)?;
        let engine = engine(store, executor(work.worker)).max_parallel(work.parallel);
        let mut new = NewRun::new(RUN, graph);
        new.durability = work.durability;
        let begin = Instant::now();
        let done = (self.rt).block_on(async { engine.start(new).await?.wait().await })?;
        let took = begin.elapsed();
        match done.status {
            RunStatus::Succeeded => Ok(took),
            other => Err(format!("the run is {other}").into()),
        }
    }
}

/// What is to be driven.
pub(crate) struct Work {
    pub(crate) tasks: Vec<TaskSpec>,
    pub(crate) worker: Arc<dyn Worker>,
    pub(crate) parallel: usize,
    pub(crate) durability: Durability,
}

impl Work {
    /// Layers of tasks that do nothing; each needs three of the layer before.
    pub(crate) fn layered(layers: usize, width: usize) -> Self {
        let id = |layer: usize, i: usize| format!("t/{layer}/{}", i % width);
        let task = |n: usize| {
            let (layer, i) = (n / width, n % width);
            let spec = TaskSpec::new(id(layer, i), "nothing");
            (0..3)
                .filter(|_| layer > 0)
                .fold(spec, |spec, parent| spec.needs(id(layer - 1, i + parent)))
        };
        Self::new((0..layers * width).map(task).collect(), width)
    }

    /// Tasks that do nothing, one after the other.
    pub(crate) fn chain(length: usize) -> Self {
        let task = |i: usize| match i {
            0 => TaskSpec::new("t/0", "nothing"),
            _ => TaskSpec::new(format!("t/{i}"), "nothing").needs(format!("t/{}", i - 1)),
        };
        Self::new((0..length).map(task).collect(), 1)
    }

    pub(crate) fn new(tasks: Vec<TaskSpec>, parallel: usize) -> Self {
        Self {
            tasks,
            worker: worker("nothing", |(): (), _| async { Ok(()) }),
            parallel,
            durability: Durability::ProcessCrash,
        }
    }
}

pub(crate) fn executor(worker: Arc<dyn Worker>) -> Arc<dyn Executor> {
    let ambient = Ambient {
        clock: Arc::new(SystemClock),
        blobs: Arc::new(MemoryBlobs::default()),
        guard: Arc::new(NoGuard),
        secrets: Arc::new(NoSecrets),
    };
    Arc::new(InProcess::new([worker], ambient))
}

pub(crate) fn engine(store: &Arc<dyn StateStore>, executor: Arc<dyn Executor>) -> Engine {
    Engine::new(store.clone(), executor, Arc::new(SystemClock))
}

pub(crate) fn sqlite(dir: &Path) -> Result<Arc<dyn StateStore>> {
    let blobs = Arc::new(DirBlobs::open(dir.join("blobs"))?);
    Ok(Arc::new(SqliteStore::open(dir, blobs)?))
}

pub(crate) fn run_id() -> RunId {
    RUN.into()
}

/// A worker that says that it was reached, and then waits to be stopped.
pub(crate) fn waiting(reached: impl Fn() + Send + Sync + 'static) -> Arc<dyn Worker> {
    worker("nothing", move |(): (), cx| {
        reached();
        async move {
            cx.cancel().cancelled().await;
            Err::<(), _>(smallhands_core::Halt::Cancelled)
        }
    })
}

/// Of `/proc/self/io` and `/proc/self/status`: the number behind a name.
pub(crate) fn proc(file: &str, name: &str) -> Result<f64> {
    let text = fs::read_to_string(Path::new("/proc/self").join(file))?;
    let line = text.lines().find_map(|l| l.strip_prefix(name));
    let number = line.and_then(|l| l.trim_start_matches(':').split_whitespace().next());
    Ok(number.ok_or("no such figure in /proc")?.parse()?)
}
