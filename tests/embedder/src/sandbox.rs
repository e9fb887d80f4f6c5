use crate::{
    Uses,
    files::{self, Tree},
};
use smallhands::{
    core::{BlobRef, BlobStore, CallCx, async_trait},
    sandbox::{
        Capabilities, DirEntry, Ended, EntryKind, Execution, Invocation, OutputSink, Sandbox,
        SandboxBackend, SandboxError, SandboxSpec, Snapshot,
    },
};
use std::{
    fs, io,
    path::{Component, Path, PathBuf},
    process::Stdio,
    time::Instant,
};
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

/// Copies of directories, with real commands and no walls: for code that one trusts.
#[derive(Debug)]
pub struct Directories {
    bases: PathBuf,
    uses: Uses,
}

impl Directories {
    /// A commit is the name of a directory below `bases`.
    pub fn new(bases: impl Into<PathBuf>, uses: Uses) -> Self {
        Self {
            bases: bases.into(),
            uses,
        }
    }
}

#[derive(Debug)]
struct Copy {
    dir: TempDir,
    base: Option<String>,
    clean: Tree,
    env: Vec<(String, String)>,
    uses: Uses,
}

fn setup(e: io::Error) -> SandboxError {
    SandboxError::Setup {
        stage: "directory".into(),
        reason: e.to_string(),
    }
}

#[async_trait]
impl SandboxBackend for Directories {
    fn name(&self) -> &str {
        "directories"
    }
    async fn probe(&self) -> Capabilities {
        Capabilities::default()
    }
    async fn open(
        &self,
        spec: &SandboxSpec,
        cx: &CallCx,
    ) -> Result<Box<dyn Sandbox>, SandboxError> {
        self.uses.add("sandbox.open");
        let wanted = [
            ("egress allow-list", spec.egress.is_some()),
            ("caches", !spec.caches.is_empty()),
            ("environment", spec.environment.is_some()),
        ];
        if let Some((layer, _)) = wanted.into_iter().find(|(_, wanted)| *wanted) {
            return Err(SandboxError::Unavailable {
                layer: layer.into(),
                reason: "this sandbox is a copy of a directory".into(),
                fix: "do without it".into(),
            });
        }
        let base = spec.source.as_ref().map(|s| s.commit.clone());
        let clean = match &base {
            Some(name) => files::tree(&self.bases.join(name)).map_err(setup)?,
            None => Tree::new(),
        };
        let copy = Copy {
            dir: TempDir::new().map_err(setup)?,
            base,
            clean,
            env: spec.env.clone(),
            uses: self.uses.clone(),
        };
        copy.restore(spec.from.as_ref(), &*cx.ambient().blobs)
            .await?;
        Ok(Box::new(copy))
    }
}

impl Copy {
    fn path(&self, path: &str) -> Result<PathBuf, SandboxError> {
        let inside = |c| matches!(c, Component::Normal(_) | Component::CurDir);
        match Path::new(path).components().all(inside) {
            true => Ok(self.dir.path().join(path)),
            false => Err(SandboxError::Path {
                path: path.into(),
                reason: "it leaves the workspace".into(),
            }),
        }
    }
    fn tree(&self) -> Result<Tree, SandboxError> {
        files::tree(self.dir.path()).map_err(setup)
    }
    /// With exactly these files.
    fn fill(&self, tree: &Tree) -> Result<(), SandboxError> {
        fs::remove_dir_all(self.dir.path()).map_err(setup)?;
        fs::create_dir(self.dir.path()).map_err(setup)?;
        files::put(self.dir.path(), tree).map_err(setup)
    }
}

fn file(path: &str, e: io::Error) -> SandboxError {
    match e.kind() {
        io::ErrorKind::NotFound => SandboxError::NotFound(path.into()),
        _ => SandboxError::File {
            path: path.into(),
            reason: e.to_string(),
        },
    }
}

fn done(ended: Ended, stdout: Vec<u8>, stderr: Vec<u8>, begun: Instant) -> Execution {
    Execution {
        ended,
        stdout,
        stderr,
        cut_bytes: 0,
        wall: begun.elapsed(),
        enforced: Vec::new(),
        egress: Vec::new(),
        egress_cut: 0,
    }
}

