use smallhands_core::{Failure, FailureClass};

/// Why a sandbox could not be set up or used. Never the result of a command: that is an
/// [`Execution`](crate::Execution), whatever its exit code.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// A layer that was asked for cannot be enforced here.
    #[error("the sandbox layer `{layer}` is not available here: {reason}; {fix}")]
    Unavailable {
        /// Which layer.
        layer: String,
        /// What the system said.
        reason: String,
        /// What would allow it.
        fix: String,
    },
    /// The program that embeds this crate did not call its hook first in `main`.
    #[error(
        "the sandbox helper cannot be started: call smallhands::init() (or \
         smallhands_sandbox::linux::init()) as the first thing in main"
    )]
    NotInitialised,
    /// Setting up failed for another reason.
    #[error("the sandbox could not be set up: {stage}: {reason}")]
    Setup {
        /// Which part of the set-up.
        stage: String,
        /// What the system said.
        reason: String,
    },
    /// The helper process is gone.
    #[error("the sandbox is gone: {0}")]
    Lost(String),
    /// No such file in the sandbox.
    #[error("no such file in the sandbox: {0}")]
    NotFound(String),
    /// A path that leaves the workspace or is not usable.
    #[error("`{path}` cannot be used in the sandbox: {reason}")]
    Path {
        /// The path.
        path: String,
        /// Why.
        reason: String,
    },
    /// A file operation failed inside.
    #[error("{path}: {reason}")]
    File {
        /// The path.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// A rule of an [`Egress`](crate::Egress) that means nothing, or too much.
    #[error("the egress rule `{rule}` cannot be used: {reason}; write host:port or *.suffix:port")]
    EgressRule {
        /// The rule.
        rule: String,
        /// Why.
        reason: String,
    },
    /// A [`Cache`](crate::Cache) or what is in it cannot be used.
    #[error("the cache {path}: {reason}")]
    Cache {
        /// The cache's directory.
        path: String,
        /// Why, and what to do.
        reason: String,
    },
    /// What a task wrote to a cache whose content nobody can check.
    #[error(
        "what a task wrote to a cache of kind `{0}` cannot be checked; promote it only from a set-up \
         on clean sources (Origin::Setup)"
    )]
    Unverifiable(String),
    /// A command of an [`Environment`](crate::Environment) failed, or did not make what it was to
    /// make. The sandbox is not at fault.
    #[error("the environment could not be set up: {reason}: {}", tail(.output))]
    Environment {
        /// Which command, and how it ended.
        reason: String,
        /// What it wrote, up to its cap.
        output: String,
    },
    /// The disk, or the sandbox's share of it, is full.
    #[error("no space left while {0}; free some, or choose another directory with --state-dir")]
    DiskFull(String),
    /// The repository could not be read.
    #[error("{0}")]
    Repo(String),
    /// A patch that is none, or does not fit its base.
    #[error("the patch does not apply: {0}; make it against this commit")]
    Patch(String),
    /// A blob could not be read or written.
    #[error(transparent)]
    Blob(#[from] Failure),
    /// The process that was talked to is over.
    #[error("the process has ended; wait() says how")]
    Ended,
    /// The call was cancelled.
    #[error("cancelled")]
    Cancelled,
}

/// The end of a long text.
fn tail(text: &str) -> &str {
    let from = text.len().saturating_sub(2000);
    let from = (from..text.len()).find(|&i| text.is_char_boundary(i));
    text[from.unwrap_or(0)..].trim()
}

impl SandboxError {
    /// Stable, for machines.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } => "sandbox.unavailable",
            Self::NotInitialised => "sandbox.not_initialised",
            Self::Setup { .. } => "sandbox.setup",
            Self::Lost(_) => "sandbox.lost",
            Self::NotFound(_) => "sandbox.not_found",
            Self::Path { .. } => "sandbox.path",
            Self::File { .. } => "sandbox.file",
            Self::EgressRule { .. } => "sandbox.egress_rule",
            Self::Cache { .. } => "sandbox.cache",
            Self::Unverifiable(_) => "sandbox.unverifiable",
            Self::Environment { .. } => "sandbox.environment",
            Self::DiskFull(_) => "sandbox.disk_full",
            Self::Repo(_) => "sandbox.repo",
            Self::Patch(_) => "sandbox.patch",
            Self::Blob(_) => "sandbox.blob",
            Self::Ended => "sandbox.ended",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether the same call may succeed when tried again.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Lost(_))
    }
}

impl From<SandboxError> for Failure {
    fn from(e: SandboxError) -> Self {
        let class = match &e {
            SandboxError::Blob(f) => return f.clone(),
            SandboxError::Cancelled => FailureClass::Cancelled,
            SandboxError::Ended
            | SandboxError::NotFound(_)
            | SandboxError::Path { .. }
            | SandboxError::File { .. }
            | SandboxError::Environment { .. } => FailureClass::Task,
            SandboxError::Repo(_)
            | SandboxError::Unverifiable(_)
            | SandboxError::Patch(_)
            | SandboxError::NotInitialised
            | SandboxError::EgressRule { .. } => FailureClass::Input,
            _ => FailureClass::Unavailable,
        };
        let f = Self::new(e.code(), class, e.to_string());
        if e.is_retryable() { f.retryable() } else { f }
    }
}
