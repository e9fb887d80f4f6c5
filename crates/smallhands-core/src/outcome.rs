use crate::{AskId, BlobRef, StepKey};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{borrow::Cow, time::Duration};

/// How work that was begun and not finished is settled after a crash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Effect {
    /// Nothing outside changes: run it again.
    #[default]
    Pure,
    /// Changes only the attached workspace: restore its last checkpoint, run it again.
    Workspace,
    /// Run it again with the same [`idempotency_key`](crate::CallCx::idempotency_key).
    Idempotent,
    /// Ask the world first ([`TaskContext::step_or_verify`](crate::TaskContext::step_or_verify)).
    Verifiable,
    /// Stop as [`Halt::Unknown`]; a person or the planner decides.
    AtMostOnce,
}

impl Effect {
    /// Whether an unfinished piece of this effect may simply be done again.
    pub fn may_repeat(self) -> bool {
        matches!(self, Self::Pure | Self::Workspace | Self::Idempotent)
    }
}

/// What kind of thing went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FailureClass {
    /// The work itself failed.
    Task,
    /// Bad input or configuration; trying again cannot help.
    Input,
    /// A guardrail or a person said no.
    Denied,
    /// A budget does not allow it.
    Budget,
    /// A time limit was reached.
    Timeout,
    /// The memory limit was reached.
    OutOfMemory,
    /// The process that ran it is gone.
    WorkerLost,
    /// No place could be found to run it.
    Unschedulable,
    /// Two sides of a protocol did not understand each other.
    Protocol,
    /// A resumed worker asked for something else than its recorded past.
    Diverged,
    /// The journal or a blob store failed.
    Store,
    /// Something outside failed: network, model server, disk.
    Unavailable,
    /// It was cancelled.
    Cancelled,
}

/// Did any of it run? Decides whether an attempt is charged and which effects may go again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ran {
    /// Certainly not.
    No,
    /// It cannot be told.
    Maybe,
    /// Yes.
    Yes,
}

/// A failure as it crosses processes and is journaled: a stable code and what to do, in place of a
/// chain of error values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}{}", hint.as_ref().map(|h| format!(" ({h})")).unwrap_or_default())]
pub struct Failure {
    /// Stable, dotted, lower case: `budget.exhausted`.
    pub code: Cow<'static, str>,
    /// What kind of thing went wrong.
    pub class: FailureClass,
    /// Whether the same thing may succeed when tried again.
    pub retryable: bool,
    /// What happened.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The least time to wait before another try, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl Failure {
    /// A failure that is not retryable.
    pub fn new(code: &'static str, class: FailureClass, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            class,
            retryable: false,
            message: message.into(),
            hint: None,
            retry_after_ms: None,
        }
    }
    /// Marks it retryable.
    #[must_use]
    pub fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }
    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, what_to_do: impl Into<String>) -> Self {
        self.hint = Some(what_to_do.into());
        self
    }
    /// Marks it retryable, not before `d` has passed.
    #[must_use]
    pub fn retry_after(mut self, d: Duration) -> Self {
        self.retryable = true;
        self.retry_after_ms = Some(u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
        self
    }
}

/// Why a worker stopped without an output. Only [`Halt::Failed`] meets the retry policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Halt {
    /// The work failed.
    Failed(Failure),
    /// It waits for the answer to a question; the process may go away.
    Suspended(AskId),
    /// It was cancelled.
    Cancelled,
    /// Another placement or driver owns the task now; nothing this one says counts.
    Fenced,
    /// An [`Effect::AtMostOnce`] step was begun and may or may not have happened.
    Unknown(StepKey),
}

/// Inside a step only failures exist; a halt that meets one there is a failure of its class.
impl From<Halt> for Failure {
    fn from(h: Halt) -> Self {
        match h {
            Halt::Failed(f) => f,
            Halt::Cancelled => Self::new("cancelled", FailureClass::Cancelled, "cancelled"),
            h => Self::new("task.halted", FailureClass::Protocol, format!("{h:?}")),
        }
    }
}
impl From<Failure> for Halt {
    fn from(f: Failure) -> Self {
        Self::Failed(f)
    }
}

/// What a task leaves behind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskOutput {
    /// The value that successors can bind to.
    pub value: Value,
    /// Named blobs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<(String, BlobRef)>,
    /// New work, read by the engine only if the spec says
    /// [`expands`](crate::TaskSpec::expands). JSON, because core knows no graph.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expansion: Option<Value>,
}

impl From<Value> for TaskOutput {
    fn from(value: Value) -> Self {
        Self {
            value,
            ..Self::default()
        }
    }
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// With an output.
    Done(TaskOutput),
    /// Without one.
    Halted(Halt),
}
impl From<Result<TaskOutput, Halt>> for Outcome {
    fn from(r: Result<TaskOutput, Halt>) -> Self {
        match r {
            Ok(o) => Self::Done(o),
            Err(h) => Self::Halted(h),
        }
    }
}
