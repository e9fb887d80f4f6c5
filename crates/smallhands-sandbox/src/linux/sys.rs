//! Thin, checked wrappers over the system calls that `std` does not offer. Nothing here decides.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, CString, OsStr},
    io,
    mem::zeroed,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::{ffi::OsStrExt, net::UnixStream},
    },
    ptr,
    time::Duration,
};

pub(super) fn check(r: libc::c_int) -> io::Result<libc::c_int> {
    if r < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(r)
    }
}

pub(super) fn check_long(r: libc::c_long) -> io::Result<libc::c_long> {
    if r < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(r)
    }
}

pub(super) fn owned(r: libc::c_int) -> io::Result<OwnedFd> {
    let fd = check(r)?;
    // SAFETY: the kernel just returned this descriptor to us and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A path or name for the kernel; a NUL inside is `EINVAL`.
pub(super) fn cstr(s: impl AsRef<OsStr>) -> io::Result<CString> {
    CString::new(s.as_ref().as_bytes()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

pub(super) fn unshare(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: plain integers; the caller is single-threaded, which CLONE_NEWUSER demands.
    check(unsafe { libc::unshare(flags) }).map(drop)
}

pub(super) fn prctl(op: libc::c_int, a: libc::c_ulong, b: libc::c_ulong) -> io::Result<()> {
    const NONE: libc::c_ulong = 0;
    // SAFETY: only operations that take integers are passed by this module.
    check(unsafe { libc::prctl(op, a, b, NONE, NONE) }).map(drop)
}

/// Dies when the parent *thread* ends. A change of uid clears it.
pub(super) fn die_with_parent() -> io::Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong, 0)
}

pub(super) fn set_dumpable(on: bool) -> io::Result<()> {
    prctl(libc::PR_SET_DUMPABLE, libc::c_ulong::from(on), 0)
}

pub(super) enum Fork {
    Child,
    Parent(i32),
}

pub(super) fn fork() -> io::Result<Fork> {
    // SAFETY: helper and agent have one thread, so no lock is held by a thread that the child
    // does not have.
    match check(unsafe { libc::fork() })? {
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(pid)),
    }
}

/// As [`fork`], with new namespaces for the child.
pub(super) fn fork_into(namespaces: libc::c_int) -> io::Result<Fork> {
    let flags = (namespaces | libc::SIGCHLD) as libc::c_ulong;
    let none = ptr::null::<libc::c_void>();
    // SAFETY: as in `fork`; no new stack and nothing shared. Where there is seccomp for us the flags
    // come first, and the order of the others, which are null, does not matter.
    let r = unsafe { libc::syscall(libc::SYS_clone, flags, none, none, none, none) };
    match check_long(r)? as i32 {
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(pid)),
    }
}

/// Lets the kernel forget each child as it ends; `false` undoes it.
pub(super) fn forget_children(yes: bool) {
    let how = if yes { libc::SIG_IGN } else { libc::SIG_DFL };
    // SAFETY: only sets a disposition.
    unsafe { libc::signal(libc::SIGCHLD, how) };
}

/// A child that ended: its id and wait status. `None`: none has ended, or there is none.
pub(super) fn wait_any(blocking: bool) -> Option<(i32, libc::c_int)> {
    let mut status = 0;
    let flags = if blocking { 0 } else { libc::WNOHANG };
    loop {
        // SAFETY: `status` lives across the call.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, flags) };
        match pid {
            1.. => return Some((pid, status)),
            0 => return None,
            _ if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            _ => return None,
        }
    }
}

