//! The host's end of a sandbox: a thread that starts the helper, reads what the agent says, and
//! cleans up when it is gone.

use super::{
    answer::{Answer, Coming, Pending, Sink, announce},
    cgroup::Memory,
    den::{Den, Private},
    landlock,
    output::Ring,
    proto::{self, Ask, CHUNK, Fault, Policy, Reply, Request, Say},
    sys,
};
use crate::{
    Change, SandboxError, Wall,
    egress::proxy::{self, Handle, Outlet, Records},
};
use std::{
    collections::HashMap,
    ffi::OsStr,
    io::{self, Read},
    net::Shutdown,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{ffi::OsStrExt, net::UnixStream, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};
use tokio::sync::{mpsc, oneshot, watch};

/// How long a helper may take to say hello; a base may have to be copied before.
const HELLO: Duration = Duration::from_secs(60);
/// How long it may take to end.
const END: Duration = Duration::from_secs(5);

const TOO_LITTLE: &str = "all of it together needed more than limits.total_memory_bytes";

type Frame = (Request, Vec<u8>);

/// An agent that said hello. Dropping it ends the sandbox.
#[derive(Debug)]
pub(super) struct Conn {
    shared: Arc<Shared>,
    frames: mpsc::Sender<Frame>,
    next: AtomicU64,
    /// Layers and limits in force.
    pub(super) enforced: Vec<String>,
    /// Limits that were wanted and are not, and why.
    pub(super) missing: Vec<(String, String)>,
    pub(super) memory: Memory,
    outlet: Option<Handle>,
    /// Where its changed files are.
    pub(super) private: PathBuf,
}

#[derive(Debug)]
struct Shared {
    sock: UnixStream,
    state: Mutex<State>,
    gone: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    pending: HashMap<u64, Pending>,
    /// Why nothing more will be answered.
    lost: Option<String>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves the map whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn hang_up(&self) {
        // Already closed is as good.
        drop(self.sock.shutdown(Shutdown::Both));
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.shared.hang_up();
    }
}

/// A sandbox on its way.
pub(super) type Opening = oneshot::Receiver<Result<Conn, SandboxError>>;

pub(super) async fn opened(opening: Opening) -> Result<Conn, SandboxError> {
    let lost = || SandboxError::Lost("its thread ended".into());
    opening.await.unwrap_or_else(|_| Err(lost()))
}

impl Conn {
    /// Starts a helper; [`opened`] waits for its hello, and if nobody does it ends.
    pub(super) fn begin_open(
        helper: PathBuf,
        policy: Policy,
        den: Arc<Den>,
        outlet: Option<Outlet>,
    ) -> Result<Opening, SandboxError> {
        let (tell, told) = oneshot::channel();
        // A thread of its own also because the helper dies with the thread that started it.
        thread::Builder::new()
            .name("sandbox".into())
            .spawn(move || keep(&helper, policy, &den, outlet, tell))
            .map_err(|e| setup("thread", &e))?;
        Ok(told)
    }

    /// Announces a request whose frames come next; `kept` is the cap of each output stream.
    pub(super) fn begin(&self, kept: u64, live: Sink) -> (u64, Coming) {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (done, coming) = oneshot::channel();
        let mut state = self.shared.state();
        if let Some(why) = &state.lost {
            drop(done.send(Err(SandboxError::Lost(why.clone()))));
        } else {
            let answer = Answer {
                kept: [Ring::new(kept), Ring::new(kept)],
                ..Answer::default()
            };
            let pending = Pending { answer, live, done };
            state.pending.insert(id, pending);
        }
        (id, coming)
    }

    pub(super) async fn send(&self, id: u64, ask: Ask, bytes: &[u8]) -> Result<(), SandboxError> {
        let frame = (Request { id, ask }, bytes.to_vec());
        // Closed only once the agent is gone, and then the answer says why.
        self.frames.send(frame).await.map_err(|_| self.lost())
    }

    /// Says it without waiting, or ends the sandbox: for a caller that cannot wait.
    pub(super) fn cancel(&self, id: u64) {
        let frame = (
            Request {
                id,
                ask: Ask::Cancel,
            },
            Vec::new(),
        );
        if self.frames.try_send(frame).is_err() {
            self.kill();
        }
    }

    /// A whole exchange.
    pub(super) async fn call(&self, ask: Ask, bytes: &[u8]) -> Result<Answer, SandboxError> {
        let (id, coming) = self.begin(0, Sink::None);
        self.send(id, ask, bytes).await?;
        self.wait(coming).await
    }

    pub(super) async fn wait(&self, coming: Coming) -> Result<Answer, SandboxError> {
        coming.await.unwrap_or_else(|_| Err(self.lost()))
    }

    /// Sends changes to an agent that runs nothing.
    pub(super) async fn apply(&self, changes: Vec<Change<Vec<u8>>>) -> Result<(), SandboxError> {
        let (id, coming) = self.begin(0, Sink::None);
        for Change { path, now } in changes {
            let (now, bytes) = announce(now);
            self.send(id, Ask::Apply(Change { path, now }), &[]).await?;
            for chunk in bytes.chunks(CHUNK) {
                self.send(id, Ask::Fill, chunk).await?;
            }
        }
        self.send(id, Ask::Applied, &[]).await?;
        self.wait(coming).await.map(drop)
    }

    /// Whether a layer or limit is in force, by its name or by all that is said of it.
    pub(super) fn has(&self, layer: &str) -> bool {
        let named = |e: &String| {
            e.strip_prefix(layer)
                .is_some_and(|r| r.is_empty() || r.starts_with(' '))
        };
        let later = |e: &String| landlock::includes(e, layer);
        self.enforced.iter().any(|e| named(e) || later(e))
    }

    pub(super) fn is_alive(&self) -> bool {
        self.shared.state().lost.is_none()
    }

    pub(super) fn lost(&self) -> SandboxError {
        let why = self.shared.state().lost.clone();
        SandboxError::Lost(why.unwrap_or_else(|| "the agent hung up".into()))
    }

    /// Starts the proxy, if there is to be one.
    fn lead_out(&mut self, way: Way) -> Result<Option<thread::JoinHandle<()>>, SandboxError> {
        let Some((outlet, stream)) = way else {
            return Ok(None);
        };
        let (handle, thread) = proxy::start(outlet, stream).map_err(|e| setup("egress", &e))?;
        self.outlet = Some(handle);
        Ok(Some(thread))
    }

    /// Ends the connections of a command that is over, and tells of them.
    pub(super) async fn settle(&self) -> Records {
        match &self.outlet {
            Some(outlet) => outlet.settle().await,
            None => Records::default(),
        }
    }

    /// Bytes that went out, and that came in.
    pub(super) fn carried(&self) -> (u64, u64) {
        self.outlet.as_ref().map_or((0, 0), Handle::carried)
    }

    /// A command begins: from here on there may be connections.
    pub(super) fn begin_egress(&self) {
        if let Some(outlet) = &self.outlet {
            outlet.begin();
        }
    }

    /// Ends everything inside; does not wait.
    pub(super) fn kill(&self) {
        self.shared.hang_up();
    }

    /// Ends everything inside, and waits until nothing is left of it.
    pub(super) async fn close(&self) {
        self.kill();
        // The sender lives in the thread's share until after it has said so.
        drop(self.shared.gone.subscribe().wait_for(|gone| *gone).await);
    }
}

fn setup(stage: &str, e: &io::Error) -> SandboxError {
    SandboxError::Setup {
        stage: stage.into(),
        reason: e.to_string(),
    }
}

/// A proxy's stream and what it works with.
type Way = Option<(Outlet, UnixStream)>;

fn start(helper: &Path, outlet: Option<Outlet>) -> io::Result<(Child, UnixStream, Way)> {
    let (ours, theirs) = UnixStream::pair()?;
    let (way, stdout) = match outlet {
        Some(outlet) => {
            let (here, there) = UnixStream::pair()?;
            (Some((outlet, here)), Stdio::from(OwnedFd::from(there)))
        }
        None => (None, Stdio::null()),
    };
    #[allow(clippy::disallowed_methods)] // The sandbox is what commands go through.
    let child = std::process::Command::new(helper)
        .arg(super::HOOK)
        .env_clear()
        // A Ctrl-C at the terminal is for the host, which decides what becomes of sandboxes.
        .process_group(0)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(stdout)
        .stderr(Stdio::piped())
        .spawn()?;
    Ok((child, ours, way))
}

/// The life of a sandbox, on its own thread.
fn keep(
    helper: &Path,
    mut policy: Policy,
    den: &Arc<Den>,
    outlet: Option<Outlet>,
    tell: oneshot::Sender<Result<Conn, SandboxError>>,
) {
    let (mut child, mut sock, way) = match start(helper, outlet) {
        Ok(both) => both,
        Err(e) => {
            // Nobody waits any more: then nobody needs it.
            drop(tell.send(Err(setup("helper", &e))));
            return;
        }
    };
    // While the helper starts.
    let private = match place(den, &mut policy) {
        Ok(private) => private,
        Err(e) => {
            drop(sock);
            drop(bury(&mut child));
            drop(tell.send(Err(e)));
            return;
        }
    };
    // Before it starts anything that would not be in the group.
    let joined = private.group.join(child.id());
    let hello = joined
        .map_err(|e| setup("control group", &e))
        .and_then(|()| greet(&mut sock, &policy));
    let opened = hello.and_then(|enforced| {
        let (mut conn, shared) = connect(&sock, enforced, &private, &policy)?;
        let thread = conn.lead_out(way)?;
        Ok((conn, shared, thread))
    });
    match opened {
        Err(e) => {
            drop(sock.shutdown(Shutdown::Both));
            let said = bury(&mut child);
            let e = match private.group.memory.out_of_memory() {
                0 => explain(e, &said),
                _ => setup("memory", &io::Error::other(TOO_LITTLE)),
            };
            drop(private);
            drop(tell.send(Err(e)));
        }
        Ok((conn, shared, proxy)) => {
            // If nobody waits any more the connection is dropped, and that ends the loop.
            drop(tell.send(Ok(conn)));
            let why = read_all(&mut sock, &shared);
            shared.hang_up();
            let said = bury(&mut child);
            let why = match private.group.memory.out_of_memory() {
                0 => format!("{why}{said}"),
                _ => TOO_LITTLE.into(),
            };
            let pending = {
                let mut state = shared.state();
                state.lost = Some(why.clone());
                std::mem::take(&mut state.pending)
            };
            for (_, p) in pending {
                drop(p.done.send(Err(SandboxError::Lost(why.clone()))));
            }
            // Its stream has ended.
            drop(proxy.map(thread::JoinHandle::join));
            drop(private);
            shared.gone.send_replace(true);
        }
    }
}

/// A directory and groups of its own, of which the policy is told.
fn place(den: &Arc<Den>, policy: &mut Policy) -> Result<Private, SandboxError> {
    let (other_user, caches) = (policy.has(Wall::UserChange), policy.caches.len());
    let mut private = den.private(other_user, &policy.limits, caches)?;
    let path = std::path::absolute(private.path()).map_err(|e| setup("state directory", &e))?;
    policy.private = path.into_os_string().into_encoded_bytes();
    policy.groups = private.group.to_enter();
    for shown in policy.generations() {
        private
            .shown
            .push(crate::cache::hold(Path::new(OsStr::from_bytes(shown)))?);
    }
    Ok(private)
}

fn explain(e: SandboxError, said: &str) -> SandboxError {
    match e {
        SandboxError::Setup { stage, reason } => SandboxError::Setup {
            stage,
            reason: format!("{reason}{said}"),
        },
        e => e,
    }
}

fn greet(sock: &mut UnixStream, policy: &Policy) -> Result<Vec<String>, SandboxError> {
    let bad = |e: io::Error| match e.kind() {
        io::ErrorKind::WouldBlock => {
            setup("helper", &io::Error::other("no answer within a minute"))
        }
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
            setup("helper", &io::Error::other("it ended without a word"))
        }
        _ => setup("helper", &e),
    };
    sock.set_read_timeout(Some(HELLO)).map_err(bad)?;
    proto::send(sock, policy, &[]).map_err(bad)?;
    let first = proto::receive::<Reply>(sock).map_err(bad)?;
    sock.set_read_timeout(None).map_err(bad)?;
    match first.map(|(reply, _)| reply.say) {
        Some(Say::Hello { version, enforced }) if version == proto::VERSION => Ok(enforced),
        Some(Say::Fault(fault)) => Err(fault.into()),
        Some(other) => Err(Fault::setup("helper", format!("it began with {other:?}")).into()),
        None => Err(Fault::setup("helper", "it ended without a word").into()),
    }
}

