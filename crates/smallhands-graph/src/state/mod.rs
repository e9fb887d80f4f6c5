//! The state of a run: a pure fold over its events.

mod query;
mod status;

pub use status::RunStatus;

use crate::{Durability, Event, GraphPatch};
use serde::Serialize;
use serde_json::Value;
use smallhands_core::{
    AskId, AttemptReport, BlobRef, Budget, Effect, Failure, FailureClass, Halt, OnFailure, Outcome,
    PriorStep, Question, StepRecord, TaskId, TaskOutput, TaskSpec, Timestamp, Usage,
};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
};

/// How a task stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NodeState {
    /// Something that it needs is not settled.
    Waiting,
    /// Its condition is to be looked at.
    Undecided,
    /// It can start.
    Ready,
    /// Placed under this fence.
    Running {
        /// Sequence number of its `Dispatched` record.
        fence: u64,
    },
    /// It waits for an answer.
    Suspended,
    /// It has an output.
    Done,
    /// It has none, and will not.
    Failed(Failure),
    /// Its condition did not hold, or what it needs gave nothing.
    Skipped,
    /// It was cancelled.
    Cancelled,
}

impl NodeState {
    /// As one word.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Undecided => "undecided",
            Self::Ready => "ready",
            Self::Running { .. } => "running",
            Self::Suspended => "suspended",
            Self::Done => "done",
            Self::Failed(_) => "failed",
            Self::Skipped => "skipped",
            Self::Cancelled => "cancelled",
        }
    }
    /// Whether it is over.
    pub fn is_settled(&self) -> bool {
        matches!(
            self,
            Self::Done | Self::Failed(_) | Self::Skipped | Self::Cancelled
        )
    }
}

/// One task of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Node {
    /// What it is.
    pub spec: Arc<TaskSpec>,
    /// How it stands.
    pub state: NodeState,
    /// The present or last attempt, from 1.
    pub attempt: u32,
    /// What it left behind.
    pub output: Option<TaskOutput>,
    /// Steps of the present attempt, and those of former ones that nobody may repeat.
    pub steps: Vec<PriorStep>,
    /// Its open questions.
    pub questions: BTreeMap<AskId, Question>,
    /// Answers so far.
    pub answers: BTreeMap<AskId, Value>,
    /// What it spent.
    pub spent: Usage,
    /// When it was first placed.
    pub started: Option<Timestamp>,
    /// When it was settled.
    pub ended: Option<Timestamp>,
    order: usize,
    open_needs: usize,
    judged: Option<bool>,
    losses: u32,
    divergences: u32,
    /// What needs it.
    #[serde(skip)]
    dependents: Vec<TaskId>,
    /// Cancelled by a patch, which no revival undoes.
    withdrawn: bool,
}

/// So many processes may die under one attempt before the attempt has failed.
const MAX_LOSSES: u32 = 3;
/// So often may a resumed worker contradict its records before the task has failed.
const MAX_DIVERGENCES: u32 = 2;

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
    /// When it was created.
    pub created: Timestamp,
    /// When the last record was written.
    pub updated: Timestamp,
    /// Its tasks.
    pub nodes: BTreeMap<TaskId, Node>,
    /// What was spent.
    pub spent: Usage,
    /// Whether a task has failed the run.
    pub failing: bool,
    /// Whether somebody cancelled it.
    pub cancelling: bool,
    #[serde(skip)]
    ready: BTreeSet<(Reverse<i32>, usize, TaskId)>,
    #[serde(skip)]
    undecided: BTreeSet<TaskId>,
    /// By task, fence and id: a new placement charges what the former one left open.
    #[serde(skip)]
    held: BTreeMap<(TaskId, u64, String), Usage>,
    running: usize,
    settled: usize,
}

