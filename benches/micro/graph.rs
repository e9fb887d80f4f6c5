use crate::{Bed, Result, ambient, nothing};
use smallhands::{
    core::{Executor, TaskSpec},
    exec::{InProcess, PoolOptions, ProcessPool},
    graph::{Engine, MemoryStore, NewRun, RunStatus, StateStore, SystemClock, TaskGraph},
    standard,
};
use smallhands_benchmarks::{Record, beside};
use std::sync::Arc;

const TASKS: usize = 1000;
/// Tasks one after the other, so that each waits for its own roundtrip.
const CHAIN: usize = 100;

pub(crate) fn bench(bed: &Bed) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    let memory: Arc<dyn StateStore> = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
    let sqlite = standard::store(&bed.dir.join("graph"))?;
    for (name, store) in [("memory", &memory), ("sqlite", &sqlite)] {
        let executor: Arc<dyn Executor> = Arc::new(InProcess::new([nothing()], ambient()));
        let mut round = 0;
        let ours = || {
            round += 1;
            let id = format!("{name}/{round}");
            run(bed, store, &executor, &id, (0..TASKS).map(task))
        };
        let timing = beside(bed.rounds, ours, || spawns(bed))?;
        let anchor = format!("{TASKS} tokio tasks joined");
        let name = format!("graph/{TASKS}_tasks_{name}");
        records.push(timing.record(&name, "ms", 1e3, &anchor));
    }
    records.push(pool(bed)?);
    Ok(records)
}

/// The same chain of tasks with the same engine, in a worker process and in this one.
fn pool(bed: &Bed) -> Result<Record> {
    let store: Arc<dyn StateStore> = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
    let options = PoolOptions {
        tasks_per_process: u32::MAX,
        ..PoolOptions::default()
    };
    let there = ProcessPool::new(options, store.blobs(), Arc::new(SystemClock))?;
    let there: Arc<dyn Executor> = Arc::new(there);
    let here: Arc<dyn Executor> = Arc::new(InProcess::new([nothing()], ambient()));
    let chain = || {
        (0..CHAIN).map(|i| match i {
            0 => task(0),
            _ => task(i).needs(format!("task/{}", i - 1)),
        })
    };
    let (mut a, mut b) = (0, 0);
    let timing = beside(
        bed.rounds,
        || {
            a += 1;
            run(bed, &store, &there, &format!("pool/{a}"), chain())
        },
        || {
            b += 1;
            run(bed, &store, &here, &format!("here/{b}"), chain())
        },
    )?;
    let scale = 1e6 / CHAIN as f64;
    Ok(timing.record("pool/task", "us", scale, "the same task in process"))
}

fn task(i: usize) -> TaskSpec {
    TaskSpec::new(format!("task/{i}"), "nothing")
}

fn run(
    bed: &Bed,
    store: &Arc<dyn StateStore>,
    executor: &Arc<dyn Executor>,
    id: &str,
    tasks: impl Iterator<Item = TaskSpec>,
) -> Result {
    let graph = TaskGraph::from_tasks(tasks.collect::<Vec<_>>())?;
    let engine = Engine::new(store.clone(), executor.clone(), Arc::new(SystemClock));
    let done = bed
        .rt
        .block_on(async { engine.start(NewRun::new(id, graph)).await?.wait().await })?;
    match done.status {
        RunStatus::Succeeded => Ok(()),
        other => Err(format!("{id}: {other}").into()),
    }
}

fn spawns(bed: &Bed) -> Result {
    bed.rt.block_on(async {
        let all: Vec<_> = (0..TASKS).map(|_| tokio::spawn(async {})).collect();
        for one in all {
            one.await?;
        }
        Ok(())
    })
}
