//! PID 1 of a sandbox: serves the host over one stream, and runs commands.

use super::{
    changes,
    child::{Launch, Walls},
    files, helper, layer, mounts,
    proto::{self, Ask, Command, Fault, Policy, Reply, Request, Say},
    running::{self, Running},
    seccomp::Filters,
    sys, sys_fds, sys_mem,
};
use crate::Wall;
use std::{
    fs::{self, File},
    io::{self, Write},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

/// After so long it is idle.
const IDLE: Duration = Duration::from_millis(100);

/// The workspace and what lies behind it.
pub(super) struct View {
    built: mounts::View,
    work: OwnedFd,
    /// The base was copied, without copying the bytes of its files.
    pub(super) shared: bool,
}

impl View {
    /// Opens what was built, from inside and without privileges.
    pub(super) fn open(built: mounts::View, p: &Policy) -> io::Result<Self> {
        let work = OwnedFd::from(File::open("/workspace")?);
        fs::create_dir("/tmp/home")?;
        // What was copied from another has all of the base.
        let mut shared = false;
        if p.changed.is_none() {
            for lower in built.lowers.iter().filter(|_| !built.overlay) {
                shared = layer::tree(lower.as_fd(), work.as_fd())?;
            }
            for cache in built.caches.iter().filter(|c| c.copy_reason.is_some()) {
                layer::tree(cache.lower.as_fd(), File::open(&cache.at)?.as_fd())?;
            }
        }
        Ok(Self {
            built,
            work,
            shared,
        })
    }
}

/// A file whose bytes are on their way.
struct Filling {
    path: Vec<u8>,
    file: File,
    left: u64,
}

struct Agent<'a> {
    sock: &'a mut UnixStream,
    policy: &'a Policy,
    view: &'a View,
    walls: Walls,
    children: OwnedFd,
    running: Option<Running>,
    filling: Option<Filling>,
    /// Nothing happened for a while.
    idle: bool,
    /// The first thing that went wrong with a list of changes.
    apply_fault: Option<Fault>,
}

/// Says hello and serves until the host hangs up.
pub(super) fn serve(
    sock: &mut UnixStream,
    policy: &Policy,
    view: &View,
    enforced: &[String],
    filters: &Filters,
) -> io::Result<()> {
    helper::bound(sock)?;
    let say = Say::Hello {
        version: proto::VERSION,
        enforced: enforced.to_vec(),
    };
    // With a handle on us, so that the host sees when we have ended.
    let me = sys::pidfd(std::process::id())?;
    let hello = proto::frame(&Reply { id: 0, say }, &[])?;
    let sent = sys_fds::send(sock, &hello, &[me.as_fd()])?;
    sock.write_all(&hello[sent..])?;
    drop(me);
    // While the host reads that.
    let walls = match Walls::new(policy, &view.built, filters) {
        Ok(walls) => walls,
        Err(fault) => {
            let say = Say::Fault(fault);
            return proto::send(sock, &Reply { id: 0, say }, &[]);
        }
    };
    let mut agent = Agent {
        sock,
        policy,
        view,
        walls,
        children: sys::child_events()?,
        running: None,
        filling: None,
        apply_fault: None,
        idle: false,
    };
    while agent.turn()? {}
    Ok(())
}

