//! Becoming more than one is.

use super::{Place, Probe, probe};
use crate::{
    Baits,
    sys::{self, at, call},
};
use std::{fs, io, process::Command};

pub(super) const LIST: &[Probe] = &[
    probe("privileges", "setuid_0", Place::Root, |_| {
        call(libc::SYS_setresuid, [0, 0, 0])?;
        match call(libc::SYS_geteuid, [])? {
            0 => Ok(()),
            _ => Err(io::Error::other("not root")),
        }
    }),
    probe("privileges", "setgid_0", Place::Root, |_| {
        call(libc::SYS_setresgid, [0, 0, 0]).map(drop)
    }),
    probe("privileges", "drop_groups", Place::Root, |_| {
        call(libc::SYS_setgroups, [0, 0]).map(drop)
    }),
    probe("privileges", "setuid_program", Place::Host, |b| {
        let done = Command::new(b.path("setuid")?)
            .arg("setuid_helper")
            .output()?;
        match done.status.success() {
            true => Ok(()),
            false => Err(io::Error::other(
                String::from_utf8_lossy(&done.stdout).trim().to_owned(),
            )),
        }
    }),
    probe(
        "privileges",
        "setuid_helper",
        Place::Helper,
        |_| match call(libc::SYS_geteuid, [])? {
            0 => Ok(()),
            id => Err(io::Error::other(format!("runs as {id}"))),
        },
    ),
    probe(
        "privileges",
        "raise_capabilities",
        Place::Root,
        raise_capabilities,
    ),
    probe("privileges", "ambient_capability", Place::Root, |_| {
        raise_capabilities(&Baits::default())?;
        let raise = libc::PR_CAP_AMBIENT_RAISE as usize;
        call(
            libc::SYS_prctl,
            [libc::PR_CAP_AMBIENT as usize, raise, 21, 0, 0],
        )
        .map(drop)
    }),
    probe("privileges", "better_priority", Place::Root, |_| {
        call(
            libc::SYS_setpriority,
            [libc::PRIO_PROCESS as usize, 0, -5_isize as usize],
        )
        .map(drop)
    }),
    probe("privileges", "real_time", Place::Root, |_| {
        call(
            libc::SYS_sched_setscheduler,
            [0, libc::SCHED_FIFO as usize, at(&1_i32)],
        )
        .map(drop)
    }),
    probe("privileges", "namespace_user", Place::Host, |_| {
        call(libc::SYS_unshare, [libc::CLONE_NEWUSER as usize]).map(drop)
    }),
    probe("privileges", "namespace_user_by_clone", Place::Host, |_| {
        let flags = libc::CLONE_NEWUSER | libc::SIGCHLD;
        born(call(libc::SYS_clone, [flags as usize, 0, 0, 0, 0])?)
    }),
    probe(
        "privileges",
        "namespace_user_by_clone3",
        Place::Host,
        |_| {
            let mut args = [0_u64; 11];
            (args[0], args[4]) = (libc::CLONE_NEWUSER as u64, libc::SIGCHLD as u64);
            born(call(libc::SYS_clone3, [at(&args), size_of_val(&args)])?)
        },
    ),
    #[cfg(target_arch = "x86_64")]
    probe(
        "privileges",
        "namespace_user_by_32_bit_call",
        Place::Host,
        |_| sys::call_32(310, libc::CLONE_NEWUSER as u32).map(drop),
    ),
    probe("privileges", "namespace_network", Place::Root, |_| {
        call(libc::SYS_unshare, [libc::CLONE_NEWNET as usize]).map(drop)
    }),
    probe("privileges", "namespace_mount", Place::Root, |_| {
        call(libc::SYS_unshare, [libc::CLONE_NEWNS as usize]).map(drop)
    }),
    probe("privileges", "namespace_time", Place::Root, |_| {
        call(libc::SYS_unshare, [0x80]).map(drop)
    }),
    probe("privileges", "join_namespace", Place::Root, |_| {
        let ns = fs::File::open("/proc/self/ns/net")?;
        use std::os::fd::AsRawFd;
        call(libc::SYS_setns, [ns.as_raw_fd() as usize, 0]).map(drop)
    }),
    probe("privileges", "nested_mount", Place::Host, |_| {
        let (user, mount) = (libc::CLONE_NEWUSER as usize, libc::CLONE_NEWNS as usize);
        call(libc::SYS_unshare, [user | mount])?;
        drop(fs::create_dir("nested"));
        let (kind, here) = (sys::cstr("tmpfs"), sys::cstr("nested"));
        call(libc::SYS_mount, [at(&*kind), at(&*here), at(&*kind), 0, 0]).map(drop)
    }),
    probe("privileges", "rename_host", Place::Root, |_| {
        let name = fs::read_to_string("/proc/sys/kernel/hostname")?;
        call(libc::SYS_sethostname, [at(name.trim()), name.trim().len()]).map(drop)
    }),
];

/// CAP_SYS_ADMIN in all three sets.
fn raise_capabilities(_: &Baits) -> io::Result<()> {
    let head = [0x2008_0522_u32, 0];
    let data = [1_u32 << 21, 1 << 21, 1 << 21, 0, 0, 0];
    call(libc::SYS_capset, [at(&head), at(&data)]).map(drop)
}

/// A child ends at once; its parent has seen that it could be born.
fn born(pid: usize) -> io::Result<()> {
    match pid {
        0 => sys::exit(0),
        pid => sys::wait(pid as i32).map(drop),
    }
}
