//! What is shown of a run, and what must not be shown.
//!
//! [`SecretRedactor`] masks secrets on their way to a sink; [`Redacting`] does so for a whole
//! stream. [`SecretGuard`] keeps known secrets out of prompts and records. [`CostSummary`] adds up
//! what a run spent. The feature `logs` makes JSON logs out of [`tracing`] events; only binaries
//! install it.
//!
//! [`tracing`]: https://docs.rs/tracing
#![forbid(unsafe_code)]

mod cost;
mod guard;
mod redact;

#[cfg(feature = "logs")]
mod logs;

pub use cost::CostSummary;
pub use guard::SecretGuard;
#[cfg(feature = "logs")]
pub use logs::json_logs;
pub use redact::{Redacting, SecretRedactor};
