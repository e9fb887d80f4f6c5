//! Changes of the graph while it runs.

use super::{Ix, NodeState, RunState, nodes::Flow};
use crate::{GraphError, GraphPatch, PatchFault, Rewire, check};
use smallhands_core::{PriorStep, TaskId, TaskSpec};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

impl RunState {
    pub(super) fn patch(&mut self, p: &GraphPatch, by: Option<Ix>) {
        self.revision += 1;
        for id in &p.remove {
            if let Some(ix) = self.nodes.ix(id) {
                self.take_out(ix);
            }
        }
        let rewired = p.rewire.iter().filter_map(|r| {
            let n = self.nodes.get(&r.task)?;
            Some(Arc::new(r.of(&n.spec)))
        });
        let others: Vec<_> = rewired.chain(p.replace.iter().cloned()).collect();
        let mut entering = Vec::new();
        for spec in others {
            let Some(ix) = self.nodes.ix(&spec.id) else {
                continue;
            };
            self.unlink(ix);
            self.respecify(ix, spec);
            self.link(ix);
            entering.push(ix);
        }
        self.nodes.reserve(p.add.len());
        let flow = Flow {
            added_by: by,
            ..Flow::default()
        };
        let new: Vec<_> = p.add.iter().map(|s| self.add(s, flow.clone())).collect();
        self.enter(&entering, &new);
        for id in &p.cancel {
            if let Some(ix) = self.nodes.ix(id) {
                self.withdraw(ix);
                self.settle(ix, NodeState::Cancelled);
            }
        }
    }

    /// Another spec for a task; what it has done so far does not count for the new one.
    fn respecify(&mut self, ix: Ix, spec: Arc<TaskSpec>) {
        // Out of its queue while its old priority and group are known.
        self.set(ix, NodeState::Waiting);
        let n = self.nodes.at_mut(ix);
        let same_work = n.spec.worker == spec.worker && n.spec.input == spec.input;
        if n.started.is_some() || !same_work {
            n.attempt += u32::from(n.started.is_some());
            n.flow.before = n.attempt - 1;
            n.steps.retain(kept);
            n.questions.clear();
            n.answers.clear();
        }
        // A loop goes on where it is: its iterations before this one have happened, and the steps
        // that are kept are those of this one.
        n.iteration = match spec.repeat {
            Some(_) => n.iteration.max(1),
            None => 0,
        };
        n.flow.judged = None;
        n.flow.delay = None;
        n.spec = spec;
    }

    fn withdraw(&mut self, ix: Ix) {
        let f = &mut self.nodes.at_mut(ix).flow;
        f.withdrawn = true;
        for c in f.children.clone() {
            self.withdraw(c);
        }
    }

    /// A task and all that follows from it are as if they had never been.
    pub(super) fn reset(&mut self, first: Ix) {
        self.failing = false;
        self.cancelling = false;
        let affected = self.that_follow(first);
        // In the order of adding: what was added by what was added comes after it.
        let mut gone = BTreeSet::new();
        for ix in self.nodes.numbers() {
            let by = self.nodes.find(ix).and_then(|n| n.flow.added_by);
            if by.is_some_and(|b| affected.contains(&b) || gone.contains(&b)) {
                gone.insert(ix);
            }
        }
        for ix in gone {
            self.take_out(ix);
        }
        for ix in &affected {
            if self.nodes.find(*ix).is_none() {
                continue;
            }
            self.drop_children(*ix);
            self.set(*ix, NodeState::Waiting);
            self.owed.remove(ix);
            let n = self.nodes.at_mut(*ix);
            n.attempt = 1;
            n.iteration = u32::from(n.spec.repeat.is_some());
            n.output = None;
            n.steps.clear();
            n.questions.clear();
            n.answers.clear();
            n.started = None;
            n.flow = Flow {
                dependents: std::mem::take(&mut n.flow.dependents),
                parent: n.flow.parent,
                added_by: n.flow.added_by,
                ..Flow::default()
            };
        }
        let left = affected.into_iter();
        let left: Vec<_> = left.filter(|ix| self.nodes.find(*ix).is_some()).collect();
        left.iter().for_each(|ix| self.unsettle_around(*ix));
        self.enter(&left, &[]);
    }

