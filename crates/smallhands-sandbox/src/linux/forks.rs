//! The zygote from inside: forks for each sandbox. What the forks come to is in `helper`.

use super::{
    agent_ids, helper,
    proto::{self, Fault, Reply, Say},
    seccomp::Filters,
    sys::{self, Fork},
    sys_fds::{self, Reader},
    sys_priv, zygote,
};
use std::{
    io::{self, ErrorKind, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
};

/// What every sandbox has unless it is asked not to, and what tells nothing of the host: it does not
/// get old.
const AHEAD: [libc::c_int; 3] = [libc::CLONE_NEWNET, libc::CLONE_NEWIPC, libc::CLONE_NEWUTS];

/// How PID 1 can be made at once.
#[derive(Clone, Copy)]
pub(super) struct Direct {
    /// That it is the first in; they depend on nothing that the host says.
    pub(super) namespaces: libc::c_int,
    /// User and group that it has outside.
    pub(super) ids: (u32, u32),
}

impl Direct {
    /// `None` where something has to be done first.
    fn find() -> Option<Self> {
        let namespaces = match agent_ids() {
            Some(_) if sys_priv::can_administer() => libc::CLONE_NEWPID,
            Some(_) => return None,
            None => libc::CLONE_NEWPID | libc::CLONE_NEWUSER,
        };
        let ids = (sys_priv::uid(), sys_priv::gid());
        Some(Self { namespaces, ids })
    }
}

/// A request for a sandbox.
struct Wanted {
    sock: UnixStream,
    stderr: OwnedFd,
    outlet: Option<OwnedFd>,
    /// With namespaces that are made before anything is known of it.
    usual: bool,
}

impl Wanted {
    /// `None`: nobody asks any more.
    fn next(from: &UnixStream) -> io::Result<Option<Self>> {
        loop {
            let mut reader = Reader::new(from);
            let mut request = zygote::USUAL;
            match reader.read_exact(&mut request) {
                Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(None),
                done => done?,
            }
            let mut fds = reader.fds.into_iter();
            let (Some(sock), Some(stderr)) = (fds.next(), fds.next()) else {
                // No descriptor was left for them. What came is closed, and that is seen.
                continue;
            };
            let outlet = fds.next();
            return Ok(Some(Self {
                sock: sock.into(),
                stderr,
                usual: request == zygote::USUAL && outlet.is_none(),
                outlet,
            }));
        }
    }
}

struct Zygote {
    control: UnixStream,
    filters: Result<Filters, Fault>,
    direct: Option<Direct>,
    /// A fork that waits, with [`AHEAD`], to become what is asked for next.
    spare: Option<UnixStream>,
}

/// The life of the zygote. The forks come back from here, too.
pub(super) fn run() -> io::Result<i32> {
    sys::die_with_parent()?;
    sys::set_umask(0o022);
    let control = sys::take_socket(0)?;
    // It lives for long, and holds on to nothing of the host's.
    sys::close_all_but(control.as_fd())?;
    std::env::set_current_dir("/")?;
    // What libraries find out about the processor when they are first used, all forks know then.
    let (id, say) = (0, Say::Done);
    let warm = proto::frame(&Reply { id, say }, &[])?;
    drop(proto::receive::<Reply>(&mut &warm[..])?);
    sys::forget_children(true);
    let mut zygote = Zygote {
        control,
        filters: Filters::compile(),
        direct: Direct::find(),
        spare: None,
    };
    while let Some(wanted) = Wanted::next(&zygote.control)? {
        if let Some((wanted, made)) = zygote.fork(wanted)? {
            sys::become_stderr(wanted.stderr.as_fd())?;
            drop(wanted.stderr);
            return helper::serve(wanted.sock, wanted.outlet, &zygote.filters, made);
        }
    }
    Ok(0)
}

/// Comes back in the fork that is to serve a sandbox, with how it was made.
type Serving = Option<(Wanted, Option<Direct>)>;

impl Zygote {
    fn fork(&mut self, mut wanted: Wanted) -> io::Result<Serving> {
        let served = wanted.usual && self.wake(&wanted);
        if !served {
            // A way out leads past PID 1, through a process that is not in its namespace.
            let mut made = self.direct.filter(|_| wanted.outlet.is_none());
            let forked = match made {
                None => sys::fork(),
                // What is refused is tried again step by step, and then said.
                Some(direct) => sys::fork_into(direct.namespaces).or_else(|_| {
                    made = None;
                    sys::fork()
                }),
            };
            match forked {
                Ok(Fork::Parent(_)) => {}
                Ok(Fork::Child) => {
                    self.become_fork()?;
                    return Ok(Some((wanted, made)));
                }
                // What cannot be said, the host sees as the end of the stream.
                Err(e) => drop(helper::report(&mut wanted.sock, Fault::setup("fork", e))),
            }
        }
        drop(wanted);
        match self.direct.filter(|_| self.spare.is_none()) {
            Some(direct) => self.make_spare(direct),
            None => Ok(None),
        }
    }

    /// Whether there was one that waited.
    fn wake(&mut self, wanted: &Wanted) -> bool {
        let fds = [wanted.sock.as_fd(), wanted.stderr.as_fd()];
        let spare = self.spare.take();
        spare.is_some_and(|spare| sys_fds::send(&spare, &zygote::USUAL, &fds).is_ok())
    }

    fn make_spare(&mut self, mut made: Direct) -> io::Result<Serving> {
        let (ours, theirs) = UnixStream::pair()?;
        match sys::fork_into(made.namespaces) {
            Ok(Fork::Child) => {}
            Ok(Fork::Parent(_)) => {
                self.spare = Some(ours);
                return Ok(None);
            }
            // Then the next request will say what is wrong.
            Err(_) => return Ok(None),
        }
        drop(ours);
        self.become_fork()?;
        for flag in AHEAD {
            // What fails is tried again when it is asked for, and then said.
            if sys::unshare(flag).is_ok() {
                made.namespaces |= flag;
            }
        }
        match Wanted::next(&theirs)? {
            Some(wanted) => Ok(Some((wanted, Some(made)))),
            None => sys::exit_now(0),
        }
    }

    /// Lets go of what only the zygote has.
    fn become_fork(&mut self) -> io::Result<()> {
        self.spare = None;
        // Closed, or the host would not see when the zygote ends.
        let (_, nowhere) = UnixStream::pair()?;
        self.control = nowhere;
        sys::forget_children(false);
        sys::die_with_parent()
    }
}
