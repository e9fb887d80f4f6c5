use smallhands_core::{Failure, FailureClass};
use smallhands_sandbox::SandboxError;

/// A call that gave no result. A result that is bad news (a failing test, no match) is a value.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{operator}")]
#[non_exhaustive]
pub struct ToolError {
    /// Stable, for machines.
    pub code: &'static str,
    /// For whoever runs the program.
    pub operator: String,
    /// For the model: what to do differently, nothing about the host.
    pub model: String,
    /// Whether the same call may succeed when tried again.
    pub retryable: bool,
    /// What kind of thing went wrong.
    pub class: FailureClass,
}

impl ToolError {
    /// The model asked for something that cannot be.
    pub fn input(model: impl Into<String>) -> Self {
        let model = model.into();
        Self {
            code: "tool.input",
            operator: model.clone(),
            model,
            retryable: false,
            class: FailureClass::Input,
        }
    }
    /// Something below the tool failed.
    pub fn broken(operator: impl Into<String>) -> Self {
        Self {
            code: "tool.broken",
            operator: operator.into(),
            model: "the tool is not available now".into(),
            retryable: false,
            class: FailureClass::Unavailable,
        }
    }
    /// Stable, for machines.
    pub fn code(&self) -> &'static str {
        self.code
    }
    /// Whether the same call may succeed when tried again.
    pub fn is_retryable(&self) -> bool {
        self.retryable
    }
}

impl From<SandboxError> for ToolError {
    fn from(e: SandboxError) -> Self {
        match &e {
            SandboxError::NotFound(_) | SandboxError::Path { .. } | SandboxError::File { .. } => {
                Self::input(e.to_string())
            }
            _ => Self {
                code: e.code(),
                retryable: e.is_retryable(),
                class: Failure::from(e).class,
                ..Self::broken("the sandbox failed")
            },
        }
    }
}

impl From<ToolError> for Failure {
    fn from(e: ToolError) -> Self {
        let f = Self::new(e.code, e.class, e.operator);
        if e.retryable { f.retryable() } else { f }
    }
}
