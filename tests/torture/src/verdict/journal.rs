//! What the journal says, and what is wrong in it by itself.

use super::Verdict;
use crate::{
    Result,
    plan::{Plan, Shape, job},
    text,
    work::Work,
};
use serde_json::Value;
use smallhands_core::{Join, OnFailure, Outcome, RunId, TaskId, TaskSpec, Timestamp};
use smallhands_graph::{Event, GraphPatch, Node, NodeState, RunState, RunStatus, StateStore};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Task, iteration, attempt, step.
pub(super) type StepId = (String, u64, u32, usize);

/// A placement.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Placed {
    pub(super) task: String,
    pub(super) attempt: u32,
    pub(super) iteration: u64,
    /// Tasks that were settled when it was made.
    pub(super) needs: Vec<TaskId>,
    /// What it is to leave, if it leaves something.
    value: Value,
}

#[derive(Default)]
pub(super) struct Journal {
    pub(super) state: RunState,
    pub(super) placed: BTreeMap<u64, Placed>,
    pub(super) done: BTreeMap<String, u64>,
    pub(super) began: BTreeSet<StepId>,
    pub(super) ended: BTreeSet<StepId>,
    /// Of people, in order.
    pub(super) patches: Vec<GraphPatch>,
    pub(super) removed: BTreeSet<TaskId>,
    pub(super) withdrawn: BTreeSet<TaskId>,
    pub(super) replaced: BTreeSet<TaskId>,
    pub(super) answered: BTreeMap<(TaskId, String), Value>,
    pub(super) unfit: BTreeSet<TaskId>,
    /// Tasks that had failed and were tried again.
    pub(super) revived: BTreeSet<TaskId>,
    starts: BTreeMap<Arc<str>, Vec<Timestamp>>,
    limits: Option<Plan>,
}

impl Journal {
    pub(super) async fn read(
        store: &dyn StateStore,
        run: &RunId,
        shape: Shape,
        v: &mut Verdict,
    ) -> Result<Self> {
        let mut j = Self {
            limits: Some(Plan::of(shape)),
            ..Self::default()
        };
        for s in store.read(run, 0, usize::MAX >> 1).await.map_err(text)? {
            if s.seq != j.state.seq + 1 {
                let note = format!("record {} follows {}", s.seq, j.state.seq);
                v.found(|v| &mut v.lost, note);
            }
            let at = s.record.at;
            let event = Event::from_record(&s.record)?;
            j.event(s.seq, at, &event, v);
            j.state.apply(s.seq, at, &event)?;
            j.after(&event, v);
        }
        if j.state.seq > 0 {
            let read = RunState::load(store, run).await.map_err(text)?;
            if let Err(why) = read.check_same(&j.state) {
                let note = format!("its snapshot leads to another state: {why}");
                v.found(|v| &mut v.lost, note);
            }
        }
        Ok(j)
    }

    fn event(&mut self, seq: u64, at: Timestamp, e: &Event, v: &mut Verdict) {
        match e {
            Event::Dispatched { task, attempt } => self.placement(seq, at, task, *attempt, v),
            Event::StepBegan { task, intent, .. } => {
                let id = self.step(task, intent.key.as_str());
                if self.ended.contains(&id) {
                    let note = format!("{id:?} began again at {seq}");
                    v.found(|v| &mut v.steps_rerun, note);
                }
                self.began.insert(id);
            }
            Event::StepEnded { task, record, .. } => {
                let id = self.step(task, record.intent.key.as_str());
                self.ended.insert(id);
            }
            Event::Ended {
                task,
                fence,
                report,
                repeat,
                ..
            } if self.state.is_current(task, *fence) => {
                if let Outcome::Done(out) = &report.outcome {
                    let wanted = self.placed.get(fence).map(|p| &p.value);
                    if wanted != Some(&out.value) && !is_undo(task) {
                        let note = format!("`{task}` left {}, not {wanted:?}", out.value);
                        v.found(|v| &mut v.wrong, note);
                    }
                    if !repeat {
                        self.done.insert(task.to_string(), *fence);
                    }
                }
            }
            Event::Patched { patch, by: None } => self.patch(patch),
            Event::Revived { tasks } => self.revived.extend(tasks.iter().cloned()),
            Event::Judged { task, holds: false } => drop(self.unfit.insert(task.clone())),
            Event::Asked { task, id, .. } => {
                let before = (task.clone(), id.to_string());
                if self.answered.contains_key(&before) && !self.replaced.contains(task) {
                    let note = format!("`{task}` asked again at {seq} what was answered");
                    v.found(|v| &mut v.lost, note);
                }
            }
            Event::Answered { task, id, answer } => {
                let id = (task.clone(), id.to_string());
                self.answered.insert(id, answer.clone());
            }
            _ => {}
        }
    }

