use crate::{SystemClock, memory::missing};
use smallhands_core::{BlobRef, BlobStore, Clock, Digest, Failure, FailureClass, async_trait};
use std::{
    fs::{self, DirEntry, File, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, UNIX_EPOCH},
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

/// What [`DirBlobs::sweep`] deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// How many blobs.
    pub count: u64,
    /// Their size.
    pub bytes: u64,
}

/// Where blobs are written before they have a name.
const NEW: &str = ".new";
/// Between making a temporary file and locking it lies less than this.
const UNLOCKED: Duration = Duration::from_secs(60);
/// Where files cannot be locked, nobody writes one blob for so long.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);

impl DirBlobs {
    /// Opens or creates the directory, and removes what dead writers left half written.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn open(dir: impl Into<PathBuf>) -> io::Result<Self> {
        let dir = dir.into();
        fs::create_dir_all(dir.join(NEW))?;
        let blobs = Self {
            dir,
            process: std::process::id(),
            next: AtomicU64::new(0),
        };
        blobs.clean()?;
        Ok(blobs)
    }

    fn clean(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.dir.join(NEW))? {
            let entry = entry?;
            // A file that is gone or not ours to remove is no reason not to open.
            if abandoned(&entry).unwrap_or(false) {
                drop(fs::remove_file(entry.path()));
            }
        }
        Ok(())
    }

    /// Deletes the blobs that `keep` does not know and that nobody put for `min_age`.
    ///
    /// A blob is put before the record that names it: `min_age` must be longer than any append
    /// takes, so that such a blob is not taken for one without use.
    ///
    /// # Errors
    /// The directory cannot be read, or a blob not be deleted; what was deleted before stays so.
    pub fn sweep(&self, keep: &dyn Fn(&Digest) -> bool, min_age: Duration) -> io::Result<Swept> {
        let mut swept = Swept::default();
        for shard in fs::read_dir(&self.dir)? {
            let shard = shard?;
            let lead = shard.file_name();
            let Some(lead) = lead.to_str().filter(|l| l.len() == 2) else {
                continue;
            };
            for entry in fs::read_dir(shard.path())? {
                let entry = entry?;
                let name = entry.file_name();
                let digest = format!("b3:{lead}{}", name.to_string_lossy()).parse();
                let meta = entry.metadata()?;
                if digest.is_ok_and(|d| !keep(&d)) && age(&meta) >= min_age {
                    fs::remove_file(entry.path())?;
                    swept.count += 1;
                    swept.bytes += meta.len();
                }
            }
        }
        Ok(swept)
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
        let parent = path.parent().unwrap_or(Path::new("."));
        if !(fs::metadata(&path).is_ok_and(|m| m.len() == blob.len) && used_again(&path)) {
            if !parent.exists() {
                fs::create_dir_all(parent)?;
                File::open(&self.dir)?.sync_all()?;
            }
            self.write_new(bytes, &path)?;
        }
        // Also of a blob that was there: whoever renamed it may not have come so far.
        File::open(parent)?.sync_all()?;
        Ok(blob)
    }

    fn write_new(&self, bytes: &[u8], path: &Path) -> io::Result<()> {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        // Two processes in two containers may have one number, hence not only that.
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let tmp = format!("{}-{n}-{name}", self.process);
        let tmp = self.dir.join(NEW).join(tmp);
        let written = File::create(&tmp)
            .and_then(|mut f| {
                // Says that the writer lives; where files cannot be locked, their age has to do.
                drop(f.try_lock());
                f.write_all(bytes)?;
                f.sync_data()?;
                Ok(f)
            })
            .and_then(|_locked| fs::rename(&tmp, path));
        if written.is_err() {
            // The first error is the one that matters.
            drop(fs::remove_file(&tmp));
        }
        written
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

fn age(meta: &fs::Metadata) -> Duration {
    // A time in the future is young.
    let at = meta.modified().ok();
    at.and_then(|t| t.elapsed().ok()).unwrap_or_default()
}

fn abandoned(entry: &DirEntry) -> io::Result<bool> {
    let old = age(&entry.metadata()?);
    Ok(match File::open(entry.path())?.try_lock() {
        Ok(()) => old > UNLOCKED,
        Err(TryLockError::WouldBlock) => false,
        Err(TryLockError::Error(_)) => old > ABANDONED,
    })
}

/// Makes a blob young again, so that a sweep leaves it alone; false if it is gone.
fn used_again(path: &Path) -> bool {
    let Ok(file) = File::options().append(true).open(path) else {
        // Of another owner, perhaps: it is there all the same.
        return path.exists();
    };
    let now = UNIX_EPOCH + Duration::from_millis(SystemClock.now().0);
    drop(file.set_modified(now));
    path.exists()
}
