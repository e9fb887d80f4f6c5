//! Bodies that lie in the blob store: the row holds only a reference.
use crate::{Record, StoreError};
use rusqlite::types::ValueRef;
use smallhands_core::{BlobRef, BlobStore, Failure, RunId};
use std::{
    ops::Range,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
};

/// What the rows of an append hold, in one allocation.
#[derive(Default)]
pub(super) struct Bodies {
    text: Vec<u8>,
    rows: Vec<Row>,
}

enum Row {
    Text(Range<usize>),
    /// The reference as JSON, and how long the body is. A blob in SQLite's sense, so that no body
    /// can be taken for one.
    Blob(Vec<u8>, u64),
}

impl Bodies {
    /// In order: what the column holds, and the length of the body.
    pub(super) fn iter(&self) -> impl Iterator<Item = (ValueRef<'_>, u64)> {
        self.rows.iter().map(|r| match r {
            Row::Text(at) => (ValueRef::Text(&self.text[at.clone()]), at.len() as u64),
            Row::Blob(r, len) => (ValueRef::Blob(r), *len),
        })
    }
}

/// Encodes the bodies, and puts those over `inline` bytes into the blob store.
pub(super) fn bodies(
    records: &[Record],
    inline: usize,
    blobs: &dyn BlobStore,
) -> Result<Bodies, StoreError> {
    let mut all = Bodies::default();
    for r in records {
        let start = all.text.len();
        r.body_into(&mut all.text);
        let len = all.text.len() - start;
        all.rows.push(if len <= inline {
            Row::Text(start..all.text.len())
        } else {
            let blob = wait(blobs.put(all.text.split_off(start))).map_err(|f| refused(&f))?;
            let reference = serde_json::to_vec(&blob).map_err(|e| StoreError::Io(e.to_string()))?;
            Row::Blob(reference, len as u64)
        });
    }
    Ok(all)
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
