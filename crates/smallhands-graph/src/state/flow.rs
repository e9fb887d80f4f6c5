//! How a task moves on, and what follows for those that need it or stand around it.

use super::{Ix, Node, NodeState, RunState, nodes::Flow};
use serde_json::{Map, Value};
use smallhands_core::{Effect, Failure, OnFailure, TaskId, TaskOutput, TaskSpec, Timestamp};
use std::{mem, sync::Arc};

impl RunState {
    /// Moves a task to a state, and keeps every count and queue true. All changes go through here.
    pub(super) fn set(&mut self, ix: Ix, new: NodeState) {
        let at = self.updated;
        let n = self.nodes.at_mut(ix);
        // Most have neither group nor resources, and their spec need not be touched.
        let spec = (!n.flow.plain).then(|| n.spec.clone());
        let group = spec.as_ref().and_then(|s| s.group.as_ref());
        let (priority, undo) = (n.flow.priority, n.flow.undo);
        let settled = (n.state.is_settled(), new.is_settled());
        let starts = matches!(new, NodeState::Running { .. });
        let queued = new == NodeState::Ready && !n.flow.waits();
        let undecided = new == NodeState::Undecided;
        let asleep = new == NodeState::Suspended;
        match settled {
            (false, true) => n.ended = Some(at),
            (true, false) => n.ended = None,
            _ => {}
        }
        let old = mem::replace(&mut n.state, new);
        match old {
            NodeState::Running { .. } => {
                self.running -= 1;
                if let Some(f) = self.around(ix) {
                    f.placed_children -= 1;
                }
                self.displaced += 1;
                if let Some(s) = &spec {
                    self.used.less(s.resources);
                }
                if let Some(g) = group {
                    self.ready.stopped(g);
                }
            }
            NodeState::Ready => self.ready.remove(ix, priority, group, undo),
            NodeState::Undecided => drop(self.undecided.remove(&ix)),
            NodeState::Suspended => drop(self.asleep.remove(&ix)),
            _ => {}
        }
        match settled {
            (false, true) => self.settled += 1,
            (true, false) => self.settled -= 1,
            _ => {}
        }
        if starts {
            self.running += 1;
            if let Some(f) = self.around(ix) {
                f.placed_children += 1;
            }
            if let Some(s) = &spec {
                self.used.more(s.resources);
            }
            if let Some(g) = group {
                self.ready.started(g, at, self.limits.get(g.as_ref()));
            }
        } else if queued {
            self.ready.insert(ix, priority, group, undo);
        } else if undecided {
            self.undecided.insert(ix);
        } else if asleep {
            self.asleep.insert(ix);
        }
    }

    fn around(&mut self, ix: Ix) -> Option<&mut Flow> {
        let p = self.nodes.at(ix).flow.parent?;
        // It may be on its way out of the graph, and these with it.
        self.nodes.find(p)?;
        Some(&mut self.nodes.at_mut(p).flow)
    }

    // ---- into the graph

    pub(super) fn add(&mut self, spec: &Arc<TaskSpec>, flow: Flow) -> Ix {
        let mut n = Node::new(spec.clone());
        n.flow = flow;
        let ix = self.nodes.add(n);
        // Who needed a task of this id that was taken back needs this one.
        if let Some(who) = self.orphans.remove(&spec.id) {
            self.nodes.at_mut(ix).flow.dependents = who;
        }
        ix
    }

    pub(super) fn link(&mut self, ix: Ix) {
        let spec = self.nodes.at(ix).spec.clone();
        for need in &spec.needs {
            self.depend(ix, need, self.nodes.ix(need));
        }
    }

    fn depend(&mut self, ix: Ix, need: &TaskId, found: Option<Ix>) {
        match found {
            Some(n) => self.nodes.at_mut(n).flow.dependents.push(ix),
            None => self.orphans.entry(need.clone()).or_default().push(ix),
        }
    }

