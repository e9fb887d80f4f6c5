//! Private directories of sandboxes below the state directory, and who cleans up after the dead.

use super::{
    agent_ids,
    cgroup::{self, Group, Places},
    outer_mode, sys_priv,
};
use crate::{Limits, SandboxError};
use std::{
    fs::{self, File, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Holds the places where its owner makes control groups, a line each.
const LOCK: &str = "lock";

/// A directory that this process owns as long as it holds the lock in it.
#[derive(Debug)]
pub(super) struct Den {
    path: PathBuf,
    next: AtomicU64,
    places: Places,
    _lock: File,
}

/// Where each sandbox, in a mount namespace of its own, mounts something.
const MOUNT_POINTS: [&str; 3] = ["root", "lower0", "lower1"];

/// The directory of one sandbox.
#[derive(Debug)]
pub(super) struct Private {
    path: PathBuf,
    pub(super) group: Group,
    /// Keeps what it shows of caches and environments from being removed.
    pub(super) shown: Vec<File>,
    _den: Arc<Den>,
}

fn setup(path: &Path) -> impl Fn(io::Error) -> SandboxError {
    move |e| match e.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => SandboxError::DiskFull("opening a sandbox".into()),
        _ => SandboxError::Setup {
            stage: format!("state directory {}", path.display()),
            reason: e.to_string(),
        },
    }
}

impl Den {
    /// Removes what dead processes left, and makes a directory of our own.
    pub(super) fn open(state_dir: &Path) -> Result<Self, SandboxError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let boxes = state_dir.join("sandboxes");
        let go = || -> io::Result<Self> {
            make_dir(&boxes, outer_mode())?;
            clean(&boxes)?;
            loop {
                let n = NEXT.fetch_add(1, Ordering::Relaxed);
                // The name is for people; the lock decides, also between containers.
                let name = format!("{}-{}-{n}", std::process::id(), start_time("self")?);
                let path = boxes.join(name);
                make_dir(&path, outer_mode())?;
                let mut lock = File::create(path.join(LOCK))?;
                // Another janitor may have come between the last two lines.
                if lock.try_lock().is_ok() && lock.metadata()?.nlink() > 0 {
                    for name in MOUNT_POINTS {
                        make_dir(&path.join(name), 0o755)?;
                    }
                    let places = Places::find();
                    cgroup::sweep_orphans(&places.dirs());
                    let dirs = places.dirs().into_iter().map(PathBuf::into_os_string);
                    let dirs: Vec<_> = dirs.collect();
                    lock.write_all(dirs.join("\n".as_ref()).as_encoded_bytes())?;
                    return Ok(Self {
                        path,
                        next: AtomicU64::new(0),
                        places,
                        _lock: lock,
                    });
                }
            }
        };
        go().map_err(setup(state_dir))
    }

    /// Where the next sandbox will have its directory.
    pub(super) fn next(&self) -> PathBuf {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        self.path.join(n.to_string())
    }

    /// Makes the directory that [`next`](Self::next) gave, with what the helper expects in it, for so many
    /// caches; for an
    /// agent that is another user than we, where there is one and it is wanted.
    pub(super) fn private(
        self: &Arc<Self>,
        path: PathBuf,
        other_user: bool,
        limits: &Limits,
        caches: usize,
    ) -> Result<Private, SandboxError> {
        let go = || -> io::Result<()> {
            make_dir(&path, 0o700)?;
            let ids = agent_ids().filter(|_| other_user);
            let own = ["upper", "work"].map(String::from);
            let parts = |i| ["", "/lower0", "/upper", "/work"].map(|p| format!("{}{p}", cache(i)));
            for name in own.into_iter().chain((0..caches).flat_map(parts)) {
                let dir = path.join(name);
                make_dir(&dir, 0o755)?;
                if let Some((uid, gid)) = ids {
                    std::os::unix::fs::chown(&dir, Some(uid), Some(gid))?;
                }
            }
            match ids {
                Some((uid, gid)) => std::os::unix::fs::chown(&path, Some(uid), Some(gid)),
                None => Ok(()),
            }
        };
        let mut private = Private {
            path: path.clone(),
            group: Group::default(),
            shown: Vec::new(),
            _den: self.clone(),
        };
        // What was made of it before the disk was full goes with it.
        go().map_err(setup(&path))?;
        let n = path.file_name().unwrap_or_default().to_string_lossy();
        let name = format!("{}{n}", prefix(&self.path));
        private.group = self.places.group(&name, limits);
        Ok(private)
    }
}

