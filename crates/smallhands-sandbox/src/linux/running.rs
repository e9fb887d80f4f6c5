//! The one command that is running, as PID 1 sees it.

use super::{
    child::{self, Launch},
    proto::{self, Command, Fault, How, Reply, Say},
    sys,
};
use crate::Ended;
use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

/// How long pipes are read after everything that could write to them was killed.
const DRAIN: Duration = Duration::from_millis(500);
/// How long killed processes may take to end.
const REAP: Duration = Duration::from_secs(10);
/// How often the disk is looked at.
const TICK: Duration = Duration::from_millis(250);
/// What a command must leave free on the disk, or half of what it found if that is less.
const RESERVE: u64 = 512 << 20;
/// The same of the machine's memory, for where no control group bounds the whole.
const MEMORY_RESERVE: u64 = 256 << 20;
/// Most standard input.
pub(super) const MAX_STDIN: u64 = 64 << 20;

pub(super) struct Running {
    pub(super) id: u64,
    pid: i32,
    begun: Instant,
    deadline: Duration,
    stdin: Option<File>,
    /// What is still to be written to it, from `written` on.
    pending: Vec<u8>,
    written: usize,
    /// What is still to come from the host.
    owed: u64,
    /// More comes until the host says that it is over.
    duplex: bool,
    /// Input came that is to be answered when it is written.
    pub(super) unanswered: bool,
    /// Standard output and error, `None` once at their end.
    streams: [Option<File>; 2],
    report: File,
    status: Option<libc::c_int>,
    pub(super) cancelled: bool,
    /// Free bytes below which it is stopped, on the disk that its files go to.
    floor: u64,
    disk_full: bool,
    /// Free memory below which it is stopped.
    memory_floor: u64,
    memory_full: bool,
    looked: Instant,
}

impl Running {
    pub(super) fn start(id: u64, launch: &Launch<'_>, disk: BorrowedFd<'_>) -> io::Result<Self> {
        let what: &Command = launch.what;
        let (stdin_r, stdin_w) = sys::pipe()?;
        let (out_r, out_w) = sys::pipe()?;
        let (err_r, err_w) = sys::pipe()?;
        let (report_r, report_w) = sys::pipe()?;
        let begun = Instant::now();
        let pid = match sys::fork()? {
            sys::Fork::Child => {
                let streams = [stdin_r.as_fd(), out_w.as_fd(), err_w.as_fd()];
                child::run(launch, streams, report_w)
            }
            sys::Fork::Parent(pid) => pid,
        };
        let ours = |fd: OwnedFd| -> io::Result<File> {
            sys::set_nonblocking(fd.as_fd())?;
            Ok(File::from(fd))
        };
        Ok(Self {
            id,
            pid,
            begun,
            deadline: Duration::from_millis(what.deadline_ms),
            stdin: (what.stdin_len > 0 || what.duplex)
                .then(|| ours(stdin_w))
                .transpose()?,
            pending: Vec::new(),
            written: 0,
            owed: what.stdin_len,
            duplex: what.duplex,
            unanswered: false,
            streams: [Some(ours(out_r)?), Some(ours(err_r)?)],
            report: ours(report_r)?,
            status: None,
            cancelled: false,
            floor: RESERVE.min(sys::free_bytes(disk)? / 2),
            disk_full: false,
            memory_floor: MEMORY_RESERVE.min(free_memory().unwrap_or(0) / 2),
            memory_full: false,
            looked: begun,
        })
    }

    /// What to poll for: standard input, output, error; -1 where nothing is awaited.
    pub(super) fn interests(&self) -> [libc::pollfd; 3] {
        let fd = |f: &Option<File>| f.as_ref().map_or(-1, File::as_raw_fd);
        let waiting = self.written < self.pending.len();
        let stdin: RawFd = if waiting { fd(&self.stdin) } else { -1 };
        [
            sys::interest(stdin, libc::POLLOUT),
            sys::interest(fd(&self.streams[0]), libc::POLLIN),
            sys::interest(fd(&self.streams[1]), libc::POLLIN),
        ]
    }

    fn time_left(&self) -> Duration {
        self.deadline.saturating_sub(self.begun.elapsed())
    }

    /// How long there is nothing to do unless something happens.
    pub(super) fn pause(&self) -> Duration {
        self.time_left().min(TICK)
    }

    /// The upper directory has no quota: at least the rest of the machine keeps some room.
    pub(super) fn watch_disk(&mut self, disk: BorrowedFd<'_>) -> io::Result<()> {
        self.disk_full = sys::free_bytes(disk)? < self.floor;
        Ok(())
    }

    pub(super) fn watch_memory(&mut self) {
        if self.looked.elapsed() >= TICK {
            self.looked = Instant::now();
            self.memory_full = free_memory().is_some_and(|free| free < self.memory_floor);
        }
    }

    pub(super) fn is_over(&self) -> bool {
        let full = self.disk_full || self.memory_full;
        self.status.is_some() || self.cancelled || full || self.time_left().is_zero()
    }

