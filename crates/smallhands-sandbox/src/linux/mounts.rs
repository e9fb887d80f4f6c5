//! The file system that a sandbox sees, built from nothing.

use super::{
    at, den, limits,
    proto::{Fault, Policy},
    sys_mount, upper,
};
use crate::Wall;
use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt, fs::symlink},
    },
    path::{Path, PathBuf},
};

const RO: u64 = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
const NODE: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
const TMPFS: libc::c_ulong = libc::MS_NOSUID | libc::MS_NODEV;

/// What mounts forbid; nothing without [`Wall::MountFlags`].
#[derive(Clone, Copy)]
struct Flags {
    /// Of what is shown of the host.
    ro: u64,
    node: u64,
    /// Of what can be written.
    work: u64,
    tmpfs: libc::c_ulong,
}

impl Flags {
    fn of(p: &Policy) -> Self {
        let all = Self {
            ro: RO,
            node: NODE,
            work: libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV,
            tmpfs: TMPFS,
        };
        let none = Self {
            ro: 0,
            node: 0,
            work: 0,
            tmpfs: 0,
        };
        if p.has(Wall::MountFlags) { all } else { none }
    }
}

/// Directories of the system; a symbolic link on the host is one here.
const SYSTEM: [&str; 7] = ["usr", "bin", "sbin", "lib", "lib64", "lib32", "libx32"];
/// What programs need of `/etc` and no secret lies in.
const ETC: [&str; 12] = [
    "alternatives",
    "ca-certificates",
    "crypto-policies",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "pki/tls/certs",
    "protocols",
    "services",
    "ssl/certs",
];
pub(super) const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];
const WRITABLE: [&str; 3] = ["/workspace", "/tmp", "/dev/shm"];
/// Places that only the sandbox itself fills.
const OURS: [&str; 4] = ["/workspace", "/proc", "/dev", "/sys"];

/// What is granted may lie in these, but not be one of them.
const TMP: [&str; 2] = ["/tmp", "/var/tmp"];

/// What was built, still below the old root.
#[derive(Debug)]
pub(super) struct View {
    /// The workspace is an overlay; else a directory that holds everything.
    pub(super) overlay: bool,
    /// Why it is not, if there is a base.
    pub(super) copy_reason: Option<String>,
    pub(super) upper: OwnedFd,
    /// The parts of the base, the upper one first.
    pub(super) lowers: Vec<OwnedFd>,
    pub(super) caches: Vec<CacheDir>,
    /// What may be read.
    pub(super) readable: Vec<String>,
    /// What may be written.
    pub(super) writable: Vec<String>,
}

/// A cache that is shown.
#[derive(Debug)]
pub(super) struct CacheDir {
    pub(super) at: String,
    pub(super) lower: OwnedFd,
    /// Why it is not an overlay.
    pub(super) copy_reason: Option<String>,
}

fn step<T>(stage: &str, r: io::Result<T>) -> Result<T, Fault> {
    r.map_err(|e| match e.raw_os_error() {
        Some(libc::ENOSYS) => Fault::Unavailable {
            layer: "mount namespace".into(),
            reason: format!("{stage}: {e}"),
            fix: "use a kernel of 5.13 or later".into(),
        },
        _ => Fault::setup(stage, e),
    })
}

fn open(name: &str) -> Result<OwnedFd, Fault> {
    step(name, fs::File::open(name).map(OwnedFd::from))
}

/// Where an absolute path of the sandbox is now.
fn inside(path: &Path) -> PathBuf {
    let mut p = OsString::from("root");
    p.push(path);
    p.into()
}

