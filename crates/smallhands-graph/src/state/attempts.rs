//! Attempts, their steps, and what their ends lead to.

use super::{Ix, Node, NodeState, RunState};
use serde_json::Value;
use smallhands_core::{
    AskId, AttemptReport, Effect, Failure, FailureClass, Halt, OnFailure, Outcome, PriorStep,
    StepRecord, TaskId, TaskOutput, Timestamp,
};

/// So many processes may die under one attempt before the attempt has failed.
const MAX_LOSSES: u32 = 3;
/// So often may a resumed worker contradict its records before the task has failed.
const MAX_DIVERGENCES: u32 = 2;

/// What an ended attempt leads to.
#[derive(Debug, PartialEq)]
enum Next<'a> {
    Done(&'a TaskOutput),
    /// The same attempt is placed again and keeps its steps.
    Again,
    /// A new attempt, without steps but those that nobody may repeat.
    Retry,
    Suspend(&'a AskId),
    Cancel,
    Fail(Failure),
}

impl RunState {
    pub(super) fn dispatched(&mut self, ix: Ix, attempt: u32, seq: u64, at: Timestamp) {
        self.charge_open(ix, |_, _| true);
        let n = self.nodes.at_mut(ix);
        n.attempt = attempt;
        n.flow.begun = true;
        n.flow.delay = None;
        n.started.get_or_insert(at);
        self.set(ix, NodeState::Running { fence: seq });
    }

    pub(super) fn step_ended(&mut self, ix: Ix, fence: u64, r: &StepRecord) {
        let steps = &mut self.nodes.at_mut(ix).steps;
        let done = PriorStep::Done(r.clone());
        match steps
            .iter_mut()
            .rev()
            .find(|s| s.intent().key == r.intent.key)
        {
            Some(s) => *s = done,
            None => steps.push(done),
        }
        let key = r.intent.key.as_str();
        if let Some(most) = self.held.remove(&(ix, fence, key.to_owned())) {
            self.charge(ix, r.usage.unwrap_or(most));
        }
        if self.held.is_empty() {
            return;
        }
        // What the step reserved beyond that and never settled is charged in full.
        let (a, b) = (format!("{key}/"), format!("{key}~/"));
        self.charge_open(ix, |f, id| {
            f == fence && (id.starts_with(&a) || id.starts_with(&b))
        });
    }

    pub(super) fn answered(&mut self, ix: Ix, id: &AskId, answer: Value) {
        let n = self.nodes.at_mut(ix);
        n.questions.remove(id);
        n.answers.insert(id.clone(), answer);
        if n.state == NodeState::Suspended {
            self.set(ix, NodeState::Ready);
        }
    }

    pub(super) fn ended(
        &mut self,
        ix: Ix,
        fence: u64,
        report: &AttemptReport,
        wait: Option<u64>,
        repeat: bool,
    ) {
        if !self.is_placed(ix, fence) {
            return; // a late result: recorded, ignored
        }
        self.charge_open(ix, |f, _| f == fence);
        let displaced = self.displaced;
        self.leads_to(ix, report, wait, repeat);
        // This one ended by itself.
        self.displaced = self.displaced.saturating_sub(1).max(displaced);
    }

    fn leads_to(&mut self, ix: Ix, report: &AttemptReport, wait: Option<u64>, repeat: bool) {
        match self.next(ix, report, self.updated) {
            Next::Done(o) => {
                let output = Some(Box::new(o.clone()));
                let n = self.nodes.at_mut(ix);
                n.output = output;
                match repeat {
                    true => self.iterate(ix),
                    false => self.settle(ix, NodeState::Done),
                }
            }
            Next::Again => {
                self.nodes.at_mut(ix).flow.losses += u32::from(counts_as_loss(report));
                self.set(ix, NodeState::Ready);
            }
            Next::Retry => {
                let until = wait.map(|ms| (Timestamp(self.updated.0.saturating_add(ms)), ms));
                let n = self.nodes.at_mut(ix);
                n.flow.divergences += u32::from(is_divergence(report));
                n.attempt += 1;
                n.flow.losses = 0;
                n.steps.retain(|s| outlives_attempt(s, true));
                n.flow.delay = until.filter(|(_, ms)| *ms > 0);
                n.flow.woken = false;
                self.set(ix, NodeState::Ready);
            }
            // The answer may have come while the task was on its way to sleep.
            Next::Suspend(id) if self.nodes.at(ix).answers.contains_key(id) => {
                self.set(ix, NodeState::Ready);
            }
            Next::Suspend(_) => self.set(ix, NodeState::Suspended),
            Next::Cancel => self.settle(ix, NodeState::Cancelled),
            Next::Fail(f) => self.fail(ix, f),
        }
    }

    fn iterate(&mut self, ix: Ix) {
        let n = self.nodes.at_mut(ix);
        n.iteration += 1;
        n.attempt = 1;
        n.flow.begun = false;
        n.flow.before = 0;
        n.flow.losses = 0;
        n.flow.divergences = 0;
        n.steps.clear();
        n.questions.clear();
        n.answers.clear();
        self.set(ix, NodeState::Ready);
    }

    fn next<'r>(&self, ix: Ix, report: &'r AttemptReport, at: Timestamp) -> Next<'r> {
        let halt = match &report.outcome {
            Outcome::Done(o) => return Next::Done(o),
            Outcome::Halted(h) => h,
            other => return Next::Fail(unknown(&format!("{other:?}"))),
        };
        let n = self.nodes.at(ix);
        let repeatable = n.steps.iter().all(|s| s.intent().effect.may_repeat());
        match halt {
            Halt::Suspended(id) if n.answers.contains_key(id) || n.questions.contains_key(id) => {
                Next::Suspend(id)
            }
            // It would be placed again for ever.
            Halt::Suspended(id) => {
                let why = format!("it waits for an answer to `{id}`, which it never asked");
                Next::Fail(Failure::new(
                    "question.unknown",
                    FailureClass::Protocol,
                    why,
                ))
            }
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
                    _ if n.flow.losses < MAX_LOSSES || nothing_ran => Next::Again,
                    _ => Next::Fail(f.clone()),
                }
            }
            Halt::Failed(f)
                if f.class == FailureClass::Diverged
                    && repeatable
                    && n.flow.divergences < MAX_DIVERGENCES =>
            {
                Next::Retry
            }
            Halt::Failed(f)
                if n.spec.retry.covers(f)
                    && n.attempt - n.flow.before < n.spec.retry.max_attempts
                    && self.time_left(ix, at) != Some(0) =>
            {
                Next::Retry
            }
            Halt::Failed(f) => Next::Fail(f.clone()),
            other => Next::Fail(unknown(&format!("{other:?}"))),
        }
    }

    /// Milliseconds until all its attempts together have had their time; `None`: no limit.
    pub(crate) fn time_left(&self, ix: Ix, at: Timestamp) -> Option<u64> {
        let n = self.nodes.at(ix);
        let limit = n.spec.total_timeout_ms?;
        let spent = n.started.map_or(0, |s| at.0.saturating_sub(s.0));
        Some(limit.saturating_sub(spent))
    }

    /// The attempt that would follow this report, if it is one that the retry policy delays.
    pub(crate) fn retry_attempt(&self, ix: Ix, r: &AttemptReport, at: Timestamp) -> Option<u32> {
        let delayed = self.next(ix, r, at) == Next::Retry && !is_divergence(r);
        delayed.then(|| self.nodes.at(ix).attempt + 1)
    }

    /// Failed tasks get a new attempt; what was skipped or cancelled because of them waits again.
    pub(super) fn revive(&mut self, tasks: &[TaskId]) -> Result<(), String> {
        let named = tasks.iter().map(|id| self.ix(id));
        let mut named = named.collect::<Result<Vec<_>, _>>()?;
        named.retain(|ix| !self.inside_done(*ix));
        // What compensated goes with the failure; should the task fail again, it comes again.
        for ix in &named {
            self.drop_undo(*ix);
        }
        // A task that failed with those that it stands for is open again through these.
        let own = |ix: &Ix| {
            let n = self.nodes.find(*ix);
            n.is_some_and(|n| n.flow.children.is_empty())
        };
        let named: Vec<_> = named.into_iter().filter(own).collect();
        for ix in &named {
            let n = self.nodes.at_mut(*ix);
            n.attempt += 1;
            n.flow.losses = 0;
            n.flow.divergences = 0;
            n.started = None;
            // Whoever revives the task has looked at what was in doubt.
            n.steps.retain(|s| outlives_attempt(s, false));
        }
        self.cancelling = false;
        let mut again = Vec::new();
        for ix in self.nodes.numbers() {
            let Some(n) = self.nodes.find(ix) else {
                continue;
            };
            let skipped = n.state == NodeState::Skipped && n.flow.judged != Some(false);
            // One that stands for others is open again through these.
            let cancelled =
                n.state == NodeState::Cancelled && !n.flow.withdrawn && n.flow.children.is_empty();
            // What has not started may need what is tried again, and has to wait for it anew.
            let idle = match n.state {
                NodeState::Waiting => true,
                NodeState::Undecided | NodeState::Ready => n.started.is_none(),
                _ => false,
            };
            let tried = named.contains(&ix);
            if !(skipped || cancelled || idle || tried) || self.inside_done(ix) {
                continue;
            }
            if cancelled {
                // It may have to wait anew, as what never started.
                self.nodes.at_mut(ix).started = None;
            }
            again.push(ix);
        }
        for ix in &again {
            self.set(*ix, NodeState::Waiting);
            self.unsettle_around(*ix);
        }
        again.retain(|ix| self.nodes.find(*ix).is_some());
        self.enter(&again, &[]);
        self.fail_again();
        Ok(())
    }

    /// Whether a task has failed that fails the run: a rerun elsewhere does not mend it.
    pub(super) fn has_failed(&self) -> bool {
        let fails = |n: &Node| {
            let tolerated = matches!(
                n.spec.on_failure,
                OnFailure::SkipDependents | OnFailure::Continue
            );
            matches!(n.state, NodeState::Failed(_))
                && n.flow.parent.is_none()
                && !(tolerated || n.flow.undo)
        };
        self.nodes.values().any(fails)
    }

    /// The run fails still if a task that is not tried again has failed it.
    fn fail_again(&mut self) {
        self.failing = self.has_failed();
        let nodes = &self.nodes;
        let failed = |ix: &Ix| matches!(nodes.at(*ix).state, NodeState::Failed(_));
        self.owed.retain(failed);
    }

    /// Whether it stands inside a task that is done: what failed there was put up with, and a
    /// finished task is not opened again.
    fn inside_done(&self, ix: Ix) -> bool {
        let mut around = self.nodes.at(ix).flow.parent;
        while let Some(p) = around {
            let n = self.nodes.at(p);
            if n.state == NodeState::Done {
                return true;
            }
            around = n.flow.parent;
        }
        false
    }

    fn drop_undo(&mut self, ix: Ix) {
        let Some(n) = self.nodes.find(ix) else { return };
        let children = n.flow.children.iter().copied();
        let (undo, others) = children.partition(|c| self.undoes(*c));
        self.nodes.at_mut(ix).flow.children = others;
        let undo: Vec<_> = undo;
        undo.into_iter().for_each(|c| self.take_out(c));
    }

    /// A task that stands around one that is tried again is open again.
    pub(super) fn unsettle_around(&mut self, ix: Ix) {
        let Some(p) = self.nodes.at(ix).flow.parent else {
            return;
        };
        let open = |c: &&Ix| !self.nodes.at(**c).state.is_settled();
        let count = self.nodes.at(p).flow.children.iter().filter(open).count();
        self.nodes.at_mut(p).flow.open_children = u32::try_from(count).unwrap_or(u32::MAX);
        if self.nodes.at(p).state.is_settled() && !self.nodes.at(ix).flow.undo {
            self.set(p, NodeState::Expanded);
            self.unsettle_around(p);
        }
    }

    /// Takes out what a task stands for, or what compensates for it.
    pub(super) fn drop_children(&mut self, ix: Ix) {
        let children = std::mem::take(&mut self.nodes.at_mut(ix).flow.children);
        children.into_iter().for_each(|c| self.take_out(c));
    }
}

fn unknown(why: &str) -> Failure {
    Failure::new("outcome.unknown", FailureClass::WorkerLost, why).hint(
        "look whether it happened, then say so with `smallhands settle`, resume with \
         --retry-failed or cancel the run",
    )
}

/// Whether a new attempt keeps a step of the former one: it does if nobody may repeat the step, and
/// the step did not say that it failed.
fn outlives_attempt(s: &PriorStep, in_doubt: bool) -> bool {
    let stands = match s {
        // Who revives it has looked; of the other the worker looks for itself.
        PriorStep::InDoubt(i) => in_doubt || i.effect == Effect::Verifiable,
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
