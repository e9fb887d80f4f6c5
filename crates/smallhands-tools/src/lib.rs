//! Typed tools for agents.
//!
//! A [`Tool`] has typed input and output; its erased twin [`DynTool`] is what a [`Registry`] holds.
//! The developer tools read, search, edit and test a workspace, and touch it only through a
//! [`Sandbox`](smallhands_sandbox::Sandbox).
#![forbid(unsafe_code)]

mod edit;
mod error;
mod files;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod parse;
mod tests_tool;
mod tool;

pub use edit::{ApplyPatch, EditFile, EditInput, PatchInput};
pub use error::ToolError;
pub use files::{ListFiles, ReadFile, Search};
pub use tests_tool::{RunTests, Runner, TestCommand, TestFailure, TestReport};
pub use tool::{DynTool, Registry, Tool, ToolCard, ToolCx, ToolOutcome, Typed};

use std::sync::Arc;

/// The developer tools: `list_files`, `read_file`, `search`, `edit_file`, `apply_patch`, and
/// `run_tests` for this command.
pub fn developer_tools(tests: TestCommand) -> Registry {
    Registry::default()
        .with(ListFiles)
        .with(ReadFile)
        .with(Search)
        .with(EditFile)
        .with(ApplyPatch)
        .with_dyn(Arc::new(Typed(RunTests::new(tests))))
}
