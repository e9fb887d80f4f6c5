//! What attacks are after: a host with secrets, servers, a terminal and other processes.

use crate::{
    Baits,
    sys::{self, at, at_mut, call},
};
use std::{
    fs::{self, File, OpenOptions},
    io,
    net::{TcpListener, UdpSocket},
    os::{
        fd::AsRawFd,
        linux::net::SocketAddrExt,
        unix::{
            fs::{MetadataExt, PermissionsExt},
            net::{SocketAddr, UnixListener},
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

/// Kept as long as the pass lasts.
#[derive(Debug)]
pub struct Host {
    /// Where to find them.
    pub baits: Baits,
    /// The programs, and what is granted.
    pub tools: PathBuf,
    victim: Option<Child>,
    dev_shm: PathBuf,
    kept: Option<Kept>,
}

impl Host {
    /// Without baits.
    ///
    /// # Errors
    /// None so far.
    pub fn none(place: &Path) -> io::Result<Self> {
        Ok(Self {
            baits: Baits::default(),
            tools: place.with_file_name("tools"),
            victim: None,
            dev_shm: PathBuf::new(),
            kept: None,
        })
    }

    /// Sets all baits; the calling process gets a terminal of its own.
    ///
    /// # Errors
    /// Something that an attack needs cannot be had here.
    pub fn new(place: &Path) -> io::Result<Self> {
        let token = format!("secret-{}-of-the-host", std::process::id());
        let tools = place.with_file_name("tools");
        let dir = place.join("bait");
        fs::create_dir(&dir)?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o777))?;
        let mut b = Baits::default();
        b.set("token", &token);
        b.set("dir", dir.display());
        for (name, file) in [("secret", "secret"), ("writable", "writable")] {
            fs::write(dir.join(file), &token)?;
            fs::set_permissions(dir.join(file), fs::Permissions::from_mode(0o666))?;
            b.set(name, dir.join(file).display());
        }
        b.set("inode", fs::metadata(dir.join("secret"))?.ino());
        b.set("granted", tools.join("granted").display());
        b.set("owned", tools.join("owned").display());
        b.set("setuid", tools.join("granted/setuid").display());
        b.set("state", place.join("state/sandboxes").display());
        disk(&mut b)?;
        servers(&mut b, &dir)?;
        let dev_shm = PathBuf::from(format!("/dev/shm/{token}"));
        fs::write(&dev_shm, &token)?;
        b.set("dev_shm", dev_shm.display());
        let kept = Kept::new(&mut b)?;
        own_terminal()?;
        leak(&dir)?;
        let victim = Command::new(tools.join("attack"))
            .arg("victim")
            .arg(format!("token={token}"))
            .env("BAIT", &token)
            .stdin(Stdio::from(File::open(dir.join("secret"))?))
            .stdout(Stdio::null())
            .spawn()?;
        b.set("victim", victim.id());
        Ok(Self {
            baits: b,
            tools,
            victim: Some(victim),
            dev_shm,
            kept: Some(kept),
        })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Errors: then it is gone already.
        if let Some(victim) = &mut self.victim {
            drop(victim.kill());
            drop(victim.wait());
        }
        drop(fs::remove_file(&self.dev_shm));
        if let Some(kept) = &self.kept {
            kept.remove();
        }
    }
}

/// The first disk of the machine.
fn disk(b: &mut Baits) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    let mut names: Vec<_> = fs::read_dir("/dev")?.flatten().map(|e| e.path()).collect();
    names.sort_by_key(|p| (p.to_string_lossy().contains("loop"), p.clone()));
    // Even root may be kept from some of them.
    names.sort_by_key(|p| File::open(p).is_err());
    let block = |p: &&PathBuf| fs::metadata(p).is_ok_and(|m| m.file_type().is_block_device());
    let found = names
        .iter()
        .find(block)
        .ok_or_else(|| io::Error::other("no disk in /dev"))?;
    b.set("disk", found.display());
    b.set("disk_number", fs::metadata(found)?.rdev());
    Ok(())
}

