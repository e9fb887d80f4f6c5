use smallhands_core::{Ambient, CallCx, CancelToken, NoGuard, NoSecrets};
use smallhands_graph::{MemoryBlobs, SystemClock};
use smallhands_sandbox::{
    Ended, Invocation, RepoSource, RepoStore, Sandbox, SandboxBackend, SandboxSpec, Uncommitted,
    linux::{NativeBackend, NativeOptions},
};
use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Instant,
};
use tokio::runtime::Runtime;

pub(crate) type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// What every bench gets.
pub(crate) struct Bed<'a> {
    pub(crate) rt: Runtime,
    pub(crate) backend: NativeBackend,
    pub(crate) dir: &'a Path,
    pub(crate) rounds: usize,
    /// Sizes are divided by it.
    pub(crate) shrink: usize,
    pub(crate) bwrap: Option<PathBuf>,
}

impl<'a> Bed<'a> {
    pub(crate) fn new(dir: &'a Path, quick: bool, bwrap: Option<PathBuf>) -> Result<Self> {
        let store = Arc::new(RepoStore::open(dir.join("store"), "git")?);
        let options = NativeOptions::new(store, dir.join("state"));
        Ok(Self {
            rt: Runtime::new()?,
            backend: NativeBackend::new(options)?,
            dir,
            rounds: if quick { 2 } else { 50 },
            // Enough to see that it works.
            shrink: if quick { 50 } else { 1 },
            bwrap,
        })
    }

    pub(crate) fn open(&self, spec: &SandboxSpec) -> Result<Box<dyn Sandbox>> {
        Ok(self.rt.block_on(self.backend.open(spec, &call()))?)
    }

    pub(crate) fn close(&self, sandbox: Box<dyn Sandbox>) -> Result {
        Ok(self.rt.block_on(sandbox.close())?)
    }

    /// Opened, `true` run in it, and closed: nothing is left.
    pub(crate) fn whole(&self, spec: &SandboxSpec) -> Result {
        self.rt.block_on(whole(&self.backend, spec))
    }

    /// The clean copy of a repository with so many files, which is made here, once.
    pub(crate) fn repository(&self, name: &str, files: usize) -> Result<SandboxSpec> {
        // It stays: ext4 is slow to make files where it lately removed some.
        let repo = self.dir.join(format!("repo-{name}"));
        let git = |args: &[&str]| -> Result {
            let status = Command::new("git").current_dir(&repo).args(args).status()?;
            (status.success().then_some(())).ok_or_else(|| format!("git {args:?}: {status}").into())
        };
        for n in 0..files {
            let path = repo.join(path_of(n));
            if n % PER_DIRECTORY == 0 {
                fs::create_dir_all(path.parent().ok_or("no directory")?)?;
            }
            fs::write(path, format!("file {n}\n").repeat(20))?;
        }
        git(&["init", "-q"])?;
        git(&["add", "-A"])?;
        let commit = [
            "-c",
            "user.name=b",
            "-c",
            "user.email=b@localhost",
            "commit",
            "-qm",
            "all",
        ];
        git(&commit)?;
        let store = self.backend.store();
        let commit = store.import(&repo, None, Uncommitted::Exclude)?.commit;
        store.checkout(&commit)?;
        Ok(SandboxSpec {
            source: Some(RepoSource { commit }),
            ..SandboxSpec::default()
        })
    }
}

const PER_DIRECTORY: usize = 50;

/// Where a generated repository has its n-th file.
pub(crate) fn path_of(n: usize) -> String {
    let directory = n / PER_DIRECTORY;
    format!("part{}/module{directory}/file{n}.py", directory / 20)
}

pub(crate) fn call() -> CallCx {
    let ambient = Ambient {
        clock: Arc::new(SystemClock),
        blobs: Arc::new(MemoryBlobs::default()),
        guard: Arc::new(NoGuard),
        secrets: Arc::new(NoSecrets),
    };
    CallCx::detached(ambient, CancelToken::new())
}

pub(crate) async fn run_true(sandbox: &dyn Sandbox) -> Result {
    let what = Invocation::new(["/bin/true"]);
    let done = sandbox.exec(&what, &mut |_, _| {}, &call()).await?;
    match done.ended {
        Ended::Exited(0) => Ok(()),
        other => Err(format!("true ended as {other:?}").into()),
    }
}

pub(crate) async fn whole(backend: &NativeBackend, spec: &SandboxSpec) -> Result {
    let sandbox = backend.open(spec, &call()).await?;
    run_true(&*sandbox).await?;
    Ok(sandbox.close().await?)
}

/// How many milliseconds something takes.
pub(crate) fn ms(f: impl FnOnce() -> Result) -> Result<f64> {
    let begin = Instant::now();
    f()?;
    Ok(begin.elapsed().as_secs_f64() * 1e3)
}
