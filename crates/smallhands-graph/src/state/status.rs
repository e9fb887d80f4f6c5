use serde::{Deserialize, Serialize};
use smallhands_core::Failure;
use std::fmt;

/// How a run stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RunStatus {
    /// Somebody drives it, or did when the journal ended.
    #[default]
    Running,
    /// Stopped on request; it can be resumed.
    Paused,
    /// Nothing can go on until a question is answered.
    Waiting,
    /// Every task is settled, none failed the run.
    Succeeded,
    /// A task failed the run.
    Failed,
    /// It was cancelled.
    Cancelled,
}

impl RunStatus {
    /// As one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Waiting => "waiting",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
    /// Whether nothing more will happen by itself.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}
impl fmt::Display for RunStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How a task stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NodeState {
    /// Something that it needs is not settled.
    Waiting,
    /// Its condition is to be looked at.
    Undecided,
    /// It can start.
    Ready,
    /// Placed under this fence.
    Running {
        /// Sequence number of its `Dispatched` record.
        fence: u64,
    },
    /// The tasks that it stands for are in the graph, and not all settled.
    Expanded,
    /// It waits for an answer.
    Suspended,
    /// It has an output.
    Done,
    /// It has none, and will not.
    Failed(Box<Failure>),
    /// Its condition did not hold, or what it needs gave nothing.
    Skipped,
    /// It was cancelled.
    Cancelled,
}

impl NodeState {
    /// As one word.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Undecided => "undecided",
            Self::Ready => "ready",
            Self::Running { .. } => "running",
            Self::Expanded => "expanded",
            Self::Suspended => "suspended",
            Self::Done => "done",
            Self::Failed(_) => "failed",
            Self::Skipped => "skipped",
            Self::Cancelled => "cancelled",
        }
    }
    /// Whether it is over.
    pub fn is_settled(&self) -> bool {
        matches!(
            self,
            Self::Done | Self::Failed(_) | Self::Skipped | Self::Cancelled
        )
    }
}
