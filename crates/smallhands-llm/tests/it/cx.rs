//! A call outside a run, with a real clock.

use smallhands_core::{
    Ambient, BlobRef, BlobStore, BoxFuture, CallCx, CancelToken, Clock, Failure, FailureClass,
    NoGuard, NoSecrets, Timestamp, async_trait,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

#[derive(Debug)]
struct RealClock(Instant);
impl Clock for RealClock {
    fn now(&self) -> Timestamp {
        Timestamp(0)
    }
    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
    fn sleep(&self, d: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(d))
    }
}

#[derive(Debug)]
struct NoBlobs;
#[async_trait]
impl BlobStore for NoBlobs {
    async fn put(&self, _: Vec<u8>) -> Result<BlobRef, Failure> {
        Err(Failure::new("blob.none", FailureClass::Store, "none"))
    }
    async fn get(&self, _: &BlobRef) -> Result<Vec<u8>, Failure> {
        Err(Failure::new("blob.none", FailureClass::Store, "none"))
    }
}

pub(crate) fn ambient() -> Ambient {
    Ambient {
        clock: Arc::new(RealClock(Instant::now())),
        blobs: Arc::new(NoBlobs),
        guard: Arc::new(NoGuard),
        secrets: Arc::new(NoSecrets),
    }
}
pub(crate) fn cx_with(cancel: CancelToken) -> CallCx {
    CallCx::detached(ambient(), cancel)
}
pub(crate) fn cx() -> CallCx {
    cx_with(CancelToken::new())
}