/// Builds everything below `root` beside the private directory, the working directory meanwhile; that
/// is there, and more than one process allowed, after `placed`.
pub(super) fn build(
    p: &Policy,
    ids: (u32, u32),
    placed: &mut dyn FnMut() -> Result<(), Fault>,
) -> Result<View, Fault> {
    let f = Flags::of(p);
    let detached = libc::MS_REC | libc::MS_PRIVATE;
    let r = sys_mount::mount("none", "/", "none", detached, "");
    r.map_err(|e| super::helper::namespace_fault("mount namespace", &e))?;
    let private = Path::new(OsStr::from_bytes(&p.private));
    let (Some(above), Some(own)) = (private.parent(), private.file_name()) else {
        return Err(Fault::setup("private directory", "it has no name"));
    };
    step("private directory", std::env::set_current_dir(above))?;
    let own = Path::new(own);
    step(
        "root",
        sys_mount::mount(
            "tmpfs",
            "root",
            "tmpfs",
            f.tmpfs,
            "mode=755,size=16m,nr_inodes=16k",
        ),
    )?;
    let mut readable = vec!["/etc".to_owned(), "/proc".to_owned()];
    system(f, &mut readable)?;
    step("/etc", etc(f, ids))?;
    step("/dev", dev(f, limits::in_memory(&p.limits, 64 << 20)))?;
    step(
        "/tmp",
        tmp(f, limits::in_memory(&p.limits, p.limits.tmp_bytes)),
    )?;
    for path in &p.read_only {
        extra(f, Path::new(OsStr::from_bytes(path)), &mut readable)?;
    }
    placed()?;
    if let Some(changed) = &p.changed {
        let from = Path::new(OsStr::from_bytes(changed));
        upper::copy(&from.join("upper"), &own.join("upper"), ids, at::names)?;
        for upper in (0..p.caches.len()).map(|i| den::cache(i) + "/upper") {
            upper::copy(&from.join(&upper), &own.join(&upper), ids, at::all_names)?;
        }
    }
    let (lowers, copy_reason) = workspace(f, p, own)?;
    let mut writable = WRITABLE.map(String::from).to_vec();
    let mut caches = Vec::new();
    for i in 0..p.caches.len() {
        let cache = cache(f, p, own, i, &readable, &writable)?;
        writable.push(cache.at.clone());
        caches.push(cache);
    }
    let view = View {
        overlay: !lowers.is_empty() && copy_reason.is_none(),
        copy_reason,
        upper: open(&format!("{}/upper", own.display()))?,
        lowers,
        caches,
        readable,
        writable,
    };
    proc(p, f)?;
    if p.has(Wall::MountFlags) {
        step("root", sys_mount::make_read_only("root"))?;
    }
    step("root", std::env::set_current_dir("root"))?;
    sys_mount::pivot_here().map_err(|e| Fault::Unavailable {
        layer: "pivot_root".into(),
        reason: e.to_string(),
        fix: "start the program from a root file system that is not the initial ramdisk".into(),
    })?;
    Ok(view)
}

fn system(f: Flags, readable: &mut Vec<String>) -> Result<(), Fault> {
    for name in SYSTEM {
        let host = PathBuf::from(format!("/{name}"));
        let Ok(meta) = host.symlink_metadata() else {
            continue;
        };
        let here = inside(&host);
        if meta.is_symlink() {
            let target = step(name, fs::read_link(&host))?;
            step(name, symlink(target, here))?;
        } else if meta.is_dir() {
            step(name, fs::create_dir(&here))?;
            step(
                name,
                sys_mount::bind(host.as_os_str(), here.as_os_str(), f.ro),
            )?;
            readable.push(format!("/{name}"));
        }
    }
    Ok(())
}

/// Binds a file or directory of the host at the same path.
fn same_path(path: &Path, attrs: u64) -> io::Result<()> {
    let here = inside(path);
    if fs::metadata(path)?.is_dir() {
        fs::create_dir_all(&here)?;
    } else {
        fs::create_dir_all(here.parent().unwrap_or(Path::new("root")))?;
        fs::File::create(&here)?;
    }
    sys_mount::bind(path.as_os_str(), here.as_os_str(), attrs)
}

fn etc(f: Flags, (uid, gid): (u32, u32)) -> io::Result<()> {
    fs::create_dir("root/etc")?;
    let etc = Path::new("/etc");
    let mut shown: Vec<PathBuf> = ETC.iter().map(|name| etc.join(name)).collect();
    // Debian keeps a part of each Java there without which it does not start.
    let java = |e: &fs::DirEntry| e.file_name().as_bytes().starts_with(b"java-");
    let others = fs::read_dir(etc)?.flatten().filter(java);
    shown.extend(others.map(|e| e.path()));
    for host in shown.iter().filter(|p| p.exists()) {
        same_path(host, f.ro)?;
    }
    let passwd =
        format!("root:x:0:0::/:/usr/sbin/nologin\nagent:x:{uid}:{gid}::/tmp/home:/bin/sh\n");
    fs::write("root/etc/passwd", passwd)?;
    fs::write("root/etc/group", format!("root:x:0:\nagent:x:{gid}:\n"))?;
    fs::write("root/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n")?;
    fs::write("root/etc/hostname", "sandbox\n")?;
    let files = "passwd: files\ngroup: files\nhosts: files\nprotocols: files\nservices: files\n";
    fs::write("root/etc/nsswitch.conf", files)
}

