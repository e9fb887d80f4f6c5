//! One life of the tortured program.

use crate::{
    Result,
    fault::{Blobs, Broken, Places, Point},
    outside::Outsider,
    plan::{Plan, Shape},
    store::Faulty,
    stuck, text,
    work::{Source, Work, answer_to},
};
use serde_json::Value;
use smallhands_core::{Ambient, BlobStore, Clock, Executor, NoGuard, NoSecrets, RunId};
use smallhands_exec::{InProcess, PoolOptions, ProcessPool, WorkerParts};
use smallhands_graph::{
    Conditions, DirBlobs, Durability, Engine, Event, GraphError, NewRun, ResumeFailed, RunHandle,
    RunResult, RunStatus, SqliteStore, StateStore, SystemClock, TaskGraph, Update,
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// The run of every journal here.
pub const RUN: &str = "tortured";

/// What a life is told.
#[derive(Clone, Debug)]
pub struct Life {
    /// Where journal and ledger are.
    pub dir: PathBuf,
    /// Which run: the one that it starts if there is none, or a fork.
    pub run: RunId,
    /// The graph.
    pub shape: Shape,
    /// What its appends survive.
    pub durability: Durability,
    /// Where it dies by itself.
    pub point: Option<Point>,
    /// How its store is broken.
    pub broken: Option<Broken>,
}

impl Life {
    /// Whether it shares the past of another.
    pub fn is_fork(&self) -> bool {
        self.run.as_str() != RUN
    }
}

/// Larger bodies lie in the blob store, so that some do.
const INLINE: usize = 2_000;

/// Opens the journal of a run.
///
/// # Errors
/// It cannot be opened.
pub fn open(dir: &Path) -> Result<SqliteStore> {
    opened(dir, None).map(|(store, _)| store)
}

fn opened(dir: &Path, point: Option<Point>) -> Result<(SqliteStore, Arc<Blobs>)> {
    stuck::undo(dir)?;
    let blobs = DirBlobs::open(dir.join("blobs")).map_err(text)?;
    let blobs = Arc::new(Blobs::new(Arc::new(blobs), point));
    let store = SqliteStore::open(dir, blobs.clone()).map_err(text)?;
    Ok((store.inline_up_to(INLINE), blobs))
}

/// An engine that places nothing: for what is done to runs that nobody drives.
///
/// # Errors
/// The journal cannot be opened.
pub fn idle(dir: &Path) -> Result<Engine> {
    let store = Arc::new(open(dir)?);
    let nobody = Arc::new(InProcess::new([], ambient(store.blobs())));
    Ok(Engine::new(store, nobody, Arc::new(SystemClock)))
}

fn ambient(blobs: Arc<dyn BlobStore>) -> Ambient {
    Ambient {
        clock: Arc::new(SystemClock),
        blobs,
        guard: Arc::new(NoGuard),
        secrets: Arc::new(NoSecrets),
    }
}

/// What a worker process is made of.
pub fn parts(blobs: Arc<dyn BlobStore>) -> WorkerParts {
    WorkerParts {
        source: Arc::new(Source),
        ambient: ambient(blobs),
    }
}

/// Starts the run or takes it up, answers what it asks, revives what failed, until it succeeds;
/// returns how many appends, placements and blobs that took.
///
/// # Errors
/// Whatever keeps it from succeeding.
pub async fn live(life: &Life) -> Result<[u64; 3]> {
    let (store, blobs) = opened(&life.dir, life.point)?;
    let store = Arc::new(Faulty::new(store, &life.dir, life.point, life.broken));
    let plan = Plan::of(life.shape);
    let (engine, places) = engine(life, &plan, store.clone())?;
    let counts = || [store.appends(), places.count(), blobs.count()];
    let mut outsider = Outsider::new(life)?;
    let (mut failed, mut first) = (ResumeFailed::No, true);
    for _ in 0..100 {
        let handle = match engine.resume(&life.run, failed).await {
            Err(GraphError::UnknownRun(_)) if first && !life.is_fork() => {
                engine.start(new_run(life, &plan)?).await.map_err(text)?
            }
            Err(GraphError::Ended { status, .. }) if status == "succeeded" => {
                return Ok(counts());
            }
            Err(GraphError::Ended { status, .. }) if status == "failed" => {
                failed = ResumeFailed::Retry;
                continue;
            }
            other => other.map_err(text)?,
        };
        first = false;
        let result = drive(&engine, handle, &mut outsider).await?;
        failed = ResumeFailed::No;
        match result.status {
            RunStatus::Succeeded => return Ok(counts()),
            RunStatus::Failed => failed = ResumeFailed::Retry,
            RunStatus::Waiting => answer(&engine, &outsider, &result).await?,
            RunStatus::Paused => {}
            other => return Err(format!("it stopped as {other}")),
        }
    }
    Err("it neither succeeds nor fails".into())
}

fn new_run(life: &Life, plan: &Plan) -> Result<NewRun> {
    let graph = TaskGraph::from_tasks(plan.tasks.clone()).map_err(text)?;
    let mut new = NewRun::new(life.run.clone(), graph);
    new.config = Value::String(life.dir.display().to_string());
    new.durability = life.durability;
    new.limits = plan.limits.clone();
    Ok(new)
}

fn engine(life: &Life, plan: &Plan, store: Arc<Faulty>) -> Result<(Engine, Arc<Places>)> {
    let (blobs, clock) = (store.blobs(), Arc::new(SystemClock));
    let executor: Arc<dyn Executor> = if plan.pool {
        let options = PoolOptions {
            slots: 2,
            ..PoolOptions::default()
        };
        Arc::new(ProcessPool::new(options, blobs, clock.clone()).map_err(text)?)
    } else {
        Arc::new(InProcess::new(Work::all(&life.dir), ambient(blobs)))
    };
    let executor = Arc::new(Places::new(executor, life.point));
    let even = |outputs: &serde_json::Map<String, Value>| {
        let n = outputs.values().filter_map(|v| v["n"].as_u64());
        n.sum::<u64>().is_multiple_of(2)
    };
    let enough = |scope: &serde_json::Map<String, Value>| {
        scope["iteration"].as_u64() >= scope["output"]["until"].as_u64()
    };
    let conditions = Conditions::default()
        .with("even", even)
        .with("enough", enough);
    let engine = Engine::new(store, executor.clone(), clock)
        .conditions(conditions)
        // So that kills hit these too, and most resumes begin with one.
        .snapshot_every(5);
    let engine = match plan.pool {
        true => engine,
        false => engine.max_parallel(plan.parallel),
    };
    Ok((engine, executor))
}

/// To its end, while somebody outside hears what happens.
async fn drive(
    engine: &Engine,
    mut handle: RunHandle,
    outsider: &mut Outsider,
) -> Result<RunResult> {
    let mut updates = handle.updates();
    while let Some(u) = updates.next().await {
        let Update::Event { event, seq, .. } = u else {
            continue;
        };
        outsider.hear(engine, &handle, seq, &event).await?;
        if matches!(&*event, Event::Stopped { .. }) {
            break;
        }
    }
    handle.wait().await.map_err(text)
}

/// Answers what is open; a question that answers itself in time is left to do so.
async fn answer(engine: &Engine, outsider: &Outsider, r: &RunResult) -> Result {
    let mut asked = false;
    for (task, node) in r.state.nodes.iter() {
        for (ask, q) in &node.questions {
            asked = true;
            if let Some(at) = q.deadline {
                let left = at.0.saturating_sub(SystemClock.now().0);
                tokio::time::sleep(Duration::from_millis(left)).await;
                continue;
            }
            let given = || engine.answer(&r.run, task, ask, answer_to(task.as_str()));
            outsider.answer(task, ask, given).await?;
        }
    }
    match asked {
        true => Ok(()),
        false => Err("it waits, and there is no question".into()),
    }
}
