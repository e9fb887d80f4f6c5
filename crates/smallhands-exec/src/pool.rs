use crate::{
    halted,
    handle::Placements,
    protocol::{self, Bytes, FromWorker, PROTOCOL, ToWorker},
    worker::{WORKER_ARG, is_initialised},
};
use smallhands_core::{
    AttemptReport, BlobStore, CancelMode, Clock, Executor, ExecutorCapabilities, Failure,
    FailureClass, Halt, Outcome, Ran, TaskEnvelope, TaskHandle, TaskHost, async_trait,
};
use std::{
    fmt,
    io::{self, BufReader, Read, Write},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc as std_mpsc,
    },
    thread,
    time::Duration,
};
use tokio::sync::{Semaphore, mpsc, watch};

/// How a [`ProcessPool`] starts its workers.
#[derive(Clone, Debug)]
pub struct PoolOptions {
    /// The program; none is the running one, which must have called [`init`](crate::init).
    pub program: Option<PathBuf>,
    /// Worker processes at once, at least 1.
    pub slots: usize,
    /// A process is replaced after so many tasks; 1 is a fresh process for each.
    pub tasks_per_process: u32,
    /// The environment of the workers; nothing else is inherited.
    pub env: Vec<(String, String)>,
    /// How long a process may take to say hello.
    pub start_timeout: Duration,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self {
            program: None,
            slots: 1,
            tasks_per_process: 64,
            env: Vec::new(),
            start_timeout: Duration::from_secs(20),
        }
    }
}

/// Runs each task in a worker process of its own or one that is free.
pub struct ProcessPool {
    shared: Arc<Shared>,
    placements: Placements,
}

struct Shared {
    options: PoolOptions,
    blobs: Arc<dyn BlobStore>,
    clock: Arc<dyn Clock>,
    slots: Semaphore,
    idle: Mutex<Vec<Process>>,
    closed: AtomicBool,
}

impl fmt::Debug for ProcessPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessPool")
            .field("options", &self.shared.options)
            .finish_non_exhaustive()
    }
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ProcessPool {
    /// A pool; starts processes as tasks come.
    ///
    /// # Errors
    /// `exec.not_initialised`: the running program is to be its own worker and did not call
    /// [`init`](crate::init) first in `main`.
    pub fn new(
        options: PoolOptions,
        blobs: Arc<dyn BlobStore>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Failure> {
        if options.program.is_none() && !is_initialised() {
            let why =
                "worker processes cannot be started: this program would run its own main again";
            return Err(
                Failure::new("exec.not_initialised", FailureClass::Input, why)
                    .hint("call smallhands::init(..) as the first thing in main, or name a worker program"),
            );
        }
        let slots = Semaphore::new(options.slots.max(1));
        Ok(Self {
            shared: Arc::new(Shared {
                options,
                blobs,
                clock,
                slots,
                idle: Mutex::default(),
                closed: AtomicBool::new(false),
            }),
            placements: Placements::default(),
        })
    }
}

#[async_trait]
impl Executor for ProcessPool {
    fn name(&self) -> &'static str {
        "process-pool"
    }
    fn capabilities(&self) -> ExecutorCapabilities {
        let mut c = ExecutorCapabilities::default();
        c.hard_cancel = true;
        c.crosses_processes = true;
        c.slots = self.shared.options.slots.max(1);
        c
    }
    async fn submit(
        &self,
        task: Arc<TaskEnvelope>,
        host: Arc<dyn TaskHost>,
    ) -> Result<Arc<dyn TaskHandle>, Failure> {
        if self.shared.closed.load(Ordering::SeqCst) {
            let why = "the pool was shut down";
            return Err(Failure::new(
                "exec.closed",
                FailureClass::Unschedulable,
                why,
            ));
        }
        let key = task.key.clone();
        let shared = self.shared.clone();
        let placement = self.placements.get_or_start(&key, |report| {
            let (cancel, cancelled) = watch::channel(None);
            tokio::spawn(async move {
                let r = place(shared, task, host, cancelled).await;
                report.send(r);
            });
            Box::new(move |how| {
                // Hard stays hard.
                cancel.send_if_modified(|c| {
                    let new = *c != Some(CancelMode::Hard) && *c != Some(how);
                    *c = if new { Some(how) } else { *c };
                    new
                });
                Box::pin(async {})
            })
        });
        Ok(placement)
    }
    async fn shutdown(&self, grace: Duration) -> Result<(), Failure> {
        self.shared.closed.store(true, Ordering::SeqCst);
        let all = self.placements.all();
        for p in &all {
            p.cancel(CancelMode::Soft).await;
        }
        let ended = async {
            for p in &all {
                drop(p.report().await);
            }
        };
        tokio::select! {
            () = ended => {}
            () = self.shared.clock.sleep(grace) => {}
        }
        for p in &all {
            p.cancel(CancelMode::Hard).await;
        }
        lock(&self.shared.idle).clear();
        Ok(())
    }
}

