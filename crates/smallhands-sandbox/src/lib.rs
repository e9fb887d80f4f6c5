//! Places where agents run code that nobody has read.
//!
//! [`SandboxBackend`] opens a [`Sandbox`] on a clean copy of a repository. What runs inside can
//! neither change the user's repository, nor read what was not granted, nor reach the network, nor
//! outlive the sandbox. What was asked for and cannot be enforced is an error that names the
//! missing layer: nothing fails open.
//!
//! Without default features this crate holds just the ports and types, for other backends.

mod error;
mod port;
mod snapshot;
mod spec;
mod workspace;

#[cfg(feature = "linux")]
mod repo;
#[cfg(all(feature = "linux", target_os = "linux"))]
pub mod linux;

pub use error::SandboxError;
pub use port::{OutputSink, Sandbox, SandboxBackend};
#[cfg(feature = "linux")]
pub use repo::{CommitMeta, Imported, RepoStore, Uncommitted};
pub use snapshot::{Change, Content, Snapshot};
pub use spec::{
    Capabilities, DirEntry, Ended, EntryKind, Execution, Invocation, Layer, Limits, RepoSource,
    SandboxSpec,
};
pub use workspace::Workspace;
