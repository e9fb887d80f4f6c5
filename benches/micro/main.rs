//! Each layer beside the raw limit of what it is made of, measured in turn in the same run.
//!
//! `cargo xtask bench micro`, or `cargo bench -p smallhands-benches -- [--json] [--quick]`

mod graph;
mod journal;
mod memory;
mod sandbox;

use smallhands::{
    core::{
        Ambient, Failure, NoGuard, NoSecrets, Worker, WorkerName, WorkerSource, async_trait, worker,
    },
    exec::WorkerParts,
    graph::{MemoryBlobs, SystemClock},
};
use smallhands_benchmarks::{lines, table};
use std::{collections::BTreeMap, env, error::Error, path::Path, sync::Arc};
use tokio::runtime::Runtime;

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// What every bench gets.
struct Bed<'a> {
    rt: Runtime,
    /// On the disk of the build, which `/tmp` may not be.
    dir: &'a Path,
    /// Rounds: a few to see that it works, or enough for a figure.
    rounds: usize,
}

fn main() -> Result {
    // First in main: pools and sandboxes start this program again.
    smallhands::init(|_| {
        Ok(WorkerParts {
            source: Arc::new(Own),
            ambient: ambient(),
        })
    });
    let has = |flag: &str| env::args().any(|a| a == flag);
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let bed = Bed {
        rt: Runtime::new()?,
        dir: dir.path(),
        rounds: if has("--quick") { 2 } else { 15 },
    };
    let mut all = Vec::new();
    for bench in [journal::bench, graph::bench, sandbox::bench, memory::bench] {
        all.extend(bench(&bed)?);
    }
    print!(
        "{}",
        if has("--json") {
            lines(&all)
        } else {
            table(&all)
        }
    );
    Ok(())
}

fn ambient() -> Ambient {
    Ambient {
        clock: Arc::new(SystemClock),
        blobs: Arc::new(MemoryBlobs::default()),
        guard: Arc::new(NoGuard),
        secrets: Arc::new(NoSecrets),
    }
}

/// A task that does nothing, for the cost of everything around it.
fn nothing() -> Arc<dyn Worker> {
    worker("nothing", |(): (), _| async { Ok(()) })
}

#[derive(Debug)]
struct Own;

#[async_trait]
impl WorkerSource for Own {
    async fn open(
        &self,
        _: &serde_json::Value,
        _: &Ambient,
    ) -> std::result::Result<BTreeMap<WorkerName, Arc<dyn Worker>>, Failure> {
        let w = nothing();
        Ok(BTreeMap::from([(w.name().clone(), w)]))
    }
}