type Cancelled = watch::Receiver<Option<CancelMode>>;

async fn place(
    shared: Arc<Shared>,
    task: Arc<TaskEnvelope>,
    host: Arc<dyn TaskHost>,
    mut cancelled: Cancelled,
) -> AttemptReport {
    let not_started = AttemptReport {
        outcome: Outcome::Halted(Halt::Cancelled),
        ran: Ran::No,
    };
    let permit = tokio::select! {
        p = shared.slots.acquire() => p,
        _ = cancelled.wait_for(Option::is_some) => return not_started,
    };
    let Ok(_permit) = permit else {
        return not_started;
    };
    let config = match shared.blobs.get(&task.config).await {
        Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
        Err(f) => return halted(f, Ran::No),
    };
    let free = lock(&shared.idle).pop();
    let mut process = match free {
        Some(p) => p,
        None => match start(&shared).await {
            Ok(p) => p,
            Err(f) => return halted(f, Ran::No),
        },
    };
    let key = task.key.clone();
    process.say(&ToWorker::Run {
        envelope: task,
        config,
    });
    let report = serve(&shared, &mut process, &key, &*host, &mut cancelled).await;
    process.served += 1;
    let again = process.alive && process.served < shared.options.tasks_per_process;
    if again && cancelled.borrow().is_none() && !shared.closed.load(Ordering::SeqCst) {
        lock(&shared.idle).push(process);
    }
    report
}

async fn serve(
    shared: &Shared,
    process: &mut Process,
    key: &smallhands_core::DispatchKey,
    host: &dyn TaskHost,
    cancelled: &mut Cancelled,
) -> AttemptReport {
    loop {
        let heard = tokio::select! {
            m = process.from.recv() => m,
            Ok(()) = cancelled.changed() => {
                match *cancelled.borrow_and_update() {
                    Some(CancelMode::Hard) => process.kill(),
                    Some(how) => process.say(&ToWorker::Cancel { how }),
                    None => {}
                }
                continue;
            }
        };
        match heard {
            None => return process.lost(),
            Some(FromWorker::Call { id, call }) => {
                let reply = host.call(key, call).await;
                process.say(&ToWorker::Reply { id, reply });
            }
            Some(FromWorker::BlobPut { id, data }) => {
                let blob = shared.blobs.put(data.0).await;
                process.say(&ToWorker::Stored { id, blob });
            }
            Some(FromWorker::BlobGet { id, blob }) => {
                let data = shared.blobs.get(&blob).await.map(Bytes);
                process.say(&ToWorker::Blob { id, data });
            }
            Some(FromWorker::Notice { notice }) => host.notice(key, notice),
            Some(FromWorker::Done { key: k, report }) if k == *key => return report,
            Some(FromWorker::Done { .. } | FromWorker::Hello { .. }) => {}
        }
    }
}

async fn start(shared: &Shared) -> Result<Process, Failure> {
    let failed =
        |why: String| Failure::new("worker.start", FailureClass::Unschedulable, why).retryable();
    let mut p = Process::spawn(&shared.options)
        .map_err(|e| failed(format!("the worker program cannot be started: {e}")))?;
    let hello = tokio::select! {
        m = p.from.recv() => m,
        () = shared.clock.sleep(shared.options.start_timeout) => {
            return Err(failed("the worker program did not say hello in time".into()));
        }
    };
    match hello {
        Some(FromWorker::Hello { proto, .. }) if proto == PROTOCOL => {
            p.say(&ToWorker::Hello { proto: PROTOCOL });
            Ok(p)
        }
        Some(FromWorker::Hello { proto, .. }) => Err(Failure::new(
            "worker.protocol",
            FailureClass::Protocol,
            format!("the worker speaks protocol {proto}, this engine {PROTOCOL}"),
        )),
        _ => Err(failed(format!(
            "the worker program does not speak the protocol; does its main begin with smallhands::init(..)? {}",
            p.stderr()
        ))),
    }
}

/// A worker process. Dropped, it is killed.
struct Process {
    child: Child,
    to: std_mpsc::Sender<Vec<u8>>,
    from: mpsc::UnboundedReceiver<FromWorker>,
    tail: Arc<Mutex<Vec<u8>>>,
    served: u32,
    alive: bool,
}

/// So much of the end of a worker's standard error is kept for reports.
const TAIL: usize = 4096;

