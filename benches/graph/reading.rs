use crate::{
    bed::{Bed, RUN, Result, Work, engine, executor, run_id, sqlite, waiting},
    floor,
};
use rusqlite::Connection;
use serde_json::json;
use smallhands_benchmarks::{Record as Figure, median};
use smallhands_core::{AttemptReport, Budget, Outcome, Ran, TaskOutput, Timestamp};
use smallhands_graph::{
    Durability, Engine, Event, GraphPatch, Record, ResumeFailed, RunHead, StateStore,
};
use std::{
    hint::black_box,
    path::Path,
    sync::mpsc,
    time::{Duration, Instant},
};

const TTL: Duration = Duration::from_secs(60);

/// From the call to the first task that a worker has in its hands, every record folded.
pub(crate) fn resume(bed: &Bed) -> Result<Figure> {
    let dir = bed.fresh("resume")?;
    {
        let store = sqlite(&dir)?;
        bed.rt.block_on(interrupted(&*store, 50 / bed.shrink))?;
    }
    let (mut ours, mut raw) = (Vec::new(), Vec::new());
    for _ in 0..bed.rounds {
        let begin = Instant::now();
        black_box(floor::rows(&dir)?);
        raw.push(begin.elapsed().as_secs_f64() * 1e3);
        ours.push(to_first_task(bed, &dir, |e| e.snapshot_every(u64::MAX))?);
    }
    let anchor = "raw scan of its rows; the aim is 250 ms";
    let name = "graph/resume_100k_events_ms";
    let scan = median(&raw).unwrap_or(0.0);
    Ok(Figure::new(name, "ms", &ours, anchor, scan))
}

/// The same of a run that was resumed once before, which left a snapshot behind.
pub(crate) fn resume_again(bed: &Bed) -> Result<Figure> {
    let dir = bed.fresh("resume-again")?;
    {
        let store = sqlite(&dir)?;
        bed.rt.block_on(interrupted(&*store, 50 / bed.shrink))?;
    }
    let first = to_first_task(bed, &dir, |e| e)?;
    let again = (0..bed.rounds).map(|_| to_first_task(bed, &dir, |e| e));
    let again = again.collect::<Result<Vec<_>>>()?;
    let anchor = "its first resume, which folded every record";
    let name = "graph/resume_100k_again_ms";
    Ok(Figure::new(name, "ms", &again, anchor, first))
}

fn to_first_task(bed: &Bed, dir: &Path, set: impl Fn(Engine) -> Engine) -> Result<f64> {
    let store = sqlite(dir)?;
    let (tx, first) = mpsc::channel();
    // A second start, after the figure was taken, finds nobody listening.
    let worker = waiting(move || tx.send(Instant::now()).unwrap_or_default());
    let engine = set(engine(&store, executor(worker)).max_parallel(1));
    let begin = Instant::now();
    let handle = bed
        .rt
        .block_on(engine.resume(&run_id(), ResumeFailed::No))?;
    let reached = first.recv_timeout(TTL)?;
    handle.stop();
    bed.rt.block_on(handle.wait())?;
    Ok((reached - begin).as_secs_f64() * 1e3)
}

