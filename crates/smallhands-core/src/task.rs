use crate::{
    AskId, Binding, BlobRef, Budget, Condition, Digest, DispatchKey, Effect, Failure, Halt, Join,
    MapOver, Notice, OnFailure, Repeat, Resources, Retry, SecretName, StepKey, SubGraph, TaskId,
    Timestamp, Usage, WorkerName, async_trait,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{collections::BTreeMap, fmt::Debug, sync::Arc, time::Duration};

/// One node of a graph: a worker's name and a JSON value, and how to treat them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// Unique in the run.
    pub id: TaskId,
    /// Which worker does it; empty for a task that holds a graph.
    #[serde(default = "no_worker", skip_serializing_if = "is_no_worker")]
    pub worker: WorkerName,
    /// The input; bindings are laid over it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub input: Value,
    /// Fields of the input that come from predecessors.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bind: Vec<Binding>,
    /// Tasks that must be settled before this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<TaskId>,
    /// How many of them.
    #[serde(default, skip_serializing_if = "is_default")]
    pub join: Join,
    /// One instance for each element of a list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map: Option<Box<MapOver>>,
    /// The tasks that this one stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graph: Option<Box<SubGraph>>,
    /// Runs again until a condition holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeat: Option<Box<Repeat>>,
    /// Run only if this holds; otherwise the task is skipped, and with it what needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<Condition>,
    /// What the worker does *outside* its steps; [`Effect::Pure`] when everything is in steps.
    #[serde(default, skip_serializing_if = "is_default")]
    pub effect: Effect,
    /// Whether the output may add work to the graph.
    #[serde(default, skip_serializing_if = "is_default")]
    pub expands: bool,
    /// Whether the worker is given a view of the graph: revision, states, failures.
    #[serde(default, skip_serializing_if = "is_default")]
    pub view: bool,
    /// When to try again.
    #[serde(default, skip_serializing_if = "is_default")]
    pub retry: Retry,
    /// Wall-clock limit of one attempt, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Wall-clock limit from the first placement to the end of the last attempt, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_timeout_ms: Option<u64>,
    /// What failure means for the run.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_failure: OnFailure,
    /// Higher starts first among tasks that are ready together.
    #[serde(default, skip_serializing_if = "is_default")]
    pub priority: i32,
    /// Caps for this task alone.
    #[serde(default, skip_serializing_if = "is_default")]
    pub budget: Budget,
    /// What it takes of the engine's capacity while it is placed.
    #[serde(default, skip_serializing_if = "is_default")]
    pub resources: Resources,
    /// The group whose limits it counts against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Arc<str>>,
    /// Takes the place of run and task in the
    /// [`idempotency_key`](crate::CallCx::idempotency_key) of its steps, so that forks and other
    /// runs repeat an outside effect under the same key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<Arc<str>>,
    /// JSON schema of the input; edges into it are checked against it (feature `schema` of graph).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_schema: Option<Arc<Value>>,
    /// JSON schema of the output (feature `schema` of graph checks it).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<Arc<Value>>,
}

/// Most of a large graph is defaults, so a spec leaves them out. They are part of the format: one
/// that changed would change what old journals mean.
fn is_default<T: Default + PartialEq>(v: &T) -> bool {
    *v == T::default()
}

fn no_worker() -> WorkerName {
    WorkerName::from("")
}
fn is_no_worker(w: &WorkerName) -> bool {
    w.as_str().is_empty()
}

