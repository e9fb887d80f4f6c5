//! What a run did, by the ledger and by the journal.

use crate::{
    Result,
    ledger::{self, Line},
    live,
    plan::{Plan, Shape, job},
    text,
};
use smallhands_core::{Effect, OnFailure, Outcome};
use smallhands_graph::{Event, NodeState, RunState, RunStatus, StateStore};
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
    /// One, if the run is not over as planned.
    pub stuck: usize,
    /// Tasks that were at work when the process died and ran again; that is as it should be.
    pub unfinished_rerun: usize,
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
            + self.stuck
    }
}

type StepId = (String, u32, usize);

/// What the journal says.
#[derive(Default)]
struct Journal {
    state: RunState,
    placed: BTreeMap<u64, (String, u32)>,
    done: BTreeMap<String, u64>,
    began: BTreeSet<StepId>,
    ended: BTreeSet<StepId>,
}

/// Reads the journal of a run through the engine's own interface, and judges it.
///
/// # Errors
/// Journal or ledger cannot be read.
pub async fn judge(dir: &Path, shape: Shape) -> Result<Verdict> {
    let mut v = Verdict::default();
    let journal = fold(dir, &mut v).await?;
    let lines = ledger::read(dir)?;
    again(&lines, &journal, &mut v);
    unrecorded(&lines, &journal, &mut v);
    missing(&Plan::of(shape), &lines, &journal, &mut v);
    Ok(v)
}

/// How many tasks have finished durably so far.
///
/// # Errors
/// The journal cannot be read.
pub async fn finished(dir: &Path) -> Result<usize> {
    Ok(fold(dir, &mut Verdict::default()).await?.done.len())
}

async fn fold(dir: &Path, v: &mut Verdict) -> Result<Journal> {
    let (store, run) = (live::open(dir)?, live::RUN.into());
    let mut j = Journal::default();
    for s in store.read(&run, 0, usize::MAX >> 1).await.map_err(text)? {
        if s.seq != j.state.seq + 1 {
            v.found(
                |v| &mut v.lost,
                format!("record {} follows {}", s.seq, j.state.seq),
            );
        }
        let at = s.record.at;
        let event = Event::from_record(&s.record)?;
        j.event(s.seq, &event, v);
        j.state.apply(s.seq, at, &event)?;
    }
    Ok(j)
}

/// Names are `s0`, `s1`, ..
fn index(key: &str) -> usize {
    key.trim_start_matches('s').parse().unwrap_or(usize::MAX)
}

impl Journal {
    fn event(&mut self, seq: u64, e: &Event, v: &mut Verdict) {
        let attempt =
            |t: &smallhands_core::TaskId| self.state.nodes.get(t).map_or(0, |n| n.attempt);
        match e {
            Event::Dispatched { task, attempt } => {
                let id = task.to_string();
                if self.done.contains_key(&id) {
                    v.found(
                        |v| &mut v.finished_rerun,
                        format!("`{id}` was placed again at {seq}"),
                    );
                }
                let first = !self.placed.values().any(|(t, _)| *t == id);
                if first && let Some(need) = self.open_need(task) {
                    v.found(
                        |v| &mut v.early,
                        format!("`{id}` was placed at {seq} before `{need}` was settled"),
                    );
                }
                self.placed.insert(seq, (id, *attempt));
            }
            Event::StepBegan { task, intent, .. } => {
                let id = (task.to_string(), attempt(task), index(intent.key.as_str()));
                if self.ended.contains(&id) {
                    v.found(
                        |v| &mut v.steps_rerun,
                        format!("{id:?} began again at {seq}"),
                    );
                }
                self.began.insert(id);
            }
            Event::StepEnded { task, record, .. } => {
                let key = index(record.intent.key.as_str());
                self.ended.insert((task.to_string(), attempt(task), key));
            }
            Event::Ended {
                task,
                fence,
                report,
                ..
            } if self.state.is_current(task, *fence)
                && matches!(report.outcome, Outcome::Done(_)) =>
            {
                self.done.insert(task.to_string(), *fence);
            }
            _ => {}
        }
    }