fn servers(b: &mut Baits, dir: &Path) -> io::Result<()> {
    let accept = |l: TcpListener| {
        thread::spawn(move || l.incoming().for_each(drop));
    };
    let tcp = TcpListener::bind("0.0.0.0:0")?;
    b.set("tcp", tcp.local_addr()?.port());
    accept(tcp);
    let tcp6 = TcpListener::bind("[::1]:0")?;
    b.set("tcp6", tcp6.local_addr()?.port());
    accept(tcp6);
    let udp = UdpSocket::bind("127.0.0.1:0")?;
    b.set("udp", udp.local_addr()?.port());
    thread::spawn(move || {
        let mut buf = [0; 512];
        while let Ok((n, from)) = udp.recv_from(&mut buf) {
            drop(udp.send_to(&buf[..n], from));
        }
    });
    // The address of the machine itself, without sending anything.
    let probe = UdpSocket::bind("0.0.0.0:0")?;
    let address = probe
        .connect("192.0.2.1:9")
        .and_then(|()| probe.local_addr());
    b.set(
        "address",
        address.map_or("127.0.0.2".into(), |a| a.ip().to_string()),
    );
    let name = format!("attacks-{}", std::process::id());
    b.set("abstract", &name);
    let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
    thread::spawn(move || listener.incoming().for_each(drop));
    let path = dir.join("sock");
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
    thread::spawn(move || listener.incoming().for_each(drop));
    b.set("socket", path.display());
    Ok(())
}

/// What the kernel keeps without a process.
#[derive(Debug)]
struct Kept {
    shm: usize,
    sem: usize,
    msg: usize,
    mq: String,
}

impl Kept {
    fn new(b: &mut Baits) -> io::Result<Self> {
        let id = std::process::id();
        let key = (id | 0x1000_0000) as usize;
        b.set("key", key);
        let made = libc::IPC_CREAT as usize | 0o666;
        let kept = Self {
            shm: call(libc::SYS_shmget, [key, 4096, made])?,
            sem: call(libc::SYS_semget, [key, 1, made])?,
            msg: call(libc::SYS_msgget, [key, made])?,
            mq: format!("attacks-{id}"),
        };
        b.set("shm", kept.shm);
        b.set("mq", &kept.mq);
        let create = libc::O_CREAT as usize;
        let fd = call(
            libc::SYS_mq_open,
            [at(&*sys::cstr(&kept.mq)), create, 0o666, 0],
        )?;
        call(libc::SYS_close, [fd])?;
        let key_name = format!("attacks:{}", b.get("token")?);
        b.set("key_name", &key_name);
        let (kind, name) = (sys::cstr("user"), sys::cstr(&key_name));
        let ring = libc::KEY_SPEC_USER_KEYRING as isize as usize;
        let key = call(
            libc::SYS_add_key,
            [at(&*kind), at(&*name), at("x"), 1, ring],
        )?;
        // For whoever has the uid, as a credential of the user would be; and gone by itself.
        call(
            libc::SYS_keyctl,
            [libc::KEYCTL_SETPERM as usize, key, 0x3f3f_3f3f],
        )?;
        call(
            libc::SYS_keyctl,
            [libc::KEYCTL_SET_TIMEOUT as usize, key, 600],
        )?;
        // A session keyring that holds the user's, as a login makes one.
        call(
            libc::SYS_keyctl,
            [libc::KEYCTL_JOIN_SESSION_KEYRING as usize, 0],
        )?;
        let session = libc::KEY_SPEC_SESSION_KEYRING as isize as usize;
        call(libc::SYS_keyctl, [libc::KEYCTL_LINK as usize, key, session])?;
        Ok(kept)
    }

    fn remove(&self) {
        // Errors: nothing that could be done.
        drop(call(
            libc::SYS_shmctl,
            [self.shm, libc::IPC_RMID as usize, 0],
        ));
        drop(call(
            libc::SYS_semctl,
            [self.sem, 0, libc::IPC_RMID as usize, 0],
        ));
        drop(call(
            libc::SYS_msgctl,
            [self.msg, libc::IPC_RMID as usize, 0],
        ));
        drop(call(libc::SYS_mq_unlink, [at(&*sys::cstr(&self.mq))]));
    }
}

