//! A sandbox of one's own: one that runs nothing itself, but keeps a record of all that is done in
//! another, and refuses what it could not record.
//!
//! `cargo run -p sandbox-examples --bin custom_sandbox` records two commands, finds a record that
//! somebody changed, and puts the backend through the conformance kit.

use sandbox_examples::{ambient, git};
use serde_json::{Value, json};
use smallhands_core::{BlobRef, BlobStore, CallCx, CancelToken, Digest, Timestamp, async_trait};
use smallhands_sandbox::{
    Capabilities, CommitMeta, DirEntry, Execution, Invocation, Layer, OutputSink, RepoSource,
    RepoStore, Sandbox, SandboxBackend, SandboxError, SandboxSpec, SandboxUsage,
    linux::{self, NativeBackend, NativeOptions},
};
use smallhands_testkit::{SandboxBed, sandbox, sandbox_files};
use std::{
    error::Error,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// What it adds to the layers of the other.
const LAYER: &str = "audit log";

/// One line for each thing that was done; each holds the digest of the line before it, so that none
/// can be changed or taken out from between others.
#[derive(Debug)]
struct AuditLog {
    file: Mutex<(File, Digest)>,
    next: AtomicU64,
}

impl AuditLog {
    fn create(path: &Path) -> io::Result<Self> {
        let begin = (File::create_new(path)?, Digest::of_bytes(b""));
        Ok(Self {
            file: Mutex::new(begin),
            next: AtomicU64::new(1),
        })
    }

    /// Returns once it is on the disk: what cannot be recorded is not done.
    fn put(&self, sandbox: u64, what: Value) -> Result<(), SandboxError> {
        let mut guard = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, last) = &mut *guard;
        let line = json!({ "after": last, "sandbox": sandbox, "what": what }).to_string();
        let written = writeln!(file, "{line}").and_then(|()| file.sync_data());
        written.map_err(|e| SandboxError::Setup {
            stage: LAYER.into(),
            reason: e.to_string(),
        })?;
        *last = Digest::of_bytes(line.as_bytes());
        Ok(())
    }
}

/// How many lines there are, if each follows from the one before it.
fn verify(log: &str) -> Result<usize, String> {
    let mut last = Digest::of_bytes(b"");
    for (n, line) in log.lines().enumerate() {
        let v: Value = serde_json::from_str(line).map_err(|e| e.to_string())?;
        if v["after"] != json!(last) {
            return Err(format!(
                "line {n} was changed, or lines before {} taken out",
                n + 1
            ));
        }
        last = Digest::of_bytes(line.as_bytes());
    }
    Ok(log.lines().count())
}

/// Another backend, recorded.
#[derive(Debug)]
struct Audited {
    inner: Arc<dyn SandboxBackend>,
    log: Arc<AuditLog>,
}

#[derive(Debug)]
struct AuditedSandbox {
    inner: Box<dyn Sandbox>,
    log: Arc<AuditLog>,
    id: u64,
}

#[async_trait]
impl SandboxBackend for Audited {
    fn name(&self) -> &'static str {
        "audited"
    }

    async fn probe(&self) -> Capabilities {
        let mut all = self.inner.probe().await;
        all.layers.push(Layer {
            name: LAYER.into(),
            works: true,
            required: true,
            detail: format!("around `{}`", self.inner.name()),
        });
        all
    }

    async fn open(
        &self,
        spec: &SandboxSpec,
        cx: &CallCx,
    ) -> Result<Box<dyn Sandbox>, SandboxError> {
        // What others put there before is in no record of ours.
        let shared = [
            ("caches", !spec.caches.is_empty()),
            ("environment", spec.environment.is_some()),
        ];
        if let Some((layer, _)) = shared.into_iter().find(|(_, wanted)| *wanted) {
            return Err(SandboxError::Unavailable {
                layer: layer.into(),
                reason: "its files are in no record".into(),
                fix: "do without it, or use the backend that is recorded here".into(),
            });
        }
        let mut theirs = spec.clone();
        // The other one knows nothing of our layer, and would refuse; the rest is for it to judge.
        theirs.require.retain(|layer| layer != LAYER);
        let id = self.log.next.fetch_add(1, Ordering::Relaxed);
        self.log.put(id, json!({ "open": spec }))?;
        Ok(Box::new(AuditedSandbox {
            inner: self.inner.open(&theirs, cx).await?,
            log: self.log.clone(),
            id,
        }))
    }
}

impl AuditedSandbox {
    fn put(&self, what: Value) -> Result<(), SandboxError> {
        self.log.put(self.id, what)
    }
}

