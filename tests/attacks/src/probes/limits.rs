//! More than one's share. Each stops by itself soon after it has enough.

use super::{Place, Probe, probe};
use crate::sys::{self, at, call};
use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// Twice what the driver allows.
const PROCESSES: usize = 96;
const FILES: usize = 160;
const MEMORY: usize = 640 << 20;
const ONE_FILE: usize = 16 << 20;

pub(super) const LIST: &[Probe] = &[
    probe("limits", "processes", Place::Host, |_| {
        let mut children = Vec::new();
        let mut r = Ok(());
        while children.len() < PROCESSES && r.is_ok() {
            match sys::fork() {
                Ok(Some(pid)) => children.push(pid),
                Ok(None) => loop {
                    thread::sleep(Duration::from_secs(60));
                },
                Err(e) => r = Err(e),
            }
        }
        for pid in children {
            drop(sys::kill(pid, libc::SIGKILL));
            sys::wait(pid)?;
        }
        r
    }),
    probe("limits", "threads", Place::Host, |_| {
        for _ in 0..PROCESSES {
            thread::Builder::new()
                .stack_size(32 << 10)
                .spawn(|| thread::sleep(Duration::from_secs(60)))?;
        }
        Ok(())
    }),
    probe("limits", "open_files", Place::Host, |_| {
        let all: io::Result<Vec<File>> = (0..FILES).map(|_| File::open("/dev/null")).collect();
        all.map(drop)
    }),
    probe("limits", "memory", Place::Host, |_| {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        call(
            libc::SYS_mmap,
            [0, MEMORY, rights as usize, flags as usize, usize::MAX, 0],
        )
        .map(drop)
    }),
    probe("limits", "cpu_time", Place::Host, |_| {
        let begun = Instant::now();
        let mut used = [0_i64; 18];
        while used[0] < 2 && begun.elapsed() < Duration::from_secs(30) {
            for _ in 0..100_000 {
                std::hint::spin_loop();
            }
            call(libc::SYS_getrusage, [0, sys::at_mut(&mut used)])?;
        }
        Ok(())
    }),
    probe("limits", "large_file", Place::Host, |_| {
        fill(Path::new("."), 1, ONE_FILE)
    }),
    probe("limits", "large_file_by_truncate", Place::Host, |_| {
        let r = File::create("sparse").and_then(|f| f.set_len(1 << 40));
        drop(fs::remove_file("sparse"));
        r
    }),
    probe("limits", "fill_tmp", Place::Host, |_| {
        fill(Path::new("/tmp"), 16, 1 << 20)
    }),
    probe("limits", "fill_dev_shm", Place::Host, |_| {
        fill(Path::new("/dev/shm"), 24, 4 << 20)
    }),
    probe("limits", "inodes_of_tmp", Place::Host, |_| {
        fill(Path::new("/tmp"), 4000, 0)
    }),
    probe("limits", "core_dump", Place::Host, |_| {
        let mut limit = [0_u64; 2];
        let core = libc::RLIMIT_CORE as usize;
        call(libc::SYS_getrlimit, [core, sys::at_mut(&mut limit)])?;
        match limit[1] {
            0 => Err(io::Error::other("no core is written")),
            _ => Ok(()),
        }
    }),
    probe("limits", "memory_of_many", Place::Host, memory_of_many),
    probe(
        "limits",
        "memory_without_a_process",
        Place::Host,
        memory_without_a_process,
    ),
    probe(
        "limits",
        "memory_in_segments",
        Place::Host,
        memory_in_segments,
    ),
];

/// Writes files, and removes them.
fn fill(dir: &Path, files: usize, size: usize) -> io::Result<()> {
    let block = vec![1_u8; size.min(1 << 20)];
    let name = |n| dir.join(format!("fill-{}-{n}", std::process::id()));
    let write = |n| -> io::Result<()> {
        let mut file = File::create(name(n))?;
        (0..size.div_ceil(1 << 20)).try_for_each(|_| file.write_all(&block))
    };
    let r = (0..files).try_for_each(write);
    for n in 0..files {
        if fs::remove_file(name(n)).is_err() {
            break;
        }
    }
    r
}

/// Eight processes that each keep to the limit of one.
fn memory_of_many(_: &crate::Baits) -> io::Result<()> {
    let mut children = Vec::new();
    for _ in 0..8 {
        match sys::fork()? {
            Some(pid) => children.push(pid),
            None => {
                let mut all = vec![0_u8; 80 << 20];
                all.iter_mut().step_by(4096).for_each(|b| *b = 1);
                std::hint::black_box(&all);
                thread::sleep(Duration::from_millis(700));
                sys::exit(0)
            }
        }
    }
    let mut worst = 0;
    for pid in children {
        worst = worst.max(sys::wait(pid)?);
    }
    match worst {
        0 => Ok(()),
        status => Err(io::Error::other(format!("one ended with status {status}"))),
    }
}

/// Files that are only in memory, each within the limit of a file.
fn memory_without_a_process(_: &crate::Baits) -> io::Result<()> {
    let block = vec![1_u8; 1 << 20];
    let name = sys::cstr("attack");
    let mut all = Vec::new();
    for _ in 0..(MEMORY >> 20) / 8 {
        let fd = call(libc::SYS_memfd_create, [at(&*name), 0])?;
        let mut file = File::options()
            .append(true)
            .open(format!("/proc/self/fd/{fd}"))?;
        (0..8).try_for_each(|_| file.write_all(&block))?;
        all.push(fd);
    }
    Ok(())
}

/// Shared memory that nobody has attached any more.
fn memory_in_segments(_: &crate::Baits) -> io::Result<()> {
    const EACH: usize = 64 << 20;
    let mut made = Vec::new();
    let mut one = || -> io::Result<()> {
        let id = call(libc::SYS_shmget, [0, EACH, 0o1600])?;
        made.push(id);
        let there = call(libc::SYS_shmat, [id, 0, 0])?;
        // Every page of it, by the kernel.
        let populate = 23;
        call(libc::SYS_madvise, [there, EACH, populate])?;
        call(libc::SYS_shmdt, [there]).map(drop)
    };
    let r = (0..MEMORY / EACH).try_for_each(|_| one());
    for id in made {
        call(libc::SYS_shmctl, [id, 0, 0])?;
    }
    r
}