#[async_trait]
impl Sandbox for Copy {
    async fn exec(
        &self,
        what: &Invocation,
        live: OutputSink<'_>,
        cx: &CallCx,
    ) -> Result<Execution, SandboxError> {
        self.uses.add("sandbox.exec");
        let begun = Instant::now();
        let Some((program, args)) = what.argv.split_first() else {
            return Ok(done(
                Ended::NotStarted("no program".into()),
                vec![],
                vec![],
                begun,
            ));
        };
        let mut command = Command::new(program);
        command
            .args(args)
            .current_dir(self.path(&what.cwd)?)
            .env_clear();
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin");
        command
            .envs(self.env.iter().chain(&what.env).cloned())
            .kill_on_drop(true);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = match command.spawn() {
            Ok(c) => c,
            Err(e) => {
                return Ok(done(
                    Ended::NotStarted(e.to_string()),
                    vec![],
                    vec![],
                    begun,
                ));
            }
        };
        let stdin = child.stdin.take();
        let feed = async {
            if let Some(mut pipe) = stdin {
                // A command need not read what it is given.
                drop(pipe.write_all(&what.stdin).await);
            }
        };
        let run = async { tokio::join!(child.wait_with_output(), feed).0 };
        let out = tokio::select! {
            () = cx.cancel().cancelled() => return Err(SandboxError::Cancelled),
            out = timeout(what.deadline, run) => out,
        };
        let out = match out {
            Err(_) => return Ok(done(Ended::TimedOut, vec![], vec![], begun)),
            Ok(out) => out.map_err(setup)?,
        };
        live("stdout", &out.stdout);
        live("stderr", &out.stderr);
        let ended = out.status.code().map_or(Ended::Signaled(9), Ended::Exited);
        Ok(done(ended, out.stdout, out.stderr, begun))
    }
    async fn read(&self, path: &str) -> Result<Vec<u8>, SandboxError> {
        fs::read(self.path(path)?).map_err(|e| file(path, e))
    }
    async fn write(&self, path: &str, bytes: &[u8]) -> Result<(), SandboxError> {
        let at = self.path(path)?;
        let dir = at.parent().unwrap_or(self.dir.path());
        fs::create_dir_all(dir)
            .and_then(|()| fs::write(&at, bytes))
            .map_err(|e| file(path, e))
    }
    async fn remove(&self, path: &str) -> Result<(), SandboxError> {
        fs::remove_file(self.path(path)?).map_err(|e| file(path, e))
    }
    async fn list(&self, dir: &str) -> Result<Vec<DirEntry>, SandboxError> {
        let at = self.path(dir)?;
        let below = self.tree()?.into_iter().filter_map(|(p, (_, bytes))| {
            let path = String::from_utf8_lossy(&p).into_owned();
            self.dir
                .path()
                .join(&path)
                .starts_with(&at)
                .then_some(DirEntry {
                    path,
                    kind: EntryKind::File,
                    len: bytes.len() as u64,
                })
        });
        Ok(below.collect())
    }
    async fn snapshot(&self, into: &dyn BlobStore) -> Result<BlobRef, SandboxError> {
        self.uses.add("sandbox.snapshot");
        let changes = files::changes(&self.clean, &self.tree()?);
        Snapshot::save(self.base.clone(), changes, into).await
    }
    async fn restore(
        &self,
        to: Option<&BlobRef>,
        from: &dyn BlobStore,
    ) -> Result<(), SandboxError> {
        let changes = match to {
            Some(blob) => Snapshot::load(blob, from).await?.changes(from).await?,
            None => Vec::new(),
        };
        self.fill(&files::changed(&self.clean, changes))
    }
    async fn fork(&self) -> Result<Box<dyn Sandbox>, SandboxError> {
        self.uses.add("sandbox.fork");
        let other = Self {
            dir: TempDir::new().map_err(setup)?,
            base: self.base.clone(),
            clean: self.clean.clone(),
            env: self.env.clone(),
            uses: self.uses.clone(),
        };
        other.fill(&self.tree()?)?;
        Ok(Box::new(other))
    }
    async fn diff(&self) -> Result<String, SandboxError> {
        Ok(files::patch(&self.clean, &self.tree()?))
    }
    async fn close(self: Box<Self>) -> Result<(), SandboxError> {
        self.dir.close().map_err(setup)
    }
}
