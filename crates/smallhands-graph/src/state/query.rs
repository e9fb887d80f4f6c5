//! What a driver and a reader ask of a state, and its money.

use super::{Ix, Node, NodeState, RunState, RunStatus, flow::local, ready::Start};
use crate::RunHead;
use serde_json::{Map, Value, json};
use smallhands_core::{
    AskId, Effect, Exceeded, Failure, FailureClass, Resources, TaskId, Timestamp, Usage,
};

impl RunState {
    // ---- money

    pub(super) fn charge_open(&mut self, ix: Ix, which: impl Fn(u64, &str) -> bool) {
        let open: Vec<_> = self
            .held
            .range((ix, 0, String::new())..)
            .take_while(|((t, ..), _)| *t == ix)
            .filter(|((_, f, id), _)| which(*f, id))
            .map(|(k, _)| k.clone())
            .collect();
        for k in open {
            if let Some(u) = self.held.remove(&k) {
                self.charge(ix, u);
            }
        }
    }

    pub(super) fn charge(&mut self, ix: Ix, u: Usage) {
        self.spent = self.spent.plus(u);
        let n = self.nodes.at_mut(ix);
        n.spent = n.spent.plus(u);
    }

    /// Whether the budgets of run and task allow so much more than what is spent and held.
    pub(crate) fn fits(&self, ix: Ix, most: Usage) -> Result<(), (String, Exceeded)> {
        let (mut all, mut own) = (self.spent.plus(most), most);
        for ((t, ..), u) in &self.held {
            all = all.plus(*u);
            if *t == ix {
                own = own.plus(*u);
            }
        }
        self.budget
            .allows(&all)
            .map_err(|e| ("run".to_owned(), e))?;
        let n = self.nodes.at(ix);
        n.spec
            .budget
            .allows(&own.plus(n.spent))
            .map_err(|e| (format!("task `{}`", n.spec.id), e))
    }

    // ---- questions that a driver and a reader ask

    /// Whether that placement is the one that counts.
    pub fn is_current(&self, task: &TaskId, fence: u64) -> bool {
        self.nodes
            .ix(task)
            .is_some_and(|ix| self.is_placed(ix, fence))
    }
    pub(crate) fn is_placed(&self, ix: Ix, fence: u64) -> bool {
        self.nodes
            .find(ix)
            .is_some_and(|n| n.state == NodeState::Running { fence })
    }
    /// Tasks that can start as soon as there is room.
    pub fn ready(&self) -> impl Iterator<Item = &TaskId> {
        self.ready.iter().map(|ix| &self.nodes.at(ix).spec.id)
    }
    /// What is to be placed next at that time.
    pub(crate) fn next_start(&self, now: Timestamp, fits: impl Fn(Ix, &Node) -> bool) -> Start {
        self.ready.next(&self.limits, now, self.failing, |ix| {
            let n = self.nodes.at(ix);
            fits(ix, n) && self.map_has_room(n)
        })
    }
    /// An instance whose group is not that of its map may still have to wait for its map.
    fn map_has_room(&self, n: &Node) -> bool {
        let Some(p) = n
            .flow
            .parent
            .filter(|_| n.spec.group.is_some() && !n.flow.undo)
        else {
            return true;
        };
        let p = self.nodes.at(p);
        let most = p.spec.map.as_ref().and_then(|m| m.max_parallel);
        most.is_none_or(|most| p.flow.placed_children < most)
    }
    pub(crate) fn undecided(&self) -> Option<Ix> {
        self.undecided.first().copied()
    }
    /// A failed task whose compensation is to be added.
    pub(crate) fn owed(&self) -> Option<Ix> {
        self.owed.first().copied()
    }
    /// Whether a compensation is still to start.
    pub(crate) fn undoing(&self) -> bool {
        self.ready.undoing() || !self.owed.is_empty()
    }
    /// Whether a task could start, now or after a wait.
    pub(crate) fn can_start(&self) -> bool {
        self.ready.iter().next().is_some() || self.undecided().is_some()
    }
    /// What the placed tasks take of the capacity.
    pub(crate) fn in_use(&self) -> Resources {
        self.used.sum()
    }
    /// Every placement that counts.
    pub(crate) fn placed(&self) -> Vec<(Ix, u64)> {
        let of = |ix| match self.nodes.find(ix)?.state {
            NodeState::Running { fence } => Some((ix, fence)),
            _ => None,
        };
        self.nodes.numbers().filter_map(of).collect()
    }
    /// Whether placements were set aside since [`take_displaced`](Self::take_displaced).
    pub(crate) fn has_displaced(&self) -> bool {
        self.displaced > 0
    }
    /// Whether placements were set aside since this was last asked.
    pub(crate) fn take_displaced(&mut self) -> bool {
        std::mem::take(&mut self.displaced) > 0
    }
    /// Whether a former placement of its present iteration may have done something.
    pub(crate) fn was_begun(&self, ix: Ix) -> bool {
        self.nodes.at(ix).flow.begun
    }
    /// Whether nobody may do again what it does outside its steps.
    pub(crate) fn is_once(&self, task: &TaskId) -> bool {
        self.once_only
            && (self.nodes.get(task)).is_some_and(|n| n.spec.effect == Effect::AtMostOnce)
    }
    /// Whether it compensates for a failed task.
    pub(crate) fn undoes(&self, ix: Ix) -> bool {
        self.nodes.find(ix).is_some_and(|n| n.flow.undo)
    }
    /// How many tasks are placed.
    pub fn running(&self) -> usize {
        self.running
    }
    /// Tasks in the order in which they were added.
    pub fn in_order(&self) -> Vec<(&TaskId, &Node)> {
        self.nodes.iter().collect()
    }
    /// The task that stands for another: a map for its instances, a sub-graph for its tasks.
    pub fn parent(&self, task: &TaskId) -> Option<&TaskId> {
        let p = self.nodes.get(task)?.flow.parent?;
        Some(&self.nodes.at(p).spec.id)
    }
    /// Questions with a deadline: whose, which, when.
    pub(crate) fn deadlines(&self) -> impl Iterator<Item = (Ix, &AskId, Timestamp)> {
        self.asleep.iter().flat_map(|ix| {
            let open = self.nodes.at(*ix).questions.iter();
            open.filter_map(|(id, q)| Some((*ix, id, q.deadline?)))
        })
    }
    /// The value of a task that is done.
    pub fn value(&self, task: &str) -> Option<&Value> {
        self.nodes.get(&TaskId::from(task))?.value()
    }

