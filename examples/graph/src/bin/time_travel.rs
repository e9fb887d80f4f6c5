//! A run is a journal, and every place in it can be gone back to: fork it before a decision and
//! decide otherwise, or do one task and what follows from it again. What came before is shared, not
//! done again.
//!
//! `cargo run -p graph-examples --bin time_travel`

use graph_examples::{engine, sqlite};
use serde_json::{Value, json};
use smallhands_core::{Question, RunId, TaskContext, TaskSpec, Worker, worker};
use smallhands_graph::{
    Engine, Event, GraphError, NewRun, ResumeFailed, RunResult, RunState, RunStatus, TaskGraph,
};
use std::{
    collections::BTreeMap,
    error::Error,
    mem,
    sync::{Arc, Mutex, PoisonError},
};

/// What was really done, counted outside of any journal.
#[derive(Clone, Debug, Default)]
struct Ledger(Arc<Mutex<BTreeMap<String, u32>>>);

impl Ledger {
    fn note(&self, task: &TaskContext) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *all.entry(task.key().task.to_string()).or_default() += 1;
    }
    /// What was done since the last call.
    fn take(&self) -> BTreeMap<String, u32> {
        mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn workers(ledger: &Ledger) -> [Arc<dyn Worker>; 3] {
    let (a, b) = (ledger.clone(), ledger.clone());
    let research = worker("research", move |topic: String, cx: TaskContext| {
        a.note(&cx);
        async move { Ok(format!("three facts about {topic}")) }
    });
    let style = worker("style", |_: Value, cx: TaskContext| async move {
        let question =
            Question::new("How shall it sound?").schema(json!({ "enum": ["plain", "grand"] }));
        cx.ask("style", question).await
    });
    let write = worker("write", move |input: Value, cx: TaskContext| {
        b.note(&cx);
        async move {
            let text = |field: &str| input[field].as_str().unwrap_or_default().to_owned();
            let (facts, style) = (text("facts"), text("style"));
            Ok(format!("{facts} in a {style} style"))
        }
    });
    [research, style, write]
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let (store, ledger) = (sqlite(dir.path())?, Ledger::default());
    let engine = engine(store.clone(), workers(&ledger));
    let graph = TaskGraph::new()
        .task(TaskSpec::new("research", "research").input("hands"))
        .task(TaskSpec::new("style", "style").needs("research"))
        .task(
            TaskSpec::new("write", "write")
                .bind("facts", "research", "")
                .bind("style", "style", ""),
        )
        .build()?;
    let [first, other, again] = ["first", "other", "again"].map(RunId::from);

    engine
        .start(NewRun::new("first", graph))
        .await?
        .wait()
        .await?;
    let grand = decide(&engine, &first, "grand").await?;
    let done = ledger.take();
    show(&grand, &done);
    assert_eq!(done, counts(&["research", "write"]));

    // Back to the record before the answer.
    let at = answered(&engine, &first).await? - 1;
    let then = RunState::load_until(&*store, &first, at).await?;
    println!("at {at:<6} {} question open", open(&then));
    engine.fork(&first, at, &other).await?;
    let plain = decide(&engine, &other, "plain").await?;
    let done = ledger.take();
    show(&plain, &done);
    assert_eq!(
        done,
        counts(&["write"]),
        "what came before was not done again"
    );

    // One task, and what follows from it, once more.
    engine.rerun(&other, &"write".into(), &again).await?;
    let rerun = resume(&engine, &again).await?;
    let done = ledger.take();
    show(&rerun, &done);
    assert_eq!(done, counts(&["write"]));

    let text = |r: &RunResult| r.state.value("write").cloned();
    assert_ne!(text(&grand), text(&plain));
    assert_eq!(text(&plain), text(&rerun));
    let kept = engine.load(&first).await?;
    assert_eq!(
        kept.value("write").cloned(),
        text(&grand),
        "the first stands"
    );
    for r in engine.runs(|_| true).await? {
        let from = r.forked.map(|(run, at)| format!(", after {at} of `{run}`"));
        let (last, bytes, from) = (r.last, r.bytes, from.unwrap_or_default());
        println!("{:<9} {last} records, {bytes} bytes of its own{from}", r.id);
    }
    Ok(())
}

async fn decide(engine: &Engine, run: &RunId, style: &str) -> Result<RunResult, GraphError> {
    let (task, ask) = ("style".into(), "style".into());
    engine.answer(run, &task, &ask, style.into()).await?;
    resume(engine, run).await
}

async fn resume(engine: &Engine, run: &RunId) -> Result<RunResult, GraphError> {
    engine.resume(run, ResumeFailed::No).await?.wait().await
}

/// The place of the first answer. The stream would wait for more at the end of the journal, so it
/// is only asked for what is known to be there.
async fn answered(engine: &Engine, run: &RunId) -> Result<u64, GraphError> {
    let mut events = engine.events(run, 0);
    loop {
        let (seq, _, event) = events.next().await?;
        if matches!(event, Event::Answered { .. }) {
            return Ok(seq);
        }
    }
}

fn open(state: &RunState) -> usize {
    state.nodes.values().map(|n| n.questions.len()).sum()
}

fn counts(tasks: &[&str]) -> BTreeMap<String, u32> {
    tasks.iter().map(|t| ((*t).to_owned(), 1)).collect()
}

fn show(r: &RunResult, done: &BTreeMap<String, u32>) {
    assert_eq!(r.status, RunStatus::Succeeded);
    let text = r.state.value("write").and_then(Value::as_str);
    let done: Vec<_> = done.iter().map(|(t, n)| format!("{t} {n}x")).collect();
    println!(
        "{:<9} {}; done: {}",
        r.run,
        text.unwrap_or("-"),
        done.join(", ")
    );
}
