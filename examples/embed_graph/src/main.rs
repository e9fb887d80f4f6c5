//! A durable graph with core, graph and exec alone: no network, no search, no telemetry.
//!
//! `cargo run -p embed_graph`

use serde_json::{Value, json};
use smallhands_core::{Ambient, NoGuard, NoSecrets, Retry, TaskSpec, worker};
use smallhands_exec::InProcess;
use smallhands_graph::{Engine, NewRun, StateStore, SystemClock, TaskGraph, mermaid};
use std::{error::Error, sync::Arc};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let store = store()?;
    // Workers are named async functions with typed input and output.
    let split = worker("split", |text: String, _| async move {
        Ok(text
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>())
    });
    let count = worker("count", |input: Value, _| async move {
        Ok(json!({ "words": input["words"].as_array().map_or(0, Vec::len) }))
    });
    let longest = worker("longest", |input: Value, _| async move {
        let words = input["words"].as_array().cloned().unwrap_or_default();
        let longest = words
            .iter()
            .filter_map(Value::as_str)
            .max_by_key(|w| w.len());
        Ok(json!({ "word": longest }))
    });
    let report = worker("report", |input: Value, _| async move {
        Ok(format!(
            "{} words, the longest is `{}`",
            input["n"],
            input["word"].as_str().unwrap_or("")
        ))
    });
    let ambient = Ambient {
        clock: Arc::new(SystemClock),
        blobs: store.blobs(),
        guard: Arc::new(NoGuard),
        secrets: Arc::new(NoSecrets),
    };
    let executor = Arc::new(InProcess::new([split, count, longest, report], ambient));

    let graph = TaskGraph::new()
        .task(
            TaskSpec::new("split", "split")
                .input("small hands build a great house")
                .retry(Retry::attempts(3)),
        )
        .task(TaskSpec::new("count", "count").bind("words", "split", ""))
        .task(TaskSpec::new("longest", "longest").bind("words", "split", ""))
        .task(
            TaskSpec::new("report", "report")
                .bind("n", "count", "/words")
                .bind("word", "longest", "/word"),
        )
        .build()?;

    let engine = Engine::new(store, executor, Arc::new(SystemClock));
    let done = engine
        .start(NewRun::new("words", graph))
        .await?
        .wait()
        .await?;
    println!(
        "{}: {}",
        done.status,
        done.state.value("report").unwrap_or(&Value::Null)
    );
    println!("{}", mermaid(&done.state));
    Ok(())
}

#[cfg(feature = "sqlite")]
fn store() -> Result<Arc<dyn StateStore>, Box<dyn Error>> {
    // A new directory for each start, so that the example can run twice.
    let dir = std::env::temp_dir().join(format!("embed-graph-{}", std::process::id()));
    let blobs = Arc::new(smallhands_graph::DirBlobs::open(dir.join("blobs"))?);
    Ok(Arc::new(smallhands_graph::SqliteStore::open(dir, blobs)?))
}

#[cfg(not(feature = "sqlite"))]
fn store() -> Result<Arc<dyn StateStore>, Box<dyn Error>> {
    Ok(Arc::new(smallhands_graph::MemoryStore::new(Arc::new(
        SystemClock,
    ))))
}
