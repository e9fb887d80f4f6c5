use crate::{
    halted,
    in_process::{Workers, attempt, panicked},
    protocol::{self, Bytes, FromWorker, PROTOCOL, ToWorker},
};
use smallhands_core::{
    Ambient, AttemptReport, BlobRef, BlobStore, CancelToken, Digest, DispatchKey, Failure,
    FailureClass, Halt, HostCall, HostReply, Notice, Ran, TaskEnvelope, TaskHost, WorkerSource,
    async_trait,
};
use std::{
    collections::{BTreeMap, HashMap},
    fmt, io,
    io::{BufRead, BufReader, Write},
    process,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};
use tokio::sync::{mpsc, oneshot};

/// The first argument of a worker process.
pub const WORKER_ARG: &str = "__smallhands_worker_v1";

static INITIALISED: AtomicBool = AtomicBool::new(false);

/// What a worker process is made of.
#[derive(Debug)]
pub struct WorkerParts {
    /// Builds the workers from the run's configuration.
    pub source: Arc<dyn WorkerSource>,
    /// What the process supplies to them.
    pub ambient: Ambient,
}

/// The hook that comes first in `main` of every program whose tasks run in a [`ProcessPool`]: in a
/// worker process it does the work and never returns; elsewhere it returns at once.
///
/// `parts` is called in a worker process only; it is given the engine's blob store.
///
/// [`ProcessPool`]: crate::ProcessPool
pub fn init(parts: impl FnOnce(Arc<dyn BlobStore>) -> Result<WorkerParts, Failure>) {
    if std::env::args_os().nth(1).is_some_and(|a| a == WORKER_ARG) {
        process::exit(match run(parts) {
            Ok(()) => 0,
            Err(e) => {
                // Standard error is the engine's ear, and nobody else's.
                drop(writeln!(io::stderr(), "{e}"));
                1
            }
        });
    }
    INITIALISED.store(true, Ordering::SeqCst);
}

/// Whether [`init`] was called in this process.
pub fn is_initialised() -> bool {
    INITIALISED.load(Ordering::SeqCst)
}

type Streams = (Box<dyn BufRead + Send>, Box<dyn Write + Send>);

/// The protocol's two directions. A pool gives a socket as standard input, and leaves standard
/// output to whatever a worker prints; over plain pipes (a remote shell) standard output is the
/// protocol's, and workers must not print.
fn streams() -> io::Result<Streams> {
    #[cfg(unix)]
    {
        use std::os::{
            fd::{AsFd, OwnedFd},
            unix::{fs::FileTypeExt, net::UnixStream},
        };
        let file = std::fs::File::from(io::stdin().as_fd().try_clone_to_owned()?);
        if file.metadata()?.file_type().is_socket() {
            let socket = UnixStream::from(OwnedFd::from(file));
            return Ok((
                Box::new(BufReader::new(socket.try_clone()?)),
                Box::new(socket),
            ));
        }
    }
    Ok((
        Box::new(BufReader::new(io::stdin())),
        Box::new(io::stdout()),
    ))
}

fn run(parts: impl FnOnce(Arc<dyn BlobStore>) -> Result<WorkerParts, Failure>) -> io::Result<()> {
    let (input, out) = streams()?;
    let line = Arc::new(Line {
        out: Mutex::new(out),
        next: AtomicU64::new(0),
        replies: Mutex::default(),
        stored: Mutex::default(),
        blobs: Mutex::default(),
        cancel: Mutex::default(),
    });
    line.send(&FromWorker::Hello {
        proto: PROTOCOL,
        pid: process::id(),
    })?;
    let parts = parts(line.clone()).map_err(io::Error::other)?;
    let (tx, mut runs) = mpsc::unbounded_channel();
    let reader = line.clone();
    thread::Builder::new()
        .name("smallhands-stdin".into())
        .spawn(move || reader.listen(input, &tx))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async move {
        let mut opened = BTreeMap::new();
        while let Some(run) = runs.recv().await {
            let key = run.envelope.key.clone();
            let report = one(&parts, &mut opened, &line, run).await;
            line.send(&FromWorker::Done { key, report })?;
        }
        Ok(())
    })
}

/// One task, with the token that a `cancel` after it fires.
struct Run {
    envelope: Arc<TaskEnvelope>,
    config: serde_json::Value,
    cancel: CancelToken,
}

