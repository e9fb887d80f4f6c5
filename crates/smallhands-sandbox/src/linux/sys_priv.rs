//! Who a process is and what it may do, and giving that up.
#![allow(unsafe_code)]

use super::sys::{check, check_long, prctl};
use std::{fs, io, os::unix::fs::MetadataExt, ptr};

pub(super) fn no_new_privs() -> io::Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0)
}

#[repr(C)]
#[derive(Debug, Default, PartialEq)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: libc::c_int,
}

const CAP_V3: u32 = 0x2008_0522;
const CAP_SETUID: u32 = 7;
const CAP_SYS_ADMIN: u32 = 21;

fn capabilities() -> io::Result<[CapData; 2]> {
    let mut head = CapHeader {
        version: CAP_V3,
        pid: 0,
    };
    let mut data: [CapData; 2] = Default::default();
    // SAFETY: header and the two data words of version 3 live across the call.
    check_long(unsafe { libc::syscall(libc::SYS_capget, &raw mut head, data.as_mut_ptr()) })?;
    Ok(data)
}

fn effective(cap: u32) -> bool {
    capabilities().is_ok_and(|data| data[0].effective & (1 << cap) != 0)
}

pub(super) fn can_administer() -> bool {
    effective(CAP_SYS_ADMIN)
}

pub(super) fn can_change_uid() -> bool {
    effective(CAP_SETUID)
}

/// Gives up every capability for good, the bounding set and the special rights of uid 0 too.
pub(super) fn drop_capabilities() -> io::Result<()> {
    for cap in 0..64 {
        if prctl(libc::PR_CAPBSET_DROP, cap, 0).is_err() {
            // The first number that this kernel does not know; 0 must work.
            if cap == 0 {
                return Err(io::Error::last_os_error());
            }
            break;
        }
    }
    let clear = libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong;
    prctl(libc::PR_CAP_AMBIENT, clear, 0)?;
    // NOROOT, NO_SETUID_FIXUP, NO_CAP_AMBIENT_RAISE and all four locks.
    prctl(libc::PR_SET_SECUREBITS, 0xef, 0)?;
    let mut head = CapHeader {
        version: CAP_V3,
        pid: 0,
    };
    let data: [CapData; 2] = Default::default();
    // SAFETY: header and the two data words of version 3 live across the call.
    let r = unsafe { libc::syscall(libc::SYS_capset, &raw mut head, data.as_ptr()) };
    check_long(r).map(drop)
}

/// Lets the next program have every capability that this process has.
pub(super) fn keep_capabilities() -> io::Result<()> {
    let mut head = CapHeader {
        version: CAP_V3,
        pid: 0,
    };
    let mut data = capabilities()?;
    for d in &mut data {
        d.inheritable = d.permitted;
    }
    // SAFETY: header and the two data words of version 3 live across the call.
    let r = unsafe { libc::syscall(libc::SYS_capset, &raw mut head, data.as_ptr()) };
    check_long(r)?;
    let raise = libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong;
    for cap in (0..64).filter(|c| data[*c / 32].permitted & (1 << (c % 32)) != 0) {
        prctl(libc::PR_CAP_AMBIENT, raise, cap as libc::c_ulong)?;
    }
    Ok(())
}

pub(super) fn uid() -> u32 {
    // SAFETY: cannot fail and takes nothing.
    unsafe { libc::geteuid() }
}

pub(super) fn gid() -> u32 {
    // SAFETY: cannot fail and takes nothing.
    unsafe { libc::getegid() }
}

/// Becomes another user and group for good, with no other groups.
pub(super) fn become_user(uid: u32, gid: u32) -> io::Result<()> {
    // SAFETY: an empty list; plain integers after it.
    check(unsafe { libc::setgroups(0, ptr::null()) })?;
    // SAFETY: plain integers.
    check(unsafe { libc::setresgid(gid, gid, gid) })?;
    // SAFETY: plain integers.
    check(unsafe { libc::setresuid(uid, uid, uid) }).map(drop)
}

/// Reads and writes files as another user, until it is dropped.
#[derive(Debug)]
pub(super) struct AsUser(u32, u32);

