use crate::Record;
use serde::{Deserialize, Serialize};
use smallhands_core::{BlobRef, BlobStore, Digest, RunId, Timestamp, Usage, async_trait};
use std::{fmt::Debug, sync::Arc, time::Duration};

/// A record with its place in the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stored {
    /// Counted from 1 without a gap; one order for everything that happened in the run.
    pub seq: u64,
    /// The record.
    pub record: Record,
}

/// A summary, rewritten in the transaction of each append that changes it, so that listing runs
/// folds nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunHead {
    /// `running`, `paused`, `waiting`, `succeeded`, `failed`, `cancelled`.
    pub status: String,
    /// What the run is for.
    pub goal: String,
    /// When it was created.
    pub created: Timestamp,
    /// When the head was written.
    pub updated: Timestamp,
    /// Tasks that are settled.
    pub settled: u64,
    /// Tasks in all.
    pub tasks: u64,
    /// What was spent.
    pub spent: Usage,
    /// When a question's default is to be taken: somebody should resume the run then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wake_at: Option<Timestamp>,
    /// From where on the rest of the journal has to be folded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<Snapshot>,
}

/// The state of a run at one of its records, put aside: a cache, never the truth. One that is gone,
/// damaged or of another program is passed over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The last record in it.
    pub seq: u64,
    /// Where it lies.
    pub blob: BlobRef,
}

/// A run as a store lists it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunInfo {
    /// Which.
    pub id: RunId,
    /// Its summary.
    pub head: RunHead,
    /// Its last record.
    pub last: u64,
    /// Bytes of its own record bodies, those inherited by a fork not counted; for people: those of
    /// the last appends without a head may be missing.
    pub bytes: u64,
    /// The run that it was forked from, and after which record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forked: Option<(RunId, u64)>,
}

/// The right to drive a run. Its epoch is another thing than the fence of a placement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The run.
    pub run: RunId,
    /// Who drives it, for people.
    pub owner: String,
    /// Raised by each lease of the run.
    pub epoch: u64,
}

/// What an append must survive before it counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// The death of any process, at any instant.
    #[default]
    ProcessCrash,
    /// The loss of power as well.
    PowerLoss,
}

/// What can go wrong in a store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process drives the run.
    #[error(
        "run `{run}` is being driven by {owner} (epoch {epoch}); wait until it ends, or stop it"
    )]
    Held {
        /// The run.
        run: RunId,
        /// Who.
        owner: String,
        /// Its epoch.
        epoch: u64,
    },
    /// The lease was taken over.
    #[error("run `{run}` was taken over by another driver; epoch {epoch} is no longer valid")]
    LeaseLost {
        /// The run.
        run: RunId,
        /// The epoch that ended.
        epoch: u64,
    },
    /// Something else was appended meanwhile.
    #[error("the journal was expected to end at {expected} and ends at {is}")]
    Conflict {
        /// What the caller knew.
        expected: u64,
        /// What is.
        is: u64,
    },
    /// No space left.
    #[error("no space left on the disk of the journal ({0}); free some and resume the run")]
    DiskFull(String),
    /// The place of the journal cannot be written.
    #[error(
        "the journal cannot be written ({0}); make its directory writable for this user, or name another one"
    )]
    ReadOnly(String),
    /// The body of a record lies in a blob that cannot be read.
    #[error(
        "record {seq} of run `{run}` needs blob {blob}, which cannot be read: {why}; put the blob back from a copy"
    )]
    Blob {
        /// The run that has the record; for a fork, the fork.
        run: RunId,
        /// Which record.
        seq: u64,
        /// The blob.
        blob: Digest,
        /// Why.
        why: String,
    },
    /// The store's own data cannot be read.
    #[error("the journal is damaged or of another version: {0}")]
    Damaged(String),
    /// Any other failure of the system below.
    #[error("the journal cannot be read or written: {0}")]
    Io(String),
}

impl StoreError {
    /// Stable, for machines.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Held { .. } => "store.held",
            Self::LeaseLost { .. } => "store.lease_lost",
            Self::Conflict { .. } => "store.conflict",
            Self::DiskFull(_) => "store.disk_full",
            Self::ReadOnly(_) => "store.read_only",
            Self::Blob { .. } => "store.blob",
            Self::Damaged(_) => "store.damaged",
            Self::Io(_) => "store.io",
        }
    }
    /// Whether the same call may succeed when tried again.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Held { .. })
    }
}