    pub(super) fn note_end(&mut self, pid: i32, status: libc::c_int) {
        if pid == self.pid {
            self.status = Some(status);
        }
    }

    pub(super) fn feed(&mut self, bytes: Vec<u8>) {
        self.unanswered = self.duplex && self.owed == 0;
        self.owed = self.owed.saturating_sub(bytes.len() as u64);
        if self.stdin.is_some() {
            self.pending.drain(..self.written);
            self.written = 0;
            self.pending.extend(bytes);
        }
    }

    pub(super) fn write_stdin(&mut self) {
        let Some(stdin) = &mut self.stdin else { return };
        match stdin.write(&self.pending[self.written..]) {
            Ok(n) => self.written += n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            // It closed its end: what it did not read is its own choice.
            Err(_) => self.stdin = None,
        }
        self.end_stdin();
    }

    pub(super) fn close_stdin(&mut self) {
        self.duplex = false;
        self.end_stdin();
    }

    fn end_stdin(&mut self) {
        if !self.duplex && self.owed == 0 && self.written == self.pending.len() {
            self.stdin = None;
        }
    }

    /// Whether input is to be answered now: written, or for nobody.
    pub(super) fn has_taken(&mut self) -> bool {
        let done = self.stdin.is_none() || self.written == self.pending.len();
        self.unanswered &= !done;
        done
    }

    /// Passes on what one stream holds now.
    pub(super) fn pump(&mut self, stderr: bool, sock: &mut UnixStream) -> io::Result<()> {
        let mut buf = vec![0; 64 << 10];
        let slot = &mut self.streams[usize::from(stderr)];
        let Some(stream) = slot else { return Ok(()) };
        match stream.read(&mut buf) {
            Ok(0) => *slot = None,
            Ok(n) => {
                let id = self.id;
                let say = Say::Output { stderr };
                proto::send(sock, &Reply { id, say }, &buf[..n])?;
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => *slot = None,
        }
        Ok(())
    }

    /// Kills what is left, reads what is left, and says how it ended.
    pub(super) fn finish(mut self, children: &OwnedFd, sock: &mut UnixStream) -> io::Result<()> {
        // What had ended by itself did so before anything was killed.
        let how = match self.status {
            _ if self.cancelled => How::Cancelled,
            Some(status) => How::Ended(ended(status)),
            None if self.memory_full => How::Ended(Ended::OutOfMemory),
            None => How::Ended(Ended::TimedOut),
        };
        let wall_us = self.begun.elapsed().as_micros() as u64;
        self.stdin = None;
        kill_all(children)?;
        self.drain(sock)?;
        let mut report = Vec::new();
        // All its writers are dead; an empty one means that the program was started.
        self.report.read_to_end(&mut report)?;
        let say = match serde_json::from_slice::<Fault>(&report) {
            Ok(Fault::NotStarted(why)) => Say::Ended {
                how: How::Ended(Ended::NotStarted(why)),
                wall_us,
            },
            Ok(fault) => Say::Fault(fault),
            Err(_) if self.disk_full && self.status.is_none() => Say::Fault(Fault::DiskFull(
                "running a command, which was stopped".into(),
            )),
            Err(_) => Say::Ended { how, wall_us },
        };
        proto::send(sock, &Reply { id: self.id, say }, &[])
    }

    fn drain(&mut self, sock: &mut UnixStream) -> io::Result<()> {
        let until = Instant::now() + DRAIN;
        while self.streams.iter().any(Option::is_some) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            sys::poll(&mut self.interests()[1..], Some(left))?;
            self.pump(false, sock)?;
            self.pump(true, sock)?;
        }
        Ok(())
    }
}

/// What the kernel says that the machine can still give, in bytes.
fn free_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn ended(status: libc::c_int) -> Ended {
    if libc::WIFEXITED(status) {
        Ended::Exited(libc::WEXITSTATUS(status))
    } else {
        Ended::Signaled(libc::WTERMSIG(status))
    }
}

/// Ends every other process of the namespace, and reaps them all.
fn kill_all(children: &OwnedFd) -> io::Result<()> {
    let until = Instant::now() + REAP;
    // A zombie counts as killed: only after reaping can it say that nobody is left.
    while sys::kill_everyone() {
        while sys::wait_any(false).is_some() {}
        if Instant::now() > until {
            return Err(io::Error::other("a killed process does not end"));
        }
        if sys::kill_everyone() {
            let mut fds = [sys::interest(children.as_raw_fd(), libc::POLLIN)];
            sys::poll(&mut fds, Some(Duration::from_millis(5)))?;
            clear(children);
        }
    }
    while sys::wait_any(false).is_some() {}
    Ok(())
}

/// Forgets the signals that were announced; the children tell themselves.
pub(super) fn clear(children: &OwnedFd) {
    let Ok(copy) = children.try_clone() else {
        return;
    };
    let mut buf = [0; 1024];
    let mut events = File::from(copy);
    while matches!(events.read(&mut buf), Ok(n) if n > 0) {}
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_machine_says_what_memory_is_free() {
        assert!(super::free_memory().is_some_and(|free| free > 1 << 20));
    }
}