impl Process {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the place that starts workers"
    )]
    fn spawn(o: &PoolOptions) -> io::Result<Self> {
        // The running binary, even if its file was replaced meanwhile.
        let own = if cfg!(target_os = "linux") {
            PathBuf::from("/proc/self/exe")
        } else {
            std::env::current_exe()?
        };
        let mut command = Command::new(o.program.as_ref().unwrap_or(&own));
        command
            .arg(WORKER_ARG)
            .env_clear()
            .envs(o.env.iter().map(|(k, v)| (k, v)))
            .stderr(Stdio::piped());
        #[cfg(unix)]
        {
            use std::os::unix::process::CommandExt;
            // Ctrl-C in a terminal is for the engine, which then tells its workers.
            command.process_group(0);
        }
        let (mut child, mut stdin, stdout) = connected(command)?;
        let stderr = child.stderr.take();
        let printed = child.stdout.take();
        let (to, lines) = std_mpsc::channel::<Vec<u8>>();
        named("write", move || {
            // Ends when the pool drops its side, or the worker is gone.
            while let Ok(line) = lines.recv()
                && stdin.write_all(&line).and_then(|()| stdin.flush()).is_ok()
            {}
        })?;
        let (tx, from) = mpsc::unbounded_channel();
        named("read", move || {
            let mut out = BufReader::new(stdout);
            while let Ok(Some(m)) = protocol::read(&mut out)
                && tx.send(m).is_ok()
            {}
        })?;
        let tail = Arc::new(Mutex::new(Vec::new()));
        if let Some(stderr) = stderr {
            let keep = tail.clone();
            named("stderr", move || keep_tail(stderr, &keep))?;
        }
        if let Some(printed) = printed {
            let keep = tail.clone();
            named("stdout", move || keep_tail(printed, &keep))?;
        }
        Ok(Self {
            child,
            to,
            from,
            tail,
            served: 0,
            alive: true,
        })
    }

    fn say(&self, m: &ToWorker) {
        match protocol::encode(m) {
            // A worker that is gone shows on its output.
            Ok(line) => drop(self.to.send(line)),
            Err(e) => tracing::error!(%e, "a message to a worker cannot be encoded"),
        }
    }

    fn kill(&mut self) {
        // It may be dead already.
        drop(self.child.kill());
    }

    fn stderr(&self) -> String {
        String::from_utf8_lossy(&lock(&self.tail)).trim().into()
    }

    fn lost(&mut self) -> AttemptReport {
        self.alive = false;
        self.kill();
        let how = self
            .child
            .wait()
            .map_or_else(|e| e.to_string(), |s| s.to_string());
        let mut why = format!("the worker process is gone ({how})");
        let tail = self.stderr();
        if !tail.is_empty() {
            why = format!("{why}; its last words: {tail}");
        }
        halted(
            Failure::new("worker.lost", FailureClass::WorkerLost, why),
            Ran::Maybe,
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        drop(self.child.wait());
    }
}

type Connected = (Child, Box<dyn Write + Send>, Box<dyn Read + Send>);

/// Starts a worker with the protocol on a socket, so that what it prints cannot disturb it. The
/// command is dropped here: it holds the worker's end, whose closing tells that the worker is gone.
#[cfg(unix)]
fn connected(mut command: Command) -> io::Result<Connected> {
    use std::os::{fd::OwnedFd, unix::net::UnixStream};
    let (ours, theirs) = UnixStream::pair()?;
    command.stdin(OwnedFd::from(theirs)).stdout(Stdio::piped());
    let child = command.spawn()?;
    Ok((child, Box::new(ours.try_clone()?), Box::new(ours)))
}

#[cfg(not(unix))]
fn connected(mut command: Command) -> io::Result<Connected> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    match (child.stdin.take(), child.stdout.take()) {
        (Some(i), Some(o)) => Ok((child, Box::new(i), Box::new(o))),
        _ => Err(io::Error::other("no pipes")),
    }
}

fn named(what: &str, f: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new()
        .name(format!("smallhands-{what}"))
        .spawn(f)
        .map(drop)
}

fn keep_tail(mut from: impl Read, tail: &Mutex<Vec<u8>>) {
    let mut chunk = [0; 1024];
    while let Ok(n) = from.read(&mut chunk)
        && n > 0
    {
        tracing::debug!(target: "smallhands::worker", "{}", String::from_utf8_lossy(&chunk[..n]));
        let mut t = lock(tail);
        t.extend_from_slice(&chunk[..n]);
        let over = t.len().saturating_sub(TAIL);
        t.drain(..over);
    }
}
