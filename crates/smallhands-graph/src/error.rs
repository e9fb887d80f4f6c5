use crate::StoreError;
use smallhands_core::{Failure, FailureClass, RunId, TaskId};

/// What can be wrong with a graph or the running of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// A graph without tasks.
    #[error("the graph has no tasks")]
    Empty,
    /// Two tasks of one id.
    #[error("two tasks have the id `{0}`; ids are unique in a run")]
    Duplicate(TaskId),
    /// A task needs one that does not exist.
    #[error("task `{task}` needs `{needs}`, which does not exist{}", similar.as_ref().map(|s| format!("; did you mean `{s}`?")).unwrap_or_default())]
    UnknownNeed {
        /// The task.
        task: TaskId,
        /// What it needs.
        needs: TaskId,
        /// The nearest id that exists.
        similar: Option<TaskId>,
    },
    /// The needs go in a circle.
    #[error("the tasks form a cycle: {}", path.iter().map(TaskId::as_str).collect::<Vec<_>>().join(" -> "))]
    Cycle {
        /// The circle, its first task again at the end.
        path: Vec<TaskId>,
    },
    /// A task that cannot be accepted for another reason.
    #[error("task `{task}`: {fault}")]
    Invalid {
        /// The task; `holder/task` in a sub-graph.
        task: TaskId,
        /// Why.
        fault: TaskFault,
    },
    /// What a task takes from another does not fit its declared input.
    #[error(transparent)]
    EdgeType(Box<EdgeFault>),
    /// A field that the format does not have.
    #[error("{of} has no field `{field}`{}", similar.as_ref().map(|s| format!("; did you mean `{s}`?")).unwrap_or_default())]
    UnknownField {
        /// What it is a field of, in words.
        of: &'static str,
        /// The field.
        field: String,
        /// The nearest field that exists.
        similar: Option<String>,
    },
    /// What is wrong with a graph that was read from text, and where.
    #[error("line {line}, column {column}, {path}: {error}")]
    At {
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
        /// The place, as `tasks[3].needs[1]`.
        path: String,
        /// What is wrong.
        error: Box<GraphError>,
    },
    /// A limit under which nothing of its group would ever start.
    #[error(
        "{which} of the group `{group}` is 0, so that none of its tasks can start; set at least 1, or leave it out"
    )]
    Limit {
        /// The group.
        group: String,
        /// `max_parallel` or `starts`.
        which: &'static str,
    },
    /// A patch that does not fit the graph as it is.
    #[error("the patch was rejected: {0}")]
    Patch(PatchFault),
    /// A graph that cannot be read.
    #[error("the graph cannot be read: {0}")]
    Parse(String),
    /// There is no such run.
    #[error("there is no run `{0}`; `smallhands runs` lists them")]
    UnknownRun(RunId),
    /// There is such a run already.
    #[error("there is a run `{0}` already")]
    RunExists(RunId),
    /// The run is over.
    #[error("run `{run}` has {status} already")]
    Ended {
        /// The run.
        run: RunId,
        /// How.
        status: String,
    },
    /// Nobody asked that.
    #[error("task `{task}` of run `{run}` has no open question `{ask}`")]
    UnknownQuestion {
        /// The run.
        run: RunId,
        /// The task.
        task: TaskId,
        /// The question.
        ask: String,
    },
    /// The answer is not of the form that was asked for.
    #[error("the answer to `{ask}` of task `{task}` does not fit: {reason}")]
    Answer {
        /// The task.
        task: TaskId,
        /// The question.
        ask: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A step that is not in doubt cannot be settled.
    #[error("step `{step}` of task `{task}` is not in doubt: there is nothing to settle")]
    NotInDoubt {
        /// The task.
        task: TaskId,
        /// The step.
        step: String,
    },
    /// There is no such task in the run.
    #[error("run `{run}` has no task `{task}`")]
    UnknownTask {
        /// The run.
        run: RunId,
        /// The task.
        task: TaskId,
    },
    /// The file holds no whole run.
    #[error("it is not a whole exported run: {0}")]
    Import(String),
    /// The journal holds what this program cannot read.
    #[error("the journal of run `{run}` cannot be read at {seq}: {reason}")]
    Journal {
        /// The run.
        run: RunId,
        /// Which record.
        seq: u64,
        /// Why.
        reason: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A blob failed.
    #[error(transparent)]
    Blob(#[from] Failure),
    /// The engine stopped before it could answer.
    #[error("the engine has stopped: {0}")]
    Stopped(String),
}

impl GraphError {
    /// Stable, for machines.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Empty => "graph.empty",
            Self::Duplicate(_) => "graph.duplicate",
            Self::UnknownNeed { .. } => "graph.unknown_need",
            Self::Cycle { .. } => "graph.cycle",
            Self::Invalid { .. } => "graph.invalid",
            Self::EdgeType(_) => "graph.edge_type",
            Self::UnknownField { .. } => "graph.unknown_field",
            Self::At { error, .. } => error.code(),
            Self::Limit { .. } => "run.limit",
            Self::Patch(p) => p.code(),
            Self::Parse(_) => "graph.parse",
            Self::UnknownRun(_) => "run.unknown",
            Self::RunExists(_) => "run.exists",
            Self::Ended { .. } => "run.ended",
            Self::UnknownQuestion { .. } => "run.unknown_question",
            Self::Answer { .. } => "run.answer",
            Self::NotInDoubt { .. } => "run.not_in_doubt",
            Self::UnknownTask { .. } => "run.unknown_task",
            Self::Import(_) => "run.import",
            Self::Journal { .. } => "journal.unreadable",
            Self::Store(e) => e.code(),
            Self::Blob(_) => "blob",
            Self::Stopped(_) => "engine.stopped",
        }
    }

    /// Whether the same call may succeed when tried again.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Store(e) => e.is_retryable(),
            Self::Blob(f) => f.retryable,
            _ => false,
        }
    }
}

