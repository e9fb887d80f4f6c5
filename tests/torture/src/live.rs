//! One life of the tortured program.

use crate::{
    Result,
    plan::{Plan, Shape},
    store::{Broken, Faulty, Point},
    text,
    work::{Source, Work, answer_to},
};
use serde_json::Value;
use smallhands_core::{Ambient, BlobStore, Executor, NoGuard, NoSecrets, RunId, Worker};
use smallhands_exec::{InProcess, PoolOptions, ProcessPool, WorkerParts};
use smallhands_graph::{
    Conditions, DirBlobs, Engine, Event, GraphError, NewRun, ResumeFailed, RunHandle, RunResult,
    RunStatus, SqliteStore, StateStore, SystemClock, TaskGraph, Update,
};
use std::{path::PathBuf, sync::Arc};

/// The run of every journal here.
pub const RUN: &str = "tortured";

/// What a life is told.
#[derive(Clone, Debug)]
pub struct Life {
    /// Where journal and ledger are.
    pub dir: PathBuf,
    /// The graph.
    pub shape: Shape,
    /// Where it dies by itself.
    pub point: Option<Point>,
    /// How its store is broken.
    pub broken: Option<Broken>,
}

/// Opens the journal of a run.
///
/// # Errors
/// It cannot be opened.
pub fn open(dir: &std::path::Path) -> Result<SqliteStore> {
    let blobs = DirBlobs::open(dir.join("blobs")).map_err(text)?;
    SqliteStore::open(dir, Arc::new(blobs)).map_err(text)
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
/// returns how many appends that took.
///
/// # Errors
/// Whatever keeps it from succeeding.
pub async fn live(life: &Life) -> Result<u64> {
    let store = Arc::new(Faulty::new(open(&life.dir)?, life.point, life.broken));
    let plan = Plan::of(life.shape);
    let engine = engine(life, &plan, store.clone())?;
    let run = RunId::from(RUN);
    let (mut failed, mut first) = (ResumeFailed::No, true);
    for _ in 0..100 {
        let handle = match engine.resume(&run, failed).await {
            Err(GraphError::UnknownRun(_)) if first => {
                let graph = TaskGraph::from_tasks(plan.tasks.clone()).map_err(text)?;
                let mut new = NewRun::new(run.clone(), graph);
                new.config = Value::String(life.dir.display().to_string());
                engine.start(new).await.map_err(text)?
            }
            Err(GraphError::Ended { status, .. }) if status == "succeeded" => {
                return Ok(store.appends());
            }
            Err(GraphError::Ended { status, .. }) if status == "failed" => {
                failed = ResumeFailed::Retry;
                continue;
            }
            other => other.map_err(text)?,
        };
        first = false;
        let result = drive(handle).await?;
        failed = ResumeFailed::No;
        match result.status {
            RunStatus::Succeeded => return Ok(store.appends()),
            RunStatus::Failed => failed = ResumeFailed::Retry,
            RunStatus::Waiting => answer(&engine, &run, &result).await?,
            other => return Err(format!("it stopped as {other}")),
        }
    }
    Err("it neither succeeds nor fails".into())
}

fn engine(life: &Life, plan: &Plan, store: Arc<Faulty>) -> Result<Engine> {
    let (blobs, clock) = (store.blobs(), Arc::new(SystemClock));
    let executor: Arc<dyn Executor> = if plan.pool {
        let options = PoolOptions {
            slots: 2,
            ..PoolOptions::default()
        };
        Arc::new(ProcessPool::new(options, blobs, clock.clone()).map_err(text)?)
    } else {
        let work: Arc<dyn Worker> = Arc::new(Work::new(&life.dir));
        Arc::new(InProcess::new([work], ambient(blobs)))
    };
    let even = |outputs: &serde_json::Map<String, Value>| {
        let n = outputs.values().filter_map(|v| v["n"].as_u64());
        n.sum::<u64>().is_multiple_of(2)
    };
    let engine =
        Engine::new(store, executor, clock).conditions(Conditions::default().with("even", even));
    Ok(match plan.pool {
        true => engine,
        false => engine.max_parallel(plan.parallel),
    })
}

/// To its end; about every second question is answered while the run goes on.
async fn drive(mut handle: RunHandle) -> Result<RunResult> {
    let mut updates = handle.updates();
    while let Some(u) = updates.next().await {
        let Update::Event { event, seq, .. } = u else {
            continue;
        };
        match &*event {
            Event::Asked { task, id, .. } if seq % 2 == 0 => {
                match handle.answer(task, id, answer_to(task.as_str())).await {
                    // The run may have come to rest meanwhile.
                    Ok(()) | Err(GraphError::Stopped(_)) => {}
                    Err(e) => return Err(e.to_string()),
                }
            }
            Event::Stopped { .. } => break,
            _ => {}
        }
    }
    handle.wait().await.map_err(text)
}

async fn answer(engine: &Engine, run: &RunId, r: &RunResult) -> Result {
    let mut asked = false;
    for (task, node) in r.state.nodes.iter() {
        for ask in node.questions.keys() {
            asked = true;
            let done = engine
                .answer(run, task, ask, answer_to(task.as_str()))
                .await;
            done.map_err(text)?;
        }
    }
    match asked {
        true => Ok(()),
        false => Err("it waits, and there is no question".into()),
    }
}
