use serde_json::{Value, json};
use smallhands::{
    core::Failure,
    graph::{GraphError, StoreError},
    sandbox::SandboxError,
};
use std::fmt;

/// What went wrong, in one sentence, with a suggestion and an exit code.
#[derive(Debug)]
pub(crate) struct CliError {
    pub(crate) exit: u8,
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl CliError {
    pub(crate) fn new(exit: u8, code: &str, message: impl Into<String>) -> Self {
        Self {
            exit,
            code: code.into(),
            message: message.into(),
            hint: None,
        }
    }
    pub(crate) fn other(message: impl Into<String>) -> Self {
        Self::new(1, "failed", message)
    }
    pub(crate) fn hint(mut self, h: impl Into<String>) -> Self {
        self.hint = Some(h.into());
        self
    }
    pub(crate) fn json(&self) -> Value {
        json!({ "ok": false, "error": {
            "code": self.code, "message": self.message, "hint": self.hint, "exit": self.exit,
        }})
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        match &self.hint {
            Some(h) => write!(f, "\n  try: {h}"),
            None => Ok(()),
        }
    }
}

fn exit_of(code: &str) -> u8 {
    match code {
        "repo.not_a_repository" => 3,
        "tests.none" => 4,
        "tests.green" => 5,
        "tests.not_started" => 6,
        "run.unknown" | "run.unknown_task" | "run.unknown_question" | "run.not_in_doubt" => 7,
        "llm.unknown_model" => 8,
        "model.unavailable" => 9,
        "model.checksum" => 10,
        "store.disk_full" | "sandbox.disk_full" => 11,
        "sandbox.unavailable" | "sandbox.not_initialised" => 12,
        "store.held" => 13,
        "budget.exhausted" => 14,
        "llm.auth" => 15,
        "run.import" => 17,
        "run.exists" => 18,
        "run.answer" | "sandbox.egress_rule" => 2,
        _ => 1,
    }
}

impl From<Failure> for CliError {
    fn from(f: Failure) -> Self {
        Self {
            exit: exit_of(&f.code),
            code: f.code.into_owned(),
            message: f.message,
            hint: f.hint,
        }
    }
}
impl From<StoreError> for CliError {
    fn from(e: StoreError) -> Self {
        let error = Self::new(exit_of(e.code()), e.code(), e.to_string());
        match e {
            // Nothing reaches a driver from another process.
            StoreError::Held { .. } => error.hint("stop it with Ctrl-C where it was started"),
            _ => error,
        }
    }
}
impl From<GraphError> for CliError {
    fn from(e: GraphError) -> Self {
        match e {
            GraphError::Blob(f) => f.into(),
            GraphError::Store(e) => e.into(),
            e => Self::new(exit_of(e.code()), e.code(), e.to_string()),
        }
    }
}
impl From<SandboxError> for CliError {
    fn from(e: SandboxError) -> Self {
        match e {
            SandboxError::Repo(why) => {
                let code = if why.contains("not a git repository") {
                    "repo.not_a_repository"
                } else {
                    "repo"
                };
                Self::new(exit_of(code), code, why)
            }
            e => Failure::from(e).into(),
        }
    }
}
