use smallhands_core::{Failure, FailureClass};

/// What the calls of this crate return.
pub type Result<T, E = MemoryError> = std::result::Result<T, E>;

/// Why something could not be indexed or found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// The lexical index could not be written or read.
    #[error("the code index failed while {stage}: {reason}; build it again")]
    Index {
        /// What was being done.
        stage: &'static str,
        /// What the index said.
        reason: String,
    },
    /// There is no index to search yet.
    #[error("there is no code index; build one first")]
    NoIndex,
    /// Vectors of another length than the index or model has.
    #[error(
        "expected vectors of {expected} numbers, got {got}; the index and the model must match"
    )]
    Dimension {
        /// What was expected.
        expected: usize,
        /// What came.
        got: usize,
    },
    /// The call was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// Something below failed: a model, a store, the budget.
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl MemoryError {
    /// Stable, for machines.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Index { .. } => "memory.index",
            Self::NoIndex => "memory.no_index",
            Self::Dimension { .. } => "memory.dimension",
            Self::Cancelled => "cancelled",
            Self::Failed(_) => "memory.failed",
        }
    }

    /// Whether the same call may succeed when tried again.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Failed(f) if f.retryable)
    }
}

impl From<MemoryError> for Failure {
    fn from(e: MemoryError) -> Self {
        let class = match e {
            MemoryError::Failed(f) => return f,
            MemoryError::Cancelled => FailureClass::Cancelled,
            MemoryError::NoIndex | MemoryError::Dimension { .. } => FailureClass::Input,
            MemoryError::Index { .. } => FailureClass::Store,
        };
        Self::new(e.code(), class, e.to_string())
    }
}
