//! File calls relative to a directory descriptor, one name at a time, never through a symbolic
//! link unless the kernel keeps it beneath that directory.
#![allow(unsafe_code)]

use super::sys::owned;
use std::{
    ffi::{CStr, CString},
    fs::File,
    io,
    mem::zeroed,
    os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd},
    time::{Duration, SystemTime},
};

/// More names in one directory than this are refused, so that an agent cannot exhaust PID 1.
const MAX_NAMES: usize = 1_000_000;

fn check(r: libc::c_int) -> io::Result<()> {
    if r < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Opens a path of any depth; a symbolic link that leads out of `dir` is `EXDEV`.
pub(super) fn open_beneath(
    dir: BorrowedFd<'_>,
    path: &CStr,
    flags: libc::c_int,
    mode: u32,
) -> io::Result<OwnedFd> {
    // SAFETY: an all-zero open_how is valid.
    let mut how: libc::open_how = unsafe { zeroed() };
    how.flags = (flags | libc::O_CLOEXEC) as u64;
    how.mode = u64::from(mode);
    how.resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS;
    loop {
        // SAFETY: `how` and the string live across the call and the exact size is passed.
        let r = unsafe {
            libc::syscall(
                libc::SYS_openat2,
                dir.as_raw_fd(),
                path.as_ptr(),
                &raw const how,
                size_of::<libc::open_how>(),
            )
        };
        match owned(r as libc::c_int) {
            // The kernel saw a rename race on the way and asks to try again.
            Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => {}
            done => return done,
        }
    }
}

/// Opens one name, never following it.
pub(super) fn open(dir: BorrowedFd<'_>, name: &CStr, flags: libc::c_int) -> io::Result<OwnedFd> {
    let flags = flags | libc::O_CLOEXEC | libc::O_NOFOLLOW;
    // SAFETY: a valid descriptor and a live string.
    owned(unsafe { libc::openat(dir.as_raw_fd(), name.as_ptr(), flags, 0o644) })
}

/// Opens a directory for reading.
pub(super) fn open_dir(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    open(dir, name, libc::O_RDONLY | libc::O_DIRECTORY)
}

/// Opens something of ours for reading even if its owner took away the right to: the mode is
/// lent and put back.
pub(super) fn open_readable(
    dir: BorrowedFd<'_>,
    name: &CStr,
    stat: &libc::stat,
) -> io::Result<OwnedFd> {
    let is_dir = kind(stat) == libc::S_IFDIR;
    let (flags, lend) = if is_dir {
        (libc::O_DIRECTORY, 0o500)
    } else {
        (libc::O_NONBLOCK, 0o400)
    };
    // Checked beforehand and not by EACCES: a directory may be readable and yet closed to entry.
    let mode = stat.st_mode & 0o7777;
    if mode & lend == lend {
        return open(dir, name, flags);
    }
    chmod(dir, name, mode | lend)?;
    let opened = open(dir, name, flags);
    if is_dir {
        // What lies below is reached through the descriptor, which needs the right to enter: the
        // mode stays lent. Only directories without rights for their own owner come here.
        return opened;
    }
    chmod(dir, name, mode)?;
    opened
}

pub(super) fn kind(s: &libc::stat) -> libc::mode_t {
    s.st_mode & libc::S_IFMT
}

pub(super) fn modified(s: &libc::stat) -> SystemTime {
    let since = Duration::new(s.st_mtime.max(0) as u64, s.st_mtime_nsec as u32);
    SystemTime::UNIX_EPOCH + since
}

pub(super) fn is_exec(s: &libc::stat) -> bool {
    s.st_mode & 0o100 != 0
}

/// What a name is; the target of a symbolic link is not looked at.
pub(super) fn lstat(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<libc::stat> {
    // SAFETY: an all-zero stat is valid.
    let mut s: libc::stat = unsafe { zeroed() };
    // SAFETY: `s` and the string live across the call.
    check(unsafe {
        libc::fstatat(
            dir.as_raw_fd(),
            name.as_ptr(),
            &raw mut s,
            libc::AT_SYMLINK_NOFOLLOW,
        )
    })?;
    Ok(s)
}

/// As [`lstat`], `None` for what is not there.
pub(super) fn try_lstat(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<Option<libc::stat>> {
    match lstat(dir, name) {
        Ok(s) => Ok(Some(s)),
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => Ok(None),
        Err(e) => Err(e),
    }
}

pub(super) fn fstat(fd: BorrowedFd<'_>) -> io::Result<libc::stat> {
    // SAFETY: an all-zero stat is valid.
    let mut s: libc::stat = unsafe { zeroed() };
    // SAFETY: `s` lives across the call.
    check(unsafe { libc::fstat(fd.as_raw_fd(), &raw mut s) })?;
    Ok(s)
}

/// The names in a directory in order of their bytes, `.git` left out.
pub(super) fn names(dir: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    let mut names = all_names(dir)?;
    names.retain(|n| n.to_bytes() != b".git");
    Ok(names)
}

/// The names in a directory in order of their bytes.
pub(super) fn all_names(dir: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    // A description of its own, so that the position of `dir` does not matter.
    let fd = open_dir(dir, c".")?;
    // SAFETY: the descriptor is ours and is handed over on success.
    let stream = unsafe { libc::fdopendir(fd.as_raw_fd()) };
    if stream.is_null() {
        return Err(io::Error::last_os_error());
    }
    // From here on closedir closes it.
    let _ = fd.into_raw_fd();
    let mut out = Vec::new();
    let end = loop {
        // SAFETY: errno is this thread's own; it tells an error from the end.
        unsafe { *libc::__errno_location() = 0 };
        // SAFETY: `stream` is open and used by this thread alone.
        let entry = unsafe { libc::readdir64(stream) };
        if entry.is_null() {
            let e = io::Error::last_os_error();
            break if e.raw_os_error() == Some(0) {
                Ok(())
            } else {
                Err(e)
            };
        }
        // SAFETY: the entry is valid until the next readdir, its name NUL-terminated.
        let name = unsafe { CStr::from_ptr((&raw const (*entry).d_name).cast()) };
        if !matches!(name.to_bytes(), b"." | b"..") {
            out.push(name.to_owned());
        }
        if out.len() > MAX_NAMES {
            break Err(io::Error::from_raw_os_error(libc::EFBIG));
        }
    };
    // SAFETY: open, and not used afterwards.
    unsafe { libc::closedir(stream) };
    end?;
    out.sort_unstable();
    Ok(out)
}

pub(super) fn read_link(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<Vec<u8>> {
    let mut buf = vec![0; libc::PATH_MAX as usize];
    // SAFETY: pointer and length are those of a live buffer.
    let n = unsafe {
        libc::readlinkat(
            dir.as_raw_fd(),
            name.as_ptr(),
            buf.as_mut_ptr().cast(),
            buf.len(),
        )
    };
    let n = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
    buf.truncate(n);
    Ok(buf)
}

pub(super) fn mkdir(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    // SAFETY: a valid descriptor and a live string.
    check(unsafe { libc::mkdirat(dir.as_raw_fd(), name.as_ptr(), 0o755) })
}

pub(super) fn symlink(target: &CStr, dir: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    // SAFETY: a valid descriptor and live strings.
    check(unsafe { libc::symlinkat(target.as_ptr(), dir.as_raw_fd(), name.as_ptr()) })
}

pub(super) fn chmod(dir: BorrowedFd<'_>, name: &CStr, mode: u32) -> io::Result<()> {
    // SAFETY: a valid descriptor and a live string.
    check(unsafe { libc::fchmodat(dir.as_raw_fd(), name.as_ptr(), mode, 0) })
}

pub(super) fn fchmod(fd: BorrowedFd<'_>, mode: u32) -> io::Result<()> {
    // SAFETY: a valid descriptor.
    check(unsafe { libc::fchmod(fd.as_raw_fd(), mode) })
}

pub(super) fn unlink(dir: BorrowedFd<'_>, name: &CStr, is_dir: bool) -> io::Result<()> {
    let flags = if is_dir { libc::AT_REMOVEDIR } else { 0 };
    // SAFETY: a valid descriptor and a live string.
    check(unsafe { libc::unlinkat(dir.as_raw_fd(), name.as_ptr(), flags) })
}

/// Whether a directory of an overlay's upper layer hides what lies below it.
pub(super) fn is_opaque(dir: BorrowedFd<'_>) -> bool {
    let mut value = [0_u8; 4];
    [c"user.overlay.opaque", c"trusted.overlay.opaque"]
        .iter()
        .any(|name| {
            // SAFETY: the string and the buffer of the given length live across the call.
            let n = unsafe {
                libc::fgetxattr(
                    dir.as_raw_fd(),
                    name.as_ptr(),
                    value.as_mut_ptr().cast(),
                    value.len(),
                )
            };
            n == 1 && value[0] == b'y'
        })
}

/// What [`is_opaque`] sees then.
pub(super) fn make_opaque(dir: BorrowedFd<'_>) -> io::Result<()> {
    let name = c"user.overlay.opaque";
    // SAFETY: a valid descriptor, a live string, and one byte of a live one.
    check(unsafe { libc::fsetxattr(dir.as_raw_fd(), name.as_ptr(), c"y".as_ptr().cast(), 1, 0) })
}

/// What an upper layer of an overlay has where the lower one's file is gone.
pub(super) fn whiteout(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    // SAFETY: a valid descriptor and a live string. The device 0:0 needs no right and is none.
    check(unsafe { libc::mknodat(dir.as_raw_fd(), name.as_ptr(), libc::S_IFCHR, 0) })
}

/// Waits until the disk has everything that was written to it.
pub(crate) fn sync_disk(dir: &std::path::Path) -> io::Result<()> {
    let dir = std::fs::File::open(dir)?;
    // SAFETY: a valid descriptor.
    check(unsafe { libc::syncfs(dir.as_raw_fd()) })
}

/// Gives a new file the bytes of another without copying them, where the file system can.
fn share_blocks(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: two valid descriptors.
    check(unsafe { libc::ioctl(to.as_raw_fd(), libc::FICLONE, from.as_raw_fd()) })
}

/// Copies the bytes of a file, or shares their blocks as long as the file system lets files do that.
pub(super) fn copy_bytes(share: &mut bool, mut from: File, mut to: &File) -> io::Result<()> {
    if *share {
        *share = share_blocks(from.as_fd(), to.as_fd()).is_ok();
        if *share {
            return Ok(());
        }
    }
    io::copy(&mut from, &mut to).map(drop)
}

/// Removes a name with everything below it.
pub(super) fn remove_tree(dir: BorrowedFd<'_>, name: &CStr, depth: usize) -> io::Result<()> {
    let stat = lstat(dir, name)?;
    if kind(&stat) != libc::S_IFDIR {
        return unlink(dir, name, false);
    }
    if depth == 0 {
        return Err(io::Error::from_raw_os_error(libc::ELOOP));
    }
    let inside = open_readable(dir, name, &stat)?;
    for child in all_names(inside.as_fd())? {
        remove_tree(inside.as_fd(), &child, depth - 1)?;
    }
    unlink(dir, name, true)
}