impl TaskSpec {
    /// A task with no needs, no input and one attempt.
    pub fn new(id: impl Into<TaskId>, worker: impl Into<WorkerName>) -> Self {
        Self {
            id: id.into(),
            worker: worker.into(),
            input: Value::Null,
            bind: Vec::new(),
            needs: Vec::new(),
            join: Join::All,
            map: None,
            graph: None,
            repeat: None,
            when: None,
            effect: Effect::Pure,
            expands: false,
            view: false,
            retry: Retry::default(),
            timeout_ms: None,
            total_timeout_ms: None,
            on_failure: OnFailure::default(),
            priority: 0,
            budget: Budget::default(),
            resources: Resources::default(),
            group: None,
            idempotency_key: None,
            input_schema: None,
            output_schema: None,
        }
    }
    /// A task that stands for a graph of its own.
    pub fn sub_graph(id: impl Into<TaskId>, graph: SubGraph) -> Self {
        Self {
            graph: Some(Box::new(graph)),
            ..Self::new(id, "")
        }
    }
    /// Sets the input.
    #[must_use]
    pub fn input(mut self, input: impl Into<Value>) -> Self {
        self.input = input.into();
        self
    }
    /// Adds a predecessor.
    #[must_use]
    pub fn needs(mut self, id: impl Into<TaskId>) -> Self {
        let id = id.into();
        if !self.needs.contains(&id) {
            self.needs.push(id);
        }
        self
    }
    /// Adds a predecessor and takes a field of the input from its output.
    #[must_use]
    pub fn bind(mut self, field: &str, from: impl Into<TaskId>, pointer: &str) -> Self {
        let from = from.into();
        self.bind.push(Binding {
            field: field.into(),
            from: from.clone(),
            pointer: pointer.into(),
        });
        self.needs(from)
    }
    /// Sets how many of its needs it waits for.
    #[must_use]
    pub fn join(mut self, j: Join) -> Self {
        self.join = j;
        self
    }
    /// Runs once for each element of the list at `pointer` in the output of `from`.
    #[must_use]
    pub fn map(mut self, field: &str, from: impl Into<TaskId>, pointer: &str) -> Self {
        let from = from.into();
        self.map = Some(Box::new(MapOver {
            from: from.clone(),
            pointer: pointer.into(),
            field: field.into(),
            key: None,
            max_parallel: None,
        }));
        self.needs(from)
    }
    /// Runs again until a condition over `output` and `iteration` holds, `max` times at most.
    #[must_use]
    pub fn repeat(mut self, r: Repeat) -> Self {
        self.repeat = Some(Box::new(r));
        self
    }
    /// Counts it against the limits of a group.
    #[must_use]
    pub fn group(mut self, name: &str) -> Self {
        self.group = Some(name.into());
        self
    }
    /// Sets what it takes of the engine's capacity.
    #[must_use]
    pub fn resources(mut self, r: Resources) -> Self {
        self.resources = r;
        self
    }
    /// Sets the key under which its outside effects are repeated.
    #[must_use]
    pub fn idempotency_key(mut self, key: &str) -> Self {
        self.idempotency_key = Some(key.into());
        self
    }
    /// Limits the wall time of all attempts together.
    #[must_use]
    pub fn total_timeout(mut self, d: Duration) -> Self {
        self.total_timeout_ms = Some(u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
        self
    }
    /// The JSON schema that the input must fit.
    #[must_use]
    pub fn input_schema(mut self, schema: Value) -> Self {
        self.input_schema = Some(Arc::new(schema));
        self
    }
    /// Runs only if the condition holds.
    #[must_use]
    pub fn when(mut self, c: Condition) -> Self {
        self.when = Some(c);
        self
    }
    /// Sets the retry policy.
    #[must_use]
    pub fn retry(mut self, r: Retry) -> Self {
        self.retry = r;
        self
    }
    /// Limits the wall time of an attempt.
    #[must_use]
    pub fn timeout(mut self, d: Duration) -> Self {
        self.timeout_ms = Some(u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
        self
    }
    /// Sets what failure means.
    #[must_use]
    pub fn on_failure(mut self, f: OnFailure) -> Self {
        self.on_failure = f;
        self
    }
    /// Sets what the worker does outside its steps.
    #[must_use]
    pub fn effect(mut self, e: Effect) -> Self {
        self.effect = e;
        self
    }
    /// Lets the output add work to the graph, and shows the worker the graph.
    #[must_use]
    pub fn expands(mut self) -> Self {
        self.expands = true;
        self.view = true;
        self
    }
    /// Caps this task.
    #[must_use]
    pub fn budget(mut self, b: Budget) -> Self {
        self.budget = b;
        self
    }
    /// Higher starts first.
    #[must_use]
    pub fn priority(mut self, p: i32) -> Self {
        self.priority = p;
        self
    }
    /// The JSON schema that the output must fit.
    #[must_use]
    pub fn output_schema(mut self, schema: Value) -> Self {
        self.output_schema = Some(Arc::new(schema));
        self
    }
}

/// What a step is about to do; journaled before it does it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepIntent {
    /// Its name in the attempt.
    pub key: StepKey,
    /// How it is settled when in doubt.
    pub effect: Effect,
    /// Hash of its input.
    pub fingerprint: Digest,
    /// The most that it may spend; held from the budget until it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserve: Option<Usage>,
}

/// What a step did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// What it was about to do.
    pub intent: StepIntent,
    /// What it returned.
    pub result: Result<Value, Failure>,
    /// The workspace after it, for a step that changed files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<BlobRef>,
    /// What it spent of its reservation; absent: all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// What an earlier placement of an attempt left behind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PriorStep {
    /// Begun; whether it happened cannot be told.
    InDoubt(StepIntent),
    /// Ended.
    Done(StepRecord),
}
impl PriorStep {
    /// What it was about to do.
    pub fn intent(&self) -> &StepIntent {
        match self {
            Self::InDoubt(i) => i,
            Self::Done(r) => &r.intent,
        }
    }
}

