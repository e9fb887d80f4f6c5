//! The state of a run for machines: versioned, and only ever added to.
//!
//! Its JSON Schema is `schemas/run-state.v1.json`. Readers ignore fields that they do not know.

use crate::{Node, NodeState, RunState};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use smallhands_core::{
    BlobRef, Budget, Failure, PriorStep, Question, RunId, TaskId, Timestamp, Usage,
};
use std::collections::BTreeMap;

/// A run as it stands. Holds names of secrets, never their values.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Report {
    /// Always `smallhands.run-state`.
    pub format: String,
    /// 1; raised only if a field goes or changes its meaning.
    pub version: u32,
    /// The run's id, if whoever made the report knew it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// The last record that is in it.
    pub seq: u64,
    /// Patches of the graph so far.
    pub revision: u64,
    /// `running`, `paused`, `waiting`, `succeeded`, `failed` or `cancelled`.
    pub status: String,
    /// What the run is for.
    pub goal: String,
    /// Its configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Blob>,
    /// Its caps; an absent one is no cap.
    pub budget: Caps,
    /// What its records survive: `process_crash` or `power_loss`.
    pub durability: String,
    /// The executor that it was made for.
    pub executor: String,
    /// What it runs in, as its author noted it.
    #[serde(default)]
    pub environment: Value,
    /// Names of the secrets that its tasks may ask for.
    #[serde(default)]
    pub secrets: Vec<String>,
    /// When it was created; milliseconds since 1970, as all times here.
    pub created: u64,
    /// When its last record was written.
    pub updated: u64,
    /// What was spent.
    pub spent: Spent,
    /// Whether a task has failed the run.
    pub failing: bool,
    /// Whether somebody cancelled it.
    pub cancelling: bool,
    /// Its tasks, in the order in which they were added.
    pub tasks: Vec<Task>,
    /// What its tasks left behind besides values.
    pub artifacts: Vec<Artifact>,
    /// Reports of tests: artifacts named `report/..`, and the field `report` of a task's value.
    pub reports: Vec<TestReport>,
}

/// One task of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Task {
    /// Its id.
    pub id: String,
    /// Who does it; empty for a task that a graph stands for.
    pub worker: String,
    /// `waiting`, `undecided`, `ready`, `running`, `expanded`, `suspended`, `done`, `failed`,
    /// `skipped` or `cancelled`.
    pub state: String,
    /// The present or last attempt, from 1; 0 before the first.
    pub attempt: u32,
    /// The present or last iteration of a loop, from 1; 0 for a task that is no loop.
    pub iteration: u32,
    /// The map or sub-graph that it is a part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// What it needs.
    pub needs: Vec<String>,
    /// When it was first placed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<u64>,
    /// When it was settled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<u64>,
    /// What it spent.
    pub spent: Spent,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Fault>,
    /// What it returned, once it is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// Its recorded steps.
    pub steps: Vec<Step>,
    /// Its open questions, by name.
    pub questions: BTreeMap<String, Asked>,
    /// The answers so far, by name of the question.
    pub answers: BTreeMap<String, Value>,
}

/// A recorded step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Step {
    /// Its name in the attempt.
    pub key: String,
    /// `pure`, `workspace`, `idempotent`, `verifiable` or `at_most_once`.
    pub effect: String,
    /// `done`, or `in_doubt`: begun, and nobody knows whether it happened.
    pub state: String,
    /// Whether it ended with a failure.
    pub failed: bool,
}

/// An open question.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Asked {
    /// What is asked.
    pub text: String,
    /// JSON schema of the answer.
    pub schema: Value,
    /// Taken if nobody answers in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// When the default is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<u64>,
}

/// A failure.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Fault {
    /// Stable, dotted.
    pub code: String,
    /// What kind of thing went wrong.
    pub class: String,
    /// Whether the same thing may succeed when tried again.
    pub retryable: bool,
    /// What happened.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// What was spent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Spent {
    /// Millionths of a US dollar; null is unknown, which is not zero.
    pub micro_usd: Option<u64>,
    /// Tokens read by models.
    pub input_tokens: u64,
    /// Tokens written by models.
    pub output_tokens: u64,
    /// Calls of models or paid tools.
    pub calls: u64,
    /// Milliseconds of wall time.
    pub millis: u64,
}

/// Caps; an absent one is no cap.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Caps {
    /// Millionths of a US dollar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub micro_usd: Option<u64>,
    /// Tokens in and out together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Calls of models or paid tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls: Option<u64>,
    /// Milliseconds of wall time spent in calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub millis: Option<u64>,
}

/// Something in the blob store.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Blob {
    /// The content's hash, with its algorithm.
    pub digest: String,
    /// Its length in bytes.
    pub len: u64,
}

/// A named blob that a task left behind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Artifact {
    /// The task.
    pub task: String,
    /// Its name.
    pub name: String,
    /// Its content.
    pub blob: Blob,
}

/// A report of tests, as a blob or as a value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct TestReport {
    /// The task.
    pub task: String,
    /// `report/..` for an artifact, `report` for a field of the task's value.
    pub name: String,
    /// The report, if it is an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blob: Option<Blob>,
    /// The report, if it is a part of the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
}