    fn open_need(&self, task: &smallhands_core::TaskId) -> Option<String> {
        let needs = &self.state.nodes.get(task)?.spec.needs;
        let open = |id: &&smallhands_core::TaskId| {
            self.state
                .nodes
                .get(id)
                .is_none_or(|n| !n.state.is_settled())
        };
        needs.iter().find(open).map(ToString::to_string)
    }
}

/// What ran again, by the order of the ledger alone: a task whose dependant began was finished, a
/// step that another one followed had ended, whatever the journal remembers of it.
fn again(lines: &[Line], j: &Journal, v: &mut Verdict) {
    let (mut finished, mut ended) = (BTreeSet::<&str>::new(), BTreeSet::<StepId>::new());
    let (mut once, mut placements) = (BTreeSet::new(), BTreeMap::<(&str, u32), usize>::new());
    for l in lines {
        let late = j.done.get(&l.task).is_some_and(|fence| l.fence > *fence);
        if late || finished.contains(&*l.task) {
            v.found(
                |v| &mut v.finished_rerun,
                format!("`{}` ran though it had finished: {l:?}", l.task),
            );
        }
        let Some(step) = l.step else {
            *placements.entry((&l.task, l.attempt)).or_default() += 1;
            if let Some(n) = j.state.nodes.get(&l.task.as_str().into()) {
                let done = n.spec.needs.iter().map(|id| id.as_str());
                // Others failed, and may be revived.
                finished.extend(done.filter(|id| j.done.contains_key(*id) && !failed_once(j, id)));
            }
            continue;
        };
        let id = (l.task.clone(), l.attempt, step);
        if ended.contains(&id) {
            v.found(
                |v| &mut v.steps_rerun,
                format!("it was done though it had ended: {l:?}"),
            );
        }
        ended.extend((0..step).map(|s| (l.task.clone(), l.attempt, s)));
        let nobody = matches!(l.effect, Effect::AtMostOnce | Effect::Verifiable);
        if nobody && !once.insert((&l.task, step)) {
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
        let placed = j.placed.get(&l.fence);
        if placed != Some(&(l.task.clone(), l.attempt)) {
            v.found(
                |v| &mut v.lost,
                format!("the journal has no such placement: {l:?}"),
            );
        }
        let Some(step) = l.step else { continue };
        if !j.began.contains(&(l.task.clone(), l.attempt, step)) {
            v.found(
                |v| &mut v.lost,
                format!("the journal has no begin of {l:?}"),
            );
        }
        for s in 0..step {
            // A retry does not repeat what nobody may repeat: that ended in an earlier attempt.
            let end = |a| j.ended.contains(&(l.task.clone(), a, s));
            if !(1..=l.attempt).any(end) {
                v.found(
                    |v| &mut v.lost,
                    format!("the journal has no end of step {s} before {l:?}"),
                );
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
    let happened: BTreeSet<_> = lines.iter().map(|l| (l.task.as_str(), l.step)).collect();
    for t in plan.all() {
        let (id, job) = (t.id.as_str(), job(&t));
        let parent = id.rsplit_once('+').map(|(p, _)| p);
        let Some(n) = j.state.nodes.get(&t.id) else {
            if parent.is_none_or(|p| j.done.contains_key(p)) {
                v.found(|v| &mut v.lost, format!("`{id}` never came to be"));
            }
            continue;
        };
        match &n.state {
            NodeState::Done => {
                for s in 0..job.steps.len() {
                    if !happened.contains(&(id, Some(s))) {
                        v.found(
                            |v| &mut v.lost,
                            format!("`{id}` is done, its step {s} is not"),
                        );
                    }
                }
            }
            NodeState::Failed(f) => {
                let planned = f.code == "outcome.unknown" || f.code == "torture.fatal";
                if !planned || n.spec.on_failure == OnFailure::FailRun {
                    v.found(|v| &mut v.stuck, format!("`{id}` failed: {f}"));
                }
            }
            NodeState::Skipped => {}
            other => v.found(|v| &mut v.stuck, format!("`{id}` is {}", other.as_str())),
        }
    }
}
