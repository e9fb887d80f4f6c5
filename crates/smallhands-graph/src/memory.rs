use crate::{Durability, Lease, Record, RunHead, RunInfo, StateStore, StoreError, Stored};
use smallhands_core::{
    BlobRef, BlobStore, Clock, Digest, Failure, FailureClass, RunId, async_trait,
};
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Journals in memory: for tests and for runs that need not survive.
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    blobs: Arc<dyn BlobStore>,
    runs: Mutex<BTreeMap<RunId, Run>>,
}

#[derive(Default)]
struct Run {
    epoch: u64,
    held: Option<(String, Duration)>,
    head: RunHead,
    log: Vec<Stored>,
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryStore")
    }
}

impl MemoryStore {
    /// An empty one.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            blobs: Arc::new(MemoryBlobs::default()),
            runs: Mutex::default(),
        }
    }
}

#[async_trait]
impl StateStore for MemoryStore {
    fn name(&self) -> &'static str {
        "memory"
    }
    async fn lease(&self, run: &RunId, owner: &str, ttl: Duration) -> Result<Lease, StoreError> {
        let now = self.clock.monotonic();
        let mut runs = lock(&self.runs);
        let r = runs.entry(run.clone()).or_default();
        if let Some((owner, until)) = &r.held
            && now < *until
        {
            return Err(StoreError::Held {
                run: run.clone(),
                owner: owner.clone(),
                epoch: r.epoch,
            });
        }
        r.epoch += 1;
        r.held = Some((owner.into(), now + ttl));
        Ok(Lease {
            run: run.clone(),
            owner: owner.into(),
            epoch: r.epoch,
        })
    }
    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<(), StoreError> {
        let until = self.clock.monotonic() + ttl;
        let mut runs = lock(&self.runs);
        current(&mut runs, lease)?.held = Some((lease.owner.clone(), until));
        Ok(())
    }
    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        current(&mut lock(&self.runs), lease)?.held = None;
        Ok(())
    }
    async fn append(
        &self,
        lease: &Lease,
        after: u64,
        records: Vec<Record>,
        head: Option<RunHead>,
        _: Durability,
    ) -> Result<u64, StoreError> {
        let mut runs = lock(&self.runs);
        let run = current(&mut runs, lease)?;
        let is = run.log.len() as u64;
        if is != after {
            return Err(StoreError::Conflict {
                expected: after,
                is,
            });
        }
        let stored = (is + 1..).zip(records);
        run.log
            .extend(stored.map(|(seq, record)| Stored { seq, record }));
        if let Some(h) = head {
            run.head = h;
        }
        Ok(run.log.len() as u64)
    }
    async fn read(&self, run: &RunId, after: u64, limit: usize) -> Result<Vec<Stored>, StoreError> {
        let runs = lock(&self.runs);
        let log = runs.get(run).map(|r| r.log.as_slice()).unwrap_or_default();
        let from = usize::try_from(after).unwrap_or(usize::MAX);
        Ok(log.iter().skip(from).take(limit).cloned().collect())
    }
    async fn runs(&self, from: Option<RunId>, limit: usize) -> Result<Vec<RunInfo>, StoreError> {
        let runs = lock(&self.runs);
        let after = |id: &RunId| from.as_ref().is_none_or(|f| id > f);
        Ok(runs
            .iter()
            .filter(|(id, r)| after(id) && !r.log.is_empty())
            .take(limit)
            .map(|(id, r)| RunInfo {
                id: id.clone(),
                head: r.head.clone(),
                last: r.log.len() as u64,
                bytes: 0,
                forked: None,
            })
            .collect())
    }
    async fn changed(&self, _: &RunId, _: u64, _: Duration) -> Result<(), StoreError> {
        Ok(())
    }
    async fn fork(&self, _: &RunId, _: u64, _: &RunId, _: RunHead) -> Result<(), StoreError> {
        Err(StoreError::Io("not yet".into()))
    }
    async fn delete(&self, _: &Lease) -> Result<(), StoreError> {
        Err(StoreError::Io("not yet".into()))
    }
    fn blobs(&self) -> Arc<dyn BlobStore> {
        self.blobs.clone()
    }
}

fn current<'a>(
    runs: &'a mut BTreeMap<RunId, Run>,
    lease: &Lease,
) -> Result<&'a mut Run, StoreError> {
    match runs.get_mut(&lease.run) {
        Some(r) if r.epoch == lease.epoch && r.held.is_some() => Ok(r),
        _ => Err(StoreError::LeaseLost {
            run: lease.run.clone(),
            epoch: lease.epoch,
        }),
    }
}

/// Blobs in memory.
#[derive(Default)]
pub struct MemoryBlobs(Mutex<HashMap<Digest, Arc<[u8]>>>);

impl fmt::Debug for MemoryBlobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryBlobs")
    }
}

#[async_trait]
impl BlobStore for MemoryBlobs {
    async fn put(&self, bytes: Vec<u8>) -> Result<BlobRef, Failure> {
        let blob = BlobRef {
            digest: Digest::of_bytes(&bytes),
            len: bytes.len() as u64,
        };
        lock(&self.0)
            .entry(blob.digest.clone())
            .or_insert_with(|| bytes.into());
        Ok(blob)
    }
    async fn get(&self, blob: &BlobRef) -> Result<Vec<u8>, Failure> {
        lock(&self.0)
            .get(&blob.digest)
            .map(|b| b.to_vec())
            .ok_or_else(|| missing(blob))
    }
}

pub(crate) fn missing(blob: &BlobRef) -> Failure {
    let why = format!("blob {} is not in the store", blob.digest);
    Failure::new("blob.missing", FailureClass::Store, why)
}
