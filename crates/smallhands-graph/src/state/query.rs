//! What a driver and a reader ask of a state, and its money.

use super::{Node, NodeState, RunState, RunStatus};
use crate::{GraphPatch, RunHead, graph};
use serde_json::{Map, Value, json};
use smallhands_core::{Exceeded, Failure, FailureClass, TaskId, Usage};

impl RunState {
    // ---- money

    pub(super) fn charge_open(&mut self, task: &TaskId, which: impl Fn(u64, &str) -> bool) {
        let mine = (task.clone(), 0, String::new())..;
        let open: Vec<_> = self
            .held
            .range(mine)
            .take_while(|((t, ..), _)| t == task)
            .filter(|((_, f, id), _)| which(*f, id))
            .map(|(k, _)| k.clone())
            .collect();
        for k in open {
            if let Some(u) = self.held.remove(&k) {
                self.charge(task, u);
            }
        }
    }

    pub(super) fn charge(&mut self, task: &TaskId, u: Usage) {
        self.spent = self.spent.plus(u);
        if let Some(n) = self.nodes.get_mut(task) {
            n.spent = n.spent.plus(u);
        }
    }

    /// Whether the budgets of run and task allow so much more than what is spent and held.
    pub(crate) fn fits(&self, task: &TaskId, most: Usage) -> Result<(), (String, Exceeded)> {
        let (mut all, mut own) = (self.spent.plus(most), most);
        for ((t, ..), u) in &self.held {
            all = all.plus(*u);
            if t == task {
                own = own.plus(*u);
            }
        }
        self.budget
            .allows(&all)
            .map_err(|e| ("run".to_owned(), e))?;
        let Some(n) = self.nodes.get(task) else {
            return Ok(());
        };
        n.spec
            .budget
            .allows(&own.plus(n.spent))
            .map_err(|e| (format!("task `{task}`"), e))
    }

    // ---- questions that a driver and a reader ask

    /// Whether that placement is the one that counts.
    pub fn is_current(&self, task: &TaskId, fence: u64) -> bool {
        self.nodes
            .get(task)
            .is_some_and(|n| n.state == NodeState::Running { fence })
    }
    /// Tasks that can start, in the order in which they are to.
    pub fn ready(&self) -> impl Iterator<Item = &TaskId> {
        self.ready.iter().map(|(_, _, id)| id)
    }
    pub(crate) fn undecided(&self) -> Option<&TaskId> {
        self.undecided.first()
    }
    /// How many tasks are placed.
    pub fn running(&self) -> usize {
        self.running
    }
    /// Tasks in the order in which they were added.
    pub fn in_order(&self) -> Vec<(&TaskId, &Node)> {
        let mut all: Vec<_> = self.nodes.iter().collect();
        all.sort_by_key(|(_, n)| n.order);
        all
    }
    /// The value of a task that is done.
    pub fn value(&self, task: &str) -> Option<&Value> {
        let node = self.nodes.get(&TaskId::from(task))?;
        node.output.as_ref().map(|o| &o.value)
    }

    /// How the run ends when nothing can go on.
    pub(crate) fn resting_status(&self) -> RunStatus {
        if self.cancelling {
            RunStatus::Cancelled
        } else if self.failing {
            RunStatus::Failed
        } else if self.settled < self.nodes.len() {
            RunStatus::Waiting
        } else {
            RunStatus::Succeeded
        }
    }

    /// Outputs of what a task needs, by id.
    pub(crate) fn outputs_for(&self, task: &TaskId) -> Map<String, Value> {
        let Some(n) = self.nodes.get(task) else {
            return Map::new();
        };
        let value = |id: &TaskId| {
            let out = self.nodes.get(id).and_then(|n| n.output.as_ref());
            out.map_or(Value::Null, |o| o.value.clone())
        };
        n.spec
            .needs
            .iter()
            .map(|id| (id.to_string(), value(id)))
            .collect()
    }

    /// The task's input with its bindings laid over it.
    pub(crate) fn input_for(&self, task: &TaskId) -> Result<Value, Failure> {
        let Some(n) = self.nodes.get(task) else {
            return Ok(Value::Null);
        };
        if n.spec.bind.is_empty() {
            return Ok(n.spec.input.clone());
        }
        let bad = |why: String| Failure::new("input.binding", FailureClass::Input, why);
        let mut fields = match &n.spec.input {
            Value::Object(m) => m.clone(),
            Value::Null => Map::new(),
            _ => return Err(bad("bindings need an input that is an object".into())),
        };
        for b in &n.spec.bind {
            let from = self.nodes.get(&b.from);
            let v = match from.and_then(|f| f.output.as_ref()) {
                Some(o) => o.value.pointer(&b.pointer).cloned().ok_or_else(|| {
                    bad(format!("the output of `{}` has no `{}`", b.from, b.pointer))
                })?,
                None => Value::Null,
            };
            fields.insert(b.field.clone(), v);
        }
        Ok(Value::Object(fields))
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
            wake_at: None,
        }
    }

    /// Whether a patch fits the graph as it is.
    pub(crate) fn check_patch(&self, p: &GraphPatch) -> Result<(), String> {
        if let Some(r) = p.expected_revision
            && r != self.revision
        {
            return Err(format!(
                "it expects revision {r}, the graph is at {}",
                self.revision
            ));
        }
        graph::check(&p.add, &self.nodes.keys().collect()).map_err(|e| e.to_string())?;
        for id in &p.cancel {
            match self.nodes.get(id).map(|n| &n.state) {
                None => return Err(format!("it cancels `{id}`, which does not exist")),
                Some(s) if s.is_settled() || matches!(s, NodeState::Running { .. }) => {
                    return Err(format!("it cancels `{id}`, which is {}", s.as_str()));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }
}