    pub(super) fn unlink(&mut self, ix: Ix) {
        let spec = self.nodes.at(ix).spec.clone();
        for need in &spec.needs {
            if let Some(n) = self.nodes.ix(need) {
                self.nodes.at_mut(n).flow.dependents.retain(|d| *d != ix);
            } else if let Some(o) = self.orphans.get_mut(need) {
                o.retain(|d| *d != ix);
            }
        }
    }

    /// Counts what tasks still need, as if they had just been added, and moves them on. All are
    /// counted before one moves: what one leads to goes by the counts of the others.
    /// Those that are new are linked to their needs, which are looked up for both at once.
    pub(super) fn enter(&mut self, linked: &[Ix], new: &[Ix]) {
        let all = || linked.iter().chain(new).copied();
        for ix in all() {
            self.set(ix, NodeState::Waiting);
        }
        for ix in all().take(linked.len()) {
            self.count(ix, false);
        }
        for ix in new {
            self.count(*ix, true);
        }
        for ix in all() {
            if self.nodes.at(ix).state == NodeState::Waiting
                && let Some(state) = self.decide(ix)
            {
                self.settle(ix, state);
            }
        }
    }

    fn count(&mut self, ix: Ix, link: bool) {
        let spec = self.nodes.at(ix).spec.clone();
        let (mut open, mut good) = (0, 0);
        for need in &spec.needs {
            let found = self.nodes.ix(need);
            match found.map(|n| gives(self.nodes.at(n))) {
                Some(None) | None => open += 1,
                Some(Some(given)) => good += u32::from(given),
            }
            if link {
                self.depend(ix, need, found);
            }
        }
        self.once_only |= spec.effect == Effect::AtMostOnce;
        let flow = &mut self.nodes.at_mut(ix).flow;
        flow.follow(&spec);
        (flow.open, flow.good) = (open, good);
    }

    /// Moves a waiting task on if its needs allow it; what it is settled as if they never will.
    fn decide(&mut self, ix: Ix) -> Option<NodeState> {
        let n = self.nodes.at(ix);
        let f = &n.flow;
        let required = f.required;
        if f.good + f.open < required {
            return Some(NodeState::Skipped);
        }
        if f.good >= required {
            let judged = !f.conditional || f.judged.is_some();
            if f.open > 0 || !f.late.is_empty() {
                let late = self.open_needs(ix);
                self.nodes.at_mut(ix).flow.late = late;
            }
            self.set(
                ix,
                if judged {
                    NodeState::Ready
                } else {
                    NodeState::Undecided
                },
            );
        }
        None
    }

    fn open_needs(&self, ix: Ix) -> Vec<TaskId> {
        let needs = self.nodes.at(ix).spec.needs.iter();
        let open = |id: &&TaskId| self.nodes.get(id).and_then(gives).is_none();
        needs.filter(open).cloned().collect()
    }

    pub(super) fn judge(&mut self, ix: Ix, holds: bool) {
        self.nodes.at_mut(ix).flow.judged = Some(holds);
        match holds {
            true => self.set(ix, NodeState::Ready),
            false => self.settle(ix, NodeState::Skipped),
        }
    }

    pub(super) fn expanded(&mut self, ix: Ix, children: &[Arc<TaskSpec>]) {
        let undo = self.nodes.at(ix).state.is_settled();
        self.owed.remove(&ix);
        let new: Vec<_> = children
            .iter()
            .map(|spec| {
                let flow = Flow {
                    parent: Some(ix),
                    undo,
                    ..Flow::default()
                };
                self.add(spec, flow)
            })
            .collect();
        let n = self.nodes.at_mut(ix);
        n.flow.children.extend(&new);
        n.flow.open_children = u32::try_from(new.len()).unwrap_or(u32::MAX);
        if !undo {
            n.started.get_or_insert(self.updated);
            self.set(ix, NodeState::Expanded);
        }
        self.limit_instances(ix);
        self.enter(&[], &new);
        if new.is_empty() && !undo {
            let done = self.gathered(ix);
            self.settle(ix, done);
        }
    }