/// What an ended attempt leads to.
#[derive(Debug, PartialEq)]
enum Next<'a> {
    Done(&'a TaskOutput),
    /// The same attempt is placed again and keeps its steps.
    Again,
    /// A new attempt, without steps but those that nobody may repeat.
    Retry,
    Suspend,
    Cancel,
    Fail(Failure),
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
            Event::Created {
                goal,
                config,
                budget,
                durability,
                executor,
                ..
            } => {
                self.created = at;
                self.goal.clone_from(goal);
                self.config = Some(config.clone());
                self.budget = *budget;
                self.durability = *durability;
                self.executor.clone_from(executor);
            }
            Event::Opened { .. } => self.status = RunStatus::Running,
            Event::Patched { patch, .. } => self.patch(patch),
            Event::Judged { task, holds } => self.judge(task, *holds)?,
            Event::Dispatched { task, attempt } => self.dispatched(task, *attempt, seq, at)?,
            Event::StepBegan {
                task,
                fence,
                intent,
            } => {
                if let Some(most) = intent.reserve {
                    let id = (task.clone(), *fence, intent.key.to_string());
                    self.held.insert(id, most);
                }
                let steps = &mut self.node(task)?.steps;
                if !steps.iter().any(|s| s.intent().key == intent.key) {
                    steps.push(PriorStep::InDoubt(intent.clone()));
                }
            }
            Event::StepEnded {
                task,
                fence,
                record,
            } => self.step_ended(task, *fence, record)?,
            Event::Reserved {
                task,
                fence,
                id,
                most,
            } => {
                self.held.insert((task.clone(), *fence, id.clone()), *most);
            }
            Event::Settled {
                task,
                fence,
                id,
                actual,
            } => {
                let id = (task.clone(), *fence, id.clone());
                if self.held.remove(&id).is_some() {
                    self.charge(task, *actual);
                }
            }
            Event::Asked { task, id, question } => {
                let n = self.node(task)?;
                n.questions.insert(id.clone(), question.clone());
            }
            Event::Answered { task, id, answer, .. } => {
                let n = self.node(task)?;
                n.questions.remove(id);
                n.answers.insert(id.clone(), answer.clone());
                if n.state == NodeState::Suspended {
                    self.make_ready(task);
                }
            }
            Event::Ended {
                task,
                fence,
                report,
                ..
            } => self.ended(task, *fence, report)?,
            Event::Revived { tasks } => self.revive(tasks)?,
            Event::Expanded { .. } | Event::Reset { .. } => {}
            Event::CancelRequested => self.cancelling = true,
            Event::Stopped { status } => self.status = *status,
        }
        Ok(())
    }

    fn node(&mut self, id: &TaskId) -> Result<&mut Node, String> {
        self.nodes
            .get_mut(id)
            .ok_or_else(|| format!("a record names the task `{id}`, which does not exist"))
    }

    // ---- the graph

    fn patch(&mut self, p: &GraphPatch) {
        self.revision += 1;
        for spec in &p.add {
            let order = self.nodes.len();
            let node = Node {
                spec: spec.clone(),
                state: NodeState::Waiting,
                attempt: 1,
                output: None,
                steps: Vec::new(),
                questions: BTreeMap::new(),
                answers: BTreeMap::new(),
                spent: Usage::default(),
                started: None,
                ended: None,
                order,
                open_needs: 0,
                judged: None,
                losses: 0,
                divergences: 0,
                dependents: Vec::new(),
                withdrawn: false,
            };
            self.nodes.insert(spec.id.clone(), node);
        }
        for spec in &p.add {
            for need in &spec.needs {
                if let Some(n) = self.nodes.get_mut(need) {
                    n.dependents.push(spec.id.clone());
                }
            }
            self.enter(&spec.id);
        }
        for id in &p.cancel {
            if let Some(n) = self.nodes.get_mut(id) {
                n.withdrawn = true;
            }
            self.settle(id, NodeState::Cancelled);
        }
    }

    /// Counts what a waiting task still needs, and moves it on if that is nothing.
    fn enter(&mut self, id: &TaskId) {
        let Some(n) = self.nodes.get(id) else { return };
        let (mut open, mut barren) = (0, false);
        for need in &n.spec.needs {
            match self.nodes.get(need).map(satisfies) {
                Some(None) => open += 1,
                Some(Some(true)) => {}
                Some(Some(false)) | None => barren = true,
            }
        }
        if let Some(n) = self.nodes.get_mut(id) {
            n.open_needs = open;
        }
        if barren {
            self.settle(id, NodeState::Skipped);
        } else if open == 0 {
            self.needs_met(id);
        }
    }

    fn needs_met(&mut self, id: &TaskId) {
        let Some(n) = self.nodes.get_mut(id) else {
            return;
        };
        if n.spec.when.is_some() && n.judged.is_none() {
            n.state = NodeState::Undecided;
            self.undecided.insert(id.clone());
        } else {
            self.make_ready(id);
        }
    }

    fn make_ready(&mut self, id: &TaskId) {
        if let Some(n) = self.nodes.get_mut(id) {
            n.state = NodeState::Ready;
            let key = (Reverse(n.spec.priority), n.order, id.clone());
            self.ready.insert(key);
        }
    }

    fn unready(&mut self, id: &TaskId) {
        let Some(n) = self.nodes.get(id) else { return };
        match n.state {
            NodeState::Ready => {
                let key = (Reverse(n.spec.priority), n.order, id.clone());
                self.ready.remove(&key);
            }
            NodeState::Undecided => drop(self.undecided.remove(id)),
            _ => {}
        }
    }

    /// Ends a task and moves on what needs it; an explicit stack, because a graph may be deep.
    fn settle(&mut self, id: &TaskId, state: NodeState) {
        let mut stack = vec![(id.clone(), state)];
        while let Some((id, state)) = stack.pop() {
            self.unready(&id);
            let open = |n: &&mut Node| !n.state.is_settled();
            let Some(n) = self.nodes.get_mut(&id).filter(open) else {
                continue;
            };
            n.state = state;
            n.ended = Some(self.updated);
            self.settled += 1;
            let satisfied = satisfies(n) == Some(true);
            // Lent for the walk: copying them would cost more than the rest of it.
            let dependents = mem::take(&mut n.dependents);
            for d in &dependents {
                let waits = |n: &&mut Node| n.state == NodeState::Waiting;
                let Some(dn) = self.nodes.get_mut(d).filter(waits) else {
                    continue;
                };
                if !satisfied {
                    stack.push((d.clone(), NodeState::Skipped));
                    continue;
                }
                dn.open_needs = dn.open_needs.saturating_sub(1);
                if dn.open_needs == 0 {
                    self.needs_met(d);
                }
            }
            if let Some(n) = self.nodes.get_mut(&id) {
                n.dependents = dependents;
            }
        }
    }

    fn judge(&mut self, task: &TaskId, holds: bool) -> Result<(), String> {
        self.node(task)?.judged = Some(holds);
        self.undecided.remove(task);
        if holds {
            self.make_ready(task);
        } else {
            self.settle(task, NodeState::Skipped);
        }
        Ok(())
    }

    /// Failed tasks get a new attempt; what was skipped or cancelled because of them waits again.
    fn revive(&mut self, tasks: &[TaskId]) -> Result<(), String> {
        for id in tasks {
            let n = self.node(id)?;
            n.attempt += 1;
            n.losses = 0;
            n.divergences = 0;
            // Whoever revives the task has looked at what was in doubt.
            n.steps.retain(|s| outlives_attempt(s, false));
        }
        let mut again = Vec::new();
        for (id, n) in &mut self.nodes {
            let skipped = n.state == NodeState::Skipped && n.judged != Some(false);
            let cancelled = n.state == NodeState::Cancelled && !n.withdrawn;
            // What has not started may need what is tried again, and has to wait for it anew.
            let idle = match n.state {
                NodeState::Waiting => true,
                NodeState::Undecided | NodeState::Ready => n.started.is_none(),
                _ => false,
            };
            if tasks.contains(id) || skipped || cancelled || idle {
                n.state = NodeState::Waiting;
                n.ended = None;
                again.push(id.clone());
            }
        }
        self.settled = self.nodes.values().filter(|n| n.state.is_settled()).count();
        self.failing = false;
        self.cancelling = false;
        again.iter().for_each(|id| self.unready(id));
        for id in again {
            if self.nodes[&id].state == NodeState::Waiting {
                self.enter(&id);
            }
        }
        Ok(())
    }

    // ---- attempts

    fn dispatched(
        &mut self,
        task: &TaskId,
        attempt: u32,
        seq: u64,
        at: Timestamp,
    ) -> Result<(), String> {
        self.unready(task);
        self.charge_open(task, |_, _| true);
        let n = self.node(task)?;
        let was_running = matches!(n.state, NodeState::Running { .. });
        n.attempt = attempt;
        n.state = NodeState::Running { fence: seq };
        n.started.get_or_insert(at);
        self.running += usize::from(!was_running);
        Ok(())
    }

    fn step_ended(&mut self, task: &TaskId, fence: u64, r: &StepRecord) -> Result<(), String> {
        let steps = &mut self.node(task)?.steps;
        let done = PriorStep::Done(r.clone());
        match steps.iter_mut().find(|s| s.intent().key == r.intent.key) {
            Some(s) => *s = done,
            None => steps.push(done),
        }
        let key = r.intent.key.as_str();
        if let Some(most) = self.held.remove(&(task.clone(), fence, key.to_owned())) {
            self.charge(task, r.usage.unwrap_or(most));
        }
        // What the step reserved beyond that and never settled is charged in full.
        let (a, b) = (format!("{key}/"), format!("{key}~/"));
        self.charge_open(task, |f, id| {
            f == fence && (id.starts_with(&a) || id.starts_with(&b))
        });
        Ok(())
    }

    fn ended(&mut self, task: &TaskId, fence: u64, report: &AttemptReport) -> Result<(), String> {
        if !self.is_current(task, fence) {
            return Ok(()); // a late result: recorded, ignored
        }
        self.charge_open(task, |f, _| f == fence);
        self.running -= 1;
        let next = self.next(task, report);
        let n = self.node(task)?;
        match next {
            Next::Done(o) => {
                n.output = Some(o.clone());
                self.settle(task, NodeState::Done);
            }
            Next::Again => {
                n.losses += u32::from(counts_as_loss(report));
                self.make_ready(task);
            }
            Next::Retry => {
                n.divergences += u32::from(is_divergence(report));
                n.attempt += 1;
                n.losses = 0;
                n.steps.retain(|s| outlives_attempt(s, true));
                self.make_ready(task);
            }
            // The answer may have come while the task was on its way to sleep.
            Next::Suspend if n.questions.is_empty() => self.make_ready(task),
            Next::Suspend => n.state = NodeState::Suspended,
            Next::Cancel => self.settle(task, NodeState::Cancelled),
            Next::Fail(f) => {
                self.failing |= n.spec.on_failure == OnFailure::FailRun;
                self.settle(task, NodeState::Failed(f));
            }
        }
        Ok(())
    }

    fn next<'r>(&self, task: &TaskId, report: &'r AttemptReport) -> Next<'r> {
        let halt = match &report.outcome {
            Outcome::Done(o) => return Next::Done(o),
            Outcome::Halted(h) => h,
            other => return Next::Fail(unknown(&format!("{other:?}"))),
        };
        let n = &self.nodes[task];
        let repeatable = n.steps.iter().all(|s| s.intent().effect.may_repeat());
        match halt {
            Halt::Suspended(_) => Next::Suspend,
            Halt::Cancelled => Next::Cancel,
            Halt::Unknown(step) => Next::Fail(unknown(&format!(
                "step `{step}` was begun and it cannot be told whether it happened"
            ))),
            Halt::Failed(f) if f.class == FailureClass::WorkerLost => {
                let nothing_ran = report.ran == smallhands_core::Ran::No;
                match n.spec.effect {
                    Effect::AtMostOnce if !nothing_ran => {
                        Next::Fail(unknown("its process was lost while it ran"))
                    }
                    _ if n.losses < MAX_LOSSES || nothing_ran => Next::Again,
                    _ => Next::Fail(f.clone()),
                }
            }
            Halt::Failed(f)
                if f.class == FailureClass::Diverged
                    && repeatable
                    && n.divergences < MAX_DIVERGENCES =>
            {
                Next::Retry
            }
            Halt::Failed(f) if f.retryable && n.attempt < n.spec.retry.max_attempts => Next::Retry,
            Halt::Failed(f) => Next::Fail(f.clone()),
            other => Next::Fail(unknown(&format!("{other:?}"))),
        }
    }

    /// The attempt that would follow this report, if it is one that the retry policy delays.
    pub(crate) fn retry_attempt(&self, task: &TaskId, report: &AttemptReport) -> Option<u32> {
        let delayed = self.next(task, report) == Next::Retry && !is_divergence(report);
        delayed.then(|| self.nodes[task].attempt + 1)
    }
}

