use crate::{
    bed::{Bed, Result, Work, proc, sqlite},
    floor,
    stores::{Counted, Nowhere},
};
use smallhands_benchmarks::{Record, median};
use smallhands_graph::{Durability, StateStore};
use std::{env, process::Command, sync::Arc, time::Instant};

pub(crate) const PEAK: &str = "--peak-child";

/// Width of the large graphs, and how many of them are placed at once.
const WIDE: usize = 1000;

pub(crate) fn small_power_loss(bed: &Bed) -> Result<Record> {
    let name = "graph/layered_2000_power_loss";
    beside_floor(bed, name, Durability::PowerLoss, || Work::layered(40, 50))
}

pub(crate) fn large_process_crash(bed: &Bed) -> Result<Record> {
    let name = "graph/layered_100k_process_crash";
    beside_floor(bed, name, Durability::ProcessCrash, || large(bed))
}

fn large(bed: &Bed) -> Work {
    Work::layered(100 / bed.shrink, WIDE)
}

/// Throughput on SQLite, then the same rows and blobs in the same batches without an engine, in turn.
fn beside_floor(
    bed: &Bed,
    name: &str,
    level: Durability,
    work: impl Fn() -> Work,
) -> Result<Record> {
    let (mut ours, mut raw) = (Vec::new(), Vec::new());
    for _ in 0..bed.rounds {
        let (dir, other) = (bed.fresh("store")?, bed.fresh("floor")?);
        let counted = Counted::new(sqlite(&dir)?);
        let store: Arc<dyn StateStore> = counted.clone();
        let mut work = work();
        work.durability = level;
        let tasks = work.tasks.len() as f64;
        ours.push(tasks / bed.drive(&store, work)?.as_secs_f64());
        let (rows, blobs) = (floor::rows(&dir)?, floor::blobs(&dir)?);
        let took = floor::write(&other, level, &rows, &blobs, &counted.batches())?;
        raw.push(tasks / took.as_secs_f64());
    }
    let anchor = format!("raw SQLite, same rows, blobs and batches, {level:?}");
    let floor = median(&raw).unwrap_or(0.0);
    Ok(Record::new(name, "nodes/s", &ours, &anchor, floor).higher())
}

pub(crate) fn small_no_store(bed: &Bed) -> Result<Record> {
    let store: Arc<dyn StateStore> = Arc::new(Nowhere);
    let mut rates = Vec::new();
    for round in 0..=bed.rounds * 3 {
        let work = Work::layered(40, 50);
        let tasks = work.tasks.len() as f64;
        let took = bed.drive(&store, work)?;
        // The first warms up.
        if round > 0 {
            rates.push(tasks / took.as_secs_f64());
        }
    }
    let name = "graph/layered_2000_no_store";
    Ok(Record::new(name, "nodes/s", &rates, "the aim", 300_000.0).higher())
}

/// In a process of its own, whose peak is of nothing else.
pub(crate) fn large_peak(bed: &Bed) -> Result<Record> {
    let mut peaks = Vec::new();
    for _ in 0..bed.rounds.min(3) {
        let mut child = Command::new(env::current_exe()?);
        child.arg(PEAK);
        if bed.shrink > 1 {
            child.arg("--quick");
        }
        let out = child.output()?;
        let text = String::from_utf8(out.stdout)?;
        peaks.push(text.trim().parse()?);
    }
    let name = "graph/layered_100k_peak_mb";
    Ok(Record::new(name, "MB", &peaks, "the aim", 150.0))
}

pub(crate) fn peak_child(bed: &Bed) -> Result {
    let store = sqlite(&bed.fresh("peak")?)?;
    bed.drive(&store, large(bed))?;
    println!("{}", proc("status", "VmHWM")? / 1024.0);
    Ok(())
}

/// What a task costs among a million, beside what it costs among ten thousand.
pub(crate) fn cost_ratio(bed: &Bed) -> Result<Record> {
    let store: Arc<dyn StateStore> = Arc::new(Nowhere);
    let cost = |layers: usize| -> Result<f64> {
        let work = Work::layered(layers, WIDE);
        let tasks = work.tasks.len() as f64;
        let begin = Instant::now();
        bed.drive(&store, work)?;
        Ok(begin.elapsed().as_secs_f64() * 1e6 / tasks)
    };
    let (mut few, mut many) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        few.push(cost(10)?);
        many.push(cost(1000 / bed.shrink)?);
    }
    let anchor = "a task among 10,000; the aim is 1.3 times that";
    let name = "graph/layered_1m_cost_ratio";
    let base = median(&few).unwrap_or(0.0);
    Ok(Record::new(name, "us/task", &many, anchor, base))
}
