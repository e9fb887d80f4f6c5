//! A sandbox as its user sees it.

use super::{
    Inner,
    answer::{Answer, Coming, Live, Sink, Stream},
    conn::Conn,
    den, files, layer,
    piped::Piped,
    proto::{Ask, CHUNK, Command, How},
};
use crate::{
    CacheView, Change, DirEntry, Egress, Ended, Execution, Invocation, OutputSink, Refused,
    Sandbox, SandboxError, SandboxProcess, SandboxSpec, SandboxUsage, Snapshot, or_cancelled,
};
use smallhands_core::{BlobRef, BlobStore, BoxFuture, CallCx, Cancelled, Clock, async_trait};
use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::sync::{Mutex, RwLock, mpsc};

/// How much later than the agent the host acts on a deadline.
const GRACE: Duration = Duration::from_secs(5);
/// More than any kernel takes as arguments, less than a frame holds.
const MAX_ARGUMENTS: usize = 4 << 20;
/// A longer deadline is taken for none; no clock is asked for more.
const MAX_DEADLINE: Duration = Duration::from_secs(30 * 24 * 3600);
const SYSTEM_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// A [`Sandbox`] of the native backend.
#[derive(Debug)]
pub(super) struct NativeSandbox {
    backend: Arc<Inner>,
    spec: SandboxSpec,
    clock: Arc<dyn Clock>,
    /// Replaced by a restore.
    conn: Arc<RwLock<Conn>>,
    /// Held while a command runs or the files as a whole are looked at.
    turn: Arc<Mutex<()>>,
    /// By agents that a restore replaced.
    used: std::sync::Mutex<SandboxUsage>,
}

impl Drop for NativeSandbox {
    fn drop(&mut self) {
        // A process that somebody still talks to shares it, and ends with it. Locked only by a
        // restore, which is not under way.
        if let Ok(conn) = self.conn.try_read() {
            conn.kill();
        }
    }
}

impl NativeSandbox {
    pub(super) fn new(
        backend: Arc<Inner>,
        spec: SandboxSpec,
        clock: Arc<dyn Clock>,
        conn: Conn,
    ) -> Self {
        Self {
            backend,
            spec,
            clock,
            conn: Arc::new(RwLock::new(conn)),
            turn: Arc::default(),
            used: std::sync::Mutex::default(),
        }
    }

    fn commit(&self) -> Option<String> {
        self.spec.source.as_ref().map(|s| s.commit.clone())
    }

    /// What snapshots differ from.
    fn base(&self) -> Option<String> {
        let Some(environment) = &self.spec.environment else {
            return self.commit();
        };
        let name = environment.path.file_name().unwrap_or_default();
        let commit = self.commit().unwrap_or_default();
        Some(format!("{commit}+{}", name.to_string_lossy()))
    }

    /// A snapshot's changes, if it is one of our base.
    async fn changes_of(
        &self,
        snapshot: &Snapshot,
        blobs: &dyn BlobStore,
    ) -> Result<Vec<Change<Vec<u8>>>, SandboxError> {
        if snapshot.base != self.base() {
            return Err(SandboxError::Setup {
                stage: "snapshot".into(),
                reason: format!(
                    "it was taken of {:?}, and this sandbox starts from {:?}",
                    snapshot.base,
                    self.base()
                ),
            });
        }
        snapshot.changes(blobs).await
    }

    /// Puts a snapshot on top of the clean base.
    pub(super) async fn put(
        &self,
        snapshot: &Snapshot,
        blobs: &dyn BlobStore,
    ) -> Result<(), SandboxError> {
        let changes = self.changes_of(snapshot, blobs).await?;
        self.conn.read().await.apply(changes).await
    }

    async fn changes(&self) -> Result<Vec<Change<Vec<u8>>>, SandboxError> {
        let _turn = self.turn.lock().await;
        let conn = self.conn.read().await;
        Ok(conn.call(Ask::Changes, &[]).await?.changes)
    }

    async fn call(&self, path: &str, ask: Ask, bytes: &[u8]) -> Result<Answer, SandboxError> {
        if path.len() > libc::PATH_MAX as usize {
            return Err(SandboxError::Path {
                path: path.chars().take(80).collect(),
                reason: "it is too long".into(),
            });
        }
        self.conn.read().await.call(ask, bytes).await
    }