    fn patch(&mut self, p: &GraphPatch) {
        // The first one is the graph itself.
        if !self.state.nodes.is_empty() {
            self.patches.push(p.clone());
        }
        self.removed.extend(p.remove.iter().cloned());
        self.withdrawn.extend(p.cancel.iter().cloned());
        let other = p.replace.iter().map(|s| &s.id);
        self.replaced.extend(other.cloned());
    }

    /// Names are `s0`, `s1`, ..
    fn step(&self, task: &TaskId, key: &str) -> StepId {
        let n = self.state.nodes.get(task);
        let (attempt, iteration) = n.map_or((0, 1), |n| (n.attempt, iteration(n)));
        let index = key.trim_start_matches('s').parse().unwrap_or(usize::MAX);
        (task.to_string(), iteration, attempt, index)
    }

    fn placement(&mut self, seq: u64, at: Timestamp, task: &TaskId, attempt: u32, v: &mut Verdict) {
        let id = task.to_string();
        if self.done.contains_key(&id) {
            let note = format!("`{id}` was placed again at {seq}");
            v.found(|v| &mut v.finished_rerun, note);
        }
        let Some(n) = self.state.nodes.get(task) else {
            return;
        };
        let first = !self.placed.values().any(|p| p.task == id);
        if first && good(&self.state, &n.spec) < required(&n.spec) {
            let note = format!("`{id}` was placed at {seq} before its needs were settled");
            v.found(|v| &mut v.early, note);
        }
        let value = input_of(&self.state, n).and_then(|i| serde_json::from_value(i).ok());
        let value = value.map_or(Value::Null, |job: crate::work::Job| job.value());
        let (iteration, group) = (iteration(n), n.spec.group.clone());
        if let Some(g) = group {
            self.starts.entry(g).or_default().push(at);
        }
        let needs = match n.spec.join {
            Join::All => n.spec.needs.clone(),
            // Some may still be at work.
            _ => Vec::new(),
        };
        let placed = Placed {
            needs,
            task: id,
            attempt,
            iteration,
            value,
        };
        self.placed.insert(seq, placed);
    }

    /// What must hold once an event was applied.
    fn after(&mut self, e: &Event, v: &mut Verdict) {
        match e {
            Event::Dispatched { task, .. } => {
                let group = self
                    .state
                    .nodes
                    .get(task)
                    .and_then(|n| n.spec.group.clone());
                if let Some(g) = group
                    && self.is_over(&g)
                {
                    let note = format!("`{task}` was placed though `{g}` was full");
                    v.found(|v| &mut v.early, note);
                }
            }
            Event::Reset { .. } => self.forget(),
            Event::Stopped {
                status: RunStatus::Failed,
            } => {
                for (id, n) in self.state.nodes.iter() {
                    let owes = matches!(n.spec.on_failure, OnFailure::Compensate(_))
                        && matches!(n.state, NodeState::Failed(_));
                    let undo = self.state.nodes.get(&TaskId::from(format!("{id}~undo")));
                    if owes && undo.is_none_or(|u| u.state != NodeState::Done) {
                        let note = format!("`{id}` failed, and nothing compensated for it");
                        v.found(|v| &mut v.lost, note);
                    }
                }
            }
            _ => {}
        }
    }

