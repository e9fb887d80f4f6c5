//! Resource limits of each command.

use super::{
    proto::Fault,
    sys::{self, Resource},
};
use crate::Limits;
use std::io;

fn wanted(l: &Limits) -> [(Resource, Option<u64>, &'static str); 6] {
    [
        (libc::RLIMIT_AS, l.memory_bytes, "memory"),
        (libc::RLIMIT_CPU, l.cpu_seconds, "cpu"),
        (libc::RLIMIT_FSIZE, l.file_bytes, "file size"),
        (libc::RLIMIT_NOFILE, l.open_files, "open files"),
        (libc::RLIMIT_NPROC, l.processes, "processes"),
        (libc::RLIMIT_CORE, Some(0), ""),
    ]
}

/// Sets all of them on this process, for good.
pub(super) fn apply(l: &Limits) -> io::Result<()> {
    for (what, value, _) in wanted(l) {
        if let Some(value) = value {
            sys::set_limit(what, value)?;
        }
    }
    Ok(())
}

/// In words, with the values that [`apply`] can reach.
pub(super) fn in_force(l: &Limits) -> io::Result<Vec<String>> {
    let mut out = Vec::new();
    for (what, value, name) in wanted(l) {
        let Some(value) = value.filter(|_| !name.is_empty()) else {
            continue;
        };
        let value = sys::reachable_limit(what, value);
        out.push(match what {
            libc::RLIMIT_AS => format!("memory {}/process", bytes(value)),
            libc::RLIMIT_CPU => format!("cpu {value} s/process"),
            libc::RLIMIT_FSIZE => format!("file size {}", bytes(value)),
            libc::RLIMIT_NOFILE => format!("open files {value}/process"),
            _ => format!("{name} {value}"),
        });
    }
    out.push(format!("/tmp {}", bytes(in_memory(l, l.tmp_bytes))));
    Ok(out)
}

/// The size of a file system in memory: what lies there between commands must leave PID 1 some.
pub(super) fn in_memory(l: &Limits, wanted: u64) -> u64 {
    let most = l.total_memory_bytes.map_or(u64::MAX, |all| all / 4);
    // At least a page, or tmpfs would take 0 for no limit.
    wanted.min(most).max(4096)
}

pub(super) fn bytes(n: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units
        .iter()
        .find(|(_, shift)| n >> shift > 0 && n.is_multiple_of(1 << shift))
    {
        Some((unit, shift)) => format!("{} {unit}", n >> shift),
        None => format!("{n} bytes"),
    }
}

/// The kernel does not count processes of the real root: then that limit would be none.
pub(super) fn must_bind() -> io::Result<Result<(), Fault>> {
    let bound = match sys::fork()? {
        sys::Fork::Parent(pid) => sys::wait_for(pid)? == 0,
        sys::Fork::Child => {
            let limited = sys::set_limit(libc::RLIMIT_NPROC, 1).is_ok();
            let code = match sys::fork() {
                Err(_) if limited => 0,
                _ => 1,
            };
            sys::exit_now(code)
        }
    };
    if bound {
        return Ok(Ok(()));
    }
    Ok(Err(Fault::Unavailable {
        layer: "process limit".into(),
        reason: "the kernel does not count the processes of root".into(),
        fix: "run as another user, or set limits.processes to none".into(),
    }))
}
