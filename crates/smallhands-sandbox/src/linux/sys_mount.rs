//! Mounting, through the interface that takes descriptors where there is one.
#![allow(unsafe_code)]

use super::sys::{check, check_long, cstr, owned};
use std::{
    ffi::{CStr, OsStr},
    io,
    mem::zeroed,
    os::fd::{AsRawFd, RawFd},
};

pub(super) fn mount(
    what: &str,
    target: &str,
    kind: &str,
    flags: libc::c_ulong,
    data: &str,
) -> io::Result<()> {
    let (what, target) = (cstr(what)?, cstr(target)?);
    let (kind, data) = (cstr(kind)?, cstr(data)?);
    // SAFETY: all pointers are to NUL-terminated strings that outlive the call.
    check(unsafe {
        libc::mount(
            what.as_ptr(),
            target.as_ptr(),
            kind.as_ptr(),
            flags,
            data.as_ptr().cast(),
        )
    })
    .map(drop)
}

/// Binds `source` with everything mounted below it at `target`, `attrs` set on all of it.
pub(super) fn bind(source: &OsStr, target: &OsStr, attrs: u64) -> io::Result<()> {
    const EMPTY: &CStr = c"";
    let (source, target) = (cstr(source)?, cstr(target)?);
    let flags = libc::OPEN_TREE_CLONE
        | libc::O_CLOEXEC as libc::c_uint
        | libc::AT_RECURSIVE as libc::c_uint;
    // SAFETY: the pointer is to a NUL-terminated string that outlives the call.
    let tree = check_long(unsafe {
        libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, source.as_ptr(), flags)
    })?;
    let tree = owned(tree as libc::c_int)?;
    set_mount_attrs(tree.as_raw_fd(), EMPTY, libc::AT_RECURSIVE, attrs)?;
    // SAFETY: both descriptors are valid and both strings are NUL-terminated and live.
    check_long(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            EMPTY.as_ptr(),
            libc::AT_FDCWD,
            target.as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH,
        )
    })
    .map(drop)
}

/// Makes the mount at `target` read-only, not what is mounted below it.
pub(super) fn make_read_only(target: &str) -> io::Result<()> {
    set_mount_attrs(libc::AT_FDCWD, &cstr(target)?, 0, libc::MOUNT_ATTR_RDONLY)
}

fn set_mount_attrs(fd: RawFd, path: &CStr, flags: libc::c_int, attrs: u64) -> io::Result<()> {
    // SAFETY: an all-zero mount_attr is valid: it changes nothing.
    let mut attr: libc::mount_attr = unsafe { zeroed() };
    attr.attr_set = attrs;
    let flags = if path.is_empty() {
        flags | libc::AT_EMPTY_PATH
    } else {
        flags
    };
    // SAFETY: `attr` lives across the call and its exact size is passed.
    check_long(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd,
            path.as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    })
    .map(drop)
}

/// Makes the working directory the root and forgets the old one.
pub(super) fn pivot_here() -> io::Result<()> {
    const DOT: &CStr = c".";
    // SAFETY: constant NUL-terminated strings.
    check_long(unsafe { libc::syscall(libc::SYS_pivot_root, DOT.as_ptr(), DOT.as_ptr()) })?;
    // SAFETY: as above; the old root lies over the new one after the pivot.
    check(unsafe { libc::umount2(DOT.as_ptr(), libc::MNT_DETACH) })?;
    std::env::set_current_dir("/")
}
