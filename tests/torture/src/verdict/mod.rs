//! What a run did, by the ledger and by the journal.

mod acts;
mod fork;
mod journal;

pub use acts::Acts;
pub use fork::Fork;

use crate::{
    Result,
    ledger::{self, Line},
    live,
    plan::{Plan, Shape, job},
};
use journal::{Journal, StepId, good, is_holder, is_undo, required, steps};
use smallhands_core::{Effect, OnFailure, TaskId};
use smallhands_graph::{Node, NodeState, RunStatus};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// Counts of what must not happen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Tasks that had finished and ran again.
    pub finished_rerun: usize,
    /// Steps that had ended and were done again in their attempt.
    pub steps_rerun: usize,
    /// Effects of steps that nobody may repeat, beyond the first.
    pub duplicated_once: usize,
    /// Finished work without its effect, and effects without their record.
    pub lost: usize,
    /// Tasks that began before what they need was settled.
    pub early: usize,
    /// Tasks that left something else than follows from their input, or in a fork something else.
    pub wrong: usize,
    /// One, if the run is not over as planned.
    pub stuck: usize,
    /// Tasks that were at work when the process died and ran again; that is as it should be.
    pub unfinished_rerun: usize,
    /// What was asked from outside.
    pub acts: Acts,
    /// Each fault in words.
    pub notes: Vec<String>,
}

impl Verdict {
    fn found(&mut self, which: fn(&mut Self) -> &mut usize, note: String) {
        *which(self) += 1;
        self.notes.push(note);
    }
    /// The sum of both.
    pub fn add(&mut self, o: &Self) {
        self.finished_rerun += o.finished_rerun;
        self.steps_rerun += o.steps_rerun;
        self.duplicated_once += o.duplicated_once;
        self.lost += o.lost;
        self.early += o.early;
        self.wrong += o.wrong;
        self.acts.add(&o.acts);
        self.stuck += o.stuck;
        self.unfinished_rerun += o.unfinished_rerun;
    }
    /// All that must be zero.
    pub fn faults(&self) -> usize {
        self.finished_rerun
            + self.steps_rerun
            + self.duplicated_once
            + self.lost
            + self.early
            + self.wrong
            + self.stuck
    }
}

/// Reads the journal of a run through the engine's own interface, and judges it.
///
/// # Errors
/// Journal or ledger cannot be read.
pub async fn judge(dir: &Path, shape: Shape) -> Result<Verdict> {
    let mut v = Verdict::default();
    let store = live::open(dir)?;
    let journal = Journal::read(&store, &live::RUN.into(), shape, &mut v).await?;
    let mut lines = ledger::read(dir)?;
    lines.retain(|l| l.run == live::RUN);
    again(&lines, &journal, &mut v);
    unrecorded(&lines, &journal, &mut v);
    missing(&Plan::of(shape), &lines, &journal, &mut v);
    acts::judge(&ledger::acts(dir)?, live::RUN, &journal, &mut v);
    Ok(v)
}

/// Judges a run that shares the past of the one that [`judge`] looks at, and came to its end.
///
/// # Errors
/// As [`judge`].
pub async fn judge_fork(dir: &Path, shape: Shape, f: &Fork) -> Result<Verdict> {
    let mut v = Verdict::default();
    let store = live::open(dir)?;
    let (run, parent) = (f.run.as_str().into(), live::RUN.into());
    let journal = Journal::read(&store, &run, shape, &mut v).await?;
    let before = Journal::read(&store, &parent, shape, &mut Verdict::default()).await?;
    let mut lines = ledger::read(dir)?;
    lines.retain(|l| l.run == f.run || l.run == live::RUN && l.fence <= f.at);
    let own: Vec<_> = lines.iter().filter(|l| l.run == f.run).cloned().collect();
    again(&own, &journal, &mut v);
    unrecorded(&own, &journal, &mut v);
    fork::unlike(f, &before, &journal, &mut v);
    missing(&Plan::of(shape), &lines, &journal, &mut v);
    Ok(v)
}

/// What ran again, by the order of the ledger alone: a task whose dependant began was finished, a
/// step that another one followed had ended, whatever the journal remembers of it.
fn again(lines: &[Line], j: &Journal, v: &mut Verdict) {
    let (mut finished, mut ended) = (BTreeSet::<&str>::new(), BTreeSet::<StepId>::new());
    let (mut once, mut placements) = (BTreeSet::new(), BTreeMap::<_, usize>::new());
    for l in lines {
        let late = j.done.get(&l.task).is_some_and(|fence| l.fence > *fence);
        if late || finished.contains(&*l.task) {
            let note = format!("`{}` ran though it had finished: {l:?}", l.task);
            v.found(|v| &mut v.finished_rerun, note);
        }
        let Some(step) = l.step else {
            let which = (&l.task, l.iteration, l.attempt);
            *placements.entry(which).or_default() += 1;
            if let Some(p) = j.placed.get(&l.fence) {
                let done = p.needs.iter().map(TaskId::as_str);
                // Others failed, and may be revived.
                finished.extend(done.filter(|id| j.done.contains_key(*id) && !failed_once(j, id)));
            }
            continue;
        };
        let id = |s| (l.task.clone(), l.iteration, l.attempt, s);
        if ended.contains(&id(step)) {
            let note = format!("it was done though it had ended: {l:?}");
            v.found(|v| &mut v.steps_rerun, note);
        }
        ended.extend((0..step).map(id));
        let nobody = matches!(l.effect, Effect::AtMostOnce | Effect::Verifiable);
        if nobody && !once.insert((&l.task, l.iteration, step)) {
            v.found(|v| &mut v.duplicated_once, format!("a second time: {l:?}"));
        }
    }
    v.unfinished_rerun += placements.values().map(|n| n - 1).sum::<usize>();
}