/// What a need means for those who have it: `None` while it is open, then whether they may run.
fn satisfies(n: &Node) -> Option<bool> {
    match &n.state {
        NodeState::Done => Some(true),
        NodeState::Failed(_) => Some(n.spec.on_failure == OnFailure::Continue),
        NodeState::Skipped | NodeState::Cancelled => Some(false),
        _ => None,
    }
}

fn unknown(why: &str) -> Failure {
    Failure::new("outcome.unknown", FailureClass::WorkerLost, why)
        .hint("look whether it happened, then resume with --retry-failed or cancel the run")
}

/// Whether a new attempt keeps a step of the former one: it does if nobody may repeat the step, and
/// the step did not say that it failed.
fn outlives_attempt(s: &PriorStep, in_doubt: bool) -> bool {
    let stands = match s {
        PriorStep::InDoubt(_) => in_doubt,
        PriorStep::Done(r) => r.result.is_ok(),
    };
    stands && !s.intent().effect.may_repeat()
}

/// The engine's own restart is nobody's fault.
fn counts_as_loss(r: &AttemptReport) -> bool {
    !matches!(&r.outcome, Outcome::Halted(Halt::Failed(f)) if f.code == "engine.restarted")
}

fn is_divergence(r: &AttemptReport) -> bool {
    matches!(&r.outcome, Outcome::Halted(Halt::Failed(f)) if f.class == FailureClass::Diverged)
}