/// All of it is passed on, but `spawn`: what goes over its streams would be in no record, and the
/// trait refuses it for us.
#[async_trait]
impl Sandbox for AuditedSandbox {
    async fn exec(
        &self,
        what: &Invocation,
        live: OutputSink<'_>,
        cx: &CallCx,
    ) -> Result<Execution, SandboxError> {
        // Values of variables are not recorded: they may be secrets.
        let names: Vec<_> = what.env.iter().map(|(name, _)| name).collect();
        let input = Digest::of_bytes(&what.stdin);
        self.put(json!({ "exec": what.argv, "cwd": what.cwd, "env": names, "stdin": input }))?;
        let done = self.inner.exec(what, live, cx).await;
        self.put(match &done {
            Ok(d) => json!({
                "ended": d.ended, "ms": d.wall.as_millis() as u64, "egress": d.egress,
                "stdout": Digest::of_bytes(&d.stdout), "stderr": Digest::of_bytes(&d.stderr),
            }),
            Err(e) => json!({ "error": e.code() }),
        })?;
        let mut done = done?;
        done.enforced.push(LAYER.into());
        Ok(done)
    }
    async fn usage(&self) -> Result<SandboxUsage, SandboxError> {
        self.inner.usage().await
    }
    async fn read(&self, path: &str) -> Result<Vec<u8>, SandboxError> {
        self.inner.read(path).await
    }
    async fn write(&self, path: &str, bytes: &[u8]) -> Result<(), SandboxError> {
        self.put(json!({ "write": path, "bytes": Digest::of_bytes(bytes) }))?;
        self.inner.write(path, bytes).await
    }
    async fn remove(&self, path: &str) -> Result<(), SandboxError> {
        self.put(json!({ "remove": path }))?;
        self.inner.remove(path).await
    }
    async fn list(&self, dir: &str) -> Result<Vec<DirEntry>, SandboxError> {
        self.inner.list(dir).await
    }
    async fn snapshot(&self, into: &dyn BlobStore) -> Result<BlobRef, SandboxError> {
        self.inner.snapshot(into).await
    }
    async fn restore(
        &self,
        to: Option<&BlobRef>,
        from: &dyn BlobStore,
    ) -> Result<(), SandboxError> {
        self.put(json!({ "restore": to }))?;
        self.inner.restore(to, from).await
    }
    async fn fork(&self) -> Result<Box<dyn Sandbox>, SandboxError> {
        let id = self.log.next.fetch_add(1, Ordering::Relaxed);
        self.put(json!({ "fork": id }))?;
        Ok(Box::new(Self {
            inner: self.inner.fork().await?,
            log: self.log.clone(),
            id,
        }))
    }
    async fn diff(&self) -> Result<String, SandboxError> {
        self.inner.diff().await
    }
    async fn close(self: Box<Self>) -> Result<(), SandboxError> {
        self.inner.close().await
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    // First in main: sandboxes start this program again as their helper.
    linux::init();
    let dir = tempfile::tempdir()?;
    tokio::runtime::Runtime::new()?.block_on(show(dir.path()))?;
    conforms(dir.path())
}

async fn show(dir: &Path) -> Result<(), Box<dyn Error>> {
    let backend = bed(&dir.join("shown"))?.backend;
    let cx = CallCx::detached(ambient(), CancelToken::new());
    let spec = SandboxSpec {
        require: vec![LAYER.into(), "landlock".into()],
        ..SandboxSpec::default()
    };
    let s = backend.open(&spec, &cx).await?;
    s.exec(&Invocation::new(["touch", "made"]), &mut |_, _| {}, &cx)
        .await?;
    s.exec(&Invocation::new(["id", "-u"]), &mut |_, _| {}, &cx)
        .await?;
    if let Err(e) = s.spawn(&Invocation::new(["cat"]), &cx).await {
        println!("refused: {e}");
    }
    s.close().await?;

    let log = fs::read_to_string(dir.join("shown/audit.jsonl"))?;
    for line in log.lines() {
        let v: Value = serde_json::from_str(line)?;
        let what = v["what"].to_string();
        println!("{}: {what:.100}", v["sandbox"]);
    }
    println!("{} lines, none changed", verify(&log)?);
    match verify(&log.replace("touch", "rm")) {
        Err(why) => println!("after `touch` was made `rm`: {why}"),
        Ok(_) => return Err("a change went unnoticed".into()),
    }
    Ok(())
}

/// The promises of the two traits, each tried on a backend of its own.
fn conforms(dir: &Path) -> Result<(), Box<dyn Error>> {
    let (top, n) = (dir.to_owned(), AtomicU64::new(0));
    let checks = sandbox(move || {
        let n = n.fetch_add(1, Ordering::Relaxed);
        bed(&top.join(n.to_string())).expect("a directory of our own")
    });
    let all = checks.len();
    let mut broken = 0;
    for check in checks {
        let name = check.name;
        if let Err(why) = check.run() {
            broken += 1;
            println!("broken: {name}: {why}");
        }
    }
    println!(
        "the conformance kit: {} of {all} promises kept",
        all - broken
    );
    match broken {
        0 => Ok(()),
        n => Err(format!("{n} promises broken").into()),
    }
}

/// A recorded native backend, with the kit's commit in its store.
fn bed(dir: &Path) -> Result<SandboxBed, Box<dyn Error>> {
    let store = Arc::new(RepoStore::open(dir.join("store"), git()?)?);
    let meta = CommitMeta {
        message: "kit".into(),
        author_name: "kit".into(),
        author_email: "kit@localhost".into(),
        time: Timestamp(0),
    };
    let commit = store.commit(None, &sandbox_files(), &meta)?;
    let source_dir: PathBuf = store.checkout(&commit)?;
    let state_dir = dir.join("state");
    Ok(SandboxBed {
        backend: Arc::new(Audited {
            inner: Arc::new(NativeBackend::new(NativeOptions::new(store, &state_dir))?),
            log: Arc::new(AuditLog::create(&dir.join("audit.jsonl"))?),
        }),
        source: RepoSource { commit },
        source_dir,
        state_dir,
        generation: None,
    })
}