/// Such a task lets its dependants run before it is revived and finishes.
fn failed_once(j: &Journal, id: &str) -> bool {
    let node = j.state.nodes.get(&id.into());
    node.is_some_and(|n| job(&n.spec).fatal && n.spec.on_failure == OnFailure::Continue)
}

/// What happened without a record that was acknowledged before it.
fn unrecorded(lines: &[Line], j: &Journal, v: &mut Verdict) {
    for l in lines {
        let same = |p: &journal::Placed| {
            (&p.task, p.attempt, p.iteration) == (&l.task, l.attempt, l.iteration)
        };
        if !j.placed.get(&l.fence).is_some_and(same) {
            let note = format!("the journal has no such placement: {l:?}");
            v.found(|v| &mut v.lost, note);
        }
        let Some(step) = l.step else { continue };
        let of = |attempt, s| (l.task.clone(), l.iteration, attempt, s);
        if !j.began.contains(&of(l.attempt, step)) {
            let note = format!("the journal has no begin of {l:?}");
            v.found(|v| &mut v.lost, note);
        }
        for s in 0..step {
            // A retry does not repeat what nobody may repeat: that ended in an earlier attempt.
            if !(1..=l.attempt).any(|a| j.ended.contains(&of(a, s))) {
                let note = format!("the journal has no end of step {s} before {l:?}");
                v.found(|v| &mut v.lost, note);
            }
        }
    }
}

/// What the plan wants and the world lacks.
fn missing(plan: &Plan, lines: &[Line], j: &Journal, v: &mut Verdict) {
    if j.state.status != RunStatus::Succeeded {
        v.found(|v| &mut v.stuck, format!("the run is {}", j.state.status));
        return;
    }
    for t in plan.all() {
        let parent = t.id.as_str().rsplit_once('+').map(|(p, _)| p);
        let due = parent.is_none_or(|p| j.done.contains_key(p)) && !j.removed.contains(&t.id);
        if due && !j.state.nodes.contains_key(&t.id) {
            v.found(|v| &mut v.lost, format!("`{}` never came to be", t.id));
        }
    }
    let happened: BTreeSet<_> = lines
        .iter()
        .filter_map(|l| Some((l.task.as_str(), l.iteration, l.step?)))
        .collect();
    for (id, n) in j.state.nodes.iter() {
        match &n.state {
            NodeState::Done if is_holder(n) => instances(j, n, v),
            NodeState::Done => {
                for (i, s) in steps(n, j.replaced.contains(id)) {
                    if !happened.contains(&(id.as_str(), i, s)) {
                        let note = format!("`{id}` is done, its step {s} is not");
                        v.found(|v| &mut v.lost, note);
                    }
                }
            }
            _ if is_undo(id) || is_planned(j, n) => {}
            NodeState::Failed(f) => {
                v.found(|v| &mut v.stuck, format!("`{id}` failed: {} {f}", f.code));
            }
            other => v.found(|v| &mut v.stuck, format!("`{id}` is {}", other.as_str())),
        }
    }
}

/// A map that is done has an instance for each element.
fn instances(j: &Journal, n: &Node, v: &mut Verdict) {
    let Some(m) = &n.spec.map else { return };
    let around = j.state.parent(&n.spec.id);
    if around == Some(&m.from) {
        return;
    }
    let list = j.state.nodes.get(&m.from).and_then(Node::value);
    let list = list.and_then(|l| l.pointer(&m.pointer)?.as_array());
    let there = j.state.nodes.keys();
    let there = there.filter(|id| j.state.parent(id) == Some(&n.spec.id));
    if list.map(Vec::len) != Some(there.count()) {
        let note = format!("`{}` lacks instances, or has too many", n.spec.id);
        v.found(|v| &mut v.lost, note);
    }
}

/// Whether a task was to end without an output.
fn is_planned(j: &Journal, n: &Node) -> bool {
    let id = &n.spec.id;
    let around = j.state.parent(id);
    match &n.state {
        NodeState::Failed(f) => {
            let of_map = is_holder(n) && (f.code == "input.binding" || f.code == "map.list");
            let planned = matches!(&*f.code, "outcome.unknown" | "torture.fatal");
            (planned || of_map) && (n.spec.on_failure != OnFailure::FailRun || around.is_some())
        }
        NodeState::Skipped => j.unfit.contains(id) || good(&j.state, &n.spec) < required(&n.spec),
        NodeState::Cancelled => {
            let over = |p: &TaskId| {
                let p = j.state.nodes.get(p);
                p.is_some_and(|p| matches!(p.state, NodeState::Failed(_) | NodeState::Cancelled))
            };
            j.withdrawn.contains(id) || around.is_some_and(over)
        }
        _ => false,
    }
}
