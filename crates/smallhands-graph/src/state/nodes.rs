use super::NodeState;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use smallhands_core::{
    AskId, Join, PriorStep, Question, Resources, TaskId, TaskOutput, TaskSpec, Timestamp, Usage,
};
use std::{
    collections::{BTreeMap, HashMap},
    ops::Index,
    sync::Arc,
};

/// The number of a task in its run: counted in the order of adding, never used twice.
pub(crate) type Ix = u32;

/// One task of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Node {
    /// What it is.
    pub spec: Arc<TaskSpec>,
    /// How it stands.
    pub state: NodeState,
    /// The present or last attempt, from 1.
    pub attempt: u32,
    /// The present or last iteration of a loop, from 1; 0 for a task that is no loop.
    #[serde(skip_serializing_if = "is_zero")]
    pub iteration: u32,
    /// What it left behind; of a loop that goes on: what its last iteration did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Box<TaskOutput>>,
    /// Steps of the present attempt, and those of former ones that nobody may repeat.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<PriorStep>,
    /// Its open questions.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub questions: BTreeMap<AskId, Question>,
    /// Answers so far.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub answers: BTreeMap<AskId, Value>,
    /// What it spent.
    pub spent: Usage,
    /// When it was first placed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    /// When it was settled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    #[serde(skip)]
    pub(super) flow: Flow,
}

/// What moves a task on; follows from the records as the rest does. Snapshots hold it as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Flow {
    /// Needs that are still open, and those that gave what they promised.
    #[serde(skip_serializing_if = "is_default")]
    pub(super) open: u32,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) good: u32,
    /// Of the spec, which lies elsewhere in memory: so many needs must be good, whether it has a
    /// condition, its priority, and whether it has neither group nor resources.
    #[serde(skip)]
    pub(super) required: u32,
    #[serde(skip)]
    pub(super) conditional: bool,
    #[serde(skip)]
    pub(super) priority: i32,
    #[serde(skip)]
    pub(super) plain: bool,
    /// Whether this iteration was placed before.
    #[serde(skip_serializing_if = "is_default")]
    pub(super) begun: bool,
    /// Attempts of what it took the place of, which its retry policy does not count.
    #[serde(skip_serializing_if = "is_default")]
    pub(super) before: u32,
    /// Needs that were open when an early join let it go on: they give it nothing, whenever it is
    /// placed, so that a placement after a crash sees what the first one saw.
    #[serde(skip_serializing_if = "is_default")]
    pub(super) late: Vec<TaskId>,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) judged: Option<bool>,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) losses: u32,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) divergences: u32,
    /// What needs it.
    #[serde(skip_serializing_if = "is_default")]
    pub(super) dependents: Vec<Ix>,
    /// The task that stands for it.
    #[serde(skip_serializing_if = "is_default")]
    pub(super) parent: Option<Ix>,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) children: Vec<Ix>,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) open_children: u32,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) placed_children: u32,
    /// The task whose output added it.
    #[serde(skip_serializing_if = "is_default")]
    pub(super) added_by: Option<Ix>,
    /// When its next attempt may start, and how long that was to wait.
    #[serde(skip_serializing_if = "is_default")]
    pub(super) delay: Option<(Timestamp, u64)>,
    /// That wait is over; a matter of clocks, not of the fold.
    #[serde(skip)]
    pub(super) woken: bool,
    /// Cancelled by a patch, which no revival undoes.
    #[serde(skip_serializing_if = "is_default")]
    pub(super) withdrawn: bool,
    /// It compensates for a failed task, and runs though the run fails.
    #[serde(skip_serializing_if = "is_default")]
    pub(super) undo: bool,
}