    fn limit_instances(&mut self, ix: Ix) {
        let spec = &self.nodes.at(ix).spec;
        if let Some(n) = spec.map.as_ref().and_then(|m| m.max_parallel) {
            let limit = smallhands_core::GroupLimit::parallel(n);
            self.limits.insert(instances(&spec.id), limit);
        }
    }

    // ---- out of it

    pub(super) fn fail(&mut self, ix: Ix, f: Failure) {
        self.settle(ix, NodeState::Failed(Box::new(f)));
    }

    /// Ends a task and moves on what needs it; an explicit stack, because a graph may be deep.
    pub(super) fn settle(&mut self, ix: Ix, state: NodeState) {
        let mut stack = vec![(ix, state)];
        while let Some((ix, state)) = stack.pop() {
            if self.nodes.at(ix).state.is_settled() {
                continue;
            }
            let was_expanded = self.nodes.at(ix).state == NodeState::Expanded;
            self.set(ix, state);
            let n = self.nodes.at_mut(ix);
            n.questions.clear();
            n.flow.delay = None;
            let given = gives(n) == Some(true);
            // Of one that was set aside while it ran: nobody will say what it spent.
            if !self.held.is_empty() {
                self.charge_open(ix, |_, _| true);
            }
            let n = self.nodes.at_mut(ix);
            if was_expanded {
                let still = n.flow.children.iter().map(|c| (*c, NodeState::Cancelled));
                stack.extend(still);
            }
            // Lent for the walk: copying them would cost more than the rest of it.
            let dependents = mem::take(&mut self.nodes.at_mut(ix).flow.dependents);
            for d in &dependents {
                let f = &mut self.nodes.at_mut(*d).flow;
                f.open = f.open.saturating_sub(1);
                f.good += u32::from(given);
                if self.nodes.at(*d).state == NodeState::Waiting
                    && let Some(state) = self.decide(*d)
                {
                    stack.push((*d, state));
                }
            }
            self.nodes.at_mut(ix).flow.dependents = dependents;
            stack.extend(self.child_settled(ix));
            stack.extend(self.failed(ix));
        }
    }

    /// The task that stands around another, if that was the last of those that it stands for.
    fn child_settled(&mut self, ix: Ix) -> Option<(Ix, NodeState)> {
        let p = self.nodes.at(ix).flow.parent?;
        let f = &mut self.nodes.at_mut(p).flow;
        f.open_children = f.open_children.saturating_sub(1);
        let last = f.open_children == 0 && self.nodes.at(p).state == NodeState::Expanded;
        if !last {
            return None;
        }
        Some((p, self.gathered(p)))
    }

    /// A task that has failed fails what stands around it, or the run, if it is to.
    fn failed(&mut self, ix: Ix) -> Option<(Ix, NodeState)> {
        let n = self.nodes.at(ix);
        let NodeState::Failed(f) = &n.state else {
            return None;
        };
        match n.spec.on_failure {
            // One that compensates changes nothing: the run fails already.
            _ if n.flow.undo => return None,
            OnFailure::FailRun => {}
            OnFailure::Compensate(_) => drop(self.owed.insert(ix)),
            _ => return None,
        }
        let around = n.flow.parent;
        match around.filter(|p| self.nodes.at(*p).state == NodeState::Expanded) {
            Some(p) => Some((p, NodeState::Failed(f.clone()))),
            None => {
                self.failing = true;
                None
            }
        }
    }

