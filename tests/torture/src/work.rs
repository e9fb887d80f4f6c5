//! The one worker: its input says what it does.

use crate::ledger::{self, Line};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use smallhands_core::{
    Ambient, BlobRef, BlobStore, Checkpoint, Effect, Failure, FailureClass, Halt, Question, Step,
    TaskContext, TaskOutput, Timestamp, Worker, WorkerName, WorkerSource, async_trait,
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
    /// Every attempt fails for good.
    pub doomed: bool,
    /// It asks a person before its last step.
    pub asks: bool,
    /// So long it waits for the answer, then it takes a default.
    pub patience: Option<u64>,
    /// The work that it adds.
    pub grows: Option<GraphPatch>,
    /// The length of the list that it leaves.
    pub list: u64,
    /// So many iterations it wants, if it is a loop.
    pub until: u64,
    /// What the iteration before left.
    pub last: Option<Value>,
    /// Which of its needs come in time is chance: its value says nothing of them.
    pub deaf: bool,
    /// What its needs left behind.
    #[serde(flatten)]
    pub bound: BTreeMap<String, Value>,
}

impl Job {
    /// Which iteration of a loop, from 1, by what the last one left.
    pub fn iteration(&self) -> u64 {
        let last = self.last.as_ref().and_then(|l| l["i"].as_u64());
        last.unwrap_or(0) + 1
    }

    /// What the task leaves: it follows from the input, and the judge works it out as well.
    pub fn value(&self) -> Value {
        let all = self.bound.values().chain(&self.last);
        let before: u64 = match self.deaf {
            true => 0,
            false => all.map(weight).sum(),
        };
        let n = before % 1_000 + 1;
        // Some elements are equal; their instances have names all the same.
        let list: Vec<_> = (0..self.list).map(|i| (n + i * i) % 5).collect();
        json!({ "n": n, "i": self.iteration(), "until": self.until, "list": list })
    }
}

fn weight(v: &Value) -> u64 {
    match v {
        Value::Number(n) => n.as_u64().unwrap_or(0),
        Value::Array(a) => a.iter().map(weight).sum(),
        Value::Object(o) => match o.get("n") {
            Some(n) => weight(n),
            None => o.values().map(weight).sum(),
        },
        _ => 0,
    }
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
    /// Its name where it compensates for a failed task.
    pub const UNDO: &'static str = "undo";

    /// With the ledger in `dir`.
    pub fn new(dir: &Path) -> Self {
        Self {
            name: Self::NAME.into(),
            dir: dir.to_owned(),
        }
    }

    /// The same under each of its names.
    pub fn all(dir: &Path) -> [Arc<dyn Worker>; 2] {
        let undo = Self {
            name: Self::UNDO.into(),
            ..Self::new(dir)
        };
        [Arc::new(Self::new(dir)), Arc::new(undo)]
    }

    fn note(&self, cx: &TaskContext, job: &Job, step: Option<usize>) -> Result<(), Failure> {
        let effect = step.map_or(Effect::Pure, |i| job.steps[i]);
        let line = Line::new(cx.key(), job.iteration(), step, effect);
        ledger::append(&self.dir, &line).map_err(|e| bad(&e))
    }

    fn happened(&self, cx: &TaskContext, job: &Job, i: usize) -> Result<Option<usize>, Failure> {
        let wanted = Line::new(cx.key(), job.iteration(), Some(i), job.steps[i]);
        let lines = ledger::read(&self.dir).map_err(|e| bad(&e))?;
        Ok(lines.iter().any(|l| l.same_effect(&wanted)).then_some(i))
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
            self.note(cx, job, Some(i))?;
            tokio::time::sleep(half).await;
            Ok(i)
        };
        let verify = |_| async move { self.happened(cx, job, i) };
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
        let mut job: Job = serde_json::from_value(input).map_err(|e| bad(&e.to_string()))?;
        if self.name.as_str() == Self::UNDO {
            job.steps = vec![Effect::Idempotent];
        }
        self.note(cx, &job, None)?;
        let files = Files::of(&self.dir, cx);
        let saved = cx.last_checkpoint();
        files.restore(saved.as_ref(), &*cx.ambient().blobs).await?;
        for i in 0..job.steps.len() {
            if job.asks && i + 1 == job.steps.len() {
                let answer = cx.ask("go", question(cx, &job)).await?;
                let wanted = [answer_to(cx.key().task.as_str()), json!(NOBODY)];
                let wanted = &wanted[..1 + usize::from(job.patience.is_some())];
                if !wanted.contains(&answer) {
                    return Err(bad(&format!("it got the answer of another: {answer}")).into());
                }
            }
            self.step(cx, &files, &job, i).await?;
        }
        files.are(&job)?;
        let attempt = cx.key().attempt;
        if job.doomed || job.fatal && attempt == 1 {
            return Err(Failure::new("torture.fatal", FailureClass::Task, "as planned").into());
        }
        if attempt <= job.fails {
            let f = Failure::new("torture.flaky", FailureClass::Task, "as planned");
            return Err(f.retryable().into());
        }
        let mut out = TaskOutput::from(job.value());
        out.expansion = job.grows.and_then(|p| serde_json::to_value(p).ok());
        Ok(out)
    }
}

fn question(cx: &TaskContext, job: &Job) -> Question {
    let q = Question::new("go on?").schema(json!({"type": "string"}));
    match job.patience {
        Some(ms) => {
            let now = cx.ambient().clock.now();
            q.default(NOBODY).deadline(Timestamp(now.0 + ms))
        }
        None => q,
    }
}

/// What is taken if nobody answers.
const NOBODY: &str = "nobody";

/// What a task is answered, whatever it asks.
pub fn answer_to(task: &str) -> Value {
    json!(format!("yes, {task}"))
}

/// The files of a task: a list of its workspace steps.
struct Files(PathBuf);

impl Files {
    fn of(dir: &Path, cx: &TaskContext) -> Self {
        let (run, task) = (&cx.key().run, cx.key().task.as_str());
        Self(dir.join(format!("files-{run}-{}", task.replace('/', "-"))))
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
        let all = Work::all(Path::new(dir)).map(|w| (w.name().clone(), w));
        Ok(all.into())
    }
}
