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
    #[error("{model}: rate limited; try again {}", when(*after))]
    RateLimited {
        /// Which model.
        model: String,
        /// How long the server asks to wait.
        after: Option<Duration>,
    },
    /// The server cannot take it now.
    #[error("{model}: the server is overloaded or failing ({reason}); try again {}", when(*after))]
    Overloaded {
        /// Which model.
        model: String,
        /// What it said.
        reason: String,
        /// How long the server asks to wait.
        after: Option<Duration>,
    },
    /// The prompt does not fit.
    #[error(
        "{model}: the prompt{} and its answer must fit into {}; shorten it",
        tokens.map(|n| format!(" of {n} tokens")).unwrap_or_default(),
        context.map_or("the context".into(), |n| format!("{n} tokens"))
    )]
    TooLong {
        /// Which model.
        model: String,
        /// Tokens of the prompt, if the server counted them.
        tokens: Option<u64>,
        /// What fits, if it said so.
        context: Option<u64>,
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
    #[error("{model}: the request was refused ({reason}); it must be changed")]
    Refused {
        /// Which model.
        model: String,
        /// What it said.
        reason: String,
    },
    /// There is no connection to the server: nothing was sent.
    #[error("{endpoint} cannot be reached: {reason}; check the network and the address")]
    Unreachable {
        /// Where.
        endpoint: String,
        /// What the system said.
        reason: String,
    },
    /// The server took the request and did not answer in time.
    #[error("{endpoint} {reason}; raise the endpoint's timeouts if it is slow")]
    Timeout {
        /// Where.
        endpoint: String,
        /// What was waited for.
        reason: String,
    },
    /// The answer ended before it was complete.
    #[error(
        "{model}: the answer was cut off after {bytes} bytes; nothing of it was used; try again"
    )]
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
    /// A budget, a guardrail or the journal said no; or one of the above came after something was
    /// paid.
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl LlmError {
    /// Stable, for machines.
    pub fn code(&self) -> &str {
        match self {
            Self::Auth { .. } => "llm.auth",
            Self::RateLimited { .. } => "llm.rate_limited",
            Self::Overloaded { .. } => "llm.overloaded",
            Self::TooLong { .. } => "llm.too_long",
            Self::UnknownModel { .. } => "llm.unknown_model",
            Self::Refused { .. } => "llm.refused",
            Self::Unreachable { .. } => "llm.unreachable",
            Self::Timeout { .. } => "llm.timeout",
            Self::Truncated { .. } => "llm.truncated",
            Self::Malformed { .. } => "llm.malformed",
            Self::Local(_) => "llm.local",
            Self::Cancelled => "cancelled",
            Self::Failed(f) => &f.code,
        }
    }
    /// Whether the same call may succeed when tried again.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::RateLimited { .. }
            | Self::Overloaded { .. }
            | Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Truncated { .. } => true,
            Self::Failed(f) => f.retryable,
            _ => false,
        }
    }
    /// How long to wait before that, if the server said so.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { after, .. } | Self::Overloaded { after, .. } => *after,
            Self::Failed(f) => f.retry_after_ms.map(Duration::from_millis),
            _ => None,
        }
    }
    /// Whether it surely cost nothing: the work was not begun. A refusal is not among them, as some
    /// servers charge for the prompt that they refuse.
    pub(crate) fn is_free(&self) -> bool {
        matches!(
            self,
            Self::Auth { .. }
                | Self::RateLimited { .. }
                | Self::UnknownModel { .. }
                | Self::TooLong { .. }
                | Self::Unreachable { .. }
                | Self::Local(_)
        )
    }
    /// The same after something was paid.
    #[cfg(feature = "http")]
    pub(crate) fn paid(self) -> Self {
        match self {
            e if e.is_free() => Self::Failed(e.into()),
            e => e,
        }
    }
}

fn when(after: Option<Duration>) -> String {
    after.map_or("later".into(), |d| format!("in {} s", d.as_secs_f64()))
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
            LlmError::Timeout { .. } => FailureClass::Timeout,
            _ => FailureClass::Unavailable,
        };
        let f = Self {
            code: e.code().to_owned().into(),
            ..Self::new("llm.failed", class, e.to_string())
        };
        match (e.is_retryable(), e.retry_after()) {
            (true, Some(d)) => f.retry_after(d),
            (true, None) => f.retryable(),
            _ => f,
        }
    }
}