impl From<GraphError> for Failure {
    fn from(e: GraphError) -> Self {
        let class = match &e {
            GraphError::Blob(f) => return f.clone(),
            GraphError::Store(_) | GraphError::Journal { .. } => FailureClass::Store,
            _ => FailureClass::Input,
        };
        Self::new(e.code(), class, e.to_string())
    }
}

/// Why a patch does not fit.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PatchFault {
    /// The graph has moved on: look at it again and make another patch.
    #[error("it expects revision {expected}, the graph is at {is}")]
    Stale {
        /// What its author saw.
        expected: u64,
        /// What is.
        is: u64,
    },
    /// It names a task twice.
    #[error("it names `{0}` twice")]
    Twice(TaskId),
    /// It changes a task that the run does not have.
    #[error("it {verb} `{task}`, which does not exist")]
    Unknown {
        /// `replaces`, `rewires`, `cancels` or `removes`.
        verb: &'static str,
        /// The task.
        task: TaskId,
    },
    /// It changes a task that is too far on for that.
    #[error("it {verb} `{task}`, which is {state}")]
    Begun {
        /// `replaces`, `rewires`, `cancels` or `removes`.
        verb: &'static str,
        /// The task.
        task: TaskId,
        /// How the task stands.
        state: &'static str,
    },
    /// It changes a task of a map or of a sub-graph by itself.
    #[error("it {verb} `{task}`, which stands inside another task")]
    Inside {
        /// `replaces`, `rewires` or `removes`.
        verb: &'static str,
        /// The task.
        task: TaskId,
    },
    /// What would come of it is no graph.
    #[error(transparent)]
    Graph(Box<GraphError>),
}

impl PatchFault {
    /// Stable, for machines.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Stale { .. } => "patch.stale",
            Self::Twice(_) => "patch.twice",
            Self::Unknown { .. } => "patch.unknown_task",
            Self::Begun { .. } => "patch.begun",
            Self::Inside { .. } => "patch.inside",
            Self::Graph(e) => e.code(),
        }
    }
}

/// What a task takes and what it may take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "task `{task}`: {} takes {} of `{from}`: expected {expected}, found {found}",
    field_name(field),
    pointer_name(pointer)
)]
#[non_exhaustive]
pub struct EdgeFault {
    /// The task that takes.
    pub task: TaskId,
    /// The field of its input; empty for the whole input.
    pub field: String,
    /// The task that gives.
    pub from: TaskId,
    /// Where in its output; empty for the whole output.
    pub pointer: String,
    /// What the input's schema allows.
    pub expected: String,
    /// What the output's schema promises.
    pub found: String,
}

fn field_name(field: &str) -> String {
    match field {
        "" => "its input".into(),
        f => format!("its field `{f}`"),
    }
}

