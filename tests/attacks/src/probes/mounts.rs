//! Another view of the files. They may break the sandbox for what comes after them, so they are last.

use super::{Place, Probe, probe};
use crate::{
    Baits,
    sys::{self, at, at_mut, call},
};
use std::{fs, io};

pub(super) const LIST: &[Probe] = &[
    probe("mounts", "mount_tmpfs", Place::Root, |b| {
        alone(b).and_then(|()| tmpfs("over"))
    }),
    probe("mounts", "mount_proc", Place::Root, |b| {
        alone(b)?;
        drop(fs::create_dir("over"));
        let (kind, here) = (sys::cstr("proc"), sys::cstr("over"));
        call(libc::SYS_mount, [at(&*kind), at(&*here), at(&*kind), 0, 0]).map(drop)
    }),
    probe("mounts", "mount_overlay", Place::Root, |b| {
        alone(b)?;
        for dir in ["low", "up", "tmp", "over"] {
            drop(fs::create_dir(dir));
        }
        tmpfs("up")?;
        fs::create_dir("up/up")?;
        fs::create_dir("up/work")?;
        let data = sys::cstr("lowerdir=low,upperdir=up/up,workdir=up/work");
        let (kind, here) = (sys::cstr("overlay"), sys::cstr("over"));
        call(
            libc::SYS_mount,
            [at(&*kind), at(&*here), at(&*kind), 0, at(&*data)],
        )
        .map(drop)
    }),
    probe("mounts", "new_mount_api", Place::Root, |_| {
        call(libc::SYS_fsopen, [at(&*sys::cstr("tmpfs")), 0]).map(drop)
    }),
    probe("mounts", "clone_tree", Place::Root, |_| {
        let cwd = libc::AT_FDCWD as usize;
        call(libc::SYS_open_tree, [cwd, at(&*sys::cstr("/usr")), 1]).map(drop)
    }),
    probe("mounts", "make_writable_by_attribute", Place::Root, |b| {
        alone(b)?;
        let mut cleared = [0_u64; 4];
        cleared[1] = libc::MOUNT_ATTR_RDONLY;
        let cwd = libc::AT_FDCWD as usize;
        each(&["/", "/usr", "/proc/sys"], |path| {
            call(
                libc::SYS_mount_setattr,
                [cwd, at(&*sys::cstr(path)), 0, at_mut(&mut cleared), 32],
            )
            .map(drop)
        })
    }),
    probe("mounts", "remount_writable", Place::Root, |b| {
        alone(b)?;
        each(&["/", "/usr", "/proc/sys"], |path| {
            let (none, flags) = (sys::cstr("none"), libc::MS_REMOUNT | libc::MS_BIND);
            call(
                libc::SYS_mount,
                [at(&*none), at(&*sys::cstr(path)), 0, flags as usize, 0],
            )
            .map(drop)
        })
    }),
    probe("mounts", "pivot_root", Place::Root, |b| {
        alone(b)?;
        tmpfs("over")?;
        std::env::set_current_dir("over")?;
        let here = sys::cstr(".");
        call(libc::SYS_pivot_root, [at(&*here), at(&*here)]).map(drop)
    }),
    probe("mounts", "unmount", Place::Root, |b| {
        alone(b)?;
        let text = fs::read_to_string("/proc/self/mountinfo")?;
        let points: Vec<_> = text.lines().filter_map(|l| l.split(' ').nth(4)).collect();
        let points: Vec<_> = points.into_iter().rev().collect();
        each(&points, |path| {
            call(
                libc::SYS_umount2,
                [at(&*sys::cstr(path)), libc::MNT_DETACH as usize],
            )
            .map(drop)
        })
    }),
    probe("processes", "kill_supervisor", Place::Helper, |_| {
        // Says nothing: whether the sandbox lives on is seen from outside.
        let parent = std::os::unix::process::parent_id() as i32;
        for signal in [libc::SIGTERM, libc::SIGSTOP, libc::SIGSEGV, libc::SIGKILL] {
            drop(sys::kill(parent, signal));
            drop(sys::kill(1, signal));
        }
        Ok(())
    }),
];

/// Outside nothing may change for others: then it is done in a mount namespace of its own.
fn alone(b: &Baits) -> io::Result<()> {
    if b.inside() {
        return Ok(());
    }
    call(libc::SYS_unshare, [libc::CLONE_NEWNS as usize])?;
    let (none, root) = (sys::cstr("none"), sys::cstr("/"));
    let flags = libc::MS_REC | libc::MS_PRIVATE;
    call(
        libc::SYS_mount,
        [at(&*none), at(&*root), at(&*none), flags as usize, 0],
    )
    .map(drop)
}

fn tmpfs(name: &str) -> io::Result<()> {
    drop(fs::create_dir(name));
    let (kind, here) = (sys::cstr("tmpfs"), sys::cstr(name));
    call(libc::SYS_mount, [at(&*kind), at(&*here), at(&*kind), 0, 0]).map(drop)
}

fn each(paths: &[&str], mut act: impl FnMut(&str) -> io::Result<()>) -> io::Result<()> {
    let mut last = Err(io::Error::other("nothing to try"));
    for path in paths {
        last = act(path);
        if last.is_ok() {
            break;
        }
    }
    last
}
