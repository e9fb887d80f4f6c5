//! Caches that tasks share without trusting each other, and environments that are set up once.

mod check;
mod environment;
mod store;

pub use check::{CacheKind, Checksums};
pub use environment::{Environment, Environments, Prepared};
pub use store::Pruned;
#[cfg(target_os = "linux")]
pub(crate) use store::{empty, hold};

use crate::{CacheView, Generation, Refused, Sandbox, SandboxError, blocking};
use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};
use store::{Generations, failed};

/// Held by who promotes; what it looks at lies under the same name.
const INCOMING: &str = "incoming";
/// Says what kind of cache a directory is.
const KIND: &str = "kind";
/// What a cache takes, if nobody says otherwise.
const MAX_BYTES: u64 = 10 << 30;

/// Files of a package manager or compiler that many sandboxes begin with.
///
/// A sandbox is shown one generation, which never changes, and writes to files of its own. Nobody
/// else sees them, until the host [promotes](Self::promote) them: then what proves its content makes
/// the next generation, together with all that was there before. Processes may share a cache.
///
/// ```no_run
/// # async fn f(
/// #     backend: &dyn smallhands_sandbox::SandboxBackend, cx: &smallhands_core::CallCx, lock: &str,
/// # ) -> Result<(), smallhands_sandbox::SandboxError> {
/// use smallhands_sandbox::{Cache, CacheKind, Checksums, Origin, SandboxSpec};
///
/// let cache = Cache::open("/var/lib/app/caches/cargo", CacheKind::CargoRegistry)?;
/// let view = cache.view("/cache/cargo")?;
/// let spec = SandboxSpec {
///     env: vec![cache.kind().environment(&view.at)],
///     caches: vec![view.clone()],
///     ..SandboxSpec::default()
/// };
/// let sandbox = backend.open(&spec, cx).await?;
/// // Here the task runs. Then what it fetched is kept, as far as the user's lockfile vouches for it.
/// let sums = Checksums::from_cargo_lock(lock);
/// let done = cache.promote(&*sandbox, &view, Origin::Task(&sums)).await?;
/// println!("{} new, {} refused", done.added.len(), done.refused.len());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Cache {
    kind: CacheKind,
    all: Generations,
    /// The most that one generation may hold.
    pub max_bytes: u64,
}

/// Whose word stands for what was written.
#[derive(Clone, Copy, Debug)]
pub enum Origin<'a> {
    /// Nobody's: it may be an agent's. Only what the kind of cache can check comes in.
    Task(&'a Checksums),
    /// The host's: only commands of its own ran, on sources that no agent changed. All of it comes
    /// in that does not replace anything.
    Setup,
}

/// What became of what a sandbox wrote.
#[derive(Clone, Debug)]
pub struct Promotion {
    /// The present generation.
    pub generation: Generation,
    /// New files in it.
    pub added: Vec<PathBuf>,
    /// What stayed out, and why. Of a task much does that is no harm: logs, locks, indices.
    pub refused: Vec<Refused>,
}

impl Cache {
    /// Opens a directory that belongs to this cache alone; makes it if it is not there.
    ///
    /// # Errors
    /// It cannot be used, or is a cache of another kind.
    pub fn open(dir: impl Into<PathBuf>, kind: CacheKind) -> Result<Self, SandboxError> {
        let dir = dir.into();
        let go = || {
            let all = Generations::open(dir.clone())?;
            let _lock = all.lock(INCOMING)?;
            let path = dir.join(KIND);
            if !path.exists() {
                fs::write(&path, kind.name())?;
            }
            if fs::read_to_string(path)? != kind.name() {
                return Err(io::Error::other(format!(
                    "it is not of kind {}; use another directory",
                    kind.name()
                )));
            }
            let cache = Self {
                kind,
                all,
                max_bytes: MAX_BYTES,
            };
            if cache.last()?.is_none() {
                cache.publish(1, |_| Ok(()))?;
            }
            Ok(cache)
        };
        go().map_err(failed(&dir))
    }

