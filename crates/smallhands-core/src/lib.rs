//! The vocabulary of SmallHands and the ports that several layers share.
//!
//! This crate does no I/O and knows no async runtime. It defines what a *task* is
//! ([`TaskSpec`], [`TaskEnvelope`]), how a *worker* talks to the engine that drives it
//! ([`TaskContext`] over [`TaskHost`]), how an *executor* places attempts on processes
//! ([`Executor`]), what things cost ([`Usage`], [`Budget`]) and how they fail ([`Failure`], [`Halt`]).
//!
//! The conversation between worker and engine is the contract of durability: every effect of a
//! worker is a [step](TaskContext::step), begun and ended durably, so that a run killed at any
//! instant resumes with the next step and repeats no finished one.
//!
//! ```
//! use smallhands_core::{worker, Step, Worker};
//!
//! let double = worker("double", |n: u64, cx: smallhands_core::TaskContext| async move {
//!     cx.step(Step::new("compute").input(&n), |_| async move { Ok(n * 2) }).await
//! });
//! assert_eq!(double.name().as_str(), "double");
//! ```
#![forbid(unsafe_code)]

mod budget;
mod call;
mod cancel;
mod context;
mod digest;
mod executor;
mod ids;
mod outcome;
mod policy;
mod ports;
mod task;
mod worker;

pub use async_trait::async_trait;
pub use budget::{Budget, Exceeded, Usage};
pub use call::{CallCx, Reservation};
pub use cancel::{CancelToken, Cancelled};
pub use context::{Step, TaskContext};
pub use digest::{BlobRef, Digest, InvalidDigest};
pub use executor::{
    AttemptReport, CancelMode, Executor, ExecutorCapabilities, Reattached, TaskHandle,
};
pub use ids::{AskId, DispatchKey, RunId, SecretName, StepKey, TaskId, Timestamp, WorkerName};
pub use outcome::{Effect, Failure, FailureClass, Halt, Outcome, Ran, TaskOutput};
pub use policy::{
    Binding, Condition, GroupLimit, Join, MapOver, OnFailure, Repeat, Resources, Retry, SubGraph,
};
pub use ports::{
    Ambient, BlobStore, BoxFuture, Checkpoint, Clock, Guardrail, NoGuard, NoSecrets, Notice,
    Redactor, Secrets, Subject, Verdict,
};
pub use task::{
    HostCall, HostReply, PriorStep, Question, StepIntent, StepRecord, TaskEnvelope, TaskHost,
    TaskSpec,
};
pub use worker::{Worker, WorkerSource, worker};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A poisoned lock only says that another thread panicked; the data behind ours stays valid.
fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}
