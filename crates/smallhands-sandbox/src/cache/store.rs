//! Directories that are published whole and never change: each is made under another name and
//! renamed, and locked shared while somebody uses it.

use crate::{Generation, SandboxError, give_to_agents, outer_mode, sync_disk};
use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

/// What [`Cache::prune`](crate::Cache::prune) and the like did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Generations that are gone.
    pub removed: Vec<String>,
    /// Those that would have gone, and that a sandbox shows or somebody sets up.
    pub in_use: Vec<String>,
    /// Bytes that are free now.
    pub freed_bytes: u64,
    /// Bytes that all together still take.
    pub kept_bytes: u64,
}

pub(super) fn failed(path: &Path) -> impl Fn(io::Error) -> SandboxError {
    move |e| match e.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            SandboxError::DiskFull("writing to a cache".into())
        }
        _ => SandboxError::Cache {
            path: path.display().to_string(),
            reason: e.to_string(),
        },
    }
}

fn with(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// A lock file that is still there once it is locked: who prunes removes it.
fn locked(path: &Path, create: bool, lock: fn(&File) -> io::Result<()>) -> io::Result<File> {
    loop {
        let mut how = OpenOptions::new();
        let file = how.read(true).write(true).create(create).open(path)?;
        lock(&file)?;
        if file.metadata()?.nlink() > 0 {
            return Ok(file);
        }
    }
}

/// The right to make what has a name, until it is dropped or its process ends.
#[derive(Debug)]
pub(super) struct Making {
    path: PathBuf,
    _lock: File,
}

impl Drop for Making {
    fn drop(&mut self) {
        // Who waits for it looks whether it is still there. One that stays is no harm.
        drop(fs::remove_file(&self.path));
    }
}

/// The lock of a generation, shared; its time tells when it was last used.
fn used(path: &Path, create: bool) -> io::Result<File> {
    let lock = locked(&with(path, ".lock"), create, File::lock_shared)?;
    lock.write_at(b"\n", 0).map(|_| lock)
}

/// Keeps a generation from being pruned, as long as the file is open, and notes that it is used.
pub(crate) fn hold(path: &Path) -> Result<File, SandboxError> {
    let go = || {
        let lock = used(path, false)?;
        fs::metadata(path).map(|_| lock)
    };
    go().map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => SandboxError::Cache {
            path: path.display().to_string(),
            reason: "no such generation, or it was pruned; ask the cache or the environment for \
                     the present one"
                .into(),
        },
        _ => failed(path)(e),
    })
}

/// A generation without files, somewhere.
pub(crate) fn empty(path: &Path) -> Result<Generation, SandboxError> {
    let go = || {
        File::create(with(path, ".lock"))?;
        fs::create_dir(path)?;
        give_to_agents(path)
    };
    go().map_err(failed(path))?;
    Ok(Generation { path: path.into() })
}

/// A directory of generations.
#[derive(Clone, Debug)]
pub(super) struct Generations {
    pub(super) dir: PathBuf,
}