    /// Of which kind it is.
    pub fn kind(&self) -> CacheKind {
        self.kind
    }

    /// The present generation, to be shown at a place.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn view(&self, at: impl Into<PathBuf>) -> Result<CacheView, SandboxError> {
        Ok(CacheView {
            generation: self.current().map_err(failed(&self.all.dir))?,
            at: at.into(),
        })
    }

    /// Checks what was written to this cache in a sandbox, and publishes what passes. What is there
    /// already is neither changed nor removed. Promotions wait for each other.
    ///
    /// # Errors
    /// [`SandboxError::Unverifiable`] for a task's word on a kind that cannot be checked; the
    /// sandbox does not offer [`export`](Sandbox::export); the disk is full. Nothing is published
    /// then.
    pub async fn promote(
        &self,
        from: &dyn Sandbox,
        view: &CacheView,
        origin: Origin<'_>,
    ) -> Result<Promotion, SandboxError> {
        let sums = match origin {
            Origin::Setup => None,
            Origin::Task(_) if !self.kind.is_checkable() => {
                return Err(SandboxError::Unverifiable(self.kind.name().into()));
            }
            Origin::Task(sums) => Some(sums.clone()),
        };
        let all = self.all.clone();
        let begin = move || {
            let lock = all.lock(INCOMING).map_err(failed(&all.dir))?;
            let incoming = all.begin(INCOMING).map_err(failed(&all.dir))?;
            Ok((lock, incoming))
        };
        let (lock, incoming) = blocking(begin).await?;
        let at = view.at.to_string_lossy();
        let refused = from.export(&at, &incoming, self.max_bytes).await?;
        let cache = self.clone();
        blocking(move || {
            // From here on nothing inside can change what is looked at.
            let done = cache.admit(&incoming, sums.as_ref(), refused);
            let gone = cache.all.abandon(INCOMING);
            drop(lock);
            let done = done.map_err(failed(&cache.all.dir))?;
            gone.map_err(failed(&cache.all.dir)).map(|()| done)
        })
        .await
    }

    /// Removes generations that are not in use, the least recently used first, until the rest takes
    /// no more than that. If the present one is too large, the cache begins anew. Blocks.
    ///
    /// # Errors
    /// The directory cannot be read or written.
    pub fn prune(&self, max_bytes: u64) -> Result<Pruned, SandboxError> {
        let go = || {
            let _lock = self.all.lock(INCOMING)?;
            let last = self.last()?.unwrap_or(0);
            let pruned = self.all.prune(max_bytes, Some(&name(last)))?;
            if pruned.kept_bytes <= max_bytes || self.files(last)?.is_empty() {
                return Ok(pruned);
            }
            self.publish(last + 1, |_| Ok(()))?;
            let mut more = self.all.prune(max_bytes, Some(&name(last + 1)))?;
            more.removed.splice(0..0, pruned.removed);
            more.freed_bytes += pruned.freed_bytes;
            Ok(more)
        };
        go().map_err(failed(&self.all.dir))
    }

    fn last(&self) -> io::Result<Option<u32>> {
        let names = self.all.names()?;
        Ok(names.iter().filter_map(|n| n.parse().ok()).max())
    }

    fn current(&self) -> io::Result<Generation> {
        let last = self.last()?.ok_or(io::ErrorKind::NotFound)?;
        let path = self.all.path(&name(last));
        Ok(Generation { path })
    }

    fn files(&self, generation: u32) -> io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        list(&self.all.path(&name(generation)), Path::new(""), &mut files)?;
        Ok(files)
    }

    fn publish(&self, n: u32, fill: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
        let name = name(n);
        let _lock = self.all.lock(&name)?;
        let done = self.all.begin(&name).and_then(|tmp| fill(&tmp));
        match done.and_then(|()| self.all.publish(&name)) {
            Ok(_) => Ok(()),
            Err(e) => {
                // What went wrong first is what matters.
                drop(self.all.abandon(&name));
                Err(e)
            }
        }
    }

    /// Makes the next generation of the present one and of what passes.
    fn admit(
        &self,
        incoming: &Path,
        sums: Option<&Checksums>,
        mut refused: Vec<Refused>,
    ) -> io::Result<Promotion> {
        let last = self.last()?.ok_or(io::ErrorKind::NotFound)?;
        let (now, kept) = (self.current()?, self.files(last)?);
        let mut left = self.max_bytes;
        for path in &kept {
            left = left.saturating_sub(fs::symlink_metadata(now.path.join(path))?.len());
        }
        let (mut found, mut added) = (Vec::new(), Vec::new());
        list(incoming, Path::new(""), &mut found)?;
        for path in found {
            let file = incoming.join(&path);
            let verdict = match self.compare(&now.path, &path, &file)? {
                Ok(true) => continue,
                Ok(false) => match sums {
                    Some(sums) => self.kind.check(&path, &file, sums)?,
                    None => Ok(()),
                },
                Err(why) => Err(why),
            };
            let len = fs::symlink_metadata(&file)?.len();
            match verdict {
                Ok(()) if len > left => Err("the cache is full; prune it, or raise max_bytes"),
                other => other,
            }
            .map_or_else(
                |why| {
                    let why = why.into();
                    refused.push(Refused {
                        path: path.clone(),
                        why,
                    });
                },
                |()| {
                    left -= len;
                    added.push(path.clone());
                },
            );
        }
        if added.is_empty() {
            let generation = now;
            return Ok(Promotion {
                generation,
                added,
                refused,
            });
        }
        self.publish(last + 1, |tmp| {
            for path in &kept {
                link(&now.path.join(path), &under(tmp, path)?)?;
            }
            for path in &added {
                fs::rename(incoming.join(path), under(tmp, path)?)?;
            }
            Ok(())
        })?;
        let generation = self.current()?;
        Ok(Promotion {
            generation,
            added,
            refused,
        })
    }

    /// Whether the same file is there already; or why this one cannot be beside what is there.
    fn compare(
        &self,
        now: &Path,
        path: &Path,
        file: &Path,
    ) -> io::Result<Result<bool, &'static str>> {
        if fs::symlink_metadata(file)?.is_symlink() {
            return Ok(Err("a symbolic link"));
        }
        match fs::symlink_metadata(now.join(path)) {
            Ok(there) if there.is_file() && same(&now.join(path), file)? => Ok(Ok(true)),
            Ok(_) => Ok(Err("there already, with other content")),
            Err(e) if e.kind() == io::ErrorKind::NotADirectory => {
                Ok(Err("it lies below what is a file already"))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Ok(false)),
            Err(e) => Err(e),
        }
    }
}

