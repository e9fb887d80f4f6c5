use crate::memory::missing;
use smallhands_core::{BlobRef, BlobStore, Digest, Failure, FailureClass, async_trait};
use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// Blobs as files named by their BLAKE3 hash, shared by any number of processes.
///
/// A blob is written under a temporary name, synced and renamed, so that a name never shows
/// half a blob.
#[derive(Debug)]
pub struct DirBlobs {
    dir: PathBuf,
    process: u32,
    next: AtomicU64,
}

impl DirBlobs {
    /// Opens or creates the directory.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn open(dir: impl Into<PathBuf>) -> io::Result<Self> {
        let dir = dir.into();
        fs::create_dir_all(&dir)?;
        Ok(Self {
            dir,
            process: std::process::id(),
            next: AtomicU64::new(0),
        })
    }

    fn path(&self, d: &Digest) -> PathBuf {
        let hex = d.hex();
        self.dir.join(&hex[..2]).join(&hex[2..])
    }

    fn write(&self, bytes: &[u8]) -> io::Result<BlobRef> {
        let digest = Digest::from_hash("b3", blake3::hash(bytes).as_bytes());
        let blob = BlobRef {
            digest,
            len: bytes.len() as u64,
        };
        let path = self.path(&blob.digest);
        if fs::metadata(&path).is_ok_and(|m| m.len() == blob.len) {
            return Ok(blob);
        }
        let parent = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(parent)?;
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let tmp = parent.join(format!(".{}-{n}", self.process));
        let written = File::create(&tmp)
            .and_then(|mut f| f.write_all(bytes).and_then(|()| f.sync_data()))
            .and_then(|()| fs::rename(&tmp, &path));
        if let Err(e) = written {
            // The first error is the one that matters.
            drop(fs::remove_file(&tmp));
            return Err(e);
        }
        File::open(parent)?.sync_all()?;
        Ok(blob)
    }

    fn read(&self, blob: &BlobRef) -> Result<Vec<u8>, Failure> {
        let bytes = fs::read(self.path(&blob.digest)).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => missing(blob),
            _ => failed(&e),
        })?;
        let found = Digest::from_hash("b3", blake3::hash(&bytes).as_bytes());
        if found != blob.digest {
            let why = format!("blob {} is damaged: its bytes hash to {found}", blob.digest);
            return Err(Failure::new("blob.damaged", FailureClass::Store, why));
        }
        Ok(bytes)
    }
}

#[async_trait]
impl BlobStore for DirBlobs {
    async fn put(&self, bytes: Vec<u8>) -> Result<BlobRef, Failure> {
        self.write(&bytes).map_err(|e| failed(&e))
    }
    async fn get(&self, blob: &BlobRef) -> Result<Vec<u8>, Failure> {
        self.read(blob)
    }
}

fn failed(e: &io::Error) -> Failure {
    match e.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Failure::new(
            "store.disk_full",
            FailureClass::Store,
            "no space left on the disk of the blob store",
        )
        .hint("free some and resume the run"),
        _ => Failure::new("blob.io", FailureClass::Store, e.to_string()),
    }
}
