//! Reading and writing what was not granted.

use super::{Place, Probe, probe};
use crate::{
    Baits,
    sys::{self, at, at_mut},
};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::{
        fd::AsRawFd,
        unix::fs::{OpenOptionsExt, symlink},
    },
    path::{Path, PathBuf},
};

pub(super) const LIST: &[Probe] = &[
    probe("files", "read_host_file", Place::Host, |b| {
        b.found_in(b.path("secret")?)
    }),
    probe("files", "list_host_directory", Place::Host, |b| {
        fs::read_dir(b.path("dir")?).map(drop)
    }),
    probe("files", "read_shadow", Place::Root, |_| {
        File::open("/etc/shadow").map(drop)
    }),
    probe("files", "list_home_of_root", Place::Root, |_| {
        fs::read_dir("/root").map(drop)
    }),
    probe("files", "read_host_environment_file", Place::Root, |_| {
        fs::read("/etc/environment")
            .or_else(|_| fs::read("/etc/sudoers"))
            .or_else(|_| fs::read("/etc/gshadow"))
            .map(drop)
    }),
    probe("files", "read_other_sandboxes", Place::Host, |b| {
        fs::read_dir(b.path("state")?).map(drop)
    }),
    probe("files", "write_usr", Place::Root, |_| temporary("/usr/lib")),
    probe("files", "write_etc", Place::Root, |_| temporary("/etc")),
    probe("files", "write_root_directory", Place::Root, |_| {
        temporary("/")
    }),
    probe("files", "append_to_passwd", Place::Root, |_| {
        open_for_write("/etc/passwd")
    }),
    probe("files", "replace_system_program", Place::Root, |_| {
        open_for_write("/usr/lib/os-release")
    }),
    probe("files", "write_granted_directory", Place::Host, |b| {
        temporary(b.path("granted")?)
    }),
    probe("files", "write_granted_file", Place::Host, |b| {
        open_for_write(b.path("granted")?.join("file"))
    }),
    probe("files", "chmod_granted_file", Place::Host, |b| {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(
            b.path("owned")?.join("file"),
            fs::Permissions::from_mode(0o666),
        )
    }),
    probe("files", "write_cache_of_all", Place::Host, |b| {
        open_for_write(b.path("generation")?.join("known"))
    }),
    probe("files", "write_host_file", Place::Host, |b| {
        open_for_write(b.path("writable")?)
    }),
    probe("links", "dotdot", Place::Host, dotdot),
    probe("links", "symlink_read", Place::Host, |b| {
        remade("link", |link| symlink(b.path("secret")?, link))?;
        b.found_in("link")
    }),
    probe("links", "symlink_write", Place::Host, |b| {
        remade("link", |link| symlink(b.path("writable")?, link))?;
        open_for_write("link")
    }),
    probe("links", "symlinked_directory", Place::Host, |b| {
        remade("link", |link| symlink(b.path("dir")?, link))?;
        b.found_in("link/secret")
    }),
    probe("links", "proc_self_root", Place::Host, |b| {
        b.found_in(below("/proc/self/root/../..", &b.path("secret")?))
    }),
    probe("links", "hardlink", Place::Host, |b| {
        remade("hard", |to| fs::hard_link(b.path("secret")?, to))?;
        b.found_in("hard")
    }),
    probe("links", "rename_out", Place::Host, |b| {
        fs::write("moved", "x")?;
        fs::rename("moved", b.path("dir")?.join("moved"))
    }),
    probe("links", "open_by_handle", Place::Root, open_by_handle),
    probe("links", "chroot_escape", Place::Root, chroot_escape),
    probe("leaks", "inherited_descriptor", Place::Host, inherited),
    probe(
        "leaks",
        "inherited_directory",
        Place::Host,
        inherited_directory,
    ),
    probe("leaks", "environment", Place::Host, |b| {
        let all = std::env::vars_os().map(|(k, v)| [k, v].join("=".as_ref()));
        b.found(
            all.collect::<Vec<_>>()
                .join("\n".as_ref())
                .as_encoded_bytes(),
        )
    }),
    probe("devices", "open_disk", Place::Root, |b| {
        File::open(b.path("disk")?).map(drop)
    }),
    probe("devices", "make_disk", Place::Root, |b| {
        device(b, libc::S_IFBLK)
    }),
    probe("devices", "make_character_device", Place::Root, |b| {
        device(b, libc::S_IFCHR)
    }),
    probe("devices", "open_kmsg", Place::Root, |_| {
        open_for_write("/dev/kmsg")
    }),
    probe("devices", "open_fuse", Place::Root, |_| {
        open_for_write("/dev/fuse")
    }),
    probe("devices", "open_console", Place::Root, |_| {
        open_for_write("/dev/console")
    }),
    probe("devices", "open_ptmx", Place::Host, |_| {
        open_for_write("/dev/ptmx")
    }),
    probe("devices", "list_sys", Place::Host, |_| {
        fs::read_dir("/sys/kernel").map(drop)
    }),
];

