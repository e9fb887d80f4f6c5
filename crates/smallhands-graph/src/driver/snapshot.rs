//! When the state of a run is put aside, and how that comes into its head.

use super::Driver;
use crate::{Snapshot, engine::Engine};
use smallhands_core::{BlobRef, BoxFuture, Failure};
use std::mem;
use tokio::{runtime::Handle, task::spawn_blocking};

/// A state on its way into the blob store, up to which record.
pub(super) struct Saving {
    seq: u64,
    done: BoxFuture<'static, Result<BlobRef, Failure>>,
}

/// What is known of snapshots.
pub(super) struct Snapshots {
    /// The record of the last one, whatever became of it.
    last: u64,
    /// Whether this drive has not looked yet.
    first: bool,
    pub(super) saving: Option<Saving>,
}

impl Snapshots {
    pub(super) fn after(last: u64) -> Self {
        Self {
            last,
            first: true,
            saving: None,
        }
    }

    /// For each task, to write one takes a fifth of the time to fold an event, to read it half.
    /// Whoever has just folded more than that may pay it; a run that is on its way pays it only if
    /// its tasks make more events than the two of each that does nothing else.
    fn due(&mut self, e: &Engine, seq: u64, tasks: u64) -> bool {
        const FEW: u64 = 50_000;
        let most = match (e.snapshot_every, mem::take(&mut self.first)) {
            (Some(n), _) => n,
            (None, true) => tasks.max(FEW),
            (None, false) => tasks.saturating_mul(3).max(FEW),
        };
        self.saving.is_none() && seq - self.last >= most
    }
}

impl Driver {
    /// At any time between two events: what it holds is at the latest in the append whose head
    /// names it.
    pub(super) fn save_state(&mut self) {
        let (state, engine) = (&self.plan.state, &self.plan.engine);
        let (seq, tasks) = (state.seq, state.nodes.len() as u64);
        if !self.snapshots.due(engine, seq, tasks) {
            return;
        }
        self.snapshots.last = seq;
        match state.encode() {
            Ok(bytes) => {
                // To sync a file may take long, and others wait for this task.
                let (blobs, runtime) = (engine.store.blobs(), Handle::current());
                let put = spawn_blocking(move || runtime.block_on(blobs.put(bytes)));
                let done = Box::pin(async move { put.await.unwrap_or_else(|e| Err(lost(&e))) });
                self.snapshots.saving = Some(Saving { seq, done });
            }
            Err(e) => self.not_saved(&e),
        }
    }

    pub(super) fn saved(&mut self, put: Result<BlobRef, Failure>) {
        match (self.snapshots.saving.take(), put) {
            (Some(Saving { seq, .. }), Ok(blob)) => {
                self.plan.state.snapshot = Some(Snapshot { seq, blob });
            }
            (_, Err(f)) => self.not_saved(&f),
            (None, _) => {}
        }
    }

    /// Nothing is lost but time.
    fn not_saved(&self, why: &dyn std::fmt::Display) {
        tracing::warn!(run = %self.plan.lease.run, %why, "no snapshot");
    }
}

fn lost(e: &tokio::task::JoinError) -> Failure {
    let class = smallhands_core::FailureClass::Store;
    Failure::new("blob.io", class, e.to_string())
}

/// The end of a saving; never, if there is none.
pub(super) async fn saved(s: &mut Option<Saving>) -> Result<BlobRef, Failure> {
    match s {
        Some(s) => (&mut s.done).await,
        None => std::future::pending().await,
    }
}
