use smallhands_core::{Failure, FailureClass};
use std::time::Duration;

/// Why a model gave no answer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LlmError {
    /// The key is missing or not accepted.
    #[error("{model}: the key was not accepted ({reason}); check it and the account it belongs to")]
    Auth {
        /// Which model.
        model: String,
        /// What the server said.
        reason: String,
    },
    /// Too many requests.
    #[error("{model}: rate limited{}", after.map(|d| format!(", for {} s", d.as_secs_f64())).unwrap_or_default())]
    RateLimited {
        /// Which model.
        model: String,
        /// How long the server asks to wait.
        after: Option<Duration>,
    },
    /// The server cannot take it now.
    #[error("{model}: the server is overloaded or failing ({reason})")]
    Overloaded {
        /// Which model.
        model: String,
        /// What it said.
        reason: String,
    },
    /// The prompt does not fit.
    #[error(
        "{model}: the prompt has {tokens} tokens and with its answer must fit into {context}; shorten it"
    )]
    TooLong {
        /// Which model.
        model: String,
        /// Tokens of the prompt.
        tokens: u64,
        /// What fits.
        context: u64,
    },
    /// The server does not know the model.
    #[error("there is no model `{model}` at {endpoint}; {hint}")]
    UnknownModel {
        /// Which model.
        model: String,
        /// Where it was looked for.
        endpoint: String,
        /// What to do.
        hint: String,
    },
    /// The server refuses the request.
    #[error("{model}: the request was refused ({reason})")]
    Refused {
        /// Which model.
        model: String,
        /// What it said.
        reason: String,
    },
    /// The server could not be reached, or the connection broke.
    #[error("{endpoint} cannot be reached: {reason}; check the network and the address")]
    Unreachable {
        /// Where.
        endpoint: String,
        /// What the system said.
        reason: String,
    },
    /// The answer ended before it was complete.
    #[error("{model}: the answer was cut off after {bytes} bytes; nothing of it was used")]
    Truncated {
        /// Which model.
        model: String,
        /// How much came.
        bytes: usize,
    },
    /// The answer cannot be understood.
    #[error("{model}: the server's answer cannot be read: {reason}")]
    Malformed {
        /// Which model.
        model: String,
        /// Why.
        reason: String,
    },
    /// The model's file cannot be loaded or run.
    #[error("the local model cannot be used: {0}")]
    Local(String),
    /// The call was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// A budget, a guardrail or the journal said no.
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl LlmError {
    /// Stable, for machines.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Auth { .. } => "llm.auth",
            Self::RateLimited { .. } => "llm.rate_limited",
            Self::Overloaded { .. } => "llm.overloaded",
            Self::TooLong { .. } => "llm.too_long",
            Self::UnknownModel { .. } => "llm.unknown_model",
            Self::Refused { .. } => "llm.refused",
            Self::Unreachable { .. } => "llm.unreachable",
            Self::Truncated { .. } => "llm.truncated",
            Self::Malformed { .. } => "llm.malformed",
            Self::Local(_) => "llm.local",
            Self::Cancelled => "cancelled",
            Self::Failed(_) => "llm.failed",
        }
    }
    /// Whether the same call may succeed when tried again.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::RateLimited { .. }
            | Self::Overloaded { .. }
            | Self::Unreachable { .. }
            | Self::Truncated { .. } => true,
            Self::Failed(f) => f.retryable,
            _ => false,
        }
    }
    /// How long to wait before that, if the server said so.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { after, .. } => *after,
            Self::Failed(f) => f.retry_after_ms.map(Duration::from_millis),
            _ => None,
        }
    }
}

impl From<LlmError> for Failure {
    fn from(e: LlmError) -> Self {
        let class = match &e {
            LlmError::Failed(f) => return f.clone(),
            LlmError::Cancelled => FailureClass::Cancelled,
            LlmError::Auth { .. } | LlmError::UnknownModel { .. } | LlmError::TooLong { .. } => {
                FailureClass::Input
            }
            LlmError::Malformed { .. } => FailureClass::Protocol,
            _ => FailureClass::Unavailable,
        };
        let f = Self::new(e.code(), class, e.to_string());
        match (e.is_retryable(), e.retry_after()) {
            (true, Some(d)) => f.retry_after(d),
            (true, None) => f.retryable(),
            _ => f,
        }
    }
}
