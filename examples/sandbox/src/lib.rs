//! What the examples share: where git is, and what calls are made with.

use smallhands_core::{Ambient, NoGuard, NoSecrets};
use smallhands_graph::{MemoryBlobs, SystemClock};
use std::{io, path::PathBuf, sync::Arc};

/// The git program, which is needed on the host for clean copies and diffs.
///
/// # Errors
/// It is not where it usually is.
pub fn git() -> io::Result<PathBuf> {
    let usual = ["/usr/bin/git", "/usr/local/bin/git"].map(PathBuf::from);
    let found = usual.into_iter().find(|g| g.exists());
    found.ok_or_else(|| io::Error::other("git is needed"))
}

/// The computer's clock, blobs in memory, nothing secret.
pub fn ambient() -> Ambient {
    Ambient {
        clock: Arc::new(SystemClock),
        blobs: Arc::new(MemoryBlobs::default()),
        guard: Arc::new(NoGuard),
        secrets: Arc::new(NoSecrets),
    }
}