fn dev(f: Flags, shm_bytes: u64) -> io::Result<()> {
    fs::create_dir("root/dev")?;
    for name in DEVICES {
        same_path(&Path::new("/dev").join(name), f.node)?;
    }
    symlink("/proc/self/fd", "root/dev/fd")?;
    for (name, fd) in [("stdin", 0), ("stdout", 1), ("stderr", 2)] {
        symlink(format!("/proc/self/fd/{fd}"), format!("root/dev/{name}"))?;
    }
    fs::create_dir("root/dev/shm")?;
    let shm = format!("mode=1777,size={shm_bytes},nr_inodes=16k");
    sys_mount::mount(
        "tmpfs",
        "root/dev/shm",
        "tmpfs",
        f.tmpfs | libc::MS_NOEXEC,
        &shm,
    )
}

fn tmp(f: Flags, bytes: u64) -> io::Result<()> {
    fs::create_dir("root/tmp")?;
    fs::create_dir("root/var")?;
    // Relative, or what is granted below it would be put where it leads now: outside.
    symlink("../tmp", "root/var/tmp")?;
    let inodes = (bytes / 4096).clamp(1024, 262_144);
    let options = format!("mode=1777,size={bytes},nr_inodes={inodes}");
    sys_mount::mount("tmpfs", "root/tmp", "tmpfs", f.tmpfs, &options)
}

/// Whether a path is absolute, stays where it says, and is not the root.
fn is_plain(path: &Path) -> bool {
    let up = path.components().any(|c| c.as_os_str() == "..");
    path.is_absolute() && !up && path != Path::new("/")
}

fn extra(f: Flags, path: &Path, readable: &mut Vec<String>) -> Result<(), Fault> {
    let shown = path.display().to_string();
    let bad = |reason: &str| Fault::Path {
        path: shown.clone(),
        reason: reason.into(),
    };
    if !is_plain(path) {
        return Err(bad(
            "a read-only path is absolute, without `..`, and not the root",
        ));
    }
    if OURS.iter().any(|o| path.starts_with(o)) || TMP.iter().any(|t| path == Path::new(t)) {
        return Err(bad("the sandbox keeps this place for itself"));
    }
    // A mount that is read-only does not keep anybody from speaking to what listens there.
    let kind = fs::metadata(path).map(|m| m.file_type());
    if kind.is_ok_and(|k| !k.is_file() && !k.is_dir()) {
        return Err(bad("only files and directories can be granted"));
    }
    if SYSTEM
        .iter()
        .any(|s| path.starts_with(Path::new("/").join(s)))
    {
        return Ok(());
    }
    // A second name for something that is shown already needs no mount of its own.
    if readable.iter().any(|r| r != "/etc" && path.starts_with(r)) {
        return Ok(());
    }
    same_path(path, f.ro).map_err(|e| Fault::setup(format!("read-only path {shown}"), e))?;
    readable.push(shown);
    Ok(())
}

/// The workspace on its base. Gives back the parts of that, and why it is no overlay.
fn workspace(f: Flags, p: &Policy, own: &Path) -> Result<(Vec<OwnedFd>, Option<String>), Fault> {
    step("/workspace", fs::create_dir("root/workspace"))?;
    let mut names = Vec::new();
    for (i, lower) in p.lowers().enumerate() {
        names.push(format!("lower{i}"));
        show_lower(lower, &names[i])?;
    }
    let reason = writable(f, p.copy, own, &names.join(":"), "root/workspace".as_ref())?;
    let lowers = names.iter().map(|n| open(n)).collect::<Result<_, _>>()?;
    Ok((lowers, reason))
}

/// A bind of its own gives files of the host a short relative name, whatever their path has in it.
fn show_lower(path: &[u8], name: &str) -> Result<(), Fault> {
    step(
        "base",
        sys_mount::bind(OsStr::from_bytes(path), name.as_ref(), RO),
    )
}

