use crate::{GraphError, check, load};
use serde::{Deserialize, Serialize};
use smallhands_core::{Binding, TaskId, TaskSpec, WorkerName};
use std::{collections::HashSet, sync::Arc};

/// A validated directed acyclic graph of tasks.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct TaskGraph {
    tasks: Vec<Arc<TaskSpec>>,
}

/// Collects tasks for a [`TaskGraph`].
#[derive(Clone, Debug, Default)]
pub struct TaskGraphBuilder {
    tasks: Vec<Arc<TaskSpec>>,
}

impl TaskGraphBuilder {
    /// Adds a task; the order of adding breaks ties of priority.
    #[must_use]
    pub fn task(mut self, t: impl Into<Arc<TaskSpec>>) -> Self {
        self.tasks.push(t.into());
        self
    }
    /// Checks the whole.
    ///
    /// # Errors
    /// No task; an id twice; a need that does not exist; a cycle, with its path; a binding from a
    /// task that is not needed; a setting that this build cannot honour.
    pub fn build(self) -> Result<TaskGraph, GraphError> {
        TaskGraph::from_tasks(self.tasks)
    }
}

impl TaskGraph {
    /// Starts building.
    #[expect(
        clippy::new_ret_no_self,
        reason = "a graph exists only once it is checked"
    )]
    pub fn new() -> TaskGraphBuilder {
        TaskGraphBuilder::default()
    }

    /// Checks a list of tasks.
    ///
    /// # Errors
    /// As [`TaskGraphBuilder::build`].
    pub fn from_tasks(
        tasks: impl IntoIterator<Item = impl Into<Arc<TaskSpec>>>,
    ) -> Result<Self, GraphError> {
        let mut tasks: Vec<Arc<TaskSpec>> = tasks.into_iter().map(Into::into).collect();
        if tasks.is_empty() {
            return Err(GraphError::Empty);
        }
        // Collected in place of the specs, whose room is many times that of pointers to them.
        tasks.shrink_to_fit();
        share_names(&mut tasks);
        check::check(&tasks, &|_| None)?;
        Ok(Self { tasks })
    }

    /// Reads `{"tasks": [..]}` or a bare list.
    ///
    /// # Errors
    /// Text that is not such a list, or a field that the format does not have, with its place;
    /// else as [`TaskGraphBuilder::build`], as [`GraphError::At`] with the place.
    pub fn from_json(text: &str) -> Result<Self, GraphError> {
        load::json(text).map(|tasks| Self { tasks })
    }

    /// Reads `tasks:` or a bare list from YAML.
    ///
    /// # Errors
    /// As [`from_json`](Self::from_json).
    #[cfg(feature = "yaml")]
    pub fn from_yaml(text: &str) -> Result<Self, GraphError> {
        load::yaml(text).map(|tasks| Self { tasks })
    }

    /// The tasks, in the order in which they were added.
    pub fn tasks(&self) -> &[Arc<TaskSpec>] {
        &self.tasks
    }
    /// How many tasks.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }
    /// Never true: an empty graph is refused.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }
    pub(crate) fn into_tasks(self) -> Vec<Arc<TaskSpec>> {
        self.tasks
    }
}

/// A change of a running graph, against the revision that its author saw.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GraphPatch {
    /// Refused if the graph has moved on; absent: whatever it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_revision: Option<u64>,
    /// New tasks; they may need old ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<Arc<TaskSpec>>,
    /// Other specs for tasks that are not settled. One that runs is stopped; what it still says is
    /// recorded and ignored. A loop goes on with the iteration that it is in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replace: Vec<Arc<TaskSpec>>,
    /// Other needs for tasks that have not started.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rewire: Vec<Rewire>,
    /// Tasks that are no longer wanted: they are settled as cancelled, and what needs them is
    /// skipped. One that runs is stopped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cancel: Vec<TaskId>,
    /// Tasks that have not started and are to leave the graph, id and all; nothing may need them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<TaskId>,
}

/// Other edges into a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rewire {
    /// The task.
    pub task: TaskId,
    /// What it needs from now on.
    pub needs: Vec<TaskId>,
    /// What it binds from these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bind: Vec<Binding>,
}

impl GraphPatch {
    /// A patch that only adds.
    pub fn adding(tasks: impl IntoIterator<Item = impl Into<Arc<TaskSpec>>>) -> Self {
        Self {
            add: tasks.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }
}

/// Makes equal names share their text: in a large graph they are most of what it takes.
fn share_names(tasks: &mut [Arc<TaskSpec>]) {
    let ids: HashSet<TaskId> = tasks.iter().map(|t| t.id.clone()).collect();
    let mut workers = HashSet::<WorkerName>::new();
    for t in tasks.iter_mut().filter_map(Arc::get_mut) {
        match workers.get(&t.worker) {
            Some(w) => t.worker = w.clone(),
            None => drop(workers.insert(t.worker.clone())),
        }
        t.needs.shrink_to_fit();
        for need in &mut t.needs {
            if let Some(id) = ids.get(need) {
                *need = id.clone();
            }
        }
    }
}
