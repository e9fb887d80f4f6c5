//! What the examples share: an engine over a store and a few workers.

use smallhands_core::{Ambient, NoGuard, NoSecrets, Worker};
use smallhands_exec::InProcess;
use smallhands_graph::{DirBlobs, Engine, SqliteStore, StateStore, StoreError, SystemClock};
use std::{path::Path, sync::Arc};

/// Journal and blobs in one directory.
///
/// # Errors
/// The directory cannot be used.
pub fn sqlite(dir: &Path) -> Result<Arc<dyn StateStore>, StoreError> {
    let blobs = DirBlobs::open(dir.join("blobs")).map_err(|e| StoreError::Io(e.to_string()))?;
    Ok(Arc::new(SqliteStore::open(dir, Arc::new(blobs))?))
}

/// An engine that runs its tasks in this process.
pub fn engine(
    store: Arc<dyn StateStore>,
    workers: impl IntoIterator<Item = Arc<dyn Worker>>,
) -> Engine {
    let ambient = Ambient {
        clock: Arc::new(SystemClock),
        blobs: store.blobs(),
        guard: Arc::new(NoGuard),
        secrets: Arc::new(NoSecrets),
    };
    let executor = Arc::new(InProcess::new(workers, ambient));
    Engine::new(store, executor, Arc::new(SystemClock))
}

/// What the README shows of Rust compiles.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
#[derive(Debug)]
pub struct Readme;
