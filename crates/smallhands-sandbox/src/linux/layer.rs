//! Copies of trees: of a base, where an overlay is not to be had, and of what a sandbox changed, out to
//! the host.

use super::{
    at,
    files::{self, MAX_DEPTH},
    proto::Fault,
};
use crate::Refused;
use std::{
    ffi::{CString, OsString},
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
    path::{Path, PathBuf},
};

/// More entries than this stay inside.
const MAX_ENTRIES: u64 = 1_000_000;
/// So do longer paths: the host could not name them.
const MAX_PATH: usize = 2048;

/// Copies what a directory holds below what the other one holds already. True: the files share their
/// blocks with those they were copied from, until they are changed.
pub(super) fn tree(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<bool> {
    let mut copy = Copy::new(None);
    copy.directory(from, to, MAX_DEPTH)?;
    Ok(copy.share)
}

/// Copies the directory `below` out of an upper one into an empty directory of the host. Says what
/// stays. Nothing runs inside meanwhile; if something did, it could still lead nowhere.
pub(super) fn export(
    upper: &Path,
    below: &str,
    into: &Path,
    max_bytes: u64,
) -> Result<Vec<Refused>, Fault> {
    let go = || {
        let mut from = OwnedFd::from(File::open(upper)?);
        for name in below.split('/').filter(|n| !matches!(*n, "" | ".")) {
            from = at::open_dir(from.as_fd(), &CString::new(name)?)?;
        }
        let to = File::open(into)?;
        let out = Out {
            bytes: max_bytes,
            entries: MAX_ENTRIES,
            refused: Vec::new(),
        };
        let mut copy = Copy::new(Some(out));
        copy.directory(from.as_fd(), to.as_fd(), MAX_DEPTH)?;
        Ok(copy.out.map(|out| out.refused).unwrap_or_default())
    };
    go().map_err(|e: io::Error| Fault::file(below.as_bytes(), &e))
}

/// The bounds of a copy for the host.
struct Out {
    bytes: u64,
    entries: u64,
    refused: Vec<Refused>,
}

struct Copy {
    /// Whether the file system may let files share their blocks.
    share: bool,
    path: Vec<u8>,
    /// None: the copy is for an agent; what is there already stays, and directories are filled up.
    out: Option<Out>,
}

impl Copy {
    fn new(out: Option<Out>) -> Self {
        Self {
            share: true,
            path: Vec::new(),
            out,
        }
    }

    fn directory(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        depth: usize,
    ) -> io::Result<()> {
        for name in at::all_names(from)? {
            let stat = at::lstat(from, &name)?;
            let before = files::push(&mut self.path, &name);
            if self.takes(&stat, depth)? && self.is_free(to, &name, &stat)? {
                self.entry(from, to, &name, &stat, depth)?;
            }
            self.path.truncate(before);
        }
        match (at::is_opaque(from), &mut self.out) {
            (true, None) => at::make_opaque(to),
            (true, Some(_)) => {
                self.refuse("it replaces a directory of the same name");
                Ok(())
            }
            (false, _) => Ok(()),
        }
    }

    fn entry(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CString,
        stat: &libc::stat,
        depth: usize,
    ) -> io::Result<()> {
        let mode = match (&self.out, at::is_exec(stat)) {
            (None, _) => stat.st_mode & 0o777,
            (Some(_), true) => 0o755,
            (Some(_), false) => 0o644,
        };
        let time = at::modified(stat);
        match at::kind(stat) {
            libc::S_IFDIR => {
                let new = self.out.is_some() || at::try_lstat(to, name)?.is_none();
                if new {
                    at::mkdir(to, name)?;
                }
                let a = at::open_readable(from, name, stat)?;
                let b = File::from(at::open_dir(to, name)?);
                self.directory(a.as_fd(), b.as_fd(), depth - 1)?;
                if !new {
                    return Ok(());
                }
                if self.out.is_none() {
                    at::fchmod(b.as_fd(), mode)?;
                }
                b.set_modified(time)
            }
            libc::S_IFREG => {
                let a = File::from(at::open_readable(from, name, stat)?);
                let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;
                let b = File::from(at::open(to, name, flags)?);
                at::copy_bytes(&mut self.share, a, &b)?;
                at::fchmod(b.as_fd(), mode)?;
                // Build tools compare them.
                b.set_modified(time)
            }
            libc::S_IFLNK => {
                let target = CString::new(at::read_link(from, name)?)?;
                at::symlink(&target, to, name)
            }
            libc::S_IFCHR if stat.st_rdev == 0 => at::whiteout(to, name),
            // A FIFO or a socket, which no other copy holds either.
            _ => Ok(()),
        }
    }

    fn is_free(&self, to: BorrowedFd<'_>, name: &CString, stat: &libc::stat) -> io::Result<bool> {
        let there = match self.out {
            None => at::try_lstat(to, name)?,
            Some(_) => None,
        };
        let is_dir = |s: &libc::stat| at::kind(s) == libc::S_IFDIR;
        Ok(there.is_none_or(|there| is_dir(&there) && is_dir(stat)))
    }

    /// Whether an entry comes along; out to the host, not all do.
    fn takes(&mut self, stat: &libc::stat, depth: usize) -> io::Result<bool> {
        let Some(out) = &mut self.out else {
            return match depth {
                0 => Err(io::Error::from_raw_os_error(libc::ELOOP)),
                _ => Ok(true),
            };
        };
        let kind = at::kind(stat);
        let readable = match kind {
            libc::S_IFDIR => 0o500,
            libc::S_IFREG => 0o400,
            _ => 0,
        };
        let why = match kind {
            libc::S_IFCHR if stat.st_rdev == 0 => "removed inside; what is there stays",
            libc::S_IFDIR | libc::S_IFREG | libc::S_IFLNK => {
                if stat.st_mode & readable != readable {
                    "its mode forbids its owner to read it"
                } else if kind == libc::S_IFREG && stat.st_mode & 0o6000 != 0 {
                    "set-user-id or set-group-id"
                } else if depth == 0 || self.path.len() > MAX_PATH {
                    "nested too deep"
                } else if out.entries == 0 {
                    "too many files"
                } else if kind == libc::S_IFREG && stat.st_size as u64 > out.bytes {
                    "too large"
                } else {
                    out.entries -= 1;
                    if kind == libc::S_IFREG {
                        out.bytes -= stat.st_size as u64;
                    }
                    return Ok(true);
                }
            }
            _ => "neither a file, a directory nor a link",
        };
        self.refuse(why);
        Ok(false)
    }

    fn refuse(&mut self, why: &str) {
        // As many as are counted: an agent chose how many there are.
        if let Some(out) = self.out.as_mut().filter(|o| o.refused.len() < 10_000) {
            out.refused.push(Refused {
                path: PathBuf::from(OsString::from_vec(self.path.clone())),
                why: why.into(),
            });
        }
    }
}
