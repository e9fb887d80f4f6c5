use serde::{Deserialize, Serialize};
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
