//! A graph that changes while it runs: a planner adds its tasks, one of them fails, and somebody
//! from outside puts another in its place, cancels what takes too long and rewires the end.
//!
//! `cargo run -p graph-examples --bin replan`

use graph_examples::engine;
use serde_json::{Value, json};
use smallhands_core::{
    Binding, Failure, FailureClass, Halt, Outcome, Retry, TaskContext, TaskOutput, TaskSpec,
    Worker, WorkerName, async_trait, worker,
};
use smallhands_graph::{
    Event, GraphPatch, MemoryStore, NewRun, Rewire, RunHandle, RunState, RunStatus, Style,
    SystemClock, TaskGraph, Update, mermaid, terminal,
};
use std::{error::Error, sync::Arc, time::Duration};

/// Knows what is to be done only once it runs: what it adds to the graph is part of its output.
#[derive(Debug)]
struct Planner(WorkerName);

#[async_trait]
impl Worker for Planner {
    fn name(&self) -> &WorkerName {
        &self.0
    }
    async fn run(&self, goal: Value, cx: &TaskContext) -> Result<TaskOutput, Halt> {
        // The revision that this plan was made for: if the graph moved on, it is refused, not mixed.
        let seen = cx.view().and_then(|v| v["revision"].as_u64());
        // A failed test is tried again after a minute: time for somebody to look at it.
        let patience = Retry {
            max_attempts: 3,
            first_delay_ms: 60_000,
            ..Retry::default()
        };
        let plan = GraphPatch {
            expected_revision: seen,
            ..GraphPatch::adding([
                TaskSpec::new("build", "build").needs("plan"),
                TaskSpec::new("test", "test")
                    .bind("binary", "build", "")
                    .retry(patience),
                TaskSpec::new("docs", "endless").needs("plan"),
                TaskSpec::new("ship", "ship")
                    .bind("tested", "test", "")
                    .needs("docs"),
            ])
        };
        let expansion = serde_json::to_value(plan).map_err(|e| encode(&e))?;
        Ok(TaskOutput {
            expansion: Some(expansion),
            ..goal.into()
        })
    }
}

fn encode(e: &serde_json::Error) -> Failure {
    Failure::new("plan.encode", FailureClass::Task, e.to_string())
}

fn workers() -> [Arc<dyn Worker>; 5] {
    let build = |_: Value, _| async { Ok("app-1") };
    let test = |input: Value, _| async move {
        match input["patched"].as_str() {
            Some(binary) => Ok(format!("{binary} passed")),
            None => Err(
                Failure::new("test.failed", FailureClass::Task, "2 of 9 fail")
                    .retryable()
                    .into(),
            ),
        }
    };
    // Writes documentation without an end, until it is told to stop.
    let endless = |_: Value, cx: TaskContext| async move {
        cx.cancel().cancelled().await;
        Err::<(), _>(Halt::Cancelled)
    };
    let ship = |input: Value, _| async move { Ok(format!("shipped: {}", input["tested"])) };
    [
        Arc::new(Planner("plan".into())),
        worker("build", build),
        worker("test", test),
        worker("endless", endless),
        worker("ship", ship),
    ]
}

/// Another `test`, of a build that is mended first; `ship` no longer waits for the docs.
fn repair() -> GraphPatch {
    GraphPatch {
        add: vec![Arc::new(TaskSpec::new("mend", "build").needs("build"))],
        replace: vec![Arc::new(
            TaskSpec::new("test", "test").bind("patched", "mend", ""),
        )],
        rewire: vec![Rewire {
            task: "ship".into(),
            needs: vec!["test".into()],
            bind: vec![Binding {
                field: "tested".into(),
                from: "test".into(),
                pointer: String::new(),
            }],
        }],
        cancel: vec!["docs".into()],
        ..GraphPatch::default()
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let store = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
    let engine = engine(store, workers());
    let graph = TaskGraph::new()
        .task(TaskSpec::new("plan", "plan").input("a release").expands())
        .build()?;
    let mut run = engine.start(NewRun::new("release", graph)).await?;
    failed(&mut run, "test").await;

    // The first to look saw the graph before the planner had grown it.
    let stale = at(1, repair());
    let refused = run.patch(stale).await.err().ok_or("it was taken")?;
    println!("stale   {refused}");
    // What is settled stays as it is.
    let late = GraphPatch {
        replace: vec![Arc::new(TaskSpec::new("build", "build").needs("plan"))],
        ..GraphPatch::default()
    };
    let refused = run.patch(late).await.err().ok_or("it was taken")?;
    println!("late    {refused}");

    let revision = run.patch(at(2, repair())).await?;
    println!("taken   the graph is at revision {revision}");
    let done = run.wait().await?;
    println!("\n{}", picture(&done.state));
    println!("{}", mermaid(&done.state));

    assert_eq!(done.status, RunStatus::Succeeded);
    assert_eq!(
        done.state.value("ship"),
        Some(&json!("shipped: \"app-1 passed\""))
    );
    Ok(())
}

fn at(revision: u64, p: GraphPatch) -> GraphPatch {
    GraphPatch {
        expected_revision: Some(revision),
        ..p
    }
}

/// Waits until an attempt of the task has failed, and says what happens until then.
async fn failed(run: &mut RunHandle, wanted: &str) {
    let mut updates = run.updates();
    let limit = Duration::from_secs(10);
    while let Ok(Some(u)) = tokio::time::timeout(limit, updates.next()).await {
        let Update::Event { event, .. } = u else {
            continue;
        };
        match &*event {
            Event::Patched {
                patch,
                by: Some(by),
            } => {
                println!("grown   by `{by}`: {} tasks", patch.add.len());
            }
            Event::Ended { task, report, .. } => match &report.outcome {
                Outcome::Halted(Halt::Failed(f)) => {
                    println!("failed  {task}: {f}");
                    if task.as_str() == wanted {
                        return;
                    }
                }
                _ => println!("done    {task}"),
            },
            _ => {}
        }
    }
}

fn picture(state: &RunState) -> String {
    terminal(state, state.updated, &Style::default())
}