/// A file without a name in a directory, which leaves nothing.
fn temporary(dir: impl AsRef<Path>) -> io::Result<()> {
    let flags = libc::O_TMPFILE;
    OpenOptions::new()
        .write(true)
        .custom_flags(flags)
        .open(dir)
        .map(drop)
}

/// Nothing is written: being allowed to is enough.
pub(super) fn open_for_write(path: impl AsRef<Path>) -> io::Result<()> {
    let flags = libc::O_NOCTTY | libc::O_NONBLOCK;
    OpenOptions::new()
        .write(true)
        .custom_flags(flags)
        .open(path)
        .map(drop)
}

/// Makes something anew in the working directory.
fn remade(name: &str, make: impl Fn(&str) -> io::Result<()>) -> io::Result<()> {
    drop(fs::remove_file(name));
    make(name)
}

fn below(top: &str, path: &Path) -> PathBuf {
    Path::new(top).join(path.strip_prefix("/").unwrap_or(path))
}

fn dotdot(b: &Baits) -> io::Result<()> {
    b.found_in(below(&"../".repeat(40), &b.path("secret")?))
}

/// The way out of early Docker: a handle needs no path.
fn open_by_handle(b: &Baits) -> io::Result<()> {
    #[repr(C)]
    struct Handle {
        bytes: u32,
        kind: i32,
        data: [u8; 128],
    }
    let mut handle = Handle {
        bytes: 128,
        kind: 0,
        data: [0; 128],
    };
    let (here, secret, mut mount) = (File::open(".")?, sys::cstr(b.path("secret")?), 0_i32);
    let cwd = libc::AT_FDCWD as usize;
    let named = [
        cwd,
        at(&*secret),
        at_mut(&mut handle),
        at_mut(&mut mount),
        0,
    ];
    // Inside it has no path, and an attacker would guess its number.
    if sys::call(libc::SYS_name_to_handle_at, named).is_err() {
        let inode: u64 = b.get("inode")?.parse().unwrap_or(0);
        handle = Handle {
            bytes: 8,
            kind: 1,
            data: [0; 128],
        };
        handle.data[..8].copy_from_slice(&inode.to_le_bytes());
    }
    let open = [
        here.as_raw_fd() as usize,
        at(&handle),
        libc::O_RDONLY as usize,
    ];
    let fd = sys::call(libc::SYS_open_by_handle_at, open)?;
    b.found_in(format!("/proc/self/fd/{fd}"))
}

fn chroot_escape(b: &Baits) -> io::Result<()> {
    drop(fs::create_dir("jail"));
    let top = File::open(".")?;
    sys::call(libc::SYS_chroot, [at(&*sys::cstr("jail"))])?;
    sys::call(libc::SYS_fchdir, [top.as_raw_fd() as usize])?;
    std::env::set_current_dir("../../../../../../../../..")?;
    sys::call(libc::SYS_chroot, [at(&*sys::cstr("."))])?;
    b.found_in(b.path("secret")?)
}

fn descriptors() -> Vec<i32> {
    let all = fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten();
    let number = |e: fs::DirEntry| e.file_name().to_str().and_then(|n| n.parse().ok());
    all.filter_map(number).filter(|n| *n > 2).collect()
}

fn inherited(b: &Baits) -> io::Result<()> {
    for fd in descriptors() {
        let mut text = String::new();
        let Ok(mut file) = File::open(format!("/proc/self/fd/{fd}")) else {
            continue;
        };
        if file.metadata()?.is_file()
            && file.read_to_string(&mut text).is_ok()
            && b.found(text.as_bytes()).is_ok()
        {
            return Ok(());
        }
    }
    Err(io::Error::other("none"))
}

fn inherited_directory(b: &Baits) -> io::Result<()> {
    let name = sys::cstr("secret");
    for fd in descriptors() {
        let open = [fd as usize, at(&*name), libc::O_RDONLY as usize, 0];
        if let Ok(fd) = sys::call(libc::SYS_openat, open) {
            return b.found_in(format!("/proc/self/fd/{fd}"));
        }
    }
    Err(io::Error::other("none"))
}

/// Makes a device here and opens it.
fn device(b: &Baits, kind: u32) -> io::Result<()> {
    let number = match kind {
        libc::S_IFBLK => b.get("disk_number")?.parse().unwrap_or(0),
        _ => libc::makedev(1, 3),
    };
    remade("device", |name| {
        let (cwd, name, mode) = (libc::AT_FDCWD as usize, sys::cstr(name), kind | 0o666);
        let args = [cwd, at(&*name), mode as usize, number as usize];
        sys::call(libc::SYS_mknodat, args).map(drop)
    })?;
    let opened = File::open("device").map(drop);
    drop(fs::remove_file("device"));
    opened
}
