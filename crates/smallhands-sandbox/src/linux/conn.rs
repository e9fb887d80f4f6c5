//! The host's end of a sandbox: a thread that has a helper made, reads what the agent says, and
//! cleans up when it is gone.

use super::{
    answer::{Answer, Coming, Pending, Sink, announce},
    cgroup::Memory,
    den::{Den, Private},
    landlock,
    output::Ring,
    proto::{self, Ask, CHUNK, Fault, Placed, Policy, Reply, Request, Say},
    sys,
    sys_fds::Reader,
    sys_priv::Identity,
    zygote::{Nursery, Zygote},
};
use crate::{
    Change, SandboxError, Wall,
    egress::proxy::{self, Handle, Outlet, Records},
};
use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::File,
    io::{self, Read},
    net::Shutdown,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{ffi::OsStrExt, net::UnixStream},
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
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

impl Conn {
    /// Waits for the hello; if nobody does any more the sandbox ends.
    pub(super) async fn open(
        nursery: Arc<Nursery>,
        policy: Policy,
        den: Arc<Den>,
        outlet: Option<Outlet>,
    ) -> Result<Self, SandboxError> {
        let (tell, told) = oneshot::channel();
        // Asked here, because the kernel knows little yet of a thread that is new.
        let who = Identity::of_this_thread().map_err(|e| setup("helper", &e))?;
        thread::Builder::new()
            .name("sandbox".into())
            .spawn(move || keep(&nursery, who, policy, &den, outlet, tell))
            .map_err(|e| setup("thread", &e))?;
        let lost = |_| Err(SandboxError::Lost("its thread ended".into()));
        told.await.unwrap_or_else(lost)
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

/// The processes of a sandbox, seen from outside.
struct Processes {
    /// They all have the other end of it, and nobody else has.
    stderr: File,
    /// PID 1, once it said hello.
    first: Option<OwnedFd>,
    /// Which they would end with.
    _zygote: Arc<Zygote>,
}

fn start(
    nursery: &Nursery,
    who: Identity,
    usual: bool,
    outlet: Option<Outlet>,
) -> io::Result<(Processes, UnixStream, Way)> {
    let (ours, theirs) = UnixStream::pair()?;
    let (stderr, said) = sys::pipe()?;
    sys::set_nonblocking(stderr.as_fd())?;
    let way = outlet.map(|outlet| UnixStream::pair().map(|(here, there)| (outlet, here, there)));
    let way = way.transpose()?;
    let zygote = nursery.zygote(who)?;
    let mut fds = vec![theirs.as_fd(), said.as_fd()];
    fds.extend(way.as_ref().map(|(_, _, there)| there.as_fd()));
    zygote.fork(usual, &fds)?;
    let processes = Processes {
        stderr: File::from(stderr),
        first: None,
        _zygote: zygote,
    };
    Ok((processes, ours, way.map(|(outlet, here, _)| (outlet, here))))
}

/// The life of a sandbox, on its own thread.
fn keep(
    nursery: &Nursery,
    who: Identity,
    mut policy: Policy,
    den: &Arc<Den>,
    outlet: Option<Outlet>,
    tell: oneshot::Sender<Result<Conn, SandboxError>>,
) {
    let usual = policy.has(Wall::NetworkNamespace) && policy.has(Wall::IpcNamespace);
    let (mut processes, mut sock, way) = match start(nursery, who, usual, outlet) {
        Ok(both) => both,
        Err(e) => {
            // Nobody waits any more: then nobody needs it.
            drop(tell.send(Err(unanswered(e))));
            return;
        }
    };
    // Made while the helper begins.
    let path = den.next();
    let private = match place(den, path, &mut policy, &mut sock) {
        Ok(private) => private,
        Err(e) => {
            drop(sock);
            drop(bury(processes));
            drop(tell.send(Err(e)));
            return;
        }
    };
    // Started while the helper builds.
    let writer = start_writer(&sock);
    let opened = greet(&mut sock).and_then(|(enforced, first)| {
        processes.first = first;
        let frames = writer?;
        let (mut conn, shared) = connect(&sock, frames, enforced, &private, &policy)?;
        let thread = conn.lead_out(way)?;
        Ok((conn, shared, thread))
    });
    match opened {
        Err(e) => {
            drop(sock.shutdown(Shutdown::Both));
            let said = bury(processes);
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
            let said = bury(processes);
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

/// Tells the helper what to build, and makes a directory and groups for it.
fn place(
    den: &Arc<Den>,
    path: PathBuf,
    policy: &mut Policy,
    sock: &mut UnixStream,
) -> Result<Private, SandboxError> {
    let absolute = std::path::absolute(&path).map_err(|e| setup("state directory", &e))?;
    policy.private = absolute.into_os_string().into_encoded_bytes();
    // Before anybody looks at it: nobody removes it from now on.
    let hold = |p: &Vec<u8>| crate::cache::hold(Path::new(OsStr::from_bytes(p)));
    let shown = policy.generations().map(hold).collect::<Result<_, _>>()?;
    sock.set_read_timeout(Some(HELLO)).map_err(unanswered)?;
    // One that ended already is heard of when it should say hello.
    drop(proto::send(sock, policy, &[]));
    let (other_user, caches) = (policy.has(Wall::UserChange), policy.caches.len());
    let mut private = den.private(path, other_user, &policy.limits, caches)?;
    private.shown = shown;
    let groups = private.group.to_enter();
    drop(proto::send(sock, &Placed { groups }, &[]));
    Ok(private)
}

/// A helper that does not say what it should.
fn unanswered(e: io::Error) -> SandboxError {
    match e.kind() {
        io::ErrorKind::WouldBlock => {
            setup("helper", &io::Error::other("no answer within a minute"))
        }
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
            setup("helper", &io::Error::other("it ended without a word"))
        }
        _ => setup("helper", &e),
    }
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

/// What is in force, and a handle on PID 1.
type Greeting = (Vec<String>, Option<OwnedFd>);

fn greet(sock: &mut UnixStream) -> Result<Greeting, SandboxError> {
    let mut reader = Reader::new(sock);
    let first = proto::receive::<Reply>(&mut reader).map_err(unanswered)?;
    let handle = reader.fds.pop();
    sock.set_read_timeout(None).map_err(unanswered)?;
    match first.map(|(reply, _)| reply.say) {
        Some(Say::Hello { version, enforced }) if version == proto::VERSION => {
            Ok((enforced, handle))
        }
        Some(Say::Fault(fault)) => Err(fault.into()),
        Some(other) => Err(Fault::setup("helper", format!("it began with {other:?}")).into()),
        None => Err(Fault::setup("helper", "it ended without a word").into()),
    }
}

fn connect(
    sock: &UnixStream,
    frames: mpsc::Sender<Frame>,
    mut enforced: Vec<String>,
    private: &Private,
    policy: &Policy,
) -> Result<(Conn, Arc<Shared>), SandboxError> {
    let shared = Arc::new(Shared {
        sock: sock.try_clone().map_err(|e| setup("helper", &e))?,
        state: Mutex::default(),
        gone: watch::Sender::new(false),
    });
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

/// A thread that sends what is put into the queue, as long as somebody may.
fn start_writer(sock: &UnixStream) -> Result<mpsc::Sender<Frame>, SandboxError> {
    let (frames, mut queue) = mpsc::channel::<Frame>(8);
    let mut writer = sock.try_clone().map_err(|e| setup("helper", &e))?;
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
    Ok(frames)
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

/// Waits until all have ended. Gives back what they wrote to standard error, for a reason.
fn bury(mut p: Processes) -> String {
    let until = Instant::now() + END;
    let mut said = Vec::new();
    let mut buf = [0; 4096];
    // The kernel closes what a process has before it is done with it.
    while ended(&p.stderr, until) {
        match p.stderr.read(&mut buf) {
            Ok(n @ 1..) => said.extend(&buf[..n.min(4096_usize.saturating_sub(said.len()))]),
            _ => break,
        }
    }
    if let Some(first) = p.first {
        // With everything in its namespace, and that with all mounts.
        if !ended(&first, until) {
            sys::kill_by_fd(first.as_fd());
            ended(&first, Instant::now() + END);
        }
    }
    let said = String::from_utf8_lossy(&said);
    match said.trim() {
        "" => String::new(),
        text => format!(": {text}"),
    }
}

/// Waits until there is something to be read, or the end.
fn ended(fd: &impl AsRawFd, until: Instant) -> bool {
    let mut fds = [sys::interest(fd.as_raw_fd(), libc::POLLIN)];
    let left = until.saturating_duration_since(Instant::now());
    sys::poll(&mut fds, Some(left)).is_ok() && fds[0].revents != 0
}
