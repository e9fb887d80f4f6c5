//! File operations of the agent in the workspace. Paths come from the host, which got them from a
//! model: they are relative, and symbolic links are followed inside the workspace only.

use super::{
    at,
    proto::{CHUNK, Fault},
};
use crate::{Change, Content, DirEntry, EntryKind};
use std::{
    ffi::{CStr, CString, OsStr},
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
};

/// Deeper than any source tree, and safe for a recursion.
pub(super) const MAX_DEPTH: usize = 256;
/// Largest file that is read into the memory of the host.
pub(super) const MAX_FILE: u64 = 256 << 20;
const MAX_ENTRIES: usize = 1_000_000;

/// A path as the kernel takes it; the empty one is the workspace itself.
pub(super) fn checked(path: &[u8]) -> Result<CString, Fault> {
    let bad = |reason: &str| Fault::Path {
        path: String::from_utf8_lossy(path).into_owned(),
        reason: reason.into(),
    };
    if path.starts_with(b"/") {
        return Err(bad("it must be relative to the workspace"));
    }
    if path.split(|&b| b == b'/').any(|c| c == b"..") {
        return Err(bad("`..` is not allowed"));
    }
    let path = if path.is_empty() { b"." } else { path };
    CString::new(path).map_err(|_| bad("it has a NUL byte in it"))
}

/// The directory of a path, and its last name.
fn split(path: &[u8]) -> Result<(&[u8], CString), Fault> {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    let (dir, name) = match path.iter().rposition(|&b| b == b'/') {
        Some(i) => (&path[..i], &path[i + 1..]),
        None => (&b""[..], path),
    };
    if matches!(name, b"" | b".") {
        return Err(Fault::Path {
            path: String::from_utf8_lossy(path).into_owned(),
            reason: "it names no file".into(),
        });
    }
    Ok((dir, checked(name)?))
}

fn open(work: BorrowedFd<'_>, path: &[u8], flags: libc::c_int) -> Result<OwnedFd, Fault> {
    at::open_beneath(work, &checked(path)?, flags, 0).map_err(|e| Fault::file(path, &e))
}

