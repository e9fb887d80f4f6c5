//! Other processes.

use super::{Place, Probe, probe};
use crate::{
    Baits,
    sys::{self, at, at_mut, call},
};
use std::{fs::OpenOptions, io, os::fd::AsRawFd, thread, time::Duration};

pub(super) const LIST: &[Probe] = &[
    probe("processes", "signal_outside", Place::Host, |b| {
        sys::kill(b.number("victim")?, libc::SIGCONT)
    }),
    probe("processes", "signal_by_pidfd", Place::Host, |b| {
        let fd = call(libc::SYS_pidfd_open, [b.number("victim")? as usize, 0])?;
        call(
            libc::SYS_pidfd_send_signal,
            [fd, libc::SIGCONT as usize, 0, 0],
        )
        .map(drop)
    }),
    probe("processes", "signal_by_tgkill", Place::Host, |b| {
        let pid = b.number("victim")? as usize;
        call(libc::SYS_tgkill, [pid, pid, libc::SIGCONT as usize]).map(drop)
    }),
    probe("processes", "queue_signal", Place::Host, |b| {
        let mut info = [0_i32; 32];
        (info[0], info[2]) = (libc::SIGCONT, -1);
        let pid = b.number("victim")? as usize;
        call(
            libc::SYS_rt_sigqueueinfo,
            [pid, libc::SIGCONT as usize, at(&info)],
        )
        .map(drop)
    }),
    probe("processes", "signal_supervisor", Place::Host, |_| {
        sys::kill(parent(), libc::SIGCONT)
    }),
    probe("processes", "limits_of_supervisor", Place::Host, |_| {
        let mut limit = [0_u64; 2];
        let of = [
            parent() as usize,
            libc::RLIMIT_NOFILE as usize,
            0,
            at_mut(&mut limit),
        ];
        call(libc::SYS_prlimit64, of).map(drop)
    }),
    probe("processes", "trace_outside", Place::Host, |b| {
        seize(b.number("victim")?)
    }),
    probe("processes", "trace_supervisor", Place::Host, |_| {
        seize(parent())
    }),
    probe("processes", "trace_child", Place::Host, |_| {
        with_child(seize)
    }),
    probe("processes", "be_traced", Place::Host, |_| {
        // In a child, whose end is then reported to us first.
        with_result(|| call(libc::SYS_ptrace, [libc::PTRACE_TRACEME as usize]).map(drop))
    }),
    probe("processes", "read_memory", Place::Host, |b| {
        let mut buf = [0_u8; 8];
        let word = [at_mut(&mut buf), 8];
        // Where programs lie is of no interest: a bad address is seen only after the check of rights.
        reached(call(
            libc::SYS_process_vm_readv,
            [
                b.number("victim")? as usize,
                at(&word),
                1,
                at(&[8_usize, 8]),
                1,
                0,
            ],
        ))
    }),
    probe(
        "processes",
        "read_memory_of_supervisor",
        Place::Host,
        |_| {
            let mut buf = [0_u8; 8];
            let word = [at_mut(&mut buf), 8];
            reached(call(
                libc::SYS_process_vm_readv,
                [parent() as usize, at(&word), 1, at(&[8_usize, 8]), 1, 0],
            ))
        },
    ),
    probe("processes", "take_descriptor", Place::Host, |b| {
        let fd = call(libc::SYS_pidfd_open, [b.number("victim")? as usize, 0])?;
        call(libc::SYS_pidfd_getfd, [fd, 0, 0]).map(drop)
    }),
    probe("processes", "compare_resources", Place::Host, |b| {
        let (own, pid) = (std::process::id() as usize, b.number("victim")? as usize);
        call(libc::SYS_kcmp, [own, pid, 0, 0, 0]).map(drop)
    }),
    probe("processes", "move_to_other_cpu", Place::Host, |b| {
        let mask = [!0_u64; 16];
        call(
            libc::SYS_sched_setaffinity,
            [b.number("victim")? as usize, size_of_val(&mask), at(&mask)],
        )
        .map(drop)
    }),
    probe("terminal", "type_into_terminal", Place::Host, |_| {
        terminal(|fd| ioctl(fd, libc::TIOCSTI as usize, at(&b' ')))
    }),
    probe("terminal", "read_terminal_settings", Place::Host, |_| {
        let mut settings = [0_u8; 64];
        let to = at_mut(&mut settings);
        terminal(|fd| ioctl(fd, libc::TCGETS as usize, to))
    }),
    probe("terminal", "terminal_discipline", Place::Host, |_| {
        terminal(|fd| ioctl(fd, libc::TIOCSETD as usize, at(&0_i32)))
    }),
    probe("terminal", "open_terminal", Place::Host, |_| {
        OpenOptions::new().write(true).open("/dev/tty").map(drop)
    }),
    probe("daemons", "daemon", Place::Helper, daemon),
    probe("daemons", "deaf", Place::Helper, deaf),
    probe("processes", "victim", Place::Helper, |_| {
        thread::sleep(Duration::from_secs(900));
        Ok(())
    }),
    probe("limits", "flood", Place::Helper, |_| flood()),
];

