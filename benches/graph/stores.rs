use smallhands_core::{BlobStore, RunId, async_trait};
use smallhands_graph::{
    Durability, Lease, MemoryBlobs, Record, RunHead, RunInfo, StateStore, StoreError, Stored,
    store_around,
};
use std::{
    mem,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Counts the records of each append, so that a floor can write in the same batches.
#[derive(Debug)]
pub(crate) struct Counted {
    inner: Arc<dyn StateStore>,
    batches: Mutex<Vec<usize>>,
}

impl Counted {
    pub(crate) fn new(inner: Arc<dyn StateStore>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            batches: Mutex::default(),
        })
    }
    pub(crate) fn batches(&self) -> Vec<usize> {
        mem::take(&mut self.batches.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

store_around!(Counted, inner, {
    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        self.inner.release(lease).await
    }
    async fn append(
        &self,
        lease: &Lease,
        after: u64,
        records: Vec<Record>,
        head: Option<RunHead>,
        level: Durability,
    ) -> Result<u64, StoreError> {
        self.batches
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(records.len());
        self.inner.append(lease, after, records, head, level).await
    }
});

/// Keeps nothing: what is left is the engine.
#[derive(Debug)]
pub(crate) struct Nowhere;

#[async_trait]
impl StateStore for Nowhere {
    fn name(&self) -> &'static str {
        "nowhere"
    }
    async fn lease(&self, run: &RunId, owner: &str, _: Duration) -> Result<Lease, StoreError> {
        Ok(Lease {
            run: run.clone(),
            owner: owner.into(),
            epoch: 1,
        })
    }
    async fn renew(&self, _: &Lease, _: Duration) -> Result<(), StoreError> {
        Ok(())
    }
    async fn release(&self, _: &Lease) -> Result<(), StoreError> {
        Ok(())
    }
    async fn append(
        &self,
        _: &Lease,
        after: u64,
        records: Vec<Record>,
        _: Option<RunHead>,
        _: Durability,
    ) -> Result<u64, StoreError> {
        Ok(after + records.len() as u64)
    }
    async fn read(&self, _: &RunId, _: u64, _: usize) -> Result<Vec<Stored>, StoreError> {
        Ok(Vec::new())
    }
    async fn runs(&self, _: Option<RunId>, _: usize) -> Result<Vec<RunInfo>, StoreError> {
        Ok(Vec::new())
    }
    async fn changed(&self, _: &RunId, _: u64, _: Duration) -> Result<(), StoreError> {
        Ok(())
    }
    async fn fork(&self, _: &RunId, _: u64, _: &RunId, _: RunHead) -> Result<(), StoreError> {
        Ok(())
    }
    async fn delete(&self, _: &Lease) -> Result<(), StoreError> {
        Ok(())
    }
    fn blobs(&self) -> Arc<dyn BlobStore> {
        Arc::new(MemoryBlobs::default())
    }
}