pub(super) fn wait_for(pid: i32) -> io::Result<libc::c_int> {
    let mut status = 0;
    loop {
        // SAFETY: `status` lives across the call.
        match check(unsafe { libc::waitpid(pid, &raw mut status, 0) }) {
            Ok(_) => return Ok(status),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// Kills everything that this process can see but itself: only for PID 1 of a namespace.
/// False when there is nobody left.
pub(super) fn kill_everyone() -> bool {
    debug_assert_eq!(std::process::id(), 1, "only inside a pid namespace");
    if std::process::id() != 1 {
        return false;
    }
    // SAFETY: plain integers; as PID 1, -1 means the processes of our own namespace.
    unsafe { libc::kill(-1, libc::SIGKILL) == 0 }
}

/// Ends the process without running anything of the parent's.
pub(super) fn exit_now(code: i32) -> ! {
    // SAFETY: never returns and touches no memory.
    unsafe { libc::_exit(code) }
}

pub(super) fn poll(fds: &mut [libc::pollfd], timeout: Option<Duration>) -> io::Result<()> {
    // Rounded up, so that a deadline has passed when poll returns for it.
    let millis = timeout.map_or(-1, |t| {
        i32::try_from(t.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
    });
    // SAFETY: pointer and length are those of a live slice.
    let r = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, millis) };
    match check(r) {
        Err(e) if e.kind() != io::ErrorKind::Interrupted => Err(e),
        _ => Ok(()),
    }
}

pub(super) fn interest(fd: RawFd, events: libc::c_short) -> libc::pollfd {
    libc::pollfd {
        fd,
        events,
        revents: 0,
    }
}

/// A descriptor that becomes readable when a child ends; the signal itself is blocked.
pub(super) fn child_events() -> io::Result<OwnedFd> {
    // SAFETY: an all-zero set is valid, and is set up by sigemptyset before its use.
    let mut set: libc::sigset_t = unsafe { zeroed() };
    // SAFETY: `set` lives across all four calls.
    unsafe {
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        check(libc::sigprocmask(
            libc::SIG_BLOCK,
            &raw const set,
            ptr::null_mut(),
        ))?;
        owned(libc::signalfd(
            -1,
            &raw const set,
            libc::SFD_CLOEXEC | libc::SFD_NONBLOCK,
        ))
    }
}

/// Undoes what a Rust program and its parents may have set for signals.
pub(super) fn default_signals() -> io::Result<()> {
    for signal in 1..=libc::SIGRTMAX() {
        // SIGKILL, SIGSTOP and those that libc keeps for itself answer EINVAL: no matter.
        // SAFETY: only resets a disposition.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: an all-zero set is valid, and is set up by sigemptyset before its use.
    let mut set: libc::sigset_t = unsafe { zeroed() };
    // SAFETY: `set` lives across both calls.
    unsafe {
        libc::sigemptyset(&raw mut set);
        check(libc::sigprocmask(
            libc::SIG_SETMASK,
            &raw const set,
            ptr::null_mut(),
        ))
    }
    .map(drop)
}

/// Reader and writer, both close-on-exec.
pub(super) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: room for the two descriptors that the call writes.
    check(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) })?;
    Ok((owned(fds[0])?, owned(fds[1])?))
}

pub(super) fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: a valid descriptor and plain integers.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) }).map(drop)
}

/// Puts a descriptor in the place of standard error.
pub(super) fn become_stderr(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: both descriptors are valid.
    check(unsafe { libc::dup2(fd.as_raw_fd(), libc::STDERR_FILENO) }).map(drop)
}

/// Takes the socket that stands at one of the standard descriptors, and leaves `/dev/null` there.
pub(super) fn take_socket(at: RawFd) -> io::Result<UnixStream> {
    // SAFETY: the descriptor is duplicated, not taken.
    let sock = owned(unsafe { libc::fcntl(at, libc::F_DUPFD_CLOEXEC, 3) })?;
    let null = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    // SAFETY: both descriptors are valid.
    check(unsafe { libc::dup2(null.as_raw_fd(), at) })?;
    Ok(UnixStream::from(sock))
}

/// Closes all descriptors from 3 on but one: those of a careless host.
pub(super) fn close_all_but(fd: BorrowedFd<'_>) -> io::Result<()> {
    let keep = fd.as_raw_fd() as u32;
    for (first, last) in [(3, keep - 1), (keep + 1, u32::MAX)] {
        if first <= last {
            // SAFETY: plain integers; what is closed belongs to nobody in this process.
            check_long(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0_u32) })?;
        }
    }
    Ok(())
}

/// Puts the three standard streams in place and closes everything else at the next `execve`.
pub(super) fn wire_streams(streams: [BorrowedFd<'_>; 3]) -> io::Result<()> {
    for (to, from) in (0..).zip(streams) {
        // SAFETY: both are valid descriptors, and `from` is never below 3.
        check(unsafe { libc::dup2(from.as_raw_fd(), to) })?;
    }
    // SAFETY: plain integers.
    check_long(unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3_u32,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    })
    .map(drop)
}

pub(super) fn set_umask(mask: u32) {
    // SAFETY: cannot fail.
    unsafe { libc::umask(mask) };
}

pub(super) fn new_session() -> io::Result<()> {
    // SAFETY: takes nothing.
    check(unsafe { libc::setsid() }).map(drop)
}

pub(super) fn fchdir(dir: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: a valid descriptor.
    check(unsafe { libc::fchdir(dir.as_raw_fd()) }).map(drop)
}

/// One resource of [`libc::setrlimit`].
#[cfg(target_env = "gnu")]
pub(super) type Resource = libc::__rlimit_resource_t;
/// One resource of [`libc::setrlimit`].
#[cfg(not(target_env = "gnu"))]
pub(super) type Resource = libc::c_int;

/// Soft and hard; zero of what the kernel does not know.
pub(super) fn limits_of(what: Resource) -> (u64, u64) {
    // SAFETY: an all-zero rlimit is valid.
    let mut now: libc::rlimit = unsafe { zeroed() };
    // SAFETY: `now` lives across the call.
    unsafe { libc::getrlimit(what, &raw mut now) };
    (now.rlim_cur, now.rlim_max)
}