impl Report {
    /// What [`format`](Self::format) says.
    pub const FORMAT: &str = "smallhands.run-state";
    /// What [`version`](Self::version) says.
    pub const VERSION: u32 = 1;

    /// Says which run it is; a state does not know.
    #[must_use]
    pub fn of(mut self, run: &RunId) -> Self {
        self.run = Some(run.to_string());
        self
    }
}

impl RunState {
    /// The state for machines.
    pub fn report(&self) -> Report {
        let nodes = self.in_order();
        let artifacts: Vec<_> = nodes.iter().flat_map(|(id, n)| artifacts(id, n)).collect();
        let mut reports: Vec<_> = artifacts.iter().filter_map(named).collect();
        reports.extend(nodes.iter().filter_map(|(id, n)| told(id, n)));
        Report {
            format: Report::FORMAT.into(),
            version: Report::VERSION,
            run: None,
            seq: self.seq,
            revision: self.revision,
            status: self.status.to_string(),
            goal: self.goal.clone(),
            config: self.config.as_ref().map(Blob::from),
            budget: self.budget.into(),
            durability: word(&self.durability),
            executor: self.executor.clone(),
            environment: self.environment.clone(),
            secrets: self.secrets.iter().map(ToString::to_string).collect(),
            created: self.created.0,
            updated: self.updated.0,
            spent: self.spent.into(),
            failing: self.failing,
            cancelling: self.cancelling,
            tasks: nodes
                .iter()
                .map(|(id, n)| task(self.parent(id), n))
                .collect(),
            artifacts,
            reports,
        }
    }
}

fn task(parent: Option<&TaskId>, n: &Node) -> Task {
    let questions = n.questions.iter();
    let answers = n.answers.iter();
    Task {
        id: n.spec.id.to_string(),
        worker: n.spec.worker.to_string(),
        state: n.state.as_str().into(),
        attempt: n.attempt,
        iteration: n.iteration,
        parent: parent.map(ToString::to_string),
        needs: n.spec.needs.iter().map(ToString::to_string).collect(),
        started: n.started.map(|t| t.0),
        ended: n.ended.map(|t| t.0),
        spent: n.spent.into(),
        failure: match &n.state {
            NodeState::Failed(f) => Some((&**f).into()),
            _ => None,
        },
        value: n.value().cloned(),
        steps: n.steps.iter().map(Step::from).collect(),
        questions: questions.map(|(k, q)| (k.to_string(), q.into())).collect(),
        answers: answers.map(|(k, v)| (k.to_string(), v.clone())).collect(),
    }
}

fn artifacts(id: &TaskId, n: &Node) -> Vec<Artifact> {
    let all = n.output.iter().flat_map(|o| &o.artifacts);
    let one = |(name, blob): &(String, BlobRef)| Artifact {
        task: id.to_string(),
        name: name.clone(),
        blob: blob.into(),
    };
    all.map(one).collect()
}

fn named(a: &Artifact) -> Option<TestReport> {
    a.name.starts_with("report/").then(|| TestReport {
        task: a.task.clone(),
        name: a.name.clone(),
        blob: Some(a.blob.clone()),
        value: None,
    })
}

fn told(id: &TaskId, n: &Node) -> Option<TestReport> {
    let value = n.value()?.get("report").filter(|v| v.is_object())?;
    Some(TestReport {
        task: id.to_string(),
        name: "report".into(),
        blob: None,
        value: Some(value.clone()),
    })
}

/// The word that serde has for a value without fields.
fn word(v: &impl Serialize) -> String {
    let v = serde_json::to_value(v).unwrap_or_default();
    v.as_str().unwrap_or_default().to_owned()
}

impl From<&PriorStep> for Step {
    fn from(s: &PriorStep) -> Self {
        let (state, failed) = match s {
            PriorStep::InDoubt(_) => ("in_doubt", false),
            PriorStep::Done(r) => ("done", r.result.is_err()),
        };
        Self {
            key: s.intent().key.to_string(),
            effect: word(&s.intent().effect),
            state: state.into(),
            failed,
        }
    }
}

impl From<&Question> for Asked {
    fn from(q: &Question) -> Self {
        Self {
            text: q.text.clone(),
            schema: q.schema.clone(),
            default: q.default.clone(),
            deadline: q.deadline.map(|Timestamp(ms)| ms),
        }
    }
}

impl From<&Failure> for Fault {
    fn from(f: &Failure) -> Self {
        Self {
            code: f.code.to_string(),
            class: word(&f.class),
            retryable: f.retryable,
            message: f.message.clone(),
            hint: f.hint.clone(),
        }
    }
}

impl From<Usage> for Spent {
    fn from(u: Usage) -> Self {
        Self {
            micro_usd: u.micro_usd,
            input_tokens: u.input_tokens,
            output_tokens: u.output_tokens,
            calls: u.calls,
            millis: u.millis,
        }
    }
}

impl From<Budget> for Caps {
    fn from(b: Budget) -> Self {
        Self {
            micro_usd: b.micro_usd,
            tokens: b.tokens,
            calls: b.calls,
            millis: b.millis,
        }
    }
}

impl From<&BlobRef> for Blob {
    fn from(b: &BlobRef) -> Self {
        Self {
            digest: b.digest.to_string(),
            len: b.len,
        }
    }
}
