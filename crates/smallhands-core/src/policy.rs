//! How a task is treated: data of its [`TaskSpec`](crate::TaskSpec), never code.

use crate::{Failure, FailureClass, TaskId, TaskSpec, WorkerName};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};

/// When a failed attempt is tried again. Only failures that say they are retryable are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Retry {
    /// Attempts in all, the first one included; at least 1.
    pub max_attempts: u32,
    /// The wait before the second attempt, in milliseconds.
    pub first_delay_ms: u64,
    /// Each further wait is this many times longer.
    pub factor: f64,
    /// No wait is longer than this, in milliseconds.
    pub max_delay_ms: u64,
    /// Each wait is stretched by a random part of up to this share, `0.0..=1.0`.
    pub jitter: f64,
    /// Failures of these classes are tried again, and no others; empty: whatever says that it is
    /// retryable.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<FailureClass>,
}

impl Default for Retry {
    /// One attempt. With more: 500 ms, doubled each time up to 30 s, stretched by up to a fifth.
    fn default() -> Self {
        Self {
            max_attempts: 1,
            first_delay_ms: 500,
            factor: 2.0,
            max_delay_ms: 30_000,
            jitter: 0.2,
            classes: Vec::new(),
        }
    }
}

impl Retry {
    /// So many attempts with the default waits.
    pub fn attempts(n: u32) -> Self {
        Self {
            max_attempts: n,
            ..Self::default()
        }
    }

    /// Tries only failures of these classes again.
    #[must_use]
    pub fn only(mut self, classes: impl IntoIterator<Item = FailureClass>) -> Self {
        self.classes = classes.into_iter().collect();
        self
    }

    /// Whether a failure may be tried again at all.
    pub fn covers(&self, f: &Failure) -> bool {
        match self.classes.is_empty() {
            true => f.retryable,
            false => self.classes.contains(&f.class),
        }
    }

    /// The wait before attempt `next` (2, 3, ..); `random` in `0.0..1.0` sets the jitter.
    pub fn delay_before(&self, next: u32, random: f64) -> Duration {
        let exponent = i32::try_from(next.saturating_sub(2)).unwrap_or(i32::MAX);
        let base = self.first_delay_ms as f64 * self.factor.max(1.0).powi(exponent);
        let capped = base.min(self.max_delay_ms as f64);
        let ms = capped * (1.0 + self.jitter.clamp(0.0, 1.0) * random.clamp(0.0, 1.0));
        Duration::from_millis(ms as u64)
    }
}

/// What the failure of a task means for the rest of the run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OnFailure {
    /// The run fails: nothing new is started, what runs is cancelled.
    #[default]
    FailRun,
    /// The tasks that need this one are skipped, and so on; the rest goes on.
    SkipDependents,
    /// The tasks that need this one run; what they bind from it is `null`.
    Continue,
    /// The run fails, and first this worker is run as the task `<id>~undo`, with the task's id,
    /// input and failure as `{"task", "input", "failure"}`.
    Compensate(WorkerName),
}

/// How many of its needs a task waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Join {
    /// All of them.
    #[default]
    All,
    /// The first that succeeds; what is bound from one that is still open is `null`.
    Any,
    /// So many that succeeded.
    AtLeast(u32),
}

/// One task for each element of a list that is known only at run time. The instances are tasks of
/// their own, `id[key]`; the task itself is done when they are, with the list of their outputs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapOver {
    /// The predecessor that holds the list; must be among the task's needs.
    pub from: TaskId,
    /// An RFC 6901 JSON pointer to the list in its value; empty is the whole value.
    #[serde(default)]
    pub pointer: String,
    /// The field of the input that is the element; empty: the element is the whole input.
    pub field: String,
    /// An RFC 6901 JSON pointer to a text or number in each element that names its instance. By
    /// default the element itself, or a hash of it: never its place in the list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// So many instances at once at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_parallel: Option<u32>,
}

/// Tasks that stand for one: they become `id/child`, and the task is done when they are, with
/// `{child: output}` or the output of one of them. A binding from the empty id takes from the input
/// of the task that holds them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SubGraph {
    /// The tasks; ids and needs are local to them.
    pub tasks: Vec<Arc<TaskSpec>>,
    /// The task whose output is that of the whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<TaskId>,
}

/// A bounded loop: the task runs again, as a new iteration, until a condition holds. An iteration
/// that is the last allowed and does not meet it fails with `loop.exhausted`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repeat {
    /// Looked at after each iteration, over `output` and `iteration` (from 1).
    pub until: Condition,
    /// So many iterations at most.
    pub max: u32,
    /// The field of the input that is the output of the iteration before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feed: Option<String>,
}

/// What a placed task takes of an engine's capacity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Thousandths of a processor.
    pub cpu_milli: u32,
    /// Mebibytes of memory.
    pub memory_mb: u32,
    /// Whole accelerators.
    pub gpus: u32,
}

/// What the tasks of one group may do together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GroupLimit {
    /// So many placed at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_parallel: Option<u32>,
    /// So many placements in any `per_ms` milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub starts: Option<u32>,
    /// The window of `starts`, in milliseconds.
    pub per_ms: u64,
}

impl GroupLimit {
    /// So many at once.
    pub fn parallel(n: u32) -> Self {
        Self {
            max_parallel: Some(n),
            ..Self::default()
        }
    }
    /// So many placements in any such window.
    pub fn rate(starts: u32, per: Duration) -> Self {
        Self {
            starts: Some(starts),
            per_ms: u64::try_from(per.as_millis()).unwrap_or(u64::MAX),
            ..Self::default()
        }
    }
}

/// When a task is to run at all; looked at once its needs are settled. Data, never a closure, so
/// that a graph can be stored, compared and resumed by another program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Condition {
    /// An expression over the outputs of the tasks it needs, by id (feature `expr` of graph).
    Expr(String),
    /// A function registered with the engine under this name; it gets the same outputs.
    Named(String),
}

/// One top-level field of a task's input, or all of it, taken from a predecessor's output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The field of the input object that is set. Empty: the whole input, in place of the constant
    /// one. Only the first binding of a task may be such; the others are laid over it.
    pub field: String,
    /// The predecessor; must be among the task's needs. Empty, in a sub-graph only: the input of the
    /// task that holds it.
    pub from: TaskId,
    /// An RFC 6901 JSON pointer into the predecessor's value; empty is the whole value.
    #[serde(default)]
    pub pointer: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_its_cap_and_jitter_only_stretches() {
        let r = Retry {
            max_attempts: 9,
            first_delay_ms: 100,
            factor: 2.0,
            max_delay_ms: 1_000,
            jitter: 0.5,
            classes: Vec::new(),
        };
        let ms = |n, x| r.delay_before(n, x).as_millis();
        assert_eq!([ms(2, 0.0), ms(3, 0.0), ms(4, 0.0)], [100, 200, 400]);
        assert_eq!((ms(9, 0.0), ms(9, 1.0)), (1_000, 1_500));
        assert_eq!(ms(u32::MAX, 0.0), 1_000);
    }
}
