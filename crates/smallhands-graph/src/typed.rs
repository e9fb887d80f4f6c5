//! Graphs whose edges the compiler checks.

use crate::{GraphError, RunState, TaskFault, TaskGraph, state::inside};
use schemars::{JsonSchema, SchemaGenerator};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use smallhands_core::{SubGraph, TaskId, TaskSpec, WorkerName};
use std::{fmt, marker::PhantomData, sync::Arc};

/// Builds a [`TaskGraph`] from tasks whose inputs and outputs have types. What comes out is plain
/// data with the schemas of these types: it is stored, sent and loaded as any other graph.
///
/// ```
/// use schemars::JsonSchema;
/// use serde::{Deserialize, Serialize};
/// use smallhands_core::Retry;
/// use smallhands_graph::{TaskGraph, TypedGraph};
///
/// #[derive(Serialize, Deserialize, JsonSchema)]
/// struct Url { url: String }
/// #[derive(Serialize, Deserialize, JsonSchema)]
/// struct Page { status: u16, body: String, links: Vec<Url> }
/// #[derive(Serialize, Deserialize, JsonSchema)]
/// struct Text { text: String, strict: bool }
/// #[derive(Serialize, Deserialize, JsonSchema)]
/// struct Words { count: u64 }
///
/// let mut g = TypedGraph::new();
/// let fetch = g.node::<Url, Page>("fetch", "http");
/// let archive = g.node::<Page, ()>("archive", "disk");
/// let parse = g.node::<Text, Words>("parse", "words");
///
/// g.input(&fetch, &Url { url: "https://example.org".into() });
/// g.connect(&fetch, &archive);
/// g.field(&parse, "text", &fetch, "/body");
/// g.spec(&parse, |t| t.input(serde_json::json!({"strict": true})).retry(Retry::attempts(3)));
///
/// let graph = g.build()?;
/// assert_eq!(TaskGraph::from_json(&serde_json::to_string(&graph)?)?, graph);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A whole output fits only an input of the same type:
///
/// ```compile_fail,E0308
/// use smallhands_graph::TypedGraph;
///
/// let mut g = TypedGraph::new();
/// let count = g.node::<(), u64>("count", "counter");
/// let shout = g.node::<String, String>("shout", "upper");
/// g.connect(&count, &shout);
/// ```
///
/// Parts of outputs are named by JSON pointers, which are checked against the types when the graph
/// is built:
///
/// ```
/// use smallhands_graph::TypedGraph;
/// # #[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
/// # struct Words { count: u64 }
/// # #[derive(serde::Serialize, schemars::JsonSchema)]
/// # struct Text { text: String }
///
/// let mut g = TypedGraph::new();
/// let words = g.node::<(), Words>("words", "words");
/// let shout = g.node::<Text, String>("shout", "upper");
/// g.field(&shout, "text", &words, "/count");
/// assert_eq!(
///     g.build().unwrap_err().to_string(),
///     "task `shout`: its field `text` takes `/count` of `words`: expected a string, found an integer",
/// );
/// ```
#[derive(Debug, Default)]
pub struct TypedGraph {
    tasks: Vec<TaskSpec>,
    /// The first that was met; told when the graph is built.
    error: Option<(TaskId, TaskFault)>,
}

/// A task of a [`TypedGraph`], its input and its output.
pub struct TypedNode<In, Out> {
    id: TaskId,
    /// Its place in the graph that made it.
    place: usize,
    types: PhantomData<fn(In) -> Out>,
}

impl<In, Out> Clone for TypedNode<In, Out> {
    fn clone(&self) -> Self {
        Self::new(self.id.clone(), self.place)
    }
}

impl<In, Out> fmt::Debug for TypedNode<In, Out> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TypedNode").field(&self.id).finish()
    }
}

impl<In, Out> TypedNode<In, Out> {
    fn new(id: TaskId, place: usize) -> Self {
        Self {
            id,
            place,
            types: PhantomData,
        }
    }
    /// The id of the task.
    pub fn id(&self) -> &TaskId {
        &self.id
    }
}

impl<In, Out: DeserializeOwned> TypedNode<In, Out> {
    /// Its output, if it is done.
    ///
    /// # Errors
    /// An output that is not of the type.
    pub fn out(&self, state: &RunState) -> Option<Result<Out, serde_json::Error>> {
        state.value(self.id.as_str()).map(|v| self.read(v))
    }
    /// A value as its output.
    ///
    /// # Errors
    /// A value that is not of the type.
    pub fn read(&self, value: &Value) -> Result<Out, serde_json::Error> {
        Out::deserialize(value)
    }
}

fn schema<T: JsonSchema>() -> Value {
    SchemaGenerator::default()
        .into_root_schema_for::<T>()
        .to_value()
}

/// By this name a task of a sub-graph binds from the input of the whole.
const HOLDER: &str = "";

fn taken(t: TaskSpec, field: &str, from: &TaskId, pointer: &str) -> TaskSpec {
    let mut t = t.bind(field, from.clone(), pointer);
    // That input is there before any of them, and is no task.
    t.needs.retain(|n| n.as_str() != HOLDER);
    t
}

