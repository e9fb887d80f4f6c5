//! The engine on both stores, with real workers.
#![allow(clippy::unwrap_used, reason = "tests")]

mod again;
mod graphs;
mod journal;
mod kit;
mod runs;

use smallhands_core::TaskSpec;
use smallhands_graph::{Engine, NewRun, RunResult};

async fn run(engine: &Engine, tasks: impl IntoIterator<Item = TaskSpec>) -> RunResult {
    let handle = engine
        .start(NewRun::new("r", kit::graph(tasks)))
        .await
        .unwrap();
    handle.wait().await.unwrap()
}