/// One cache at its place.
fn cache(
    f: Flags,
    p: &Policy,
    own: &Path,
    i: usize,
    readable: &[String],
    taken: &[String],
) -> Result<CacheDir, Fault> {
    let (files, at) = &p.caches[i];
    let place = Path::new(OsStr::from_bytes(at));
    let bad = |reason: &str| Fault::Path {
        path: place.display().to_string(),
        reason: reason.into(),
    };
    let Some(at) = place.to_str().filter(|_| is_plain(place)) else {
        return Err(bad(
            "the place of a cache is an absolute path, in UTF-8 and without `..`",
        ));
    };
    let system = SYSTEM.iter().map(|s| format!("/{s}"));
    let ours = OURS.iter().chain(&TMP).map(|s| (*s).to_owned());
    let mut others = system
        .chain(ours)
        .chain(readable.iter().chain(taken).cloned());
    // Nothing is made below what is shown of the host, not even a directory.
    if let Some(other) = others.find(|o| place.starts_with(o) || Path::new(o).starts_with(place)) {
        return Err(bad(&format!("{other} is there already")));
    }
    let own = own.join(den::cache(i));
    let lower = format!("{}/lower0", own.display());
    show_lower(files, &lower)?;
    let target = inside(place);
    step("cache", fs::create_dir_all(&target))?;
    let copy_reason = writable(f, p.copy, &own, &lower, target.as_ref())?;
    let at = at.to_owned();
    let lower = open(&lower)?;
    Ok(CacheDir {
        at,
        lower,
        copy_reason,
    })
}

/// Makes `upper` in `own` what is written at `target`, with the lower directories beneath it;
/// or, where an overlay is refused or not wanted, with nothing, and then says why.
fn writable(
    f: Flags,
    copy: bool,
    own: &Path,
    lowers: &str,
    target: &OsStr,
) -> Result<Option<String>, Fault> {
    // A number, and no more than that but for a cache.
    let own = own.display();
    let upper = format!("{own}/upper");
    let whole = || {
        step(
            "upper directory",
            sys_mount::bind(upper.as_ref(), target, f.work),
        )
    };
    if lowers.is_empty() || copy {
        whole()?;
        return Ok((!lowers.is_empty()).then(|| "asked for".into()));
    }
    // `userxattr` also where root mounts: the agent, without capabilities, can read it.
    // `volatile`: it does not outlive the sandbox, so nobody waits for the disk, neither when a file
    // is first changed nor, for everything that lies on that disk, at the end.
    let options =
        format!("lowerdir={lowers},upperdir={upper},workdir={own}/work,userxattr,volatile");
    let target = target.to_string_lossy();
    match sys_mount::mount("overlay", &target, "overlay", f.tmpfs, &options) {
        Ok(()) => Ok(None),
        Err(e) => {
            whole()?;
            Ok(Some(format!("overlayfs: {e}")))
        }
    }
}

fn proc(p: &Policy, f: Flags) -> Result<(), Fault> {
    step("/proc", fs::create_dir("root/proc"))?;
    let flags = f.tmpfs | libc::MS_NOEXEC;
    sys_mount::mount("proc", "root/proc", "proc", flags, "").map_err(|e| Fault::Unavailable {
        layer: "proc".into(),
        reason: format!("a fresh /proc cannot be mounted: {e}"),
        fix: "in a container, unmask /proc: docker run --security-opt systempaths=unconfined, or \
              procMount: Unmasked in Kubernetes"
            .into(),
    })?;
    if p.has(Wall::MountFlags) {
        guard_proc()?;
    }
    Ok(())
}

/// Takes away what configures the kernel, and hides what tells of it.
fn guard_proc() -> Result<(), Fault> {
    for name in ["sys", "irq", "bus", "fs", "acpi", "scsi", "sysrq-trigger"] {
        let path = format!("root/proc/{name}");
        if Path::new(&path).exists() {
            step(
                &path,
                sys_mount::bind(path.as_ref(), path.as_ref(), RO | libc::MOUNT_ATTR_NOEXEC),
            )?;
        }
    }
    for name in [
        "kcore",
        "keys",
        "kmsg",
        "kallsyms",
        "timer_list",
        "sched_debug",
    ] {
        let path = format!("root/proc/{name}");
        if Path::new(&path).exists() {
            step(
                &path,
                sys_mount::bind(
                    "root/dev/null".as_ref(),
                    path.as_ref(),
                    RO & !libc::MOUNT_ATTR_NODEV,
                ),
            )?;
        }
    }
    Ok(())
}
