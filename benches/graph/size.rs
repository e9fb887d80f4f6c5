use crate::{
    bed::{Bed, Result, Work, proc, sqlite},
    floor,
    stores::Counted,
};
use smallhands_benchmarks::Record;
use smallhands_core::{Step, TaskSpec, worker};
use smallhands_graph::{Durability, StateStore};
use std::sync::Arc;

/// The file that a chain leaves behind.
pub(crate) fn chain(bed: &Bed) -> Result<Record> {
    let dir = bed.fresh("chain")?;
    let store = sqlite(&dir)?;
    bed.drive(&store, Work::chain(1000 / bed.shrink))?;
    let text: usize = floor::rows(&dir)?.iter().map(|r| r.len()).sum();
    let size = floor::journal_mb(&dir)?;
    let anchor = "the bodies of its records alone; the aim is 3 MB";
    let name = "graph/chain_1000_db_mb";
    Ok(Record::new(name, "MB", &[size], anchor, text as f64 / 1e6))
}

/// What is handed to the system for a task whose steps each record a kilobyte.
pub(crate) fn messages(bed: &Bed) -> Result<Record> {
    let (dir, other) = (bed.fresh("messages")?, bed.fresh("floor")?);
    let counted = Counted::new(sqlite(&dir)?);
    let store: Arc<dyn StateStore> = counted.clone();
    let mut work = Work::new(vec![TaskSpec::new("talk", "talk")], 1);
    let messages = 1000 / bed.shrink;
    work.worker = worker("talk", move |(): (), cx| async move {
        for i in 0..messages {
            let say = |_| async { Ok("x".repeat(1024)) };
            cx.step(Step::new(format!("say/{i}")), say).await?;
        }
        Ok(())
    });
    let before = written()?;
    bed.drive(&store, work)?;
    let ours = written()? - before;
    let (rows, blobs) = (floor::rows(&dir)?, floor::blobs(&dir)?);
    let before = written()?;
    let level = Durability::ProcessCrash;
    floor::write(&other, level, &rows, &blobs, &counted.batches())?;
    let raw = written()? - before;
    let anchor = "raw SQLite, same rows, blobs and batches";
    let name = "graph/messages_1000_written_mb";
    Ok(Record::new(name, "MB", &[ours], anchor, raw))
}

fn written() -> Result<f64> {
    Ok(proc("io", "wchar")? / 1e6)
}