/// A new run that shares all of another's records.
pub(crate) fn fork(bed: &Bed) -> Result<Figure> {
    let dir = bed.fresh("fork")?;
    let store = sqlite(&dir)?;
    bed.rt.block_on(interrupted(&*store, 50 / bed.shrink))?;
    let engine = engine(&store, executor(waiting(|| ())));
    let last = bed.rt.block_on(engine.info(&run_id()))?.last;
    let (mut ours, mut raw) = (Vec::new(), Vec::new());
    for i in 0..bed.rounds {
        let to = format!("{RUN}/{i}").into();
        let begin = Instant::now();
        bed.rt.block_on(engine.fork(&run_id(), last, &to))?;
        ours.push(begin.elapsed().as_secs_f64() * 1e3);
        let conn = Connection::open(dir.join("journal.db"))?;
        conn.pragma_update(None, "synchronous", "FULL")?;
        let begin = Instant::now();
        conn.execute(
            "INSERT INTO runs(run, epoch, owner) VALUES(?1, 0, '')",
            [format!("raw/{i}")],
        )?;
        raw.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    let anchor = "a raw durable insert of one row; the aim is 10 ms";
    let name = "graph/fork_100k_ms";
    let row = median(&raw).unwrap_or(0.0);
    Ok(Figure::new(name, "ms", &ours, anchor, row))
}

/// A run whose journal ends before the last of its tasks starts.
async fn interrupted(store: &dyn StateStore, layers: usize) -> Result {
    let tasks = Work::layered(layers, 1000).tasks;
    let ids: Vec<_> = tasks.iter().map(|t| t.id.clone()).collect();
    let mut events = vec![
        Event::Created {
            goal: "resume".into(),
            config: store.blobs().put(b"null".to_vec()).await?,
            budget: Budget::default(),
            durability: Durability::ProcessCrash,
            executor: "in-process".into(),
            environment: serde_json::Value::Null,
            secrets: Vec::new(),
            limits: std::collections::BTreeMap::new(),
        },
        Event::Opened {
            owner: "bench".into(),
            epoch: 1,
        },
        Event::Patched {
            patch: GraphPatch::adding(tasks),
            by: None,
        },
    ];
    for task in ids.split_last().map_or(&[][..], |(_, done)| done) {
        events.push(Event::Dispatched {
            task: task.clone(),
            attempt: 1,
        });
        events.push(Event::Ended {
            task: task.clone(),
            fence: events.len() as u64,
            report: AttemptReport {
                outcome: Outcome::Done(TaskOutput::from(json!({ "n": 1 }))),
                ran: Ran::Yes,
            },
            retry_after_ms: None,
            repeat: false,
        });
    }
    let records = events
        .into_iter()
        .map(|e| Record::of(e.into(), Timestamp(1)))
        .collect();
    let lease = store.lease(&run_id(), "bench", TTL).await?;
    let level = Durability::ProcessCrash;
    store.append(&lease, 0, records, None, level).await?;
    Ok(store.release(&lease).await?)
}

/// Every run of a full store with its head.
pub(crate) fn list(bed: &Bed) -> Result<Figure> {
    let dir = bed.fresh("list")?;
    let count = 10_000 / bed.shrink;
    let store = sqlite(&dir)?;
    let fill = async {
        for i in 0..count {
            let id = format!("{RUN}/{i:05}").into();
            let lease = store.lease(&id, "bench", TTL).await?;
            let head = RunHead {
                status: "succeeded".into(),
                goal: "make the tests pass".into(),
                ..RunHead::default()
            };
            let record = Record::of(Event::CancelRequested.into(), Timestamp(1));
            let level = Durability::ProcessCrash;
            store
                .append(&lease, 0, vec![record], Some(head), level)
                .await?;
            store.release(&lease).await?;
        }
        Result::Ok(())
    };
    bed.rt.block_on(fill)?;
    let (mut ours, mut raw) = (Vec::new(), Vec::new());
    for _ in 0..bed.rounds {
        let begin = Instant::now();
        let found = bed.rt.block_on(store.runs(None, count))?.len();
        ours.push(begin.elapsed().as_secs_f64() * 1e3);
        let begin = Instant::now();
        let raw_found = heads(&dir)?.len();
        raw.push(begin.elapsed().as_secs_f64() * 1e3);
        if found != count || raw_found != count {
            return Err(format!("{found} and {raw_found} of {count} runs").into());
        }
    }
    let anchor = "raw scan of the heads; the aim is 50 ms";
    let name = "graph/list_10k_runs_ms";
    let scan = median(&raw).unwrap_or(0.0);
    Ok(Figure::new(name, "ms", &ours, anchor, scan))
}

fn heads(store: &Path) -> Result<Vec<(String, String)>> {
    let conn = Connection::open(store.join("journal.db"))?;
    let mut q = conn.prepare("SELECT run, head FROM runs ORDER BY run")?;
    let rows = q.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