fn pointer_name(pointer: &str) -> String {
    match pointer {
        "" => "the output".into(),
        p => format!("`{p}`"),
    }
}

/// Why a task cannot be accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TaskFault {
    /// The id is empty.
    #[error("its id is empty")]
    EmptyId,
    /// The id holds a character that names derived tasks.
    #[error("its id contains `{0}`, which is kept for the names of instances and undo tasks")]
    IdCharacter(char),
    /// No worker and no graph.
    #[error("it names no worker; only a task with a `graph` has none")]
    NoWorker,
    /// A worker and a graph.
    #[error("it has a `graph` and names a worker too; the graph stands in its place")]
    WorkerAndGraph,
    /// A binding from a task that is not needed.
    #[error("it binds `{field}` from `{from}`, which is not among its needs")]
    BindNotNeeded {
        /// The field.
        field: String,
        /// The task.
        from: TaskId,
    },
    /// A binding from the holder of a sub-graph, where there is none.
    #[error("it binds `{0}` from ``, the input of its holder; only a task of a sub-graph has one")]
    NoHolder(String),
    /// A binding of the whole input after another one, which would be lost.
    #[error("it binds its whole input after a part of it; the whole comes first, and once")]
    WholeNotFirst,
    /// Bindings with a map whose element is the whole input.
    #[error("each element of its map is its whole input, which leaves nothing to bind")]
    MapWhole,
    /// Text that is not an RFC 6901 JSON pointer.
    #[error("`{0}` is not a JSON pointer; it begins with `/`, and `~` is written `~0`")]
    Pointer(String),
    /// It joins any of no needs.
    #[error("it waits for any of its needs and has none")]
    JoinNothing,
    /// It joins more than it needs, or none of it.
    #[error("it waits for {asked} of its {needs} needs")]
    JoinCount {
        /// How many it waits for.
        asked: u32,
        /// How many there are.
        needs: usize,
    },
    /// A map over the output of a task that is not needed.
    #[error("it maps over the output of `{0}`, which is not among its needs")]
    MapNotNeeded(TaskId),
    /// A map that no instance may run of.
    #[error("`max_parallel` of its map is 0")]
    MapParallel,
    /// A map with a graph.
    #[error("it has both `map` and `graph`; put the map on a task of the graph")]
    MapAndGraph,
    /// A loop without iterations.
    #[error("`max` of its loop is 0")]
    RepeatMax,
    /// A loop with something else that cannot be repeated.
    #[error("it has both `repeat` and `{0}`; a loop repeats a worker")]
    RepeatWith(&'static str),
    /// A condition that cannot be read.
    #[error("{0}")]
    Condition(String),
    /// A group without a name.
    #[error("the name of its group is empty")]
    EmptyGroup,
    /// Compensation by nobody.
    #[error("it is compensated by a worker without a name")]
    NoCompensator,
    /// No attempt at all.
    #[error("max_attempts is at least 1")]
    NoAttempts,
    /// A number of the retry policy that is none.
    #[error("`{0}` of its retry policy is not a finite number")]
    NotFinite(&'static str),
    /// A schema that cannot be used.
    #[error("{which} is not a JSON schema: {why}")]
    Schema {
        /// `input_schema` or `output_schema`.
        which: &'static str,
        /// Why not.
        why: String,
    },
    /// A schema that this build cannot honour.
    #[error("{0} needs the feature `schema` of smallhands-graph")]
    SchemaFeature(&'static str),
    /// A sub-graph without tasks.
    #[error("its graph has no tasks")]
    EmptyGraph,
    /// The output of a sub-graph is that of no task.
    #[error("the output of its graph is that of `{output}`, which does not exist{}", similar.as_ref().map(|s| format!("; did you mean `{s}`?")).unwrap_or_default())]
    UnknownOutput {
        /// The task that does not exist.
        output: TaskId,
        /// The nearest one that does.
        similar: Option<TaskId>,
    },
    /// The input does not fit the task's own schema, and nothing is bound that could mend it.
    #[error("its input does not fit its input_schema: {0}")]
    Input(String),
    /// The schema of the input requires a field that nothing sets.
    #[error("its input_schema requires `{0}`, which neither its input nor a binding sets")]
    InputMissing(String),
    /// A typed edge into a task of another graph.
    #[error("it is not a task of this graph")]
    Stranger,
}