    /// The minimal environment, then the sandbox's, then the command's; later ones win.
    fn environment(&self, what: &Invocation) -> Vec<(String, String)> {
        let bins = self.spec.read_only.iter().map(|p| p.join("bin"));
        let mut path: Vec<String> = bins
            .filter(|p| p.is_dir())
            .map(|p| p.to_string_lossy().into_owned())
            .collect();
        path.push(SYSTEM_PATH.into());
        let minimal = [
            ("PATH", path.join(":").as_str()),
            ("HOME", "/tmp/home"),
            ("LANG", "C.UTF-8"),
            ("TERM", "dumb"),
            ("PYTHONDONTWRITEBYTECODE", "1"),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()));
        let mut env = Vec::from(minimal);
        env.extend(self.spec.egress.iter().flat_map(Egress::environment));
        for (k, v) in self.spec.env.iter().chain(&what.env) {
            env.retain(|(have, _)| have != k);
            env.push((k.clone(), v.clone()));
        }
        env
    }

    fn command(&self, what: &Invocation, cx: &CallCx, duplex: bool) -> Command {
        let left = cx
            .deadline()
            .map(|at| at.saturating_sub(self.clock.monotonic()));
        let deadline = left.map_or(what.deadline, |left| left.min(what.deadline));
        Command {
            argv: what.argv.clone(),
            env: self.environment(what),
            cwd: what.cwd.clone(),
            deadline_ms: deadline.min(MAX_DEADLINE).as_millis() as u64,
            stdin_len: what.stdin.len() as u64,
            duplex,
        }
    }
}

/// Cancels a command whose caller stopped waiting.
struct Guard<'a>(&'a Conn, Option<u64>);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.1 {
            self.0.cancel(id);
        }
    }
}

/// What the wait for a command wakes up for.
enum Event {
    Live(Live),
    Over(Box<Result<Answer, SandboxError>>),
    Cancelled,
    TooLate,
}

struct Waiting<'a> {
    conn: &'a Conn,
    live: mpsc::Receiver<Live>,
    coming: Coming,
    cancelled: Option<Pin<Box<Cancelled>>>,
    too_late: BoxFuture<'static, ()>,
}

impl Waiting<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if let Poll::Ready(Some(some)) = self.live.poll_recv(cx) {
            return Poll::Ready(Event::Live(some));
        }
        if let Poll::Ready(answer) = Pin::new(&mut self.coming).poll(cx) {
            let answer = answer.unwrap_or_else(|_| Err(self.conn.lost()));
            return Poll::Ready(Event::Over(Box::new(answer)));
        }
        if let Some(c) = &mut self.cancelled
            && c.as_mut().poll(cx).is_ready()
        {
            self.cancelled = None;
            return Poll::Ready(Event::Cancelled);
        }
        self.too_late.as_mut().poll(cx).map(|()| Event::TooLate)
    }
}

async fn run(
    mut wait: Waiting<'_>,
    id: u64,
    live: OutputSink<'_>,
    clock: &dyn Clock,
) -> Result<Answer, SandboxError> {
    let mut show = |(stderr, bytes): Live| live(if stderr { "stderr" } else { "stdout" }, &bytes);
    loop {
        match poll_fn(|cx| wait.poll(cx)).await {
            Event::Live(some) => show(some),
            Event::Over(answer) => {
                while let Ok(some) = wait.live.try_recv() {
                    show(some);
                }
                return *answer;
            }
            Event::Cancelled => {
                wait.conn.cancel(id);
                wait.too_late = clock.sleep(GRACE);
            }
            Event::TooLate => {
                wait.conn.kill();
                return Err(SandboxError::Lost(
                    "the agent did not end a command in time and was killed".into(),
                ));
            }
        }
    }
}

fn not_started(why: &str, conn: &Conn) -> Execution {
    Execution {
        ended: Ended::NotStarted(why.into()),
        stdout: Vec::new(),
        stderr: Vec::new(),
        cut_bytes: 0,
        wall: Duration::ZERO,
        enforced: conn.enforced.clone(),
        egress: Vec::new(),
        egress_cut: 0,
    }
}