async fn one(
    parts: &WorkerParts,
    opened: &mut BTreeMap<Digest, Arc<Workers>>,
    line: &Arc<Line>,
    run: Run,
) -> AttemptReport {
    let Run {
        envelope,
        config,
        cancel,
    } = run;
    let id = Digest::of_json(&config);
    if !opened.contains_key(&id) {
        match parts.source.open(&config, &parts.ambient).await {
            Ok(w) => drop(opened.insert(id.clone(), Arc::new(w))),
            Err(f) => return halted(f, Ran::No),
        }
    }
    let workers = opened.get(&id).cloned().unwrap_or_default();
    let (host, ambient) = (line.clone(), parts.ambient.clone());
    let work = async move { attempt(&workers, envelope, host, ambient, cancel).await };
    tokio::spawn(work).await.unwrap_or_else(|_| panicked())
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

type Waiting<T> = Mutex<HashMap<u64, oneshot::Sender<T>>>;

/// The line to the engine: a [`TaskHost`] and a [`BlobStore`] on this side.
struct Line {
    out: Mutex<Box<dyn Write + Send>>,
    next: AtomicU64,
    replies: Waiting<Result<HostReply, Halt>>,
    stored: Waiting<Result<BlobRef, Failure>>,
    blobs: Waiting<Result<Bytes, Failure>>,
    cancel: Mutex<CancelToken>,
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Line")
    }
}

impl Line {
    fn send(&self, m: &FromWorker) -> io::Result<()> {
        let bytes = protocol::encode(m)?;
        let mut out = lock(&self.out);
        out.write_all(&bytes)?;
        out.flush()
    }

    async fn ask<T>(
        &self,
        waiting: &Waiting<T>,
        message: impl FnOnce(u64) -> FromWorker,
    ) -> Option<T> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (tx, rx) = oneshot::channel();
        lock(waiting).insert(id, tx);
        self.send(&message(id)).ok()?;
        rx.await.ok()
    }

    /// Reads what the engine says until it is gone; then this process has no reason to be.
    fn listen(&self, mut input: impl BufRead, runs: &mpsc::UnboundedSender<Run>) {
        loop {
            match protocol::read(&mut input) {
                Ok(Some(m)) => {
                    if let Err(why) = self.heard(m, runs) {
                        drop(writeln!(io::stderr(), "{why}"));
                        process::exit(1);
                    }
                }
                Ok(None) => process::exit(0),
                Err(e) => {
                    drop(writeln!(io::stderr(), "the worker protocol broke: {e}"));
                    process::exit(1);
                }
            }
        }
    }

    fn heard(&self, m: ToWorker, runs: &mpsc::UnboundedSender<Run>) -> Result<(), String> {
        fn hand<T>(waiting: &Waiting<T>, id: u64, reply: T) {
            if let Some(tx) = lock(waiting).remove(&id) {
                // The caller may have been cancelled meanwhile.
                drop(tx.send(reply));
            }
        }
        match m {
            ToWorker::Hello { proto } if proto != PROTOCOL => {
                return Err(format!(
                    "the engine speaks worker protocol {proto}, this worker {PROTOCOL}"
                ));
            }
            ToWorker::Hello { .. } => {}
            ToWorker::Run { envelope, config } => {
                let cancel = CancelToken::new();
                *lock(&self.cancel) = cancel.clone();
                drop(runs.send(Run {
                    envelope,
                    config,
                    cancel,
                }));
            }
            ToWorker::Reply { id, reply } => hand(&self.replies, id, reply),
            ToWorker::Stored { id, blob } => hand(&self.stored, id, blob),
            ToWorker::Blob { id, data } => hand(&self.blobs, id, data),
            ToWorker::Cancel { .. } => lock(&self.cancel).cancel(),
        }
        Ok(())
    }
}

#[async_trait]
impl TaskHost for Line {
    async fn call(&self, _: &DispatchKey, call: HostCall) -> Result<HostReply, Halt> {
        let reply = self
            .ask(&self.replies, |id| FromWorker::Call { id, call })
            .await;
        reply.unwrap_or(Err(Halt::Fenced))
    }
    fn notice(&self, _: &DispatchKey, notice: Notice) {
        // Lossy by contract.
        drop(self.send(&FromWorker::Notice { notice }));
    }
}

fn gone() -> Failure {
    Failure::new("host.gone", FailureClass::Store, "the engine is gone")
}

#[async_trait]
impl BlobStore for Line {
    async fn put(&self, bytes: Vec<u8>) -> Result<BlobRef, Failure> {
        let data = Bytes(bytes);
        let put = |id| FromWorker::BlobPut { id, data };
        self.ask(&self.stored, put).await.unwrap_or(Err(gone()))
    }
    async fn get(&self, blob: &BlobRef) -> Result<Vec<u8>, Failure> {
        let blob = blob.clone();
        let get = |id| FromWorker::BlobGet { id, blob };
        let data = self.ask(&self.blobs, get).await.unwrap_or(Err(gone()));
        data.map(|b| b.0)
    }
}