fn name(generation: u32) -> String {
    format!("{generation:08}")
}

/// A path below a directory, whose parents are made. They hold no links: all of it is ours.
fn under(dir: &Path, path: &Path) -> io::Result<PathBuf> {
    let whole = dir.join(path);
    fs::create_dir_all(whole.parent().unwrap_or(dir))?;
    Ok(whole)
}

/// The same file under a second name; no generation ever changes.
fn link(from: &Path, to: &Path) -> io::Result<()> {
    // On file systems without links, and where one has too many.
    fs::hard_link(from, to).or_else(|_| fs::copy(from, to).map(drop))
}

/// Everything below a directory that is no directory.
fn list(top: &Path, below: &Path, into: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut entries = fs::read_dir(top.join(below))?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = below.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => list(top, &path, into)?,
            false => into.push(path),
        }
    }
    Ok(())
}

fn same(a: &Path, b: &Path) -> io::Result<bool> {
    if fs::metadata(a)?.len() != fs::metadata(b)?.len() {
        return Ok(false);
    }
    let (mut a, mut b) = (File::open(a)?, File::open(b)?);
    let (mut x, mut y) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let n = a.read(&mut x)?;
        if n == 0 {
            return Ok(true);
        }
        if b.read_exact(&mut y[..n]).is_err() || x[..n] != y[..n] {
            return Ok(false);
        }
    }
}
