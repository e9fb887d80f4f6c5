//! What one sandbox changed, as the beginning of another.

use super::{
    at,
    files::MAX_DEPTH,
    proto::Fault,
    sys_priv::{self, AsUser},
};
use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

/// Copies an upper directory into ours, before anything is mounted on it; whiteouts and opaque
/// directories too. What is in it was chosen by an agent: it is read as that agent.
pub(super) fn copy(from: &Path, to: &Path, ids: (u32, u32)) -> Result<(), Fault> {
    let go = || {
        let (from, to) = (File::open(from)?, File::open(to)?);
        // Restored at the end.
        let _user = match sys_priv::uid() == ids.0 {
            true => None,
            false => Some(AsUser::become_for_files(ids)?),
        };
        let mut copy = Copy { share: true };
        copy.directory(from.as_fd(), to.as_fd(), MAX_DEPTH)
    };
    go().map_err(|e| Fault::file(b".", &e))
}

struct Copy {
    /// Whether the file system may let files share their blocks.
    share: bool,
}

impl Copy {
    fn directory(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        depth: usize,
    ) -> io::Result<()> {
        if depth == 0 {
            return Err(io::Error::from_raw_os_error(libc::ELOOP));
        }
        for name in at::names(from)? {
            let stat = at::lstat(from, &name)?;
            let mode = stat.st_mode & 0o777;
            match at::kind(&stat) {
                libc::S_IFDIR => {
                    at::mkdir(to, &name)?;
                    let a = at::open_readable(from, &name, &stat)?;
                    let b = at::open_dir(to, &name)?;
                    self.directory(a.as_fd(), b.as_fd(), depth - 1)?;
                    at::fchmod(b.as_fd(), mode)?;
                }
                libc::S_IFREG => {
                    let a = File::from(at::open_readable(from, &name, &stat)?);
                    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;
                    let b = File::from(at::open(to, &name, flags)?);
                    self.bytes(a, &b)?;
                    at::fchmod(b.as_fd(), mode)?;
                }
                libc::S_IFLNK => {
                    let target = std::ffi::CString::new(at::read_link(from, &name)?)?;
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

    fn bytes(&mut self, mut from: File, mut to: &File) -> io::Result<()> {
        if self.share {
            self.share = at::share_blocks(from.as_fd(), to.as_fd()).is_ok();
            if self.share {
                return Ok(());
            }
        }
        io::copy(&mut from, &mut to).map(drop)
    }
}
