//! Places where agents run code that nobody has read.
//!
//! [`SandboxBackend`] opens a [`Sandbox`] on a clean copy of a repository. What runs inside can
//! neither change the user's repository, nor read what was not granted, nor reach the network, nor
//! outlive the sandbox. What was asked for and cannot be enforced is an error that names the
//! missing layer: nothing fails open.
//!
//! Without default features this crate holds just the ports and types, for other backends.

#[cfg(all(feature = "linux", unix))]
mod cache;
mod egress;
mod error;
mod port;
mod snapshot;
mod spec;
mod workspace;

#[cfg(all(any(test, fuzzing), feature = "linux", target_os = "linux"))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(all(feature = "linux", target_os = "linux"))]
pub mod linux;
#[cfg(all(feature = "linux", unix))]
mod repo;

#[cfg(all(feature = "linux", unix))]
pub use cache::{
    Cache, CacheKind, Checksums, Environment, Environments, Origin, Prepared, Promotion, Pruned,
};
pub use egress::{
    Egress, EgressLog, EgressRecord, EgressRefusal, EgressRule, EgressVerdict, EgressVia, PROXY,
    Resolver, SystemResolver,
};
pub use error::SandboxError;
pub use port::{OutputSink, Sandbox, SandboxBackend, SandboxProcess};
#[cfg(all(feature = "linux", unix))]
pub use repo::{CommitMeta, Imported, RepoStore, Submodule, Uncommitted};
pub use snapshot::{Change, Content, Snapshot};
pub use spec::{
    CacheView, Capabilities, DirEntry, Ended, EntryKind, Execution, Generation, Invocation, Layer,
    Limits, OutputStream, Refused, RepoSource, SandboxSpec, SandboxUsage, Wall,
};
pub use workspace::Workspace;

#[cfg(all(feature = "linux", unix))]
use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
};

#[cfg(all(feature = "linux", target_os = "linux"))]
use linux::{agent_ids, outer_mode, sync_disk};

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

/// Waits until a disk has what was written to it, where there is a call for that.
#[cfg(all(feature = "linux", unix, not(target_os = "linux")))]
fn sync_disk(_: &std::path::Path) -> std::io::Result<()> {
    Ok(())
}

/// Waits for something, unless the call is cancelled first.
#[cfg(all(feature = "linux", unix))]
async fn or_cancelled<T>(
    f: impl Future<Output = T>,
    cx: &smallhands_core::CallCx,
) -> Result<T, SandboxError> {
    let (mut f, mut cancelled) = (pin!(f), pin!(cx.cancel().cancelled()));
    poll_fn(|task| {
        if cancelled.as_mut().poll(task).is_ready() {
            return Poll::Ready(Err(SandboxError::Cancelled));
        }
        f.as_mut().poll(task).map(Ok)
    })
    .await
}

/// Hands a tree of ours to agents, where they are somebody else. Follows no link.
#[cfg(all(feature = "linux", unix))]
fn give_to_agents(tree: &std::path::Path) -> std::io::Result<()> {
    use std::{fs, os::unix::fs::lchown, path::Path};
    fn own(path: &Path, (uid, gid): (u32, u32)) -> std::io::Result<()> {
        lchown(path, Some(uid), Some(gid))?;
        if fs::symlink_metadata(path)?.is_dir() {
            for entry in fs::read_dir(path)? {
                own(&entry?.path(), (uid, gid))?;
            }
        }
        Ok(())
    }
    agent_ids().map_or(Ok(()), |ids| own(tree, ids))
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
