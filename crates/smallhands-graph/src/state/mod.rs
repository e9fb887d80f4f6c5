//! The state of a run: a pure fold over its events.

mod attempts;
mod flow;
mod invariants;
mod nodes;
mod patch;
mod query;
mod ready;
mod snapshot;
mod status;

pub(crate) use flow::{inside, instances};
pub(crate) use nodes::Ix;
pub use nodes::{Node, Nodes};
pub(crate) use query::lay;
pub(crate) use ready::Start;
pub use status::{NodeState, RunStatus};

use crate::{Durability, Event, Snapshot};
use ready::{Ready, Used};
use serde::Serialize;
use serde_json::Value;
use smallhands_core::{
    BlobRef, Budget, Failure, FailureClass, GroupLimit, PriorStep, SecretName, TaskId, Timestamp,
    Usage,
};
use std::collections::{BTreeMap, BTreeSet};

/// A run as its journal tells it. A pure fold over [`Event`]s.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct RunState {
    /// The last record that was applied.
    pub seq: u64,
    /// Patches applied so far.
    pub revision: u64,
    /// How the run stands.
    pub status: RunStatus,
    /// What it is for.
    pub goal: String,
    /// Its configuration.
    pub config: Option<BlobRef>,
    /// Its caps.
    pub budget: Budget,
    /// What its appends survive.
    pub durability: Durability,
    /// The executor that it was made for.
    pub executor: String,
    /// What it runs in.
    pub environment: Value,
    /// Names of the secrets that its tasks may ask for.
    pub secrets: Vec<SecretName>,
    /// Limits of groups of tasks.
    pub limits: BTreeMap<String, GroupLimit>,
    /// When it was created.
    pub created: Timestamp,
    /// When the last record was written.
    pub updated: Timestamp,
    /// Its tasks.
    pub nodes: Nodes,
    /// What was spent.
    pub spent: Usage,
    /// Whether a task has failed the run.
    pub failing: bool,
    /// Whether somebody cancelled it.
    pub cancelling: bool,
    #[serde(skip)]
    ready: Ready,
    #[serde(skip)]
    undecided: BTreeSet<Ix>,
    #[serde(skip)]
    asleep: BTreeSet<Ix>,
    /// Failed tasks whose compensation is still to be added.
    #[serde(skip)]
    owed: BTreeSet<Ix>,
    /// What needs a task that was taken back and may come again.
    #[serde(skip)]
    orphans: BTreeMap<TaskId, Vec<Ix>>,
    /// By task, fence and id: a new placement charges what the former one left open.
    #[serde(skip)]
    held: BTreeMap<(Ix, u64, String), Usage>,
    /// What the placed tasks take.
    #[serde(skip)]
    used: Used,
    #[serde(skip)]
    running: usize,
    /// Whether there ever was a task that is done at most once: most runs have none.
    #[serde(skip)]
    once_only: bool,
    /// The task of the event that is applied, if that is known without a search.
    #[serde(skip)]
    about: Option<Ix>,
    /// Placements that were set aside before they ended, since the driver last asked.
    #[serde(skip)]
    displaced: usize,
    #[serde(skip)]
    settled: usize,
    /// The latest that a head may name.
    #[serde(skip)]
    pub(crate) snapshot: Option<Snapshot>,
}

impl RunState {
    /// Applies one record.
    ///
    /// # Errors
    /// An event that cannot follow what came before; the state is then no longer usable.
    pub fn apply(&mut self, seq: u64, at: Timestamp, e: &Event) -> Result<(), String> {
        self.seq = seq;
        self.updated = at;
        match e {
            Event::Created { .. } => self.create(at, e),
            Event::Opened { .. } => self.status = RunStatus::Running,
            Event::Patched { patch, by } => {
                let by = by.as_ref().and_then(|t| self.nodes.ix(t));
                self.patch(patch, by);
            }
            Event::Expanded { task, children } => {
                let ix = self.ix(task)?;
                self.expanded(ix, children);
            }
            Event::Judged { task, holds } => {
                let ix = self.ix(task)?;
                self.judge(ix, *holds);
            }
            Event::Dispatched { task, attempt } => {
                let ix = self.ix(task)?;
                self.dispatched(ix, *attempt, seq, at);
            }
            Event::Ended {
                task,
                fence,
                report,
                retry_after_ms,
                repeat,
            } => {
                let ix = self.ix(task)?;
                self.ended(ix, *fence, report, *retry_after_ms, *repeat);
            }
            Event::Revived { tasks } => self.revive(tasks)?,
            Event::Reset { task } => {
                let ix = self.ix(task)?;
                self.reset(ix);
            }
            Event::CancelRequested => self.cancelling = true,
            Event::Stopped { status } => self.status = *status,
            _ => self.said(e)?,
        }
        Ok(())
    }

