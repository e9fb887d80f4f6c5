//! What a workspace holds that its base does not.
//!
//! One walk serves both forms. Of an overlay it looks at the upper directory, which holds what was
//! touched; elsewhere at the workspace itself, as if it hid the base altogether. The base may have
//! several parts, of which the first one that has a name decides what it is.

use super::{
    at,
    files::{self, MAX_DEPTH},
};
use crate::{Change, Content};
use std::{
    ffi::CStr,
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

/// Most bytes that a snapshot or a diff carries through the memory of the host.
const MAX_TOTAL: u64 = 1 << 30;
const MAX_CHANGES: usize = 1_000_000;

/// Takes each change, and the file whose bytes it announces.
pub(super) type Emit<'a> = &'a mut dyn FnMut(Change<u64>, Option<File>) -> io::Result<()>;

/// Emits every change in order of path, parents first. On failure says at which path.
pub(super) fn walk(
    upper: BorrowedFd<'_>,
    lowers: &[BorrowedFd<'_>],
    overlay: bool,
    emit: Emit<'_>,
) -> Result<(), (Vec<u8>, io::Error)> {
    let mut w = Walk {
        path: Vec::new(),
        total: 0,
        count: 0,
        emit,
    };
    let hidden = !overlay || at::is_opaque(upper);
    let done = w.directory(upper, lowers, hidden, MAX_DEPTH);
    done.map_err(|e| (w.path, e))
}

struct Walk<'a> {
    path: Vec<u8>,
    total: u64,
    count: usize,
    emit: Emit<'a>,
}

fn too_much() -> io::Error {
    io::Error::from_raw_os_error(libc::EFBIG)
}

impl Walk<'_> {
    /// `hidden`: what the lower directory has and the upper has not is gone.
    fn directory(
        &mut self,
        upper: BorrowedFd<'_>,
        lowers: &[BorrowedFd<'_>],
        hidden: bool,
        depth: usize,
    ) -> io::Result<()> {
        if depth == 0 {
            return Err(io::Error::from_raw_os_error(libc::ELOOP));
        }
        let mut names: Vec<_> = at::names(upper)?.into_iter().map(|n| (n, true)).collect();
        for lower in lowers.iter().filter(|_| hidden) {
            names.extend(at::names(*lower)?.into_iter().map(|n| (n, false)));
        }
        // Of a name that both have, the upper one.
        names.sort_unstable_by(|(a, up), (b, low)| a.cmp(b).then(low.cmp(up)));
        names.dedup_by(|(a, _), (b, _)| a == b);
        for (name, present) in names {
            let before = files::push(&mut self.path, &name);
            if present {
                self.entry(upper, lowers, hidden, &name, depth)?;
            } else {
                self.say(Content::Gone, None)?;
            }
            self.path.truncate(before);
        }
        Ok(())
    }

    fn entry(
        &mut self,
        upper: BorrowedFd<'_>,
        lowers: &[BorrowedFd<'_>],
        hidden: bool,
        name: &CStr,
        depth: usize,
    ) -> io::Result<()> {
        let now = at::lstat(upper, name)?;
        let old = found(lowers, name)?;
        match at::kind(&now) {
            libc::S_IFDIR => self.sub_directory(upper, lowers, hidden, name, &now, depth),
            libc::S_IFREG => {
                let mut file = File::from(at::open_readable(upper, name, &now)?);
                if old
                    .is_some_and(|(l, s)| same_file(&mut file, &now, l, name, &s).unwrap_or(false))
                {
                    return Ok(());
                }
                io::Seek::rewind(&mut file)?;
                let len = now.st_size as u64;
                let exec = at::is_exec(&now);
                self.say(Content::File { exec, bytes: len }, Some(file))
            }
            libc::S_IFLNK => {
                let target = at::read_link(upper, name)?;
                let same = old.is_some_and(|(l, s)| {
                    at::kind(&s) == libc::S_IFLNK
                        && at::read_link(l, name).is_ok_and(|t| t == target)
                });
                if same {
                    return Ok(());
                }
                self.say(Content::Symlink { target }, None)
            }
            // A whiteout, or a FIFO or socket, which no snapshot holds.
            _ if old.is_some() => self.say(Content::Gone, None),
            _ => Ok(()),
        }
    }

    fn sub_directory(
        &mut self,
        upper: BorrowedFd<'_>,
        lowers: &[BorrowedFd<'_>],
        hidden: bool,
        name: &CStr,
        now: &libc::stat,
        depth: usize,
    ) -> io::Result<()> {
        let inside = at::open_readable(upper, name, now)?;
        let mut below: Vec<OwnedFd> = Vec::new();
        for lower in lowers {
            match at::try_lstat(*lower, name)?.map(|s| at::kind(&s)) {
                Some(libc::S_IFDIR) => below.push(at::open_dir(*lower, name)?),
                // What is no directory hides those of the parts below it.
                Some(_) => break,
                None => {}
            }
        }
        if below.is_empty() {
            self.say(Content::Dir, None)?;
        }
        let hidden = hidden || at::is_opaque(inside.as_fd());
        let below: Vec<_> = below.iter().map(AsFd::as_fd).collect();
        self.directory(inside.as_fd(), &below, hidden, depth - 1)
    }

    fn say(&mut self, now: Content<u64>, file: Option<File>) -> io::Result<()> {
        self.count += 1;
        if let Content::File { bytes, .. } = now {
            self.total += bytes;
        }
        if self.total > MAX_TOTAL || self.count > MAX_CHANGES {
            return Err(too_much());
        }
        let path = self.path.clone();
        (self.emit)(Change { path, now }, file)
    }
}

/// What the base has of a name, and in which part.
fn found<'a>(
    lowers: &[BorrowedFd<'a>],
    name: &CStr,
) -> io::Result<Option<(BorrowedFd<'a>, libc::stat)>> {
    for lower in lowers {
        if let Some(stat) = at::try_lstat(*lower, name)? {
            return Ok(Some((*lower, stat)));
        }
    }
    Ok(None)
}

fn same_file(
    a: &mut File,
    now: &libc::stat,
    lower: BorrowedFd<'_>,
    name: &CStr,
    was: &libc::stat,
) -> io::Result<bool> {
    if at::kind(was) != libc::S_IFREG
        || was.st_size != now.st_size
        || at::is_exec(was) != at::is_exec(now)
    {
        return Ok(false);
    }
    let mut b = File::from(at::open(lower, name, libc::O_RDONLY)?);
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
