use crate::{BlobRef, CallCx, Failure, SecretName, Timestamp, async_trait};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{borrow::Cow, fmt::Debug, future::Future, pin::Pin, sync::Arc, time::Duration};

/// A boxed future that can move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Reads time *and waits*: without `sleep`, backoff and timeouts could not be simulated.
pub trait Clock: Debug + Send + Sync + 'static {
    /// Wall time.
    ///
    /// # Behavior
    /// - May jump in both directions; used for people and journaled deadlines only.
    fn now(&self) -> Timestamp;
    /// Time since some fixed instant.
    ///
    /// # Behavior
    /// - Never goes back.
    fn monotonic(&self) -> Duration;
    /// Ends after `d` of monotonic time.
    ///
    /// # Behavior
    /// - Never ends before `d` has passed on [`monotonic`](Self::monotonic).
    fn sleep(&self, d: Duration) -> BoxFuture<'static, ()>;
}

/// Content-addressed bytes, reachable by engine and workers.
#[async_trait]
pub trait BlobStore: Debug + Send + Sync + 'static {
    /// Keeps the bytes.
    ///
    /// # Behavior
    /// - When it returns, the bytes survive what the store promises to survive.
    /// - Putting the same bytes again returns the same reference and stores nothing new.
    async fn put(&self, bytes: Vec<u8>) -> Result<BlobRef, Failure>;
    /// Reads them back.
    ///
    /// # Behavior
    /// - Returns exactly the bytes that were put, or an error: damaged content is never returned.
    /// - An unknown reference is a failure with code `blob.missing`.
    async fn get(&self, blob: &BlobRef) -> Result<Vec<u8>, Failure>;
}

/// Where a process finds secret values. They are asked for by name and never journaled.
pub trait Secrets: Debug + Send + Sync + 'static {
    /// The value, if this process has it.
    fn get(&self, name: &SecretName) -> Option<String>;
}

/// A [`Secrets`] that has none.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSecrets;
impl Secrets for NoSecrets {
    fn get(&self, _: &SecretName) -> Option<String> {
        None
    }
}

/// Live, lossy, bounded: for eyes only. The journal is the truth.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Notice {
    /// Something advanced.
    Progress {
        /// What is being done.
        text: String,
        /// How much of how much, if known.
        done: Option<(u64, u64)>,
    },
    /// A command printed something.
    Output {
        /// `stdout` or `stderr`.
        stream: String,
        /// The text, lossily decoded.
        text: String,
    },
    /// A model wrote something.
    Delta {
        /// The new text.
        text: String,
    },
    /// So many notices were dropped here.
    Dropped(u64),
}

/// What a guardrail looks at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Subject {
    /// What is about to be sent to a model.
    Prompt(Value),
    /// What a model answered.
    ModelAnswer(Value),
    /// A tool call before it is made.
    ToolCall {
        /// The tool's name.
        tool: String,
        /// Its arguments.
        args: Value,
    },
    /// What a step returned, before it is recorded.
    StepResult(Value),
    /// A patch before it leaves the sandbox.
    Patch(String),
}

/// What a guardrail says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Verdict {
    /// Go on.
    Allow,
    /// Go on with this instead.
    Redact {
        /// The replacement.
        with: Value,
        /// Which rule.
        rule: String,
    },
    /// A person must agree.
    Ask {
        /// Which rule.
        rule: String,
        /// Why.
        reason: String,
    },
    /// No.
    Deny {
        /// Which rule.
        rule: String,
        /// Why.
        reason: String,
    },
}

/// A policy, asked by core's steps, by models and by tools.
#[async_trait]
pub trait Guardrail: Debug + Send + Sync + 'static {
    /// Stable; names the policy in records and reports.
    fn name(&self) -> &str;
    /// Judges one subject.
    ///
    /// # Behavior
    /// - Has no side effect, and the same subject gets the same verdict.
    /// - Never rewrites data that will be executed: for a [`Subject::ToolCall`] it allows, asks or
    ///   denies.
    async fn check(&self, subject: &Subject, cx: &CallCx) -> Verdict;
}

/// A [`Guardrail`] that allows everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoGuard;
#[async_trait]
impl Guardrail for NoGuard {
    fn name(&self) -> &'static str {
        "none"
    }
    async fn check(&self, _: &Subject, _: &CallCx) -> Verdict {
        Verdict::Allow
    }
}

/// Masks secrets in text on its way to a sink (log, trace, notice, report).
pub trait Redactor: Debug + Send + Sync + 'static {
    /// The text with secrets masked.
    ///
    /// # Behavior
    /// - Redacting twice gives the same as once.
    /// - Text without a secret is returned borrowed, unchanged.
    fn redact<'a>(&self, text: &'a str) -> Cow<'a, str>;
}

/// What a process supplies to everything that runs in it. Built from configuration in each
/// process, never serialised.
#[derive(Clone, Debug)]
pub struct Ambient {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Blobs of the run.
    pub blobs: Arc<dyn BlobStore>,
    /// The policy in force.
    pub guard: Arc<dyn Guardrail>,
    /// Secret values.
    pub secrets: Arc<dyn Secrets>,
}

/// A thing whose state is saved beside a step's result and put back before a step is run again.
#[async_trait]
pub trait Checkpoint: Send + Sync {
    /// Saves the present state; the reference is durable when it returns.
    async fn save(&self, blobs: &dyn BlobStore) -> Result<BlobRef, Failure>;
    /// Restores a saved state; `None` is the clean beginning.
    async fn restore(&self, to: Option<&BlobRef>, blobs: &dyn BlobStore) -> Result<(), Failure>;
}
