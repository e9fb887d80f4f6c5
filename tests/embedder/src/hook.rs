//! What needs the hook: tasks in processes of their own, and the native sandbox.

use serde_json::{Value, json};
use smallhands::{
    SmallHands,
    core::{
        Ambient, BlobStore, CallCx, CancelToken, Failure, FailureClass, NoGuard, NoSecrets,
        TaskSpec, Worker, WorkerName, WorkerSource, async_trait, worker,
    },
    exec::{PoolOptions, ProcessPool, WorkerParts},
    graph::{MemoryBlobs, MemoryStore, NewRun, StateStore, SystemClock, TaskGraph},
    sandbox::{Invocation, SandboxSpec},
    standard,
};
use std::{collections::BTreeMap, fs::OpenOptions, io::Write, path::Path, sync::Arc};

#[derive(Debug)]
struct Doubles;

#[async_trait]
impl WorkerSource for Doubles {
    async fn open(
        &self,
        _: &Value,
        _: &Ambient,
    ) -> Result<BTreeMap<WorkerName, Arc<dyn Worker>>, Failure> {
        let double = worker("double", |of: Value, _| async move {
            let n = of["n"].as_u64().unwrap_or_default();
            Ok(json!({ "n": n * 2, "pid": std::process::id() }))
        });
        Ok([(double.name().clone(), double)].into())
    }
}

fn ambient(blobs: Arc<dyn BlobStore>) -> Ambient {
    Ambient {
        clock: Arc::new(SystemClock),
        blobs,
        guard: Arc::new(NoGuard),
        secrets: Arc::new(NoSecrets),
    }
}

/// What worker processes of this program are made of.
///
/// # Errors
/// None.
pub fn parts(blobs: Arc<dyn BlobStore>) -> Result<WorkerParts, Failure> {
    Ok(WorkerParts {
        source: Arc::new(Doubles),
        ambient: ambient(blobs),
    })
}

fn failure(e: impl ToString) -> Failure {
    Failure::new("embedder.hook", FailureClass::Task, e.to_string())
}

/// Two tasks on a process pool: 1, doubled twice, somewhere else than here.
///
/// # Errors
/// Those of the pool, and that of a result which is not so.
pub async fn pool() -> Result<(), Failure> {
    let store = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
    let options = PoolOptions::default();
    let pool = ProcessPool::new(options, store.blobs(), Arc::new(SystemClock))?;
    let graph = TaskGraph::new()
        .task(TaskSpec::new("one", "double").input(json!({ "n": 1 })))
        .task(TaskSpec::new("two", "double").bind("n", "one", "/n"))
        .build()
        .map_err(failure)?;
    let hands = SmallHands::builder()
        .executor(Arc::new(pool))
        .store(store)
        .build()?;
    let run = hands
        .run(NewRun::new("pool", graph))
        .await
        .map_err(failure)?;
    let done = run.wait().await.map_err(failure)?;
    let value = done.state.value("two").cloned().unwrap_or_default();
    match value["n"] == 4 && value["pid"] != std::process::id() {
        true => Ok(()),
        false => Err(failure(format!("{value} in {:?}", done.state))),
    }
}

/// `true` in a native sandbox.
///
/// # Errors
/// Those of the sandbox, and that of a command which does not end well.
pub async fn sandbox() -> Result<(), Failure> {
    let dir = tempfile::tempdir().map_err(failure)?;
    let repos = standard::repos(dir.path(), Path::new("git"))?;
    let backend = standard::sandbox(dir.path(), repos)?;
    let cx = CallCx::detached(
        ambient(Arc::new(MemoryBlobs::default())),
        CancelToken::new(),
    );
    let sandbox = backend.open(&SandboxSpec::default(), &cx).await?;
    let done = sandbox
        .exec(&Invocation::new(["true"]), &mut |_, _| {}, &cx)
        .await?;
    sandbox.close().await?;
    match done.ok() {
        true => Ok(()),
        false => Err(failure(format!("{done:?}"))),
    }
}

/// The rest of both programs: notes that `main` ran, and prints how pool and sandbox did. The
/// note is beside the program, because a process started again has no environment and no argument
/// of ours.
///
/// # Errors
/// The note or the result cannot be written.
pub fn main() -> std::io::Result<()> {
    let note = std::env::current_exe()?.with_extension("ran");
    writeln!(
        OpenOptions::new().create(true).append(true).open(note)?,
        "main"
    )?;
    let code = |r: Result<(), Failure>| r.map_or_else(|f| f.code.to_string(), |()| "ok".into());
    let (pool, sandbox) = tokio::runtime::Runtime::new()?
        .block_on(async { (code(pool().await), code(sandbox().await)) });
    writeln!(std::io::stdout(), "{pool} {sandbox}")
}