impl Flow {
    /// Notes what is often asked of a spec.
    pub(super) fn follow(&mut self, spec: &TaskSpec) {
        let needs = u32::try_from(spec.needs.len()).unwrap_or(u32::MAX);
        self.required = match spec.join {
            Join::Any => needs.min(1),
            Join::AtLeast(n) => n,
            _ => needs,
        };
        self.conditional = spec.when.is_some();
        self.priority = spec.priority;
        self.plain = spec.group.is_none() && spec.resources == Resources::default();
    }
    /// Whether its next attempt may not start yet.
    pub(super) fn waits(&self) -> bool {
        self.delay.is_some() && !self.woken
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

fn is_default<T: Default + PartialEq>(v: &T) -> bool {
    *v == T::default()
}

impl Node {
    pub(super) fn new(spec: Arc<TaskSpec>) -> Self {
        Self {
            iteration: u32::from(spec.repeat.is_some()),
            spec,
            state: NodeState::Waiting,
            attempt: 1,
            output: None,
            steps: Vec::new(),
            questions: BTreeMap::new(),
            answers: BTreeMap::new(),
            spent: Usage::default(),
            started: None,
            ended: None,
            flow: Flow::default(),
        }
    }
    /// The value that successors can bind to, once it is done.
    pub fn value(&self) -> Option<&Value> {
        match self.state {
            NodeState::Done => self.output.as_ref().map(|o| &o.value),
            _ => None,
        }
    }
}

/// The tasks of a run, in the order in which they were added.
#[derive(Clone, Debug, Default)]
pub struct Nodes {
    all: Vec<Option<Node>>,
    index: HashMap<TaskId, Ix>,
}

impl PartialEq for Nodes {
    fn eq(&self, o: &Self) -> bool {
        self.all == o.all
    }
}

impl Nodes {
    /// The task of that id.
    pub fn get(&self, id: &TaskId) -> Option<&Node> {
        self.ix(id).map(|ix| self.at(ix))
    }
    /// Whether there is one.
    pub fn contains_key(&self, id: &TaskId) -> bool {
        self.index.contains_key(id)
    }
    /// How many.
    pub fn len(&self) -> usize {
        self.index.len()
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }
    /// In the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = (&TaskId, &Node)> {
        self.all.iter().flatten().map(|n| (&n.spec.id, n))
    }
    /// Their ids.
    pub fn keys(&self) -> impl Iterator<Item = &TaskId> {
        self.iter().map(|(id, _)| id)
    }
    /// Themselves.
    pub fn values(&self) -> impl Iterator<Item = &Node> {
        self.all.iter().flatten()
    }

    pub(crate) fn ix(&self, id: &TaskId) -> Option<Ix> {
        self.index.get(id).copied()
    }
    pub(super) fn numbers(&self) -> impl Iterator<Item = Ix> + use<> {
        0..u32::try_from(self.all.len()).unwrap_or(u32::MAX)
    }
    pub(crate) fn find(&self, ix: Ix) -> Option<&Node> {
        self.all.get(ix as usize)?.as_ref()
    }
    /// A number that was handed out and not removed.
    #[expect(clippy::expect_used, reason = "numbers come from this collection")]
    pub(crate) fn at(&self, ix: Ix) -> &Node {
        self.find(ix).expect("a number of this run")
    }
    #[expect(clippy::expect_used, reason = "numbers come from this collection")]
    pub(super) fn at_mut(&mut self, ix: Ix) -> &mut Node {
        let n = self.all.get_mut(ix as usize).and_then(Option::as_mut);
        n.expect("a number of this run")
    }
    pub(super) fn add(&mut self, n: Node) -> Ix {
        let ix = u32::try_from(self.all.len()).unwrap_or(u32::MAX);
        self.index.insert(n.spec.id.clone(), ix);
        self.all.push(Some(n));
        ix
    }
    /// Every number that was handed out, with what has it.
    pub(super) fn all(&self) -> &[Option<Node>] {
        &self.all
    }
    /// A number that is out of use.
    pub(super) fn leave_out(&mut self) {
        self.all.push(None);
    }
    pub(super) fn reserve(&mut self, more: usize) {
        self.all.reserve(more);
        self.index.reserve(more);
    }
    pub(super) fn remove(&mut self, ix: Ix) -> Option<Node> {
        let n = self.all.get_mut(ix as usize)?.take()?;
        self.index.remove(&n.spec.id);
        Some(n)
    }
}

impl Index<&TaskId> for Nodes {
    type Output = Node;
    /// # Panics
    /// If there is no such task.
    #[expect(clippy::expect_used, reason = "as every map does")]
    fn index(&self, id: &TaskId) -> &Node {
        self.get(id).expect("a task of the run")
    }
}

impl Serialize for Nodes {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(self.values())
    }
}