pub(super) fn directory(work: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Fault> {
    open(work, path, libc::O_RDONLY | libc::O_DIRECTORY)
}

fn regular(fd: OwnedFd, path: &[u8]) -> Result<(File, u64), Fault> {
    let stat = at::fstat(fd.as_fd()).map_err(|e| Fault::file(path, &e))?;
    if at::kind(&stat) != libc::S_IFREG {
        return Err(Fault::File {
            path: String::from_utf8_lossy(path).into_owned(),
            reason: "it is not a regular file".into(),
        });
    }
    Ok((File::from(fd), stat.st_size as u64))
}

/// Passes the bytes of a file on, in chunks.
pub(super) fn read(
    work: BorrowedFd<'_>,
    path: &str,
    mut pass: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), Fault> {
    let path = path.as_bytes();
    // Without O_NONBLOCK, a FIFO would hold the agent.
    let fd = open(work, path, libc::O_RDONLY | libc::O_NONBLOCK)?;
    let (mut file, len) = regular(fd, path)?;
    if len > MAX_FILE {
        return Err(Fault::file(
            path,
            &io::Error::from_raw_os_error(libc::EFBIG),
        ));
    }
    copy_exactly(&mut file, len, &mut pass).map_err(|e| Fault::file(path, &e))
}

/// Exactly `len` bytes of a file that may be changing: cut, or filled up with zeros.
pub(super) fn copy_exactly(
    file: &mut File,
    mut len: u64,
    pass: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut buf = vec![0; CHUNK.min(len as usize)];
    while len > 0 {
        let most = buf.len().min(len as usize);
        let n = file.read(&mut buf[..most])?;
        let n = if n == 0 {
            buf.fill(0);
            most
        } else {
            n
        };
        pass(&buf[..n])?;
        len -= n as u64;
    }
    Ok(())
}

pub(super) fn write(
    work: BorrowedFd<'_>,
    path: &str,
    first: bool,
    bytes: &[u8],
) -> Result<(), Fault> {
    let path = path.as_bytes();
    let fault = |e: &io::Error| Fault::file(path, e);
    let how = if first { libc::O_TRUNC } else { libc::O_APPEND };
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_NONBLOCK | libc::O_NOCTTY | how;
    let name = checked(path)?;
    let fd = match at::open_beneath(work, &name, flags, 0o644) {
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {
            make_dirs(work, split(path)?.0).map_err(|e| fault(&e))?;
            at::open_beneath(work, &name, flags, 0o644)
        }
        done => done,
    };
    let (mut file, _) = regular(fd.map_err(|e| fault(&e))?, path)?;
    file.write_all(bytes).map_err(|e| fault(&e))
}

fn make_dirs(work: BorrowedFd<'_>, path: &[u8]) -> io::Result<()> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let mut end = 0;
    while end < path.len() {
        let begin = end;
        end = path[begin + 1..]
            .iter()
            .position(|&b| b == b'/')
            .map_or(path.len(), |i| begin + 1 + i);
        let so_far = CString::new(&path[..end])?;
        match at::open_beneath(work, &so_far, flags, 0) {
            Ok(_) => {}
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {
                let parent = if begin == 0 { b"." } else { &path[..begin] };
                let parent = at::open_beneath(work, &CString::new(parent)?, flags, 0)?;
                let name = path[begin..end]
                    .strip_prefix(b"/")
                    .unwrap_or(&path[begin..end]);
                at::mkdir(parent.as_fd(), &CString::new(name)?)?;
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

pub(super) fn remove(work: BorrowedFd<'_>, path: &str) -> Result<(), Fault> {
    let path = path.as_bytes();
    checked(path)?;
    let (dir, name) = split(path)?;
    let dir = open(work, dir, libc::O_PATH | libc::O_DIRECTORY)?;
    let gone = || {
        let stat = at::lstat(dir.as_fd(), &name)?;
        at::unlink(dir.as_fd(), &name, at::kind(&stat) == libc::S_IFDIR)
    };
    gone().map_err(|e| Fault::file(path, &e))
}

/// What is below a directory, in batches.
pub(super) fn list(
    work: BorrowedFd<'_>,
    dir: &str,
    mut pass: impl FnMut(Vec<DirEntry>) -> io::Result<()>,
) -> Result<(), Fault> {
    let top = directory(work, dir.as_bytes())?;
    let mut prefix = dir.trim_matches('/').as_bytes().to_vec();
    if prefix == b"." {
        prefix.clear();
    }
    let (mut batch, mut size) = (Vec::new(), 0);
    let mut seen = 0;
    let mut each = |path: &[u8], stat: &libc::stat| {
        seen += 1;
        if seen > MAX_ENTRIES {
            return Err(io::Error::from_raw_os_error(libc::EFBIG));
        }
        batch.push(entry(path, stat));
        size += path.len() + 64;
        if size > CHUNK {
            size = 0;
            pass(std::mem::take(&mut batch))?;
        }
        Ok(())
    };
    walk(top.as_fd(), &mut prefix, MAX_DEPTH, &mut each)
        .and_then(|()| pass(batch))
        .map_err(|e| Fault::file(dir.as_bytes(), &e))
}

fn entry(path: &[u8], stat: &libc::stat) -> DirEntry {
    let kind = match at::kind(stat) {
        libc::S_IFREG => EntryKind::File,
        libc::S_IFDIR => EntryKind::Dir,
        libc::S_IFLNK => EntryKind::Symlink,
        _ => EntryKind::Other,
    };
    DirEntry {
        path: String::from_utf8_lossy(path).into_owned(),
        kind,
        len: if kind == EntryKind::File {
            stat.st_size as u64
        } else {
            0
        },
    }
}

type Visit<'a> = &'a mut dyn FnMut(&[u8], &libc::stat) -> io::Result<()>;

fn walk(dir: BorrowedFd<'_>, path: &mut Vec<u8>, depth: usize, each: Visit<'_>) -> io::Result<()> {
    if depth == 0 {
        return Err(io::Error::from_raw_os_error(libc::ELOOP));
    }
    for name in at::names(dir)? {
        // A command may be running, and removing what was just seen.
        let Some(stat) = at::try_lstat(dir, &name)? else {
            continue;
        };
        let before = push(path, &name);
        each(path, &stat)?;
        if at::kind(&stat) == libc::S_IFDIR
            && let Ok(inside) = at::open_dir(dir, &name)
        {
            walk(inside.as_fd(), path, depth - 1, each)?;
        }
        path.truncate(before);
    }
    Ok(())
}

/// Adds a name to a path; gives back the length to cut it to again.
pub(super) fn push(path: &mut Vec<u8>, name: &CStr) -> usize {
    let before = path.len();
    if before > 0 {
        path.push(b'/');
    }
    path.extend(name.to_bytes());
    before
}

/// Makes a path what the change says. A file comes back open, to be filled.
pub(super) fn apply(work: BorrowedFd<'_>, change: &Change<u64>) -> Result<Option<File>, Fault> {
    let path = &change.path;
    checked(path)?;
    let (dir, name) = split(path)?;
    let go = || -> io::Result<Option<File>> {
        make_dirs(work, dir)?;
        let dir = if dir.is_empty() { b"." } else { dir };
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        let dir = at::open_beneath(work, &CString::new(dir)?, flags, 0)?;
        let dir = dir.as_fd();
        let is_dir = at::try_lstat(dir, &name)?.map(|s| at::kind(&s) == libc::S_IFDIR);
        match (&change.now, is_dir) {
            (Content::Gone, None) | (Content::Dir, Some(true)) => return Ok(None),
            (_, Some(_)) => at::remove_tree(dir, &name, MAX_DEPTH)?,
            (_, None) => {}
        }
        match &change.now {
            Content::Gone => Ok(None),
            Content::Dir => at::mkdir(dir, &name).map(|()| None),
            Content::Symlink { target } => {
                let target = super::sys::cstr(OsStr::from_bytes(target))?;
                at::symlink(&target, dir, &name).map(|()| None)
            }
            Content::File { exec, .. } => {
                let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;
                let file = at::open(dir, &name, flags)?;
                at::fchmod(file.as_fd(), if *exec { 0o755 } else { 0o644 })?;
                Ok(Some(File::from(file)))
            }
        }
    };
    go().map_err(|e| Fault::file(path, &e))
}