impl AsUser {
    pub(super) fn become_for_files((to_uid, to_gid): (u32, u32)) -> io::Result<Self> {
        let own = Self(uid(), gid());
        // The group first: the rights to change are gone with the user.
        file_ids(to_uid, to_gid);
        // Neither call says whether it worked; asking for an impossible id tells the present one.
        match file_ids(u32::MAX, u32::MAX) == (to_uid, to_gid) {
            true => Ok(own),
            false => Err(io::Error::from_raw_os_error(libc::EPERM)),
        }
    }
}

impl Drop for AsUser {
    fn drop(&mut self) {
        file_ids(self.0, self.1);
    }
}

/// Gives back those from before.
fn file_ids(uid: u32, gid: u32) -> (u32, u32) {
    // SAFETY: plain integers.
    let gid = unsafe { libc::setfsgid(gid) };
    // SAFETY: plain integers.
    let uid = unsafe { libc::setfsuid(uid) };
    (uid as u32, gid as u32)
}

/// The version of Landlock that the kernel offers.
pub(super) fn landlock_abi() -> io::Result<i32> {
    const VERSION: libc::c_uint = 1;
    let none = ptr::null::<libc::c_void>();
    // SAFETY: no attribute is passed, as the query of the version asks for.
    let r = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0_usize, VERSION) };
    Ok(check_long(r)? as i32)
}

/// Whether the kernel can answer a filtered system call with an error.
pub(super) fn seccomp_available() -> io::Result<()> {
    let action: u32 = libc::SECCOMP_RET_ERRNO;
    // SAFETY: `action` lives across the call.
    check_long(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_GET_ACTION_AVAIL,
            0,
            &raw const action,
        )
    })
    .map(drop)
}

/// Installs a filter that is not made by seccompiler; `no_new_privs` must be set.
pub(super) fn install_filter(program: &[libc::sock_filter]) -> io::Result<()> {
    let prog = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: `prog` points to a live slice of the given length; the kernel copies it.
    check_long(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const prog,
        )
    })
    .map(drop)
}

/// What a process gets from the thread that starts it, as far as it says what that may do: users and
/// groups, capabilities, resource limits, namespaces and the root.
#[derive(Debug, PartialEq)]
pub(super) struct Identity {
    ids: [u32; 6],
    groups: Vec<u32>,
    capabilities: [CapData; 2],
    no_new_privs: i32,
    limits: Vec<(u64, u64)>,
    places: Vec<Option<(u64, u64)>>,
}

impl Identity {
    pub(super) fn of_this_thread() -> io::Result<Self> {
        let mut ids = [0_u32; 6];
        let [r, e, s, gr, ge, gs] = &mut ids;
        // SAFETY: six live integers.
        check(unsafe { libc::getresuid(r, e, s) })?;
        // SAFETY: as above.
        check(unsafe { libc::getresgid(gr, ge, gs) })?;
        // SAFETY: with no room given, the call only counts.
        let count = check(unsafe { libc::getgroups(0, ptr::null_mut()) })?;
        let mut groups = vec![0; count as usize];
        // SAFETY: room for as many as were counted.
        check(unsafe { libc::getgroups(count, groups.as_mut_ptr()) })?;
        let place = |path: &str| fs::metadata(path).ok().map(|m| (m.dev(), m.ino()));
        let namespaces = [
            "cgroup",
            "ipc",
            "mnt",
            "net",
            "pid_for_children",
            "user",
            "uts",
        ];
        let paths = namespaces.map(|n| format!("/proc/thread-self/ns/{n}"));
        Ok(Self {
            ids,
            groups,
            capabilities: capabilities()?,
            // SAFETY: an operation that takes integers.
            no_new_privs: unsafe { libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) },
            limits: (0..16).map(super::sys::limits_of).collect(),
            places: paths
                .iter()
                .map(String::as_str)
                .chain(["/"])
                .map(place)
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_gave_something_up_is_another() {
        let me = || Identity::of_this_thread().unwrap();
        let before = me();
        assert_eq!(before, me());
        let other = std::thread::spawn(move || {
            no_new_privs().unwrap();
            me()
        });
        assert_ne!(before, other.join().unwrap());
    }
}