fn connect(
    sock: &UnixStream,
    mut enforced: Vec<String>,
    private: &Private,
    policy: &Policy,
) -> Result<(Conn, Arc<Shared>), SandboxError> {
    let clone = || sock.try_clone().map_err(|e| setup("helper", &e));
    let shared = Arc::new(Shared {
        sock: clone()?,
        state: Mutex::default(),
        gone: watch::Sender::new(false),
    });
    let (frames, mut queue) = mpsc::channel::<Frame>(8);
    let mut writer = clone()?;
    thread::Builder::new()
        .name("sandbox-writer".into())
        .spawn(move || {
            while let Some((head, bytes)) = queue.blocking_recv() {
                if proto::send(&mut writer, &head, &bytes).is_err() {
                    // A frame that cannot be sent leaves the stream useless.
                    drop(writer.shutdown(Shutdown::Both));
                    break;
                }
            }
        })
        .map_err(|e| setup("thread", &e))?;
    let group = &private.group;
    enforced.extend(group.enforced.iter().cloned());
    let conn = Conn {
        shared: shared.clone(),
        frames,
        next: AtomicU64::new(1),
        enforced,
        missing: group.missing.clone(),
        memory: group.memory.clone(),
        outlet: None,
        private: OsStr::from_bytes(&policy.private).into(),
    };
    Ok((conn, shared))
}

