use crate::{
    AskId, BlobRef, Budget, Digest, DispatchKey, Effect, Failure, Halt, Notice, SecretName,
    StepKey, TaskId, Usage, WorkerName, async_trait,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{collections::BTreeMap, fmt::Debug, time::Duration};

/// When a failed attempt is tried again. Only failures that say they are retryable are.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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

/// One top-level field of a task's input, taken from a predecessor's output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The field of the input object that is set.
    pub field: String,
    /// The predecessor; must be among the task's needs.
    pub from: TaskId,
    /// An RFC 6901 JSON pointer into the predecessor's value; empty is the whole value.
    #[serde(default)]
    pub pointer: String,
}

/// One node of a graph: a worker's name and a JSON value, and how to treat them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// Unique in the run.
    pub id: TaskId,
    /// Which worker does it.
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
    /// What failure means for the run.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_failure: OnFailure,
    /// Higher starts first among tasks that are ready together.
    #[serde(default, skip_serializing_if = "is_default")]
    pub priority: i32,
    /// Caps for this task alone.
    #[serde(default, skip_serializing_if = "is_default")]
    pub budget: Budget,
    /// JSON schema of the output (feature `schema` of graph checks it).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<Value>,
}

/// Most of a large graph is defaults, so a spec leaves them out. They are part of the format: one
/// that changed would change what old journals mean.
fn is_default<T: Default + PartialEq>(v: &T) -> bool {
    *v == T::default()
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
            when: None,
            effect: Effect::Pure,
            expands: false,
            view: false,
            retry: Retry::default(),
            timeout_ms: None,
            on_failure: OnFailure::default(),
            priority: 0,
            budget: Budget::default(),
            output_schema: None,
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
        self.output_schema = Some(schema);
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
    pub spec: TaskSpec,
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
    /// Taken if nobody answers.
    pub default: Option<Value>,
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
    fn backoff_doubles_up_to_its_cap_and_jitter_only_stretches() {
        let r = Retry {
            max_attempts: 9,
            first_delay_ms: 100,
            factor: 2.0,
            max_delay_ms: 1_000,
            jitter: 0.5,
        };
        let ms = |n, x| r.delay_before(n, x).as_millis();
        assert_eq!([ms(2, 0.0), ms(3, 0.0), ms(4, 0.0)], [100, 200, 400]);
        assert_eq!((ms(9, 0.0), ms(9, 1.0)), (1_000, 1_500));
        assert_eq!(ms(u32::MAX, 0.0), 1_000);
    }

    #[test]
    fn a_minimal_spec_reads_from_json() {
        let s: TaskSpec = serde_json::from_str(r#"{"id":"a","worker":"w"}"#).unwrap();
        assert_eq!(s, TaskSpec::new("a", "w"));
    }
}
