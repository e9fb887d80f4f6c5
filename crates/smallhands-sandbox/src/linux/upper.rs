//! What one sandbox changed, as the beginning of another.

use super::{
    at,
    files::MAX_DEPTH,
    proto::Fault,
    sys::{self, Fork},
    sys_priv::{self, AsUser},
};
use std::{
    ffi::{CStr, CString},
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    thread,
};

/// Fewer bytes are copied before another process is there to help.
const ALONE: u64 = 1 << 20;
/// A disk or the memory is busy with so many.
const MOST: usize = 4;

/// Copies an upper directory into ours, before anything is mounted on it; whiteouts and opaque
/// directories too. What is in it was chosen by an agent: it is read as that agent.
pub(super) fn copy(from: &Path, to: &Path, ids: (u32, u32), names: Names) -> Result<(), Fault> {
    let go = || {
        let (from, to) = (File::open(from)?, File::open(to)?);
        // Restored at the end.
        let _user = match sys_priv::uid() == ids.0 {
            true => None,
            false => Some(AsUser::become_for_files(ids)?),
        };
        let mut frame = Frame {
            names,
            bytes: 0,
            path: Vec::new(),
            made: Vec::new(),
        };
        frame.directory(from.as_fd(), to.as_fd(), MAX_DEPTH)?;
        let parts = match frame.bytes < ALONE {
            true => 1,
            false => thread::available_parallelism().map_or(1, usize::from),
        };
        together(from.as_fd(), to.as_fd(), names, parts.min(MOST))?;
        // From the innermost on, which could not be reached otherwise.
        for (path, stat) in frame.made.iter().rev() {
            let flags = libc::O_RDONLY | libc::O_DIRECTORY;
            let dir = File::from(at::open_beneath(to.as_fd(), path, flags, 0)?);
            at::fchmod(dir.as_fd(), stat.st_mode & 0o777)?;
            dir.set_modified(at::modified(stat))?;
        }
        Ok(())
    };
    go().map_err(|e| Fault::file(b".", &e))
}

/// What lists a directory.
type Names = fn(BorrowedFd<'_>) -> io::Result<Vec<CString>>;

/// Everything but files, and how much those hold.
struct Frame {
    names: Names,
    bytes: u64,
    path: Vec<u8>,
    /// Directories, which get their mode and time once all is in them.
    made: Vec<(CString, libc::stat)>,
}

impl Frame {
    fn directory(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        depth: usize,
    ) -> io::Result<()> {
        if depth == 0 {
            return Err(io::Error::from_raw_os_error(libc::ELOOP));
        }
        for name in (self.names)(from)? {
            let stat = at::lstat(from, &name)?;
            match at::kind(&stat) {
                libc::S_IFDIR => self.sub_directory(from, to, &name, &stat, depth)?,
                libc::S_IFREG => self.bytes += stat.st_size as u64,
                libc::S_IFLNK => {
                    let target = CString::new(at::read_link(from, &name)?)?;
                    at::symlink(&target, to, &name)?;
                }
                libc::S_IFCHR if stat.st_rdev == 0 => at::whiteout(to, &name)?,
                // A FIFO or a socket, which no other copy holds either.
                _ => {}
            }
        }
        match at::is_opaque(from) {
            true => at::make_opaque(to),
            false => Ok(()),
        }
    }

    fn sub_directory(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CStr,
        stat: &libc::stat,
        depth: usize,
    ) -> io::Result<()> {
        at::mkdir(to, name)?;
        let a = at::open_readable(from, name, stat)?;
        let b = at::open_dir(to, name)?;
        let before = self.path.len();
        self.path.extend(name.to_bytes());
        self.made.push((CString::new(&self.path[..])?, *stat));
        self.path.push(b'/');
        self.directory(a.as_fd(), b.as_fd(), depth - 1)?;
        self.path.truncate(before);
        Ok(())
    }
}

/// Copies all files, each process some of them: most of it is the kernel's work for one file.
fn together(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    names: Names,
    parts: usize,
) -> io::Result<()> {
    let part = |part| {
        let mut files = Files {
            names,
            share: true,
            next: part,
            parts,
        };
        files.directory(from, to)
    };
    let mut others = Vec::new();
    for n in 1..parts {
        match sys::fork()? {
            Fork::Child => {
                let failed = part(n).err().map(|e| e.raw_os_error().unwrap_or(libc::EIO));
                sys::exit_now(failed.unwrap_or(0))
            }
            Fork::Parent(pid) => others.push(pid),
        }
    }
    let mut done = part(0);
    for pid in others {
        let status = sys::wait_for(pid)?;
        if status != 0 && done.is_ok() {
            let code = match libc::WIFEXITED(status) {
                true => libc::WEXITSTATUS(status),
                false => libc::EIO,
            };
            done = Err(io::Error::from_raw_os_error(code));
        }
    }
    done
}

struct Files {
    names: Names,
    /// Whether the file system may let files share their blocks.
    share: bool,
    /// How many files come before the next that is ours; of `parts` each is one.
    next: usize,
    parts: usize,
}

impl Files {
    /// Below directories that [`Frame`] made, and so not too deep.
    fn directory(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
        for name in (self.names)(from)? {
            let stat = at::lstat(from, &name)?;
            match at::kind(&stat) {
                libc::S_IFDIR => {
                    let a = at::open_readable(from, &name, &stat)?;
                    let b = at::open_dir(to, &name)?;
                    self.directory(a.as_fd(), b.as_fd())?;
                }
                libc::S_IFREG if self.next == 0 => {
                    self.next = self.parts - 1;
                    let a = File::from(at::open_readable(from, &name, &stat)?);
                    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;
                    let b = File::from(at::open(to, &name, flags)?);
                    at::copy_bytes(&mut self.share, a, &b)?;
                    at::fchmod(b.as_fd(), stat.st_mode & 0o777)?;
                    // Build tools compare them.
                    b.set_modified(at::modified(&stat))?;
                }
                libc::S_IFREG => self.next -= 1,
                _ => {}
            }
        }
        Ok(())
    }
}