/// What a limit would be: it can only get lower.
pub(super) fn reachable_limit(what: Resource, wanted: u64) -> u64 {
    limits_of(what).1.min(wanted)
}

pub(super) fn set_limit(what: Resource, wanted: u64) -> io::Result<()> {
    let value = reachable_limit(what, wanted);
    let limit = libc::rlimit {
        rlim_cur: value,
        rlim_max: value,
    };
    // SAFETY: `limit` lives across the call.
    check(unsafe { libc::setrlimit(what, &raw const limit) }).map(drop)
}

/// Replaces the program. Returns only the error.
pub(super) fn execve(program: &CStr, argv: &[CString], env: &[CString]) -> io::Error {
    let list = |of: &[CString]| -> Vec<*const libc::c_char> {
        let ptrs = of.iter().map(|s| s.as_ptr());
        ptrs.chain([ptr::null()]).collect()
    };
    let (argv, env) = (list(argv), list(env));
    // SAFETY: both arrays end with a null pointer and hold pointers to live strings.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Brings up the loopback interface of the present network namespace.
pub(super) fn loopback_up() -> io::Result<()> {
    // SAFETY: plain integers.
    let sock =
        owned(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: an all-zero ifreq is valid.
    let mut req: libc::ifreq = unsafe { zeroed() };
    req.ifr_name[0] = b'l' as libc::c_char;
    req.ifr_name[1] = b'o' as libc::c_char;
    req.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: `req` lives across the call and its name is NUL-terminated.
    check(unsafe { libc::ioctl(sock.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const req) }).map(drop)
}

pub(super) fn set_hostname(name: &str) -> io::Result<()> {
    // SAFETY: pointer and length are those of a live string.
    check(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }).map(drop)
}

/// Bytes that are free for anyone on the file system of a file.
pub(super) fn free_bytes(fd: BorrowedFd<'_>) -> io::Result<u64> {
    // SAFETY: an all-zero statvfs is valid.
    let mut s: libc::statvfs = unsafe { zeroed() };
    // SAFETY: a valid descriptor, and `s` lives across the call.
    check(unsafe { libc::fstatvfs(fd.as_raw_fd(), &raw mut s) })?;
    Ok(s.f_bavail.saturating_mul(s.f_frsize))
}

/// A handle on a child that polls as readable when it has ended.
pub(super) fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: plain integers.
    let r = unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0) };
    owned(check_long(r)? as libc::c_int)
}

/// Whether this process may write there.
pub(super) fn may_write(path: &std::path::Path) -> io::Result<()> {
    let path = cstr(path)?;
    // SAFETY: the pointer is to a NUL-terminated string that outlives the call.
    check(unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), libc::W_OK, libc::AT_EACCESS) })
        .map(drop)
}

/// Removes all System V shared memory of the present ipc namespace that is ours.
pub(super) fn remove_segments() {
    const STAT: libc::c_int = 13;
    const INFO: libc::c_int = 14;
    // SAFETY: an all-zero shmid_ds is valid; it is larger than what either call writes.
    let mut found: [libc::shmid_ds; 2] = unsafe { zeroed() };
    // SAFETY: `found` lives across the call.
    let last = unsafe { libc::shmctl(0, INFO, found.as_mut_ptr()) };
    for index in 0..=last {
        // SAFETY: as above.
        let id = unsafe { libc::shmctl(index, STAT, found.as_mut_ptr()) };
        if id >= 0 {
            // SAFETY: removing takes no buffer.
            unsafe { libc::shmctl(id, libc::IPC_RMID, ptr::null_mut()) };
        }
    }
}

/// Processor time in microseconds and the largest resident set in bytes, of all children that were
/// reaped and theirs.
pub(super) fn children_usage() -> (u64, u64) {
    // SAFETY: an all-zero rusage is valid.
    let mut used: libc::rusage = unsafe { zeroed() };
    // SAFETY: `used` lives across the call, which then cannot fail.
    unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut used) };
    let micros = |t: libc::timeval| t.tv_sec as u64 * 1_000_000 + t.tv_usec as u64;
    let cpu = micros(used.ru_utime) + micros(used.ru_stime);
    (cpu, used.ru_maxrss as u64 * 1024)
}

/// Kills the process of a handle; one that is gone is as good.
pub(super) fn kill_by_fd(fd: BorrowedFd<'_>) {
    let none = ptr::null::<libc::siginfo_t>();
    // SAFETY: a valid descriptor; no information is passed.
    unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            fd.as_raw_fd(),
            libc::SIGKILL,
            none,
            0,
        )
    };
}

/// Kills one process; one that is gone is as good.
pub(super) fn kill(pid: i32) {
    if pid > 0 {
        // SAFETY: plain integers.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
}