/// As started from a terminal: a program of the sandbox must not reach it.
fn own_terminal() -> io::Result<()> {
    call(libc::SYS_setsid, [])?;
    let master = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/ptmx")?;
    let (mut number, unlocked) = (0_i32, 0_i32);
    let fd = master.as_raw_fd() as usize;
    call(
        libc::SYS_ioctl,
        [fd, libc::TIOCSPTLCK as usize, at(&unlocked)],
    )?;
    call(
        libc::SYS_ioctl,
        [fd, libc::TIOCGPTN as usize, at_mut(&mut number)],
    )?;
    let name = format!("/dev/pts/{number}");
    let terminal = OpenOptions::new().read(true).write(true).open(name)?;
    // Open as long as the process lives.
    std::mem::forget((master, terminal));
    Ok(())
}

/// Descriptors that a careless host leaves open for its children.
fn leak(dir: &Path) -> io::Result<()> {
    for path in [dir.to_owned(), dir.join("secret")] {
        let (cwd, name) = (libc::AT_FDCWD as usize, sys::cstr(path));
        call(
            libc::SYS_openat,
            [cwd, at(&*name), libc::O_RDONLY as usize, 0],
        )?;
    }
    Ok(())
}

/// What outlives its parent becomes our child.
///
/// # Errors
/// The kernel's.
pub fn adopt() -> io::Result<()> {
    call(
        libc::SYS_prctl,
        [libc::PR_SET_CHILD_SUBREAPER as usize, 1, 0, 0, 0],
    )
    .map(drop)
}

/// Ends a process for good.
pub fn end(pid: i32) {
    // Errors: then it is gone already.
    drop(sys::kill(pid, libc::SIGKILL));
    drop(sys::wait(pid));
}

/// Forgets the children that ended.
pub fn reap() {
    while matches!(
        call(libc::SYS_wait4, [usize::MAX, 0, libc::WNOHANG as usize, 0]),
        Ok(1..)
    ) {}
}

/// The children of this process, those of all its threads.
pub fn children() -> Vec<i32> {
    children_of(std::process::id() as i32)
}

/// Whether a child is what the sandboxes of a backend are forked from.
pub fn is_zygote(pid: i32) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).contains("__smallhands_sandbox")
}

/// The children of a process, those of all its threads.
pub fn children_of(pid: i32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let lists = tasks.filter_map(|t| fs::read_to_string(t.path().join("children")).ok());
    lists
        .flat_map(|l| {
            l.split_whitespace()
                .filter_map(|n| n.parse().ok())
                .collect::<Vec<_>>()
        })
        .collect()
}

/// A disk of 2 MiB and few files, for this process alone.
///
/// # Errors
/// The kernel's; only root may.
pub fn tiny_disk(at_dir: &Path) -> io::Result<()> {
    fs::create_dir_all(at_dir)?;
    let (none, root, kind) = (sys::cstr("none"), sys::cstr("/"), sys::cstr("tmpfs"));
    call(libc::SYS_unshare, [libc::CLONE_NEWNS as usize])?;
    let private = (libc::MS_REC | libc::MS_PRIVATE) as usize;
    call(
        libc::SYS_mount,
        [at(&*none), at(&*root), at(&*none), private, 0],
    )?;
    let (there, data) = (
        sys::cstr(at_dir),
        sys::cstr("size=2m,nr_inodes=64,mode=755"),
    );
    call(
        libc::SYS_mount,
        [at(&*kind), at(&*there), at(&*kind), 0, at(&*data)],
    )
    .map(drop)
}

/// Becomes the real helper, which the kernel kills at a system call, or what it starts; else the
/// call is not permitted.
///
/// # Errors
/// The kernel's.
pub fn stopped_at(number: u32, kill: bool, helper: &Path) -> io::Result<()> {
    #[repr(C)]
    struct Program(u16, *const [u16; 16]);
    // Load the number; if it is that one, kill the process or answer EPERM; allow.
    let (low, high) = (number as u16, (number >> 16) as u16);
    let (what, how) = if kill { (0, 0x8000) } else { (1, 0x0005) };
    let code: [u16; 16] = [
        0x20, 0, 0, 0, 0x15, 0x0100, low, high, 0x06, 0, what, how, 0x06, 0, 0, 0x7fff,
    ];
    call(
        libc::SYS_prctl,
        [libc::PR_SET_NO_NEW_PRIVS as usize, 1, 0, 0, 0],
    )?;
    let program = Program(4, &raw const code);
    call(libc::SYS_seccomp, [1, 0, at(&program)])?;
    use std::os::unix::process::CommandExt;
    let args = std::env::args_os().skip(1);
    Err(std::process::Command::new(helper).args(args).exec())
}