    /// It, what needs it, what stands around these and what needs that, and so on.
    fn that_follow(&self, first: Ix) -> BTreeSet<Ix> {
        let (mut all, mut stack) = (BTreeSet::new(), vec![first]);
        // What stands around the first is open again, and keeps the rest of what it stands for.
        let mut around = self.nodes.at(first).flow.parent;
        while let Some(p) = around {
            stack.extend(&self.nodes.at(p).flow.dependents);
            around = self.nodes.at(p).flow.parent;
        }
        while let Some(ix) = stack.pop() {
            if all.insert(ix) {
                stack.extend(&self.nodes.at(ix).flow.dependents);
            }
        }
        all
    }

    // ---- whether it may be

    /// Whether a patch fits the graph as it is.
    pub(crate) fn check_patch(&self, p: &GraphPatch) -> Result<(), PatchFault> {
        let is = self.revision;
        if let Some(expected) = p.expected_revision.filter(|r| *r != is) {
            return Err(PatchFault::Stale { expected, is });
        }
        self.check_targets(p)?;
        if p.replace.is_empty() && p.rewire.is_empty() && p.remove.is_empty() {
            let known = |id: &TaskId| self.nodes.get(id).map(|n| n.spec.clone());
            return check::check(&p.add, &known).map_err(invalid);
        }
        // An edge may now lead anywhere, so that the whole is looked at.
        let all = self.nodes.iter().map(|(id, n)| (id, n.spec.clone()));
        let mut specs: BTreeMap<&TaskId, Arc<TaskSpec>> = all.collect();
        for id in &p.remove {
            specs.remove(id);
        }
        for r in &p.rewire {
            let spec = self.nodes.get(&r.task).map(|n| r.of(&n.spec));
            specs.extend(spec.map(|s| (&r.task, Arc::new(s))));
        }
        specs.extend(p.replace.iter().map(|s| (&s.id, s.clone())));
        let changed: Vec<_> = specs.into_values().chain(p.add.iter().cloned()).collect();
        check::check_whole(&changed).map_err(invalid)
    }

    fn check_targets(&self, p: &GraphPatch) -> Result<(), PatchFault> {
        let mut seen = BTreeSet::new();
        let replaced = p.replace.iter().map(|s| ("replaces", &s.id));
        let rewired = p.rewire.iter().map(|r| ("rewires", &r.task));
        let cancelled = p.cancel.iter().map(|t| ("cancels", t));
        let removed = p.remove.iter().map(|t| ("removes", t));
        for (verb, id) in replaced.chain(rewired).chain(cancelled).chain(removed) {
            if !seen.insert(id) {
                return Err(PatchFault::Twice(id.clone()));
            }
            let task = id.clone();
            let Some(n) = self.nodes.get(id) else {
                return Err(PatchFault::Unknown { verb, task });
            };
            let open = match (verb, &n.state) {
                (_, s) if s.is_settled() => false,
                ("cancels", _) => true,
                (_, NodeState::Expanded) => false,
                ("replaces", _) => true,
                (_, s) => !matches!(s, NodeState::Running { .. } | NodeState::Suspended),
            };
            if !open {
                let state = n.state.as_str();
                return Err(PatchFault::Begun { verb, task, state });
            }
            if verb != "cancels" && n.flow.parent.is_some() {
                return Err(PatchFault::Inside { verb, task });
            }
        }
        Ok(())
    }
}

fn invalid(e: GraphError) -> PatchFault {
    PatchFault::Graph(Box::new(e))
}

/// Steps that nobody may repeat stay known, whatever takes the task's place.
fn kept(s: &PriorStep) -> bool {
    !s.intent().effect.may_repeat()
}

impl Rewire {
    fn of(&self, spec: &TaskSpec) -> TaskSpec {
        TaskSpec {
            needs: self.needs.clone(),
            bind: self.bind.clone(),
            ..spec.clone()
        }
    }
}
