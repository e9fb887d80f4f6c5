use crate::{Durability, GraphPatch, Record, RunStatus};
use serde::{Deserialize, Serialize, de::value::MapDeserializer};
use serde_json::Value;
use smallhands_core::{
    AskId, AttemptReport, BlobRef, Budget, Question, StepIntent, StepRecord, TaskId, Timestamp,
    Usage,
};
use std::iter;

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
    },
    /// A process took it over, from the first one on.
    Opened {
        /// Who.
        owner: String,
        /// Its lease.
        epoch: u64,
    },
    /// The graph changed; the first patch is the graph.
    Patched(GraphPatch),
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
    },
    /// Failed tasks are to be tried once more.
    Revived {
        /// Which.
        tasks: Vec<TaskId>,
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
    /// As it is stored. Every kind is at version 1.
    pub fn to_record(&self, at: Timestamp) -> Record {
        let mut v = serde_json::to_value(self).unwrap_or_default();
        let mut part = |name| v.get_mut(name).map(Value::take).unwrap_or_default();
        let kind = match part("kind") {
            Value::String(kind) => kind,
            _ => String::new(),
        };
        Record {
            kind,
            version: 1,
            at,
            body: part("body"),
        }
    }

    /// From what was stored.
    ///
    /// # Errors
    /// Names the kind and version that this program does not know, or what is wrong in the body.
    pub fn from_record(r: Record) -> Result<Self, String> {
        if r.version != 1 {
            return Err(format!(
                "`{}` version {} was written by a newer program; this one knows version 1",
                r.kind, r.version
            ));
        }
        // The kind first: a body that comes before it is buffered, and read twice.
        let kind = ("kind", Value::from(r.kind.as_str()));
        let body = (!r.body.is_null()).then_some(("body", r.body));
        let fields = iter::once(kind).chain(body);
        Self::deserialize(MapDeserializer::new(fields))
            .map_err(|e: serde_json::Error| format!("`{}`: {e}", r.kind))
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
            | Self::Ended { task, .. } => Some(task),
            _ => None,
        }
    }
}