    /// How the run ends when nothing can go on.
    #[doc(hidden)]
    pub fn resting_status(&self) -> RunStatus {
        if self.cancelling {
            RunStatus::Cancelled
        } else if self.failing || self.has_failed() {
            RunStatus::Failed
        } else if self.settled < self.nodes.len() {
            RunStatus::Waiting
        } else {
            RunStatus::Succeeded
        }
    }

    /// Outputs of what a task needs, by the name that the task knows.
    pub(crate) fn outputs_for(&self, ix: Ix) -> Map<String, Value> {
        let n = self.nodes.at(ix);
        let holder = n.flow.parent.map(|p| &self.nodes.at(p).spec.id);
        let name = |id: &TaskId| holder.map_or(id.as_str(), |h| local(h, id)).to_owned();
        let of = |id: &TaskId| {
            let value = self.given(n, id);
            (name(id), value.cloned().unwrap_or_default())
        };
        n.spec.needs.iter().map(of).collect()
    }

    /// The task's input with its bindings laid over it.
    pub(crate) fn input_for(&self, ix: Ix) -> Result<Value, Failure> {
        let n = self.nodes.at(ix);
        let last = match (&n.spec.repeat, n.iteration > 1) {
            (Some(r), true) => r.feed.as_deref(),
            _ => None,
        };
        if n.spec.bind.is_empty() && last.is_none() {
            return Ok(n.spec.input.clone());
        }
        let mut input = n.spec.input.clone();
        for b in &n.spec.bind {
            let v = self.bound(n, &b.from, &b.pointer)?;
            lay(&mut input, &b.field, v)?;
        }
        if let Some(field) = last {
            let previous = n.output.as_ref().map(|o| o.value.clone());
            lay(&mut input, field, previous.unwrap_or_default())?;
        }
        Ok(input)
    }

    /// What an edge brings: from a task that gave nothing, `null`.
    pub(crate) fn bound(&self, n: &Node, from: &TaskId, pointer: &str) -> Result<Value, Failure> {
        let holder = n.flow.parent.filter(|p| self.nodes.at(*p).spec.id == *from);
        let missing = || bad(format!("the output of `{from}` has no `{pointer}`"));
        if let Some(p) = holder {
            let input = self.input_for(p)?;
            return input.pointer(pointer).cloned().ok_or_else(missing);
        }
        match self.given(n, from) {
            Some(v) => v.pointer(pointer).cloned().ok_or_else(missing),
            None => Ok(Value::Null),
        }
    }

    /// What a need gave in time.
    fn given(&self, n: &Node, need: &TaskId) -> Option<&Value> {
        let in_time = !n.flow.late.contains(need);
        self.nodes.get(need).filter(|_| in_time)?.value()
    }

    /// What a planner may see of the graph.
    pub(crate) fn view(&self) -> Value {
        let task = |n: &Node| {
            let mut v =
                json!({ "state": n.state.as_str(), "worker": n.spec.worker, "attempt": n.attempt });
            if let NodeState::Failed(f) = &n.state {
                v["failure"] = json!(f);
            }
            if let Some(o) = &n.output {
                v["value"] = o.value.clone();
            }
            v
        };
        let tasks: Map<_, _> = self
            .nodes
            .iter()
            .map(|(id, n)| (id.to_string(), task(n)))
            .collect();
        json!({ "revision": self.revision, "tasks": tasks })
    }

    pub(crate) fn head(&self) -> RunHead {
        RunHead {
            status: self.status.to_string(),
            goal: self.goal.clone(),
            created: self.created,
            updated: self.updated,
            settled: self.settled as u64,
            tasks: self.nodes.len() as u64,
            spent: self.spent,
            // Nobody has to wake what is over.
            wake_at: (self.deadlines().map(|(_, _, at)| at).min())
                .filter(|_| !self.status.is_final()),
            snapshot: self.snapshot.clone(),
        }
    }
}

fn bad(why: String) -> Failure {
    Failure::new("input.binding", FailureClass::Input, why)
}

/// Sets a field of an input, or with an empty name all of it.
pub(crate) fn lay(input: &mut Value, field: &str, v: Value) -> Result<(), Failure> {
    if field.is_empty() {
        *input = v;
        return Ok(());
    }
    if input.is_null() {
        *input = Value::Object(Map::new());
    }
    match input {
        Value::Object(fields) => drop(fields.insert(field.into(), v)),
        _ => return Err(bad("bindings need an input that is an object".into())),
    }
    Ok(())
}
