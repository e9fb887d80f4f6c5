//! The process that the sandboxes of a backend are forks of: the program is started, linked and
//! warmed up once, and not for each of them.
//!
//! It has one thread, never learns what is wanted of a sandbox, and runs nothing: its forks do. It
//! stands outside of their namespaces, limits and control groups, and ends with the backend.

use super::{HOOK, sys, sys_fds, sys_priv::Identity};
use std::{
    io,
    net::Shutdown,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
};

/// Asks for a fork, with its descriptors. A helper of before takes it for the length of a frame, which
/// is too large, and ends.
pub(super) const USUAL: [u8; 8] = [0xff; 8];
/// As [`USUAL`], but not one that has all namespaces.
const UNUSUAL: [u8; 8] = [0xfe; 8];

/// The zygote of a backend, started when it is first needed.
#[derive(Debug)]
pub(super) struct Nursery {
    helper: PathBuf,
    now: Mutex<Option<(Identity, Arc<Zygote>)>>,
}

/// The host's end of it. Its forks end with it, so whoever has one of them holds it.
#[derive(Debug)]
pub(super) struct Zygote(UnixStream);

impl Nursery {
    pub(super) fn new(helper: PathBuf) -> Self {
        let now = Mutex::default();
        Self { helper, now }
    }

    /// The one that is as a program started by a thread that is this would be: a host may have given up
    /// rights since the last was started. Also another one if that was killed.
    pub(super) fn zygote(&self, who: Identity) -> io::Result<Arc<Zygote>> {
        // A panic elsewhere leaves it whole.
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        match &*now {
            Some((as_who, zygote)) if *as_who == who && zygote.is_alive() => Ok(zygote.clone()),
            _ => {
                let zygote = Arc::new(Zygote::start(&self.helper)?);
                *now = Some((who, zygote.clone()));
                Ok(zygote)
            }
        }
    }
}

impl Zygote {
    fn start(helper: &Path) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let helper = helper.to_owned();
        let (tell, told) = mpsc::sync_channel(1);
        // It dies with the thread that started it, which therefore does nothing else.
        thread::Builder::new()
            .name("sandbox-zygote".into())
            .spawn(move || {
                // Whoever asked waits.
                drop(match spawn(&helper, theirs) {
                    Ok(mut child) => tell.send(Ok(())).map(|()| drop(child.wait())),
                    Err(e) => tell.send(Err(e)),
                });
            })?;
        let gone = |_| io::Error::other("the thread that starts it ended");
        told.recv().map_err(gone)??;
        Ok(Self(ours))
    }

    fn is_alive(&self) -> bool {
        // It never says anything: what can be read is its end.
        let mut fds = [super::sys_net::interest(&self.0, libc::POLLIN)];
        sys::poll(&mut fds, Some(std::time::Duration::ZERO)).is_ok() && fds[0].revents == 0
    }

    /// A fork that serves a sandbox: its stream, its standard error, and its way out.
    pub(super) fn fork(&self, usual: bool, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let request = if usual { USUAL } else { UNUSUAL };
        match sys_fds::send(&self.0, &request, fds)? {
            // The stream has room: each fork is a few bytes, taken at once.
            n if n == request.len() => Ok(()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        // Already closed is as good.
        drop(self.0.shutdown(Shutdown::Both));
    }
}

fn spawn(helper: &Path, theirs: UnixStream) -> io::Result<std::process::Child> {
    #[allow(clippy::disallowed_methods)] // The sandbox is what commands go through.
    Command::new(helper)
        .arg(HOOK)
        .env_clear()
        // A Ctrl-C at the terminal is for the host, which decides what becomes of sandboxes.
        .process_group(0)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}