/// Where journals live. Records are opaque to it.
#[async_trait]
pub trait StateStore: Debug + Send + Sync + 'static {
    /// Stable; for people and reports.
    fn name(&self) -> &str;
    /// The right to append to a run, created if it is new.
    ///
    /// # Behavior
    /// - At most one lease of a run is valid at a time; a second is [`StoreError::Held`] and names
    ///   the owner.
    /// - The lease of a process that died can be taken over, and that of one that did not renew for
    ///   `ttl`. A store that knows for certain who lives may leave it to those, however long they are
    ///   silent, and says so: what a silent process has started may still be at work.
    /// - Each lease has a higher epoch than all before it.
    async fn lease(&self, run: &RunId, owner: &str, ttl: Duration) -> Result<Lease, StoreError>;
    /// Keeps the lease for another `ttl`.
    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<(), StoreError>;
    /// Gives it back.
    async fn release(&self, lease: &Lease) -> Result<(), StoreError>;
    /// Appends records that follow the sequence number `after`; returns the last number.
    ///
    /// # Behavior
    /// - All or nothing, the head included.
    /// - Durable at `level` when it returns.
    /// - A lease that is not the current one is [`StoreError::LeaseLost`] and changes nothing.
    /// - A wrong `after` is [`StoreError::Conflict`] and changes nothing.
    async fn append(
        &self,
        lease: &Lease,
        after: u64,
        records: Vec<Record>,
        head: Option<RunHead>,
        level: Durability,
    ) -> Result<u64, StoreError>;
    /// Up to `limit` records that follow `after`, in order. Needs no lease, sees only what is
    /// durable. Of a run that does not exist: none.
    async fn read(&self, run: &RunId, after: u64, limit: usize) -> Result<Vec<Stored>, StoreError>;
    /// Up to `limit` runs that have a record, in order of id, those after `from`.
    async fn runs(&self, from: Option<RunId>, limit: usize) -> Result<Vec<RunInfo>, StoreError>;
    /// Waits until the run has a record after `after`, or about `patience` has passed.
    ///
    /// # Behavior
    /// - Returns soon after an append of any process, and at once if there is such a record already.
    /// - May return early; the caller reads again.
    async fn changed(&self, run: &RunId, after: u64, patience: Duration) -> Result<(), StoreError>;
    /// A new run that shares the records of `from` up to `at` and goes on from there.
    ///
    /// # Behavior
    /// - Copies no record; needs no lease of `from`, which may be driven meanwhile.
    /// - What is appended to either is not seen in the other.
    /// - The head is given by the caller; a run `to` that exists, or an `at` that is not in `from`,
    ///   is [`StoreError::Conflict`] and changes nothing.
    async fn fork(
        &self,
        from: &RunId,
        at: u64,
        to: &RunId,
        head: RunHead,
    ) -> Result<(), StoreError>;
    /// Deletes a run; its lease is given back.
    ///
    /// # Behavior
    /// - Forks of it keep every record that they share.
    /// - Blobs stay; they may be shared.
    async fn delete(&self, lease: &Lease) -> Result<(), StoreError>;
    /// The blobs of all its runs.
    fn blobs(&self) -> Arc<dyn BlobStore>;
}

/// Makes a type a [`StateStore`] that does as the one in its field `$inner`, but for what is
/// written out: how it appends and how it gives a lease back. The types of the trait are in scope
/// there.
#[macro_export]
macro_rules! store_around {
    ($type:ty, $inner:tt, { $($own:tt)* }) => {
        const _: () = {
            use $crate::__core::{BlobStore, RunId, async_trait};
            use $crate::{
                Durability, Lease, Record, RunHead, RunInfo, StateStore, StoreError, Stored,
            };
            use ::std::{sync::Arc, time::Duration};
            type Done<T> = ::std::result::Result<T, StoreError>;

            #[async_trait]
            impl StateStore for $type {
                $($own)*
                fn name(&self) -> &str {
                    self.$inner.name()
                }
                async fn lease(&self, run: &RunId, owner: &str, ttl: Duration) -> Done<Lease> {
                    self.$inner.lease(run, owner, ttl).await
                }
                async fn renew(&self, lease: &Lease, ttl: Duration) -> Done<()> {
                    self.$inner.renew(lease, ttl).await
                }
                async fn read(&self, run: &RunId, after: u64, limit: usize) -> Done<Vec<Stored>> {
                    self.$inner.read(run, after, limit).await
                }
                async fn runs(&self, from: Option<RunId>, limit: usize) -> Done<Vec<RunInfo>> {
                    self.$inner.runs(from, limit).await
                }
                async fn changed(&self, run: &RunId, after: u64, patience: Duration) -> Done<()> {
                    self.$inner.changed(run, after, patience).await
                }
                async fn fork(&self, from: &RunId, at: u64, to: &RunId, head: RunHead) -> Done<()> {
                    self.$inner.fork(from, at, to, head).await
                }
                async fn delete(&self, lease: &Lease) -> Done<()> {
                    self.$inner.delete(lease).await
                }
                fn blobs(&self) -> Arc<dyn BlobStore> {
                    self.$inner.blobs()
                }
            }
        };
    };
}