    /// What a task said while it ran, and what was said to it.
    fn said(&mut self, e: &Event) -> Result<(), String> {
        match e {
            Event::StepBegan {
                task,
                fence,
                intent,
            } => {
                let ix = self.ix(task)?;
                if let Some(most) = intent.reserve {
                    self.held.insert((ix, *fence, intent.key.to_string()), most);
                }
                let steps = &mut self.nodes.at_mut(ix).steps;
                if !steps.iter().any(|s| s.intent().key == intent.key) {
                    steps.push(PriorStep::InDoubt(intent.clone()));
                }
            }
            Event::StepEnded {
                task,
                fence,
                record,
            } => {
                let ix = self.ix(task)?;
                self.step_ended(ix, *fence, record);
            }
            Event::Reserved {
                task,
                fence,
                id,
                most,
            } => {
                let ix = self.ix(task)?;
                self.held.insert((ix, *fence, id.clone()), *most);
            }
            Event::Settled {
                task,
                fence,
                id,
                actual,
            } => {
                let ix = self.ix(task)?;
                if self.held.remove(&(ix, *fence, id.clone())).is_some() {
                    self.charge(ix, *actual);
                }
            }
            Event::Asked { task, id, question } => {
                let ix = self.ix(task)?;
                let n = self.nodes.at_mut(ix);
                n.questions.insert(id.clone(), question.clone());
            }
            Event::Answered { task, id, answer } => {
                let ix = self.ix(task)?;
                self.answered(ix, id, answer.clone());
            }
            Event::Expired { task, id } => {
                let ix = self.ix(task)?;
                let question = self.nodes.at(ix).questions.get(id);
                match question.and_then(|q| q.default.clone()) {
                    Some(default) => self.answered(ix, id, default),
                    None => self.fail(ix, expired(id.as_str())),
                }
            }
            other => {
                return Err(format!(
                    "this program does not know what {} means",
                    other.kind()
                ));
            }
        }
        Ok(())
    }

    fn create(&mut self, at: Timestamp, e: &Event) {
        let Event::Created {
            goal,
            config,
            budget,
            durability,
            executor,
            environment,
            secrets,
            limits,
        } = e
        else {
            return;
        };
        self.created = at;
        self.goal.clone_from(goal);
        self.config = Some(config.clone());
        self.budget = *budget;
        self.durability = *durability;
        self.executor.clone_from(executor);
        self.environment = environment.clone();
        self.secrets.clone_from(secrets);
        self.limits.clone_from(limits);
    }

    /// As [`apply`](Self::apply), of an event about the task of that number.
    pub(crate) fn apply_to(
        &mut self,
        ix: Ix,
        seq: u64,
        at: Timestamp,
        e: &Event,
    ) -> Result<(), String> {
        self.about = Some(ix);
        let r = self.apply(seq, at, e);
        self.about = None;
        r
    }

    fn ix(&self, id: &TaskId) -> Result<Ix, String> {
        self.about
            .or_else(|| self.nodes.ix(id))
            .ok_or_else(|| format!("a record names the task `{id}`, which does not exist"))
    }
}

fn expired(question: &str) -> Failure {
    let why = format!("nobody answered `{question}` in time, and it has no default");
    Failure::new("question.expired", FailureClass::Timeout, why)
        .hint("answer sooner, or give the question a default")
}
