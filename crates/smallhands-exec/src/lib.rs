//! Where tasks run: [`InProcess`], or a [`ProcessPool`] of worker processes that speak the worker
//! protocol over their standard streams.
//!
//! The protocol carries each call that a task makes to the engine (steps, questions, budget, blobs)
//! and its reply, unread, so that a task cannot tell where it runs. A worker process that dies is a
//! typed failure, never a hang; retries and leases belong to the graph.
#![forbid(unsafe_code)]

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod handle;
mod in_process;
mod pool;
mod protocol;
mod pump;
mod worker;

pub use in_process::InProcess;
pub use pool::{PoolOptions, ProcessPool};
pub use smallhands_core::{Executor, TaskHandle};
pub use worker::{WORKER_ARG, WorkerParts, init, is_initialised};

use smallhands_core::{AttemptReport, Failure, Outcome, Ran};

fn halted(f: Failure, ran: Ran) -> AttemptReport {
    AttemptReport {
        outcome: Outcome::Halted(f.into()),
        ran,
    }
}
