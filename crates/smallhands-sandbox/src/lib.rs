//! Places where agents run code that nobody has read.
//!
//! [`SandboxBackend`] opens a [`Sandbox`] on a clean copy of a repository. What runs inside can
//! neither change the user's repository, nor read what was not granted, nor reach the network, nor
//! outlive the sandbox. What was asked for and cannot be enforced is an error that names the
//! missing layer: nothing fails open.
//!
//! Without default features this crate holds just the ports and types, for other backends.

mod egress;
mod error;
mod port;
mod snapshot;
mod spec;
mod workspace;

#[cfg(all(feature = "linux", target_os = "linux"))]
pub mod linux;
#[cfg(all(feature = "linux", unix))]
mod repo;

pub use egress::{
    Egress, EgressLog, EgressRecord, EgressRefusal, EgressRule, EgressVerdict, EgressVia, PROXY,
    Resolver, SystemResolver,
};
pub use error::SandboxError;
pub use port::{OutputSink, Sandbox, SandboxBackend, SandboxProcess};
#[cfg(all(feature = "linux", unix))]
pub use repo::{CommitMeta, Imported, RepoStore, Uncommitted};
pub use snapshot::{Change, Content, Snapshot};
pub use spec::{
    Capabilities, DirEntry, Ended, EntryKind, Execution, Invocation, Layer, Limits, OutputStream,
    RepoSource, SandboxSpec, SandboxUsage, Wall,
};
pub use workspace::Workspace;

#[cfg(all(feature = "linux", target_os = "linux"))]
use linux::{agent_ids, outer_mode};

/// Agents run as the user itself where there is no native backend.
#[cfg(all(feature = "linux", unix, not(target_os = "linux")))]
fn agent_ids() -> Option<(u32, u32)> {
    None
}

/// The mode of a directory above clean copies.
#[cfg(all(feature = "linux", unix, not(target_os = "linux")))]
fn outer_mode() -> u32 {
    0o700
}

/// Runs something that blocks on a thread of its own, whatever the async runtime.
#[cfg(all(feature = "linux", unix))]
async fn blocking<T: Send + 'static>(
    f: impl FnOnce() -> Result<T, SandboxError> + Send + 'static,
) -> Result<T, SandboxError> {
    let (tell, told) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name("sandbox-io".into());
    thread
        // Nobody waits any more: then nobody needs it.
        .spawn(move || drop(tell.send(f())))
        .map_err(|e| SandboxError::Setup {
            stage: "thread".into(),
            reason: e.to_string(),
        })?;
    told.await.unwrap_or_else(|_| {
        Err(SandboxError::Setup {
            stage: "thread".into(),
            reason: "it panicked".into(),
        })
    })
}
