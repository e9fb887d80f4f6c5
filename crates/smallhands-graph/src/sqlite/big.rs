//! Bodies that lie in the blob store: the row holds only a reference.
use crate::{Record, StoreError};
use rusqlite::{
    ToSql,
    types::{ToSqlOutput, ValueRef},
};
use smallhands_core::{BlobRef, BlobStore, Failure, RunId};
use std::{
    borrow::Cow,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
};

/// What a row holds.
pub(super) enum Body<'a> {
    Text(Cow<'a, str>),
    /// The reference as JSON, and how long the body is. A blob in SQLite's sense, so that no body
    /// can be taken for one.
    Blob(Vec<u8>, u64),
}

impl Body<'_> {
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Text(t) => t.len() as u64,
            Self::Blob(_, len) => *len,
        }
    }
}

impl ToSql for Body<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Text(t) => ValueRef::Text(t.as_bytes()),
            Self::Blob(r, _) => ValueRef::Blob(r),
        }))
    }
}

/// Encodes the bodies, and puts those over `inline` bytes into the blob store.
pub(super) fn bodies<'a>(
    records: &'a [Record],
    inline: usize,
    blobs: &dyn BlobStore,
) -> Result<Vec<Body<'a>>, StoreError> {
    let put = |body: Cow<'a, str>| {
        if body.len() <= inline {
            return Ok(Body::Text(body));
        }
        let len = body.len() as u64;
        let blob = wait(blobs.put(body.into_owned().into_bytes())).map_err(|f| refused(&f))?;
        let reference = serde_json::to_vec(&blob).map_err(|e| StoreError::Io(e.to_string()))?;
        Ok(Body::Blob(reference, len))
    };
    records.iter().map(|r| put(r.body())).collect()
}

fn refused(f: &Failure) -> StoreError {
    match &*f.code {
        "store.disk_full" => StoreError::DiskFull(f.message.clone()),
        _ => StoreError::Io(format!("a large record was not stored: {}", f.message)),
    }
}

/// What a row holds, as a reference.
pub(super) fn reference(bytes: &[u8]) -> Result<BlobRef, String> {
    serde_json::from_slice(bytes).map_err(|e| format!("the reference of its body is damaged: {e}"))
}

/// The body behind a reference.
pub(super) async fn fetch(
    run: &RunId,
    seq: u64,
    reference_: &[u8],
    blobs: &dyn BlobStore,
) -> Result<String, StoreError> {
    let blob = reference(reference_)
        .map_err(|e| StoreError::Damaged(format!("record {seq} of run `{run}`: {e}")))?;
    let failed = |why: String| StoreError::Blob {
        run: run.clone(),
        seq,
        blob: blob.digest.clone(),
        why,
    };
    let bytes = blobs.get(&blob).await.map_err(|f| failed(f.message))?;
    String::from_utf8(bytes).map_err(|e| failed(e.to_string()))
}

struct Unpark(Thread);
impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Drives a future on this thread, which belongs to no runtime.
fn wait<F: Future>(f: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let (mut f, mut cx) = (pin!(f), Context::from_waker(&waker));
    loop {
        match f.as_mut().poll(&mut cx) {
            Poll::Ready(out) => return out,
            Poll::Pending => thread::park(),
        }
    }
}
