//! The one worker: its input says what it does.

use crate::ledger::{self, Line};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use smallhands_core::{
    Ambient, BlobRef, BlobStore, Checkpoint, Effect, Failure, FailureClass, Halt, Question, Step,
    TaskContext, TaskOutput, Worker, WorkerName, WorkerSource, async_trait,
};
use smallhands_graph::GraphPatch;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// What a task does.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Job {
    /// Its steps, by class.
    pub steps: Vec<Effect>,
    /// How long each takes.
    pub ms: u64,
    /// So many attempts fail after their steps, retryably.
    pub fails: u32,
    /// The first attempt fails for good: somebody has to revive the task.
    pub fatal: bool,
    /// It asks a person before its last step.
    pub asks: bool,
    /// The work that it adds.
    pub grows: Option<GraphPatch>,
    /// What its needs left behind.
    #[serde(flatten)]
    pub bound: BTreeMap<String, Value>,
}

/// The worker; its effects go to the ledger in `dir`.
#[derive(Debug)]
pub struct Work {
    name: WorkerName,
    dir: PathBuf,
}

impl Work {
    /// Its name in graphs.
    pub const NAME: &'static str = "work";

    /// With the ledger in `dir`.
    pub fn new(dir: &Path) -> Self {
        Self {
            name: Self::NAME.into(),
            dir: dir.to_owned(),
        }
    }

    fn note(&self, cx: &TaskContext, step: Option<usize>, effect: Effect) -> Result<(), Failure> {
        ledger::append(&self.dir, &Line::new(cx.key(), step, effect)).map_err(|e| bad(&e))
    }

    fn happened(&self, cx: &TaskContext, i: usize) -> Result<Option<usize>, Failure> {
        let task = cx.key().task.as_str();
        let lines = ledger::read(&self.dir).map_err(|e| bad(&e))?;
        Ok(lines
            .iter()
            .any(|l| l.task == task && l.step == Some(i))
            .then_some(i))
    }

    async fn step(&self, cx: &TaskContext, files: &Files, job: &Job, i: usize) -> Result<(), Halt> {
        let effect = job.steps[i];
        let half = Duration::from_micros(job.ms * 500);
        let step = Step::new(format!("s{i}")).input(&i);
        let step = match effect {
            Effect::Workspace => step.in_workspace(files),
            e => step.effect(e),
        };
        let act = |_| async move {
            tokio::time::sleep(half).await;
            if effect == Effect::Workspace {
                files.add(i).map_err(|e| bad(&e.to_string()))?;
            }
            self.note(cx, Some(i), effect)?;
            tokio::time::sleep(half).await;
            Ok(i)
        };
        let verify = |_| async move { self.happened(cx, i) };
        let got = cx.step_or_verify(step, verify, act).await?;
        match got == i {
            true => Ok(()),
            false => Err(bad(&format!("step {i} returned what step {got} returns")).into()),
        }
    }
}

fn bad(why: &str) -> Failure {
    Failure::new("torture.broken", FailureClass::Task, why)
}

#[async_trait]
impl Worker for Work {
    fn name(&self) -> &WorkerName {
        &self.name
    }
    async fn run(&self, input: Value, cx: &TaskContext) -> Result<TaskOutput, Halt> {
        let job: Job = serde_json::from_value(input).map_err(|e| bad(&e.to_string()))?;
        self.note(cx, None, Effect::Pure)?;
        let files = Files::of(&self.dir, cx);
        let saved = cx.last_checkpoint();
        files.restore(saved.as_ref(), &*cx.ambient().blobs).await?;
        for i in 0..job.steps.len() {
            if job.asks && i + 1 == job.steps.len() {
                let question = Question::new("go on?").schema(json!({"type": "string"}));
                let answer = cx.ask("go", question).await?;
                if answer != answer_to(cx.key().task.as_str()) {
                    return Err(bad(&format!("it got the answer of another: {answer}")).into());
                }
            }
            self.step(cx, &files, &job, i).await?;
        }
        files.are(&job)?;
        let attempt = cx.key().attempt;
        if job.fatal && attempt == 1 {
            return Err(Failure::new("torture.fatal", FailureClass::Task, "as planned").into());
        }
        if attempt <= job.fails {
            let f = Failure::new("torture.flaky", FailureClass::Task, "as planned");
            return Err(f.retryable().into());
        }
        let before: u64 = job.bound.values().filter_map(Value::as_u64).sum();
        let mut out = TaskOutput::from(json!({ "n": before % 1_000 + 1 }));
        out.expansion = job.grows.and_then(|p| serde_json::to_value(p).ok());
        Ok(out)
    }
}

/// What a task is answered, whatever it asks.
pub fn answer_to(task: &str) -> Value {
    json!(format!("yes, {task}"))
}

/// The files of a task: a list of its workspace steps.
struct Files(PathBuf);

impl Files {
    fn of(dir: &Path, cx: &TaskContext) -> Self {
        Self(dir.join(format!(
            "files-{}",
            cx.key().task.as_str().replace('/', "-")
        )))
    }
    fn text(&self) -> String {
        fs::read_to_string(&self.0).unwrap_or_default()
    }
    fn add(&self, i: usize) -> std::io::Result<()> {
        fs::write(&self.0, format!("{}{i}\n", self.text()))
    }
    /// A step that ran twice on the same files, or on those of another moment, shows here.
    fn are(&self, job: &Job) -> Result<(), Failure> {
        let steps = job.steps.iter().enumerate();
        let wanted: String = steps
            .filter(|(_, e)| **e == Effect::Workspace)
            .map(|(i, _)| format!("{i}\n"))
            .collect();
        match self.text() == wanted {
            true => Ok(()),
            false => Err(bad(&format!(
                "the files hold {:?}, not {wanted:?}",
                self.text()
            ))),
        }
    }
}

#[async_trait]
impl Checkpoint for Files {
    async fn save(&self, blobs: &dyn BlobStore) -> Result<BlobRef, Failure> {
        blobs.put(self.text().into_bytes()).await
    }
    async fn restore(&self, to: Option<&BlobRef>, blobs: &dyn BlobStore) -> Result<(), Failure> {
        let bytes = match to {
            Some(b) => blobs.get(b).await?,
            None => Vec::new(),
        };
        fs::write(&self.0, bytes).map_err(|e| bad(&e.to_string()))
    }
}

/// Builds the worker in a worker process: the run's configuration is the directory.
#[derive(Clone, Copy, Debug)]
pub struct Source;

#[async_trait]
impl WorkerSource for Source {
    async fn open(
        &self,
        config: &Value,
        _: &Ambient,
    ) -> Result<BTreeMap<WorkerName, Arc<dyn Worker>>, Failure> {
        let dir = config
            .as_str()
            .ok_or_else(|| bad("the configuration names no directory"))?;
        let work: Arc<dyn Worker> = Arc::new(Work::new(Path::new(dir)));
        Ok([(work.name().clone(), work)].into())
    }
}