fn parent() -> i32 {
    std::os::unix::process::parent_id() as i32
}

fn seize(pid: i32) -> io::Result<()> {
    call(libc::SYS_ptrace, [0x4206, pid as usize, 0, 0]).map(drop)
}

/// With the id of a child that does nothing.
fn with_child(act: impl Fn(i32) -> io::Result<()>) -> io::Result<()> {
    let Some(pid) = sys::fork()? else {
        thread::sleep(Duration::from_secs(5));
        sys::exit(0)
    };
    let done = act(pid);
    drop(sys::kill(pid, libc::SIGKILL));
    sys::wait(pid)?;
    done
}

/// What a child of ours could do.
fn with_result(act: impl Fn() -> io::Result<()>) -> io::Result<()> {
    let Some(pid) = sys::fork()? else {
        sys::exit(act().map_or_else(|e| e.raw_os_error().unwrap_or(1), |()| 0))
    };
    match sys::wait(pid)? {
        0 => Ok(()),
        status => Err(io::Error::from_raw_os_error(status >> 8)),
    }
}

/// Whether a call got past the check of rights.
pub(super) fn reached(r: io::Result<usize>) -> io::Result<()> {
    let no = [libc::EPERM, libc::EACCES, libc::ENOSYS, libc::ESRCH];
    match r {
        Err(e) if e.raw_os_error().is_some_and(|n| no.contains(&n)) => Err(e),
        _ => Ok(()),
    }
}

fn ioctl(fd: i32, what: usize, arg: usize) -> io::Result<()> {
    call(libc::SYS_ioctl, [fd as usize, what, arg]).map(drop)
}

/// Tries the three streams and the terminal's own names.
fn terminal(act: impl Fn(i32) -> io::Result<()>) -> io::Result<()> {
    let mut last = Err(io::Error::other("nothing to try"));
    for fd in 0..3 {
        last = act(fd);
        if last.is_ok() {
            return last;
        }
    }
    for name in ["/dev/tty", "/dev/console", "/dev/pts/0", "/dev/tty0"] {
        if let Ok(file) = OpenOptions::new().read(true).write(true).open(name) {
            last = act(file.as_raw_fd());
        }
        if last.is_ok() {
            break;
        }
    }
    last
}

/// Leaves its parent, its session and its group, and lives on.
fn daemon(_: &Baits) -> io::Result<()> {
    for _ in 0..2 {
        if sys::fork()?.is_some() {
            sys::exit(0);
        }
        call(libc::SYS_setsid, []).map(drop)?;
    }
    deaf(&Baits::default())
}

/// Hears no signal that can be ignored, with children that do not either, and does not end.
fn deaf(_: &Baits) -> io::Result<()> {
    for signal in 1..32 {
        let ignore = [libc::SIG_IGN, 0, 0, 0];
        // Of two it may not.
        drop(call(libc::SYS_rt_sigaction, [signal, at(&ignore), 0, 8]));
    }
    for _ in 0..3 {
        if sys::fork()?.is_none() {
            break;
        }
    }
    thread::sleep(Duration::from_secs(120));
    Ok(())
}

/// Writes more than anybody wants to read.
fn flood() -> io::Result<()> {
    use std::io::Write;
    let block = vec![b'x'; 1 << 20];
    for _ in 0..32 {
        io::stdout().write_all(&block)?;
        io::stderr().write_all(&block)?;
    }
    Ok(())
}