/// Everything that a worker process needs to do a task: no pointer, no secret, no type name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskEnvelope {
    /// Format version; 1.
    pub v: u16,
    /// Whose placement this is.
    pub key: DispatchKey,
    /// The task.
    pub spec: Arc<TaskSpec>,
    /// Which iteration of a loop, from 1; 0 for a task that is no loop.
    #[serde(default, skip_serializing_if = "is_default")]
    pub iteration: u32,
    /// Whether a former placement may have run: a worker whose effect is verifiable is asked to
    /// look at the world first.
    #[serde(default, skip_serializing_if = "is_default")]
    pub again: bool,
    /// The input, resolved from predecessors.
    pub input: Value,
    /// Recorded steps of this attempt, in journal order.
    #[serde(default)]
    pub steps: Vec<PriorStep>,
    /// Answers to its questions.
    #[serde(default)]
    pub answers: BTreeMap<AskId, Value>,
    /// Revision and states of the graph, if the spec asks for them.
    #[serde(default)]
    pub view: Option<Value>,
    /// The run's configuration.
    pub config: BlobRef,
    /// Names of the secrets that it may ask for.
    #[serde(default)]
    pub secrets: Vec<SecretName>,
    /// W3C trace context of the span it belongs to.
    #[serde(default)]
    pub traceparent: Option<String>,
}

impl TaskEnvelope {
    /// The version that this crate writes.
    pub const VERSION: u16 = 1;
}

/// A question to a person, asked by a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// What is asked.
    pub text: String,
    /// JSON schema of the answer.
    pub schema: Value,
    /// Taken if nobody answers in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// When the default is taken; without a default the task then fails. Wall time, so that it
    /// holds while no process is alive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
}

impl Question {
    /// A question whose answer may be any JSON, whenever it comes.
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            schema: Value::Bool(true),
            default: None,
            deadline: None,
        }
    }
    /// Sets the JSON schema of the answer.
    #[must_use]
    pub fn schema(mut self, schema: Value) -> Self {
        self.schema = schema;
        self
    }
    /// What is taken at the deadline.
    #[must_use]
    pub fn default(mut self, v: impl Into<Value>) -> Self {
        self.default = Some(v.into());
        self
    }
    /// When the default is taken.
    #[must_use]
    pub fn deadline(mut self, at: Timestamp) -> Self {
        self.deadline = Some(at);
        self
    }
}

/// What a task asks of the engine. Each call may be repeated: steps are found by key, reservations
/// and questions by id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HostCall {
    /// A step begins, and holds what it may spend.
    BeginStep(StepIntent),
    /// A step ended, and what it spent is charged.
    EndStep(StepRecord),
    /// Holds more than the step reserved.
    Reserve {
        /// Unique in the placement.
        id: String,
        /// The most that will be spent.
        most: Usage,
    },
    /// Charges what was spent of a reservation and frees the rest.
    Settle {
        /// The reservation.
        id: String,
        /// What was spent.
        actual: Usage,
    },
    /// Asks a person.
    Ask {
        /// Unique in the task.
        id: AskId,
        /// The question.
        question: Question,
    },
    /// Says that the worker lives.
    Heartbeat,
}

/// What the engine answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
#[expect(clippy::large_enum_variant, reason = "short-lived, one at a time")]
pub enum HostReply {
    /// It is durable; go on.
    Proceed,
    /// That step is recorded already; here is what it did.
    Recorded(StepRecord),
    /// The answer.
    Answer(Value),
    /// Nobody has answered yet.
    NotYet,
}

/// The engine as a task sees it. Engines implement it; executors carry it, unread.
#[async_trait]
pub trait TaskHost: Debug + Send + Sync + 'static {
    /// One call and its reply.
    ///
    /// # Behavior
    /// - Returns only when the effect of the call is durable at the run's level.
    /// - May be repeated by a transport without a second effect.
    /// - A caller whose fence is not the current one gets [`Halt::Fenced`], and nothing happens.
    async fn call(&self, from: &DispatchKey, call: HostCall) -> Result<HostReply, Halt>;
    /// Something for eyes.
    ///
    /// # Behavior
    /// - Never waits; may drop, and counts what it dropped.
    fn notice(&self, from: &DispatchKey, notice: Notice);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minimal_spec_reads_from_json() {
        let s: TaskSpec = serde_json::from_str(r#"{"id":"a","worker":"w"}"#).unwrap();
        assert_eq!(s, TaskSpec::new("a", "w"));
    }
}