impl Drop for Den {
    fn drop(&mut self) {
        // Best effort: what stays is removed by the next process.
        drop(remove_tree(&self.path));
    }
}

impl Private {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        // The group goes by itself.
        if let Err(e) = remove_tree(&self.path) {
            tracing::warn!(path = %self.path.display(), error = %e, "a sandbox's files stay behind");
        }
    }
}

/// Where a sandbox keeps what belongs to one cache, in its private directory.
pub(super) fn cache(i: usize) -> String {
    format!("cache{i}")
}

/// How the names of a process's control groups begin.
fn prefix(den: &Path) -> String {
    let name = den.file_name().unwrap_or_default().to_string_lossy();
    format!("smallhands-{name}-")
}

fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
}

/// When a process started, in ticks since boot: tells two processes of the same id apart.
pub(super) fn start_time(pid: &str) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in brackets may hold anything; field 22 is the 20th after it.
    stat.rsplit(')')
        .next()
        .and_then(|rest| rest.split_whitespace().nth(19)?.parse().ok())
        .ok_or_else(|| io::Error::other("/proc/*/stat cannot be read"))
}

fn clean(boxes: &Path) -> io::Result<()> {
    for entry in fs::read_dir(boxes)? {
        let path = entry?.path();
        let Ok(lock) = File::open(path.join(LOCK)) else {
            // Being made, or half removed: old ones only.
            let age = fs::metadata(&path).map(|m| m.modified().map(|t| t.elapsed()));
            if matches!(age, Ok(Ok(Ok(age))) if age.as_secs() > 60) {
                drop(remove_tree(&path));
            }
            continue;
        };
        if lock.try_lock().is_ok() {
            // Its owner is dead. Another janitor at the same work is no harm.
            let places = fs::read_to_string(path.join(LOCK)).unwrap_or_default();
            cgroup::sweep(places.lines().map(PathBuf::from), &prefix(&path));
            drop(remove_tree(&path));
        }
    }
    Ok(())
}

/// Removes a directory whose depth, names and modes were chosen by an agent that is dead now.
///
/// Directories are moved up before they are emptied, so that neither the stack nor the length of a
/// path grows with their depth.
pub(super) fn remove_tree(top: &Path) -> io::Result<()> {
    let mut moved = 0_u64;
    loop {
        let mut deeper = false;
        for entry in fs::read_dir(top)? {
            let entry = entry?;
            let path = entry.path();
            if !entry.file_type()?.is_dir() {
                fs::remove_file(&path)?;
                continue;
            }
            open_up(&path)?;
            for child in fs::read_dir(&path)? {
                let child = child?;
                if !child.file_type()?.is_dir() {
                    fs::remove_file(child.path())?;
                    continue;
                }
                deeper = true;
                open_up(&child.path())?;
                while top.join(format!("~{moved}")).exists() {
                    moved += 1;
                }
                fs::rename(child.path(), top.join(format!("~{moved}")))?;
            }
            fs::remove_dir(&path)?;
        }
        if !deeper {
            return fs::remove_dir(top);
        }
    }
}

/// Gives the owner its rights back; only ever called on what was just seen to be a directory.
fn open_up(dir: &Path) -> io::Result<()> {
    let meta = fs::symlink_metadata(dir)?;
    let ours = sys_priv::uid() == 0 || meta.uid() == sys_priv::uid();
    if ours && meta.mode() & 0o700 != 0o700 {
        fs::set_permissions(dir, Permissions::from_mode(0o700))?;
    }
    Ok(())
}