impl Generations {
    pub(super) fn open(dir: PathBuf) -> io::Result<Self> {
        let dir = std::path::absolute(dir)?;
        let mut make = fs::DirBuilder::new();
        make.recursive(true).mode(outer_mode()).create(&dir)?;
        Ok(Self { dir })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Waits until nobody else makes what has this name.
    pub(super) fn lock(&self, name: &str) -> io::Result<Making> {
        let path = with(&self.path(name), ".making");
        let _lock = locked(&path, true, File::lock)?;
        Ok(Making { path, _lock })
    }

    /// An empty directory to make it in, for who has the lock. What somebody left there who was
    /// killed is gone.
    pub(super) fn begin(&self, name: &str) -> io::Result<PathBuf> {
        let tmp = with(&self.path(name), ".tmp");
        remove(&tmp)?;
        // A directory that can be entered, as it is to be shown as it is.
        fs::DirBuilder::new().mode(0o755).create(&tmp)?;
        Ok(tmp)
    }

    /// Publishes what was made, and [holds](hold) it. Whoever sees it sees all of it, after a loss
    /// of power too.
    pub(super) fn publish(&self, name: &str) -> io::Result<File> {
        let (tmp, done) = (with(&self.path(name), ".tmp"), self.path(name));
        give_to_agents(&tmp)?;
        sync_disk(&tmp)?;
        let held = used(&done, true)?;
        fs::rename(&tmp, &done).map(|()| held)
    }

    pub(super) fn abandon(&self, name: &str) -> io::Result<()> {
        remove(&with(&self.path(name), ".tmp"))
    }

    /// The names of those that were published.
    pub(super) fn names(&self) -> io::Result<BTreeSet<String>> {
        let entries = fs::read_dir(&self.dir)?.collect::<io::Result<Vec<_>>>()?;
        let names = entries.into_iter().map(|e| e.file_name());
        let names = names.filter_map(|n| n.into_string().ok());
        Ok(names
            .filter(|n| !n.contains('.') && self.path(n).is_dir())
            .collect())
    }

    /// Removes the least recently used until the rest takes no more than that, but none in use.
    pub(super) fn prune(&self, max_bytes: u64, keep: Option<&str>) -> io::Result<Pruned> {
        self.sweep()?;
        let mut all: Vec<(SystemTime, String, Inodes)> = Vec::new();
        let mut counts: HashMap<(u64, u64), (u64, u32)> = HashMap::new();
        for name in self.names()? {
            let mut inodes = Inodes::new();
            measure(&self.path(&name), &mut inodes)?;
            for (id, bytes) in &inodes {
                counts.entry(*id).or_insert((*bytes, 0)).1 += 1;
            }
            let used = fs::metadata(with(&self.path(&name), ".lock"))?.modified()?;
            all.push((used, name, inodes));
        }
        all.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        let mut done = Pruned {
            kept_bytes: counts.values().map(|(bytes, _)| bytes).sum(),
            ..Pruned::default()
        };
        for (_, name, inodes) in all {
            if done.kept_bytes <= max_bytes || keep == Some(&name) {
                continue;
            }
            if !self.remove(&name)? {
                done.in_use.push(name);
                continue;
            }
            for id in inodes.keys() {
                // Generations share files that did not change.
                if let Some((bytes, n)) = counts.get_mut(id) {
                    *n -= 1;
                    if *n == 0 {
                        done.freed_bytes += *bytes;
                        done.kept_bytes -= *bytes;
                    }
                }
            }
            done.removed.push(name);
        }
        Ok(done)
    }

    /// False: it is in use.
    fn remove(&self, name: &str) -> io::Result<bool> {
        let path = with(&self.path(name), ".lock");
        let lock = OpenOptions::new().write(true).open(&path)?;
        if lock.try_lock().is_err() {
            return Ok(false);
        }
        let tmp = with(&self.path(name), ".tmp");
        remove(&tmp)?;
        fs::rename(self.path(name), &tmp)?;
        remove(&tmp)?;
        fs::remove_file(path)?;
        Ok(true)
    }

    /// Removes what killed processes had begun.
    fn sweep(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path.extension().is_none_or(|e| e != "tmp") {
                continue;
            }
            let making = File::open(path.with_extension("making"));
            if making.is_err() || making.is_ok_and(|m| m.try_lock().is_ok()) {
                remove(&path)?;
            }
        }
        Ok(())
    }
}

/// Bytes of each file, by device and inode.
type Inodes = HashMap<(u64, u64), u64>;

fn measure(dir: &Path, into: &mut Inodes) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        // Of a link, the link.
        let meta = entry.metadata()?;
        if meta.is_dir() {
            measure(&entry.path(), into)?;
        }
        into.insert((meta.dev(), meta.ino()), meta.blocks() * 512);
    }
    Ok(())
}

fn remove(tree: &Path) -> io::Result<()> {
    match fs::remove_dir_all(tree) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}
