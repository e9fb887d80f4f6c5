use crate::{
    Durability, Lease, Record, RunHead, RunInfo, StateStore, StoreError, Stored, waiting::Waiting,
};
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
    all: Mutex<All>,
    waiting: Waiting,
}

#[derive(Default)]
struct All {
    runs: BTreeMap<RunId, Run>,
    /// The highest epoch of a deleted run: whoever has its id begins above.
    deleted: u64,
}

#[derive(Default)]
struct Run {
    epoch: u64,
    held: Option<(String, Duration)>,
    head: RunHead,
    /// What came before `log`, up to and with this record.
    base: Option<(Arc<Part>, u64)>,
    log: Vec<Stored>,
    /// Bytes of its own bodies that are no longer in `log`.
    shared_bytes: u64,
    forked: Option<(RunId, u64)>,
}

/// Records that several runs share; nobody appends to it.
struct Part {
    base: Option<(Arc<Part>, u64)>,
    log: Vec<Stored>,
}

fn shared(base: Option<&(Arc<Part>, u64)>) -> u64 {
    base.map_or(0, |(_, at)| *at)
}

impl Run {
    fn last(&self) -> u64 {
        shared(self.base.as_ref()) + self.log.len() as u64
    }

    /// Encodes what it counts: an append must not.
    fn bytes(&self) -> u64 {
        let log = self.log.iter().map(|s| s.record.body().len() as u64);
        self.shared_bytes + log.sum::<u64>()
    }

    /// What another run can share, up to `at`.
    fn share(&mut self, at: u64) -> Option<(Arc<Part>, u64)> {
        if !self.log.is_empty() && at > shared(self.base.as_ref()) {
            let last = self.last();
            self.shared_bytes = self.bytes();
            let part = Part {
                base: self.base.take(),
                log: std::mem::take(&mut self.log),
            };
            self.base = Some((Arc::new(part), last));
        }
        // The part that holds record `at` itself.
        let (mut part, _) = self.base.clone()?;
        while let Some((base, end)) = part.base.clone()
            && at <= end
        {
            part = base;
        }
        Some((part, at))
    }

    fn read(&self, after: u64, limit: usize) -> Vec<Stored> {
        let mut parts = vec![(shared(self.base.as_ref()), u64::MAX, self.log.as_slice())];
        let mut next = self.base.as_ref();
        while let Some((part, end)) = next
            && *end > after
        {
            parts.push((shared(part.base.as_ref()), *end, part.log.as_slice()));
            next = part.base.as_ref();
        }
        let records = parts.into_iter().rev().flat_map(|(first, end, log)| {
            let skip = usize::try_from(after.saturating_sub(first)).unwrap_or(usize::MAX);
            log.iter().skip(skip).take_while(move |s| s.seq <= end)
        });
        records.take(limit).cloned().collect()
    }
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
            all: Mutex::default(),
            waiting: Waiting::default(),
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
        let mut all = lock(&self.all);
        let r = all.run(run);
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
        r.held = Some((owner.into(), now.saturating_add(ttl)));
        Ok(Lease {
            run: run.clone(),
            owner: owner.into(),
            epoch: r.epoch,
        })
    }
    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<(), StoreError> {
        let until = self.clock.monotonic().saturating_add(ttl);
        lock(&self.all).current(lease)?.held = Some((lease.owner.clone(), until));
        Ok(())
    }
    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        lock(&self.all).current(lease)?.held = None;
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
        let last = {
            let mut all = lock(&self.all);
            let run = all.current(lease)?;
            let is = run.last();
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
            run.last()
        };
        self.waiting.tell(&lease.run, last);
        Ok(last)
    }
    async fn read(&self, run: &RunId, after: u64, limit: usize) -> Result<Vec<Stored>, StoreError> {
        let all = lock(&self.all);
        Ok(all
            .runs
            .get(run)
            .map(|r| r.read(after, limit))
            .unwrap_or_default())
    }
    async fn runs(&self, from: Option<RunId>, limit: usize) -> Result<Vec<RunInfo>, StoreError> {
        let all = lock(&self.all);
        let after = |id: &RunId| from.as_ref().is_none_or(|f| id > f);
        let runs = all.runs.iter();
        Ok(runs
            .filter(|(id, r)| after(id) && r.last() > 0)
            .take(limit)
            .map(|(id, r)| RunInfo {
                id: id.clone(),
                head: r.head.clone(),
                last: r.last(),
                bytes: r.bytes(),
                forked: r.forked.clone(),
            })
            .collect())
    }
    async fn changed(&self, run: &RunId, after: u64, patience: Duration) -> Result<(), StoreError> {
        let mut told = self.waiting.join(run);
        let last = lock(&self.all).runs.get(run).map_or(0, Run::last);
        if last <= after {
            tokio::select! {
                () = told.beyond(after) => {}
                () = self.clock.sleep(patience) => {}
            }
        }
        Ok(())
    }
    async fn fork(
        &self,
        from: &RunId,
        at: u64,
        to: &RunId,
        head: RunHead,
    ) -> Result<(), StoreError> {
        {
            let mut all = lock(&self.all);
            let last = |all: &All, run| all.runs.get(run).map_or(0, Run::last);
            let (is, other) = (last(&all, from), last(&all, to));
            let conflict = |is| Err(StoreError::Conflict { expected: at, is });
            if at == 0 || at > is {
                return conflict(is);
            }
            // A run that was leased and has no record yet does not count as one.
            if other > 0 {
                return conflict(other);
            }
            let base = all.runs.get_mut(from).and_then(|r| r.share(at));
            let run = all.run(to);
            run.base = base;
            run.head = head;
            run.forked = Some((from.clone(), at));
        }
        self.waiting.tell(to, at);
        Ok(())
    }
    async fn delete(&self, lease: &Lease) -> Result<(), StoreError> {
        let mut all = lock(&self.all);
        let epoch = all.current(lease)?.epoch;
        all.deleted = all.deleted.max(epoch);
        all.runs.remove(&lease.run);
        Ok(())
    }
    fn blobs(&self) -> Arc<dyn BlobStore> {
        self.blobs.clone()
    }
}

impl All {
    fn run(&mut self, id: &RunId) -> &mut Run {
        let epoch = self.deleted;
        self.runs.entry(id.clone()).or_insert_with(|| Run {
            epoch,
            ..Run::default()
        })
    }
    fn current(&mut self, lease: &Lease) -> Result<&mut Run, StoreError> {
        match self.runs.get_mut(&lease.run) {
            Some(r) if r.epoch == lease.epoch && r.held.is_some() => Ok(r),
            _ => Err(StoreError::LeaseLost {
                run: lease.run.clone(),
                epoch: lease.epoch,
            }),
        }
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
