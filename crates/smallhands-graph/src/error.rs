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
    #[error("task `{task}`: {reason}")]
    Invalid {
        /// The task.
        task: TaskId,
        /// Why.
        reason: String,
    },
    /// A patch that does not fit the graph as it is.
    #[error("the patch was rejected: {0}")]
    Patch(String),
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
            Self::Patch(_) => "patch.rejected",
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