/// What came of a command.
pub(super) async fn execution(
    conn: &Conn,
    answer: Result<Answer, SandboxError>,
    killed_before: u64,
) -> Result<Execution, SandboxError> {
    let egress = conn.settle().await;
    let Answer { ended, kept, .. } = answer?;
    let (ended, wall) = match ended {
        Some((How::Ended(Ended::Signaled(libc::SIGKILL)), wall))
            if conn.memory.out_of_memory() > killed_before =>
        {
            (Ended::OutOfMemory, wall)
        }
        Some((How::Ended(ended), wall)) => (ended, wall),
        Some((How::Cancelled, _)) => return Err(SandboxError::Cancelled),
        None => {
            return Err(SandboxError::Lost(
                "a command ended without a result".into(),
            ));
        }
    };
    let [(stdout, cut_out), (stderr, cut_err)] = kept.map(super::output::Ring::take);
    Ok(Execution {
        ended,
        stdout,
        stderr,
        cut_bytes: cut_out + cut_err,
        wall,
        enforced: conn.enforced.clone(),
        egress: egress.list,
        egress_cut: egress.cut,
    })
}

fn too_long(command: &Command) -> bool {
    let texts = command.env.iter().map(|(k, v)| k.len() + v.len());
    let args = command.argv.iter().map(String::len);
    texts.chain(args).sum::<usize>() + command.cwd.len() > MAX_ARGUMENTS
}

async fn start(conn: &Conn, id: u64, command: Command, stdin: &[u8]) -> Result<(), SandboxError> {
    // Of one before it that nobody waited for.
    drop(conn.settle().await);
    conn.begin_egress();
    conn.send(id, Ask::Exec(command), &[]).await?;
    for chunk in stdin.chunks(CHUNK) {
        conn.send(id, Ask::Stdin, chunk).await?;
    }
    Ok(())
}

async fn used_by(conn: &Conn) -> Result<SandboxUsage, SandboxError> {
    let mut usage = conn.call(Ask::Usage, &[]).await?.usage;
    usage.peak_total_bytes = conn.memory.peak();
    (usage.sent_bytes, usage.received_bytes) = conn.carried();
    Ok(usage)
}

fn added(a: SandboxUsage, b: SandboxUsage) -> SandboxUsage {
    SandboxUsage {
        cpu: a.cpu + b.cpu,
        peak_process_bytes: a.peak_process_bytes.max(b.peak_process_bytes),
        peak_total_bytes: a.peak_total_bytes.max(b.peak_total_bytes),
        sent_bytes: a.sent_bytes + b.sent_bytes,
        received_bytes: a.received_bytes + b.received_bytes,
    }
}

#[async_trait]
impl Sandbox for NativeSandbox {
    async fn exec(
        &self,
        what: &Invocation,
        live: OutputSink<'_>,
        cx: &CallCx,
    ) -> Result<Execution, SandboxError> {
        let _turn = or_cancelled(self.turn.lock(), cx).await?;
        let conn = or_cancelled(self.conn.read(), cx).await?;
        let command = self.command(what, cx, false);
        if too_long(&command) {
            return Ok(not_started("the arguments are too long", &conn));
        }
        let killed_before = conn.memory.out_of_memory();
        let (tell, told) = mpsc::channel(256);
        let (id, coming) = conn.begin(what.max_output, Sink::Eyes(tell));
        let mut guard = Guard(&conn, Some(id));
        let limit = Duration::from_millis(command.deadline_ms).saturating_add(GRACE);
        start(&conn, id, command, &what.stdin).await?;
        let wait = Waiting {
            conn: &conn,
            live: told,
            coming,
            cancelled: Some(Box::pin(cx.cancel().cancelled())),
            too_late: self.clock.sleep(limit),
        };
        let answer = run(wait, id, live, &*self.clock).await;
        guard.1 = None;
        execution(&conn, answer, killed_before).await
    }

    async fn spawn(
        &self,
        what: &Invocation,
        cx: &CallCx,
    ) -> Result<Box<dyn SandboxProcess>, SandboxError> {
        let turn = or_cancelled(self.turn.clone().lock_owned(), cx).await?;
        let conn = or_cancelled(self.conn.clone().read_owned(), cx).await?;
        let command = self.command(what, cx, true);
        if too_long(&command) {
            return Err(SandboxError::Setup {
                stage: "command".into(),
                reason: "the arguments are too long".into(),
            });
        }
        let (sink, events) = Stream::new();
        let killed_before = conn.memory.out_of_memory();
        let (id, coming) = conn.begin(what.max_output, sink);
        start(&conn, id, command, &what.stdin).await?;
        Ok(Box::new(Piped {
            conn,
            turn,
            id,
            events,
            coming: Some(coming),
            early: VecDeque::new(),
            killed_before,
        }))
    }