impl Agent<'_> {
    fn say(&mut self, id: u64, say: Say) -> io::Result<()> {
        proto::send(self.sock, &Reply { id, say }, &[])
    }

    /// Waits for something to happen and deals with it. False: the host hung up.
    fn turn(&mut self) -> io::Result<bool> {
        let [stdin, out, err] = match &self.running {
            Some(r) => r.interests(),
            None => [sys::interest(-1, 0); 3],
        };
        let mut fds = [
            sys::interest(self.sock.as_raw_fd(), libc::POLLIN),
            sys::interest(self.children.as_raw_fd(), libc::POLLIN),
            stdin,
            out,
            err,
        ];
        let pause = match &self.running {
            Some(r) => Some(r.pause()),
            None => (!self.idle).then_some(IDLE),
        };
        sys::poll(&mut fds, pause)?;
        if fds.iter().all(|f| f.revents == 0) && self.running.is_none() {
            self.idle = true;
            sys_mem::give_back_program();
            return Ok(true);
        }
        self.idle = false;
        let [asked, ended, stdin, out, err] = fds.map(|f| f.revents != 0);
        if ended {
            running::clear(&self.children);
            while let Some((pid, status)) = sys::wait_any(false) {
                if let Some(r) = &mut self.running {
                    r.note_end(pid, status);
                }
            }
        }
        if let Some(r) = &mut self.running {
            r.watch_disk(self.view.built.upper.as_fd())?;
            r.watch_memory();
            if stdin {
                r.write_stdin();
            }
            for (stderr, ready) in [(false, out), (true, err)] {
                if ready {
                    r.pump(stderr, self.sock)?;
                }
            }
        }
        if asked {
            let Some((request, bytes)) = proto::receive::<Request>(self.sock)? else {
                return Ok(false);
            };
            self.answer(request, bytes)?;
        }
        let taken = self.running.as_mut().filter(|r| r.unanswered);
        if let Some(id) = taken.and_then(|r| r.has_taken().then_some(r.id)) {
            self.say(id, Say::Taken)?;
        }
        if let Some(r) = self.running.take_if(|r| r.is_over()) {
            r.finish(&self.children, self.sock)?;
            if self.policy.has(Wall::IpcNamespace) {
                // Memory that no process has, and that the next command would lack.
                sys::remove_segments();
            }
        }
        Ok(true)
    }

    fn answer(&mut self, Request { id, ask }: Request, bytes: Vec<u8>) -> io::Result<()> {
        let work = self.view.work.as_fd();
        let done = match ask {
            Ask::Exec(what) => match self.start(id, &what) {
                // Answered at its end.
                Ok(()) => return Ok(()),
                Err(fault) => Err(fault),
            },
            Ask::Stdin | Ask::CloseStdin | Ask::Cancel => {
                if let Some(r) = self.running.as_mut().filter(|r| r.id == id) {
                    match ask {
                        Ask::Stdin => r.feed(bytes),
                        Ask::CloseStdin => r.close_stdin(),
                        _ => r.cancelled = true,
                    }
                }
                return Ok(());
            }
            Ask::Read { path } => {
                let sock = &mut *self.sock;
                let say = || Reply { id, say: Say::Data };
                files::read(work, &path, |chunk| proto::send(sock, &say(), chunk))
            }
            Ask::Write { path, first } => files::write(work, &path, first, &bytes),
            Ask::Remove { path } => files::remove(work, &path),
            Ask::List { dir } => {
                let sock = &mut *self.sock;
                files::list(work, &dir, |batch| {
                    let say = Say::Entries(batch);
                    proto::send(sock, &Reply { id, say }, &[])
                })
            }
            Ask::Usage => {
                let (cpu_us, peak_process_bytes) = sys::children_usage();
                let say = Say::Usage {
                    cpu_us,
                    peak_process_bytes,
                };
                return self.say(id, say);
            }
            Ask::Changes => self.changes(id),
            Ask::Apply(change) => {
                self.apply(&change);
                return Ok(());
            }
            Ask::Fill => {
                self.fill(&bytes);
                return Ok(());
            }
            Ask::Applied => {
                self.filling = None;
                self.apply_fault.take().map_or(Ok(()), Err)
            }
        };
        match done {
            Ok(()) => self.say(id, Say::Done),
            Err(fault) => self.say(id, Say::Fault(fault)),
        }
    }

    fn start(&mut self, id: u64, what: &Command) -> Result<(), Fault> {
        if self.running.is_some() {
            return Err(Fault::setup("command", "another one is still running"));
        }
        if what.stdin_len > running::MAX_STDIN {
            return Err(Fault::setup(
                "command",
                "more than 64 MiB of standard input",
            ));
        }
        files::checked(what.cwd.as_bytes())?;
        let launch = Launch {
            what,
            policy: self.policy,
            walls: &self.walls,
            work: self.view.work.as_fd(),
        };
        let started = Running::start(id, &launch, self.view.built.upper.as_fd())
            .map_err(|e| Fault::setup("command", e))?;
        self.running = Some(started);
        Ok(())
    }

    fn changes(&mut self, id: u64) -> Result<(), Fault> {
        let View { built, work, .. } = self.view;
        let upper = if built.overlay { &built.upper } else { work };
        let lowers: Vec<_> = built.lowers.iter().map(AsFd::as_fd).collect();
        let sock = &mut *self.sock;
        changes::walk(
            upper.as_fd(),
            &lowers,
            built.overlay,
            &mut |change, file| {
                let len = match change.now {
                    crate::Content::File { bytes, .. } => bytes,
                    _ => 0,
                };
                let say = Say::Item(change);
                proto::send(sock, &Reply { id, say }, &[])?;
                let Some(mut file) = file else { return Ok(()) };
                files::copy_exactly(&mut file, len, &mut |chunk| {
                    proto::send(sock, &Reply { id, say: Say::Data }, chunk)
                })
            },
        )
        .map_err(|(path, e)| Fault::file(&path, &e))
    }

    fn apply(&mut self, change: &crate::Change<u64>) {
        if self.apply_fault.is_some() {
            return;
        }
        let left = match change.now {
            crate::Content::File { bytes, .. } => bytes,
            _ => 0,
        };
        match files::apply(self.view.work.as_fd(), change) {
            Ok(file) => {
                let path = change.path.clone();
                self.filling = file.map(|file| Filling { path, file, left });
            }
            Err(fault) => self.apply_fault = Some(fault),
        }
    }

    fn fill(&mut self, bytes: &[u8]) {
        let Some(f) = self.filling.as_mut().filter(|_| self.apply_fault.is_none()) else {
            return;
        };
        let done = match f.left.checked_sub(bytes.len() as u64) {
            Some(left) => {
                f.left = left;
                f.file.write_all(bytes)
            }
            None => Err(io::Error::other("more bytes than announced")),
        };
        if let Err(e) = done {
            self.apply_fault = Some(Fault::file(&f.path, &e));
        }
    }
}