    /// What the tasks that one stands for have come to.
    fn gathered(&mut self, ix: Ix) -> NodeState {
        let n = self.nodes.at(ix);
        let children = || n.flow.children.iter().map(|c| self.nodes.at(*c));
        // The end of the run cut it short: it is not done, and whoever revives the run finishes it.
        if children().any(|c| c.state == NodeState::Cancelled && !c.flow.withdrawn) {
            return NodeState::Cancelled;
        }
        let failure = children().find_map(|c| match &c.state {
            NodeState::Failed(f) if c.spec.on_failure != OnFailure::Continue => Some(f.clone()),
            _ => None,
        });
        let of = |c: &Node| c.value().cloned().unwrap_or(Value::Null);
        let value = match (&n.spec.graph, n.spec.on_failure == OnFailure::Continue) {
            (_, false) if failure.is_some() => None,
            (Some(g), _) => Some(match &g.output {
                Some(out) => self.child(&n.spec.id, out).map_or(Value::Null, of),
                None => {
                    let named = |c: &Node| (local(&n.spec.id, &c.spec.id).to_owned(), of(c));
                    Value::Object(children().map(named).collect::<Map<_, _>>())
                }
            }),
            (None, _) => Some(children().map(of).collect()),
        };
        match (value, failure) {
            (Some(value), _) => {
                self.nodes.at_mut(ix).output = Some(Box::new(TaskOutput::from(value)));
                NodeState::Done
            }
            (None, Some(f)) => NodeState::Failed(f),
            (None, None) => NodeState::Skipped,
        }
    }

    fn child(&self, holder: &TaskId, name: &TaskId) -> Option<&Node> {
        self.nodes.get(&inside(holder, name))
    }

    /// Takes a task out of the graph, with all that it stands for.
    pub(super) fn take_out(&mut self, ix: Ix) {
        if self.nodes.find(ix).is_none() {
            return;
        }
        self.unlink(ix);
        self.set(ix, NodeState::Cancelled);
        self.settled -= 1;
        self.owed.remove(&ix);
        if let Some(n) = self.nodes.remove(ix) {
            if !n.flow.dependents.is_empty() {
                self.orphans.insert(n.spec.id.clone(), n.flow.dependents);
            }
            n.flow.children.into_iter().for_each(|c| self.take_out(c));
        }
    }

    /// The wait before an attempt is over.
    pub(crate) fn wake(&mut self, ix: Ix) {
        let Some(n) = self.nodes.find(ix) else { return };
        if n.state == NodeState::Ready && n.flow.waits() {
            self.nodes.at_mut(ix).flow.woken = true;
            // Into its queue.
            self.set(ix, NodeState::Ready);
        }
    }

    /// Tasks whose next attempt has to wait: until when, and how long at most.
    pub(crate) fn delayed(&self) -> impl Iterator<Item = (Ix, Timestamp, u64)> {
        let of = |ix: Ix| {
            let n = self.nodes.find(ix)?;
            let waits = n.state == NodeState::Ready && n.flow.waits();
            let (at, ms) = n.flow.delay.filter(|_| waits)?;
            Some((ix, at, ms))
        };
        self.nodes.numbers().filter_map(of)
    }
}

/// What a need gives to those that have it: `None` while it is open.
pub(super) fn gives(n: &Node) -> Option<bool> {
    match &n.state {
        NodeState::Done => Some(true),
        NodeState::Failed(_) => Some(n.spec.on_failure == OnFailure::Continue),
        NodeState::Skipped | NodeState::Cancelled => Some(false),
        _ => None,
    }
}

/// The id of a task inside another.
pub(crate) fn inside(holder: &TaskId, name: &TaskId) -> TaskId {
    format!("{holder}/{name}").into()
}

/// The name by which the tasks inside another know each other.
pub(crate) fn local<'a>(holder: &TaskId, id: &'a TaskId) -> &'a str {
    let rest = id.as_str().strip_prefix(holder.as_str());
    rest.and_then(|r| r.strip_prefix('/'))
        .unwrap_or(id.as_str())
}

/// The group of the instances of a map.
pub(crate) fn instances(map: &TaskId) -> String {
    format!("{map}[*]")
}