impl TypedGraph {
    /// A graph without tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a task; the schemas of its input and output are those of the types.
    pub fn node<In, Out>(
        &mut self,
        id: impl Into<TaskId>,
        worker: impl Into<WorkerName>,
    ) -> TypedNode<In, Out>
    where
        In: Serialize + JsonSchema,
        Out: DeserializeOwned + JsonSchema,
    {
        let spec = TaskSpec::new(id, worker)
            .input_schema(schema::<In>())
            .output_schema(schema::<Out>());
        let id = spec.id.clone();
        self.tasks.push(spec);
        TypedNode::new(id, self.tasks.len() - 1)
    }

    /// Sets the input; edges into the task are laid over it.
    pub fn input<In: Serialize, Out>(&mut self, node: &TypedNode<In, Out>, input: &In) {
        match serde_json::to_value(input) {
            Ok(v) => self.spec(node, |t| t.input(v)),
            Err(e) => self.fail(&node.id, TaskFault::Input(e.to_string())),
        }
    }

    /// Adds a task that stands for a graph of its own. `build` adds its tasks, which take from the
    /// input of the whole as from the output of a task, and says whose output is that of the whole.
    ///
    /// ```
    /// use smallhands_graph::TypedGraph;
    /// # #[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
    /// # struct Page { body: String }
    /// let mut g = TypedGraph::new();
    /// let read = g.sub_graph::<String, u64, _>("read", |g, url| {
    ///     let fetch = g.node::<String, Page>("fetch", "http");
    ///     let count = g.node::<String, u64>("count", "words");
    ///     g.connect(url, &fetch);
    ///     g.field(&count, "", &fetch, "/body");
    ///     count
    /// });
    /// g.input(&read, &"https://example.org".into());
    /// assert_eq!(g.build()?.len(), 1);
    /// # Ok::<(), smallhands_graph::GraphError>(())
    /// ```
    pub fn sub_graph<In, Out, Last>(
        &mut self,
        id: impl Into<TaskId>,
        build: impl FnOnce(&mut Self, &TypedNode<(), In>) -> TypedNode<Last, Out>,
    ) -> TypedNode<In, Out>
    where
        In: Serialize + JsonSchema,
        Out: DeserializeOwned + JsonSchema,
    {
        let mut graph = Self::new();
        let last = build(&mut graph, &TypedNode::new(HOLDER.into(), usize::MAX));
        // It has to be one of these.
        graph.spec(&last, |t| t);
        let node = self.node(id, "");
        if let Some((task, fault)) = graph.error {
            self.fail(&inside(&node.id, &task), fault);
        }
        let inner = SubGraph {
            tasks: graph.tasks.into_iter().map(Arc::new).collect(),
            output: Some(last.id),
        };
        self.spec(&node, |t| TaskSpec {
            graph: Some(Box::new(inner)),
            ..t
        });
        node
    }

    /// The output of one task is the input of another, and takes the place of a constant one.
    pub fn connect<A, B, C>(&mut self, from: &TypedNode<A, B>, to: &TypedNode<B, C>) {
        self.spec(to, |t| {
            let mut t = taken(t, "", &from.id, "");
            // Parts are laid over the whole, so that the whole comes first.
            t.bind.rotate_right(1);
            t
        });
    }

    /// A part of an output is a field of an input.
    pub fn field<A, B, C, D>(
        &mut self,
        to: &TypedNode<C, D>,
        field: &str,
        from: &TypedNode<A, B>,
        pointer: &str,
    ) {
        self.spec(to, |t| taken(t, field, &from.id, pointer));
    }

    /// Runs a task once for each element of a list; what it then gives is the list of outputs.
    #[must_use = "the node as it was gives one output, not the list"]
    pub fn map<A, T, Out>(
        &mut self,
        list: &TypedNode<A, Vec<T>>,
        each: TypedNode<T, Out>,
    ) -> TypedNode<T, Vec<Out>> {
        self.map_at(list, "", each, "")
    }

    /// Runs a task once for each element of a list in an output; the element is a field of its
    /// input, or with an empty name all of it.
    #[must_use = "the node as it was gives one output, not the list"]
    pub fn map_at<A, B, In, Out>(
        &mut self,
        from: &TypedNode<A, B>,
        pointer: &str,
        each: TypedNode<In, Out>,
        field: &str,
    ) -> TypedNode<In, Vec<Out>> {
        self.spec(&each, |t| t.map(field, from.id.clone(), pointer));
        TypedNode::new(each.id, each.place)
    }

    /// The second task waits for the first and takes nothing from it.
    pub fn after<A, B, C, D>(&mut self, first: &TypedNode<A, B>, second: &TypedNode<C, D>) {
        self.spec(second, |t| t.needs(first.id.clone()));
    }

    /// Sets whatever else a task has: retries, budgets, conditions.
    pub fn spec<In, Out>(
        &mut self,
        node: &TypedNode<In, Out>,
        set: impl FnOnce(TaskSpec) -> TaskSpec,
    ) {
        match self.tasks.get_mut(node.place) {
            Some(t) if t.id == node.id => *t = set(t.clone()),
            _ => self.fail(&node.id, TaskFault::Stranger),
        }
    }

    /// Checks the whole.
    ///
    /// # Errors
    /// A node of another graph; else as [`TaskGraphBuilder::build`](crate::TaskGraphBuilder::build).
    pub fn build(self) -> Result<TaskGraph, GraphError> {
        match self.error {
            Some((task, fault)) => Err(GraphError::Invalid { task, fault }),
            None => TaskGraph::from_tasks(self.tasks),
        }
    }

    fn fail(&mut self, task: &TaskId, fault: TaskFault) {
        self.error.get_or_insert_with(|| (task.clone(), fault));
    }
}