/// Reads until the agent is gone; says why. Never waits for a consumer.
fn read_all(sock: &mut UnixStream, shared: &Shared) -> String {
    loop {
        match proto::receive::<Reply>(sock) {
            Ok(None) => return "the agent ended".into(),
            Err(e) => return format!("the agent ended: {e}"),
            Ok(Some((Reply { id: 0, say }, _))) => return format!("the agent gave up: {say:?}"),
            Ok(Some((reply, bytes))) => {
                let mut state = shared.state();
                let Some(mut pending) = state.pending.remove(&reply.id) else {
                    continue;
                };
                if let Some(result) = pending.take(reply.say, bytes) {
                    let result = result.map(|()| std::mem::take(&mut pending.answer));
                    drop(pending.done.send(result));
                } else {
                    state.pending.insert(reply.id, pending);
                }
            }
        }
    }
}

/// Waits for the helper, which has reaped its namespace by then. Gives back what it wrote to
/// standard error, for a reason.
fn bury(child: &mut Child) -> String {
    let ended = sys::pidfd(child.id()).is_ok_and(|fd| {
        let mut fds = [sys::interest(fd.as_raw_fd(), libc::POLLIN)];
        sys::poll(&mut fds, Some(END)).is_ok() && fds[0].revents != 0
    });
    if !ended {
        // The kernel then kills PID 1, whose parent it is. Errors: it is dead already.
        drop(child.kill());
    }
    drop(child.wait());
    let mut said = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        drop(stderr.take(4096).read_to_end(&mut said));
    }
    let said = String::from_utf8_lossy(&said);
    match said.trim() {
        "" => String::new(),
        text => format!(": {text}"),
    }
}