    /// What is to be done again is as if it had never been.
    fn forget(&mut self) {
        let nodes = &self.state.nodes;
        let is_done = |id: &str| {
            let n = nodes.get(&TaskId::from(id));
            n.is_some_and(|n| n.state.is_settled())
        };
        self.done.retain(|id, _| is_done(id));
        self.began.retain(|(id, ..)| is_done(id));
        self.ended.retain(|(id, ..)| is_done(id));
        self.answered.retain(|(id, _), _| is_done(id.as_str()));
        self.unfit.retain(|id| is_done(id.as_str()));
    }

    fn is_over(&self, group: &Arc<str>) -> bool {
        let limits = self.limits.iter().flat_map(|p| &p.limits);
        let Some((_, limit)) = limits.into_iter().find(|(name, _)| ***name == **group) else {
            return false;
        };
        let runs = |n: &&Node| {
            n.spec.group.as_ref() == Some(group) && matches!(n.state, NodeState::Running { .. })
        };
        let running = self.state.nodes.values().filter(runs).count();
        let starts = self.starts.get(group).map_or(&[][..], Vec::as_slice);
        // The one that is one too many, if it lies in the window of the last.
        let over = limit.starts.is_some_and(|n| {
            let (mut back, last) = (starts.iter().rev(), starts.last());
            let first = back.nth(n as usize);
            let times = first.zip(last);
            times.is_some_and(|(a, b)| b.0.saturating_sub(a.0) < limit.per_ms)
        });
        over || limit.max_parallel.is_some_and(|n| running > n as usize)
    }
}

pub(super) fn is_undo(task: &TaskId) -> bool {
    task.as_str().ends_with(&format!("~{}", Work::UNDO))
}

/// Of a loop: which iteration; of any other task: the first.
fn iteration(n: &Node) -> u64 {
    u64::from(n.iteration).max(1)
}

/// How many of its needs gave what they promised.
pub(super) fn good(state: &RunState, spec: &TaskSpec) -> usize {
    let gave = |id: &&TaskId| match state.nodes.get(id) {
        Some(n) => match n.state {
            NodeState::Done => true,
            NodeState::Failed(_) => n.spec.on_failure == OnFailure::Continue,
            _ => false,
        },
        None => false,
    };
    spec.needs.iter().filter(gave).count()
}

/// How many have to.
pub(super) fn required(spec: &TaskSpec) -> usize {
    match spec.join {
        Join::Any => 1.min(spec.needs.len()),
        Join::AtLeast(n) => n as usize,
        _ => spec.needs.len(),
    }
}

/// The input of a task, worked out from what the format says and not by the engine.
fn input_of(state: &RunState, n: &Node) -> Option<Value> {
    let mut input = n.spec.input.clone();
    let around = state.parent(&n.spec.id);
    for b in &n.spec.bind {
        let from = state.nodes.get(&b.from)?;
        let whole = match around == Some(&b.from) {
            true => input_of(state, from)?,
            false => match from.value() {
                Some(v) => v.clone(),
                None => Value::Null,
            },
        };
        let v = match whole.is_null() {
            true => Value::Null,
            false => whole.pointer(&b.pointer)?.clone(),
        };
        input[&b.field] = v;
    }
    if n.iteration > 1 {
        input["last"] = n.output.as_ref().map(|o| o.value.clone())?;
    }
    Some(input)
}

/// Whether a task stands for others.
pub(super) fn is_holder(n: &Node) -> bool {
    n.spec.graph.is_some() || n.spec.map.is_some()
}

/// What a task does, in each of its iterations; if it was replaced, only the last one is sure.
pub(super) fn steps(n: &Node, replaced: bool) -> impl Iterator<Item = (u64, usize)> {
    let steps = match is_undo(&n.spec.id) {
        true => 1,
        false => job(&n.spec).steps.len(),
    };
    let last = iteration(n);
    let first = if replaced { last } else { 1 };
    (first..=last).flat_map(move |i| (0..steps).map(move |s| (i, s)))
}
