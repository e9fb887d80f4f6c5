use crate::{Durability, GraphPatch, Record, RunStatus, upcast::upcast};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use smallhands_core::{
    AskId, AttemptReport, BlobRef, Budget, GroupLimit, Question, SecretName, StepIntent,
    StepRecord, TaskId, TaskSpec, Usage,
};
use std::{collections::BTreeMap, sync::Arc};

/// What happened in a run, in the order in which it counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "body", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// The run exists.
    Created {
        /// What it is for.
        goal: String,
        /// Its configuration, without secrets.
        config: BlobRef,
        /// Its caps.
        budget: Budget,
        /// What its appends survive.
        durability: Durability,
        /// The executor that it was made for.
        executor: String,
        /// What it runs in: versions, toolchain, whatever its author notes.
        #[serde(default, skip_serializing_if = "Value::is_null")]
        environment: Value,
        /// Names of the secrets that its tasks may ask for.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        secrets: Vec<SecretName>,
        /// Limits of groups of tasks, by name.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        limits: BTreeMap<String, GroupLimit>,
    },
    /// A process took it over, from the first one on.
    Opened {
        /// Who.
        owner: String,
        /// Its lease.
        epoch: u64,
    },
    /// The graph changed; the first patch is the graph.
    Patched {
        /// How.
        patch: GraphPatch,
        /// The task whose output it is, if it is one's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<TaskId>,
    },
    /// A map or a sub-graph became the tasks that it stands for, or a failed task the one that
    /// compensates for it.
    Expanded {
        /// The task.
        task: TaskId,
        /// Its tasks, with ids and needs of the whole graph.
        children: Vec<Arc<TaskSpec>>,
    },
    /// The condition of a task was looked at.
    Judged {
        /// The task.
        task: TaskId,
        /// Whether it held.
        holds: bool,
    },
    /// A placement of an attempt; its fence is this record's sequence number.
    Dispatched {
        /// The task.
        task: TaskId,
        /// Which attempt.
        attempt: u32,
    },
    /// A step is about to act.
    StepBegan {
        /// The task.
        task: TaskId,
        /// Which placement.
        fence: u64,
        /// What it will do.
        intent: StepIntent,
    },
    /// A step acted.
    StepEnded {
        /// The task.
        task: TaskId,
        /// Which placement.
        fence: u64,
        /// What it did.
        record: StepRecord,
    },
    /// A part of the budget is held.
    Reserved {
        /// The task.
        task: TaskId,
        /// Which placement.
        fence: u64,
        /// Names the reservation.
        id: String,
        /// The most that will be spent.
        most: Usage,
    },
    /// It was spent, or less.
    Settled {
        /// The task.
        task: TaskId,
        /// Which placement.
        fence: u64,
        /// Names the reservation.
        id: String,
        /// What was spent.
        actual: Usage,
    },
    /// A task asks.
    Asked {
        /// The task.
        task: TaskId,
        /// Names the question.
        id: AskId,
        /// The question.
        question: Question,
    },
    /// Somebody answered.
    Answered {
        /// The task.
        task: TaskId,
        /// Names the question.
        id: AskId,
        /// The answer.
        answer: Value,
    },
    /// The time to answer is over: the default is taken, or the task fails.
    Expired {
        /// The task.
        task: TaskId,
        /// Names the question.
        id: AskId,
    },
    /// A placement ended.
    Ended {
        /// The task.
        task: TaskId,
        /// Which placement.
        fence: u64,
        /// How.
        report: AttemptReport,
        /// How long the next attempt waits, if there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
        /// Whether a loop goes on with another iteration.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        repeat: bool,
    },
    /// Failed tasks are to be tried once more.
    Revived {
        /// Which.
        tasks: Vec<TaskId>,
    },
    /// A task and all that depend on it are to be done again, as if they never were.
    Reset {
        /// Which.
        task: TaskId,
    },
    /// Somebody wants the run to end.
    CancelRequested,
    /// Nobody drives the run for now, or it is over.
    Stopped {
        /// As what.
        status: RunStatus,
    },
}

impl Event {
    /// The version of every body that this program writes.
    pub const VERSION: u16 = 1;

    /// The body alone, as JSON text, behind what `out` holds.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        // The kind has its own column: `{"kind":"..","body":` and `}` go.
        let lead = r#"{"kind":"","body":"#.len() + self.kind().len();
        let written = serde_json::to_writer(&mut *out, self).is_ok();
        if written && out.len() > start + lead + 1 {
            out.pop();
            out.drain(start..start + lead);
        } else {
            out.truncate(start);
            out.extend_from_slice(b"null");
        }
    }

    /// From what was stored.
    ///
    /// # Errors
    /// Names the kind and version that this program does not know, or what is wrong in the body.
    pub fn from_record(r: &Record) -> Result<Self, String> {
        if r.version > Self::VERSION {
            return Err(format!(
                "`{}` version {} was written by a newer program; this one knows version {}; \
                 use a newer one",
                r.kind,
                r.version,
                Self::VERSION
            ));
        }
        let mut body = r.body();
        let kind = &r.kind;
        if r.version < Self::VERSION {
            let bad = |e| format!("`{kind}` version {}: {e}", r.version);
            let mut old = serde_json::from_str(&body).map_err(bad)?;
            upcast(kind, r.version, &mut old)?;
            body = old.to_string().into();
        }
        // The kind first: a body that came before it would be buffered, and read twice.
        let text = match &*body {
            "null" => format!(r#"{{"kind":"{kind}"}}"#),
            body => format!(r#"{{"kind":"{kind}","body":{body}}}"#),
        };
        serde_json::from_str(&text).map_err(|e| format!("`{kind}`: {e}"))
    }

    /// Its name in a record.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Created { .. } => "created",
            Self::Opened { .. } => "opened",
            Self::Patched { .. } => "patched",
            Self::Judged { .. } => "judged",
            Self::Expanded { .. } => "expanded",
            Self::Dispatched { .. } => "dispatched",
            Self::StepBegan { .. } => "step_began",
            Self::StepEnded { .. } => "step_ended",
            Self::Reserved { .. } => "reserved",
            Self::Settled { .. } => "settled",
            Self::Asked { .. } => "asked",
            Self::Answered { .. } => "answered",
            Self::Expired { .. } => "expired",
            Self::Ended { .. } => "ended",
            Self::Revived { .. } => "revived",
            Self::Reset { .. } => "reset",
            Self::CancelRequested => "cancel_requested",
            Self::Stopped { .. } => "stopped",
        }
    }

    /// The task that it is about, if it is about one.
    pub fn task(&self) -> Option<&TaskId> {
        match self {
            Self::Judged { task, .. }
            | Self::Dispatched { task, .. }
            | Self::StepBegan { task, .. }
            | Self::StepEnded { task, .. }
            | Self::Reserved { task, .. }
            | Self::Settled { task, .. }
            | Self::Asked { task, .. }
            | Self::Answered { task, .. }
            | Self::Expired { task, .. }
            | Self::Expanded { task, .. }
            | Self::Reset { task }
            | Self::Ended { task, .. } => Some(task),
            _ => None,
        }
    }
}
