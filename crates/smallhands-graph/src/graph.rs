use crate::{Conditions, GraphError};
use petgraph::{algo::tarjan_scc, graphmap::DiGraphMap};
use serde::{Deserialize, Serialize};
use smallhands_core::{Binding, Condition, TaskId, TaskSpec};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

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
        let tasks: Vec<Arc<TaskSpec>> = tasks.into_iter().map(Into::into).collect();
        if tasks.is_empty() {
            return Err(GraphError::Empty);
        }
        check_whole(&tasks)?;
        Ok(Self { tasks })
    }

    /// Reads `{"tasks": [..]}` or a bare list.
    ///
    /// # Errors
    /// Text that is not such a list, with its place; else as [`TaskGraphBuilder::build`].
    pub fn from_json(text: &str) -> Result<Self, GraphError> {
        let tasks =
            serde_json::from_str::<File>(text).map_err(|e| GraphError::Parse(e.to_string()))?;
        Self::from_tasks(tasks.tasks)
    }

    /// Reads `tasks:` from YAML.
    ///
    /// # Errors
    /// As [`from_json`](Self::from_json).
    #[cfg(feature = "yaml")]
    pub fn from_yaml(text: &str) -> Result<Self, GraphError> {
        let tasks =
            serde_saphyr::from_str::<File>(text).map_err(|e| GraphError::Parse(e.to_string()))?;
        Self::from_tasks(tasks.tasks)
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    tasks: Vec<Arc<TaskSpec>>,
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
    /// recorded and ignored.
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

/// A task that exists already, by its id.
pub(crate) type Known<'a> = &'a dyn Fn(&TaskId) -> Option<Arc<TaskSpec>>;

/// Checks tasks that are a graph by themselves.
pub(crate) fn check_whole(tasks: &[Arc<TaskSpec>]) -> Result<(), GraphError> {
    check(tasks, &|_| None)
}

/// Checks new tasks against each other and those that exist already.
pub(crate) fn check(new: &[Arc<TaskSpec>], existing: Known<'_>) -> Result<(), GraphError> {
    let mut ids = HashSet::with_capacity(new.len());
    for t in new {
        if !ids.insert(&t.id) || existing(&t.id).is_some() {
            return Err(GraphError::Duplicate(t.id.clone()));
        }
    }
    for t in new {
        for n in &t.needs {
            if !ids.contains(n) && existing(n).is_none() {
                return Err(GraphError::UnknownNeed {
                    task: t.id.clone(),
                    needs: n.clone(),
                    similar: nearest(n, &ids),
                });
            }
        }
        check_task(t)?;
    }
    match cycle(new) {
        Some(path) => Err(GraphError::Cycle { path }),
        None => Ok(()),
    }
}

fn check_task(t: &TaskSpec) -> Result<(), GraphError> {
    let invalid = |reason: String| {
        Err(GraphError::Invalid {
            task: t.id.clone(),
            reason,
        })
    };
    if t.id.as_str().is_empty() || t.worker.as_str().is_empty() {
        return invalid("id and worker must not be empty".into());
    }
    if let Some(b) = t.bind.iter().find(|b| !t.needs.contains(&b.from)) {
        return invalid(format!(
            "it binds `{}` from `{}`, which is not among its needs",
            b.field, b.from
        ));
    }
    if let Some(b) = t
        .bind
        .iter()
        .find(|b| !b.pointer.is_empty() && !b.pointer.starts_with('/'))
    {
        return invalid(format!(
            "`{}` is not a JSON pointer; it begins with `/`",
            b.pointer
        ));
    }
    if t.retry.max_attempts == 0 {
        return invalid("max_attempts is at least 1".into());
    }
    if let Some(Condition::Expr(e)) = &t.when
        && let Err(why) = Conditions::check_expr(e)
    {
        return invalid(why);
    }
    #[cfg(not(feature = "schema"))]
    if t.output_schema.is_some() {
        return invalid("output_schema needs the feature `schema` of smallhands-graph".into());
    }
    #[cfg(feature = "schema")]
    if let Some(s) = &t.output_schema
        && let Err(e) = jsonschema::validator_for(s)
    {
        return invalid(format!("output_schema is not a JSON schema: {e}"));
    }
    Ok(())
}

/// One cycle, first task again at the end; deterministic.
fn cycle(tasks: &[Arc<TaskSpec>]) -> Option<Vec<TaskId>> {
    let index: HashMap<&TaskId, usize> =
        tasks.iter().enumerate().map(|(i, t)| (&t.id, i)).collect();
    let mut g = DiGraphMap::<usize, ()>::new();
    for (i, t) in tasks.iter().enumerate() {
        g.add_node(i);
        for n in t.needs.iter().filter_map(|n| index.get(n)) {
            g.add_edge(i, *n, ());
        }
    }
    let ring = tarjan_scc(&g)
        .into_iter()
        .filter(|c| c.len() > 1 || g.contains_edge(c[0], c[0]))
        .map(|c| c.into_iter().collect::<BTreeSet<_>>())
        .min()?;
    // Within a strongly connected component every walk along its edges meets itself again.
    let (mut walk, mut seen) = (Vec::new(), BTreeMap::new());
    let mut at = *ring.first()?;
    while !seen.contains_key(&at) {
        seen.insert(at, walk.len());
        walk.push(at);
        at = g.neighbors(at).filter(|n| ring.contains(n)).min()?;
    }
    let mut path: Vec<_> = walk[seen[&at]..]
        .iter()
        .map(|&i| tasks[i].id.clone())
        .collect();
    path.push(tasks[at].id.clone());
    Some(path)
}

/// The id with the smallest edit distance, if it is near enough to be a slip.
fn nearest(wanted: &TaskId, ids: &HashSet<&TaskId>) -> Option<TaskId> {
    let limit = wanted.as_str().chars().count() / 3 + 1;
    ids.iter()
        .map(|id| (distance(wanted.as_str(), id.as_str()), *id))
        .filter(|(d, _)| *d <= limit)
        .min()
        .map(|(_, id)| id.clone())
}

fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, cb) in b.iter().enumerate() {
            let cost = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
