//! Tasks that ask a person. The process that asked is gone when the answers come: hours or, here,
//! milliseconds later another one takes them, refuses one that does not fit, and goes on.
//!
//! `cargo run -p graph-examples --bin human_approval`

use graph_examples::{engine, sqlite};
use serde_json::{Value, json};
use smallhands_core::{Clock, Question, TaskContext, TaskId, TaskSpec, Timestamp, worker};
use smallhands_graph::{
    Engine, GraphError, NewRun, ResumeFailed, RunResult, RunStatus, SystemClock, TaskGraph,
};
use std::{
    env,
    error::Error,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

const RUN: &str = "deploy";
/// For the one question that nobody will answer.
const PATIENCE_MS: u64 = 300;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    match env::args_os().nth(1) {
        Some(dir) => ask(Path::new(&dir)).await,
        None => answer().await,
    }
}

/// Two regions ask under the same name; each is a question of its own, because each is a task.
fn open(dir: &Path) -> Result<Engine, Box<dyn Error>> {
    let deploy = worker("deploy", |region: String, cx: TaskContext| async move {
        let question = Question::new(format!("What share of {region} may have it?"))
            .schema(json!({ "type": "integer", "minimum": 0, "maximum": 100 }));
        // Until there is an answer this returns `Halt::Suspended`, and `?` ends the attempt.
        let share = cx.ask("share", question).await?;
        Ok(format!("{share} % of {region}"))
    });
    let tell = worker("tell", |_: Value, cx: TaskContext| async move {
        let now = cx.ambient().clock.now();
        let question = Question::new("Who else should know?")
            .schema(json!({ "type": "array", "items": { "type": "string" } }))
            .default(json!(["the team"]))
            .deadline(Timestamp(now.0 + PATIENCE_MS));
        cx.ask("who", question).await
    });
    Ok(engine(sqlite(dir)?, [deploy, tell]))
}

/// The process that asks, and ends.
async fn ask(dir: &Path) -> Result<(), Box<dyn Error>> {
    let graph = TaskGraph::new()
        .task(TaskSpec::new("asia", "deploy").input("Asia"))
        .task(TaskSpec::new("europe", "deploy").input("Europe"))
        .task(TaskSpec::new("tell", "tell"))
        .build()?;
    let run = open(dir)?.start(NewRun::new(RUN, graph)).await?;
    println!("asked     {}", line(&run.wait().await?));
    Ok(())
}

/// Another process, later.
async fn answer() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let child = Command::new(env::current_exe()?).arg(dir.path()).status()?;
    assert!(child.success(), "the first process ended by itself");
    let (engine, begin) = (open(dir.path())?, Instant::now());
    for (task, node) in engine.load(&RUN.into()).await?.in_order() {
        for (id, q) in &node.questions {
            println!("open      {task}/{id}: {}", q.text);
        }
    }

    // The later one first, and once in the wrong shape.
    let give = async |task: &str, share: Value| {
        let (task, ask) = (TaskId::from(task), "share".into());
        engine.answer(&RUN.into(), &task, &ask, share).await
    };
    match give("europe", json!("half")).await {
        Err(e @ GraphError::Answer { .. }) => println!("refused   {e}"),
        other => return Err(format!("promised `GraphError::Answer`, seen {other:?}").into()),
    }
    give("europe", json!(50)).await?;
    println!("answered  europe");
    println!("resumed   {}", line(&resume(&engine).await?));
    give("asia", json!(10)).await?;
    println!("answered  asia");
    // A journaled deadline holds while nobody is there. The head says when to come back.
    let wake = engine.info(&RUN.into()).await?.head.wake_at;
    let left = wake.map_or(0, |at| at.0.saturating_sub(SystemClock.now().0));
    tokio::time::sleep(Duration::from_millis(left)).await;
    let done = resume(&engine).await?;
    println!("resumed   {}", line(&done));

    assert_eq!(done.status, RunStatus::Succeeded);
    assert_eq!(done.state.value("asia"), Some(&json!("10 % of Asia")));
    assert_eq!(done.state.value("europe"), Some(&json!("50 % of Europe")));
    assert_eq!(done.state.value("tell"), Some(&json!(["the team"])));
    println!("in all    {} ms", begin.elapsed().as_millis());
    Ok(())
}

async fn resume(engine: &Engine) -> Result<RunResult, GraphError> {
    let run = engine.resume(&RUN.into(), ResumeFailed::No).await?;
    run.wait().await
}

fn line(r: &RunResult) -> String {
    let mut all = format!("{}:", r.status);
    for (id, n) in r.state.in_order() {
        let value = n.value().map_or_else(String::new, |v| format!(" {v}"));
        all += &format!("  {id} {}{value}", n.state.as_str());
    }
    all
}