    async fn usage(&self) -> Result<SandboxUsage, SandboxError> {
        let conn = self.conn.read().await;
        let before = self.used.lock().map(|u| u.clone()).unwrap_or_default();
        Ok(added(before, used_by(&conn).await?))
    }

    async fn read(&self, path: &str) -> Result<Vec<u8>, SandboxError> {
        let ask = Ask::Read { path: path.into() };
        Ok(self.call(path, ask, &[]).await?.data)
    }

    async fn write(&self, path: &str, bytes: &[u8]) -> Result<(), SandboxError> {
        let part = |first| Ask::Write {
            path: path.into(),
            first,
        };
        let (head, rest) = bytes.split_at(bytes.len().min(CHUNK));
        self.call(path, part(true), head).await?;
        for chunk in rest.chunks(CHUNK) {
            self.call(path, part(false), chunk).await?;
        }
        Ok(())
    }

    async fn remove(&self, path: &str) -> Result<(), SandboxError> {
        let ask = Ask::Remove { path: path.into() };
        self.call(path, ask, &[]).await.map(drop)
    }

    async fn list(&self, dir: &str) -> Result<Vec<DirEntry>, SandboxError> {
        let mut entries = self
            .call(dir, Ask::List { dir: dir.into() }, &[])
            .await?
            .entries;
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(entries)
    }

    async fn snapshot(&self, into: &dyn BlobStore) -> Result<BlobRef, SandboxError> {
        Snapshot::save(self.base(), self.changes().await?, into).await
    }

    async fn restore(
        &self,
        to: Option<&BlobRef>,
        from: &dyn BlobStore,
    ) -> Result<(), SandboxError> {
        let changes = match to {
            Some(blob) => {
                let snapshot = Snapshot::load(blob, from).await?;
                self.changes_of(&snapshot, from).await?
            }
            None => Vec::new(),
        };
        let _turn = self.turn.lock().await;
        // A new agent on a new copy, rather than an attempt to undo what commands did.
        let fresh = self.backend.start(&self.spec).await?;
        fresh.apply(changes).await?;
        let old = std::mem::replace(&mut *self.conn.write().await, fresh);
        // An agent that is lost tells nothing.
        if let (Ok(more), Ok(mut used)) = (used_by(&old).await, self.used.lock()) {
            *used = added(std::mem::take(&mut *used), more);
        }
        old.close().await;
        Ok(())
    }

    async fn fork(&self) -> Result<Box<dyn Sandbox>, SandboxError> {
        // Until the copy is made nothing else happens here.
        let _turn = self.turn.lock().await;
        let old = self.conn.read().await;
        let changed = Some(old.private.clone());
        let conn = self.backend.start_changed(&self.spec, changed).await?;
        // An overlay's changes are no use without one, and the other way round.
        let overlays = ["overlay workspace", "caches (overlay)"];
        if overlays.iter().any(|o| conn.has(o) != old.has(o)) {
            return Err(SandboxError::Setup {
                stage: "fork".into(),
                reason: "only one of the two has an overlay".into(),
            });
        }
        let (backend, clock) = (self.backend.clone(), self.clock.clone());
        Ok(Box::new(Self::new(backend, self.spec.clone(), clock, conn)))
    }

    async fn diff(&self) -> Result<String, SandboxError> {
        let changes = self.changes().await?;
        let (store, base) = (self.backend.options.store.clone(), self.commit());
        crate::blocking(move || store.diff(base.as_deref(), &changes)).await
    }

    async fn export(
        &self,
        from: &str,
        into: &Path,
        max_bytes: u64,
    ) -> Result<Vec<Refused>, SandboxError> {
        // Nothing runs until the copy is made, even if nobody waits for it any more.
        let turn = self.turn.clone().lock_owned().await;
        let private = self.conn.read().await.private.clone();
        let at = |c: &CacheView| c.at == Path::new(from);
        let (upper, below) = match self.spec.caches.iter().position(at) {
            Some(i) => (private.join(den::cache(i)).join("upper"), String::new()),
            None => {
                files::checked(from.as_bytes())?;
                (private.join("upper"), from.to_owned())
            }
        };
        let into = into.to_owned();
        let copy = move || {
            let refused = layer::export(&upper, &below, &into, max_bytes)?;
            drop(turn);
            Ok(refused)
        };
        crate::blocking(copy).await
    }

    async fn close(self: Box<Self>) -> Result<(), SandboxError> {
        self.conn.read().await.close().await;
        Ok(())
    }
}
