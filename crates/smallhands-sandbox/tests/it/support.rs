//! A repository, a store, a backend and a clock for each test.

use smallhands_core::{
    Ambient, BlobRef, BlobStore, BoxFuture, CallCx, CancelToken, Clock, Digest, Failure,
    FailureClass, NoGuard, NoSecrets, Timestamp, async_trait,
};
use smallhands_sandbox::{
    Execution, Invocation, RepoSource, RepoStore, Sandbox, SandboxBackend, SandboxError,
    SandboxSpec, Uncommitted,
    linux::{NativeBackend, NativeOptions},
};
use std::{
    collections::HashMap,
    fs,
    future::Future,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

pub(crate) type Boxed = Box<dyn Sandbox>;

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future on this thread: the crate needs no runtime.
pub(crate) fn block_on<T>(f: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut f = std::pin::pin!(f);
    loop {
        if let Poll::Ready(done) = f.as_mut().poll(&mut Context::from_waker(&waker)) {
            return done;
        }
        std::thread::park();
    }
}

#[derive(Debug)]
struct RealClock(Instant);

impl Clock for RealClock {
    fn now(&self) -> Timestamp {
        Timestamp(0)
    }
    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
    fn sleep(&self, d: Duration) -> BoxFuture<'static, ()> {
        // A thread that outlives a sleep nobody waits for any more; short-lived enough in a test.
        let (tell, told) = tokio::sync::oneshot::channel::<()>();
        std::thread::spawn(move || {
            std::thread::sleep(d);
            let _ = tell.send(());
        });
        Box::pin(async move { drop(told.await) })
    }
}

#[derive(Debug, Default)]
pub(crate) struct MemoryBlobs(Mutex<HashMap<String, Vec<u8>>>);

#[async_trait]
impl BlobStore for MemoryBlobs {
    async fn put(&self, bytes: Vec<u8>) -> Result<BlobRef, Failure> {
        let digest = Digest::of_bytes(&bytes);
        let len = bytes.len() as u64;
        self.0.lock().unwrap().insert(digest.to_string(), bytes);
        Ok(BlobRef { digest, len })
    }
    async fn get(&self, blob: &BlobRef) -> Result<Vec<u8>, Failure> {
        let found = self.0.lock().unwrap().get(blob.digest.as_str()).cloned();
        found.ok_or_else(|| Failure::new("blob.missing", FailureClass::Store, "missing"))
    }
}

/// A directory that is gone with the test.
#[derive(Debug)]
pub(crate) struct TempDir(pub(crate) PathBuf);

impl TempDir {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("sbx-test-{}-{n}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Runs a program of the host and wants success.
#[allow(clippy::disallowed_methods)] // Tests set the scene outside the sandbox.
pub(crate) fn host(program: &str, args: &[&str], dir: &Path) -> String {
    let out = Command::new(program)
        .args(args)
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("HOME", "/nonexistent")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{program} {args:?}: {said}");
    String::from_utf8_lossy(&out.stdout).into_owned()
}

pub(crate) fn git_program() -> PathBuf {
    static GIT: OnceLock<String> = OnceLock::new();
    GIT.get_or_init(|| host("sh", &["-c", "command -v git"], Path::new("/")))
        .trim()
        .into()
}

pub(crate) fn git(dir: &Path, args: &[&str]) -> String {
    let id = ["-c", "user.name=T", "-c", "user.email=t@localhost"];
    host("git", &[&id, args].concat(), dir)
}

pub(crate) fn commit_all(dir: &Path) {
    git(dir, &["add", "-A"]);
    git(dir, &["commit", "-q", "-m", "x"]);
}

/// A small repository with everything that a snapshot must carry.
pub(crate) fn sample_repo(dir: &Path) -> PathBuf {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let repo = dir.join("repo");
    fs::create_dir_all(repo.join("src/deep")).unwrap();
    fs::create_dir_all(repo.join("data")).unwrap();
    git(&repo, &["init", "-q", "-b", "main"]);
    fs::write(repo.join("README.md"), "hello\n").unwrap();
    fs::write(repo.join("src/a.txt"), "one\ntwo\nthree\n").unwrap();
    fs::write(repo.join("src/deep/b.txt"), "b\n").unwrap();
    fs::write(repo.join("data/c.bin"), [0_u8, 255, 1, 254]).unwrap();
    fs::write(repo.join("run.sh"), "#!/bin/sh\necho run\n").unwrap();
    fs::set_permissions(repo.join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("src/a.txt", repo.join("link")).unwrap();
    fs::write(repo.join(".gitignore"), "*.log\n").unwrap();
    commit_all(&repo);
    repo
}

pub(crate) struct World {
    pub(crate) repo: PathBuf,
    pub(crate) store: Arc<RepoStore>,
    pub(crate) backend: NativeBackend,
    pub(crate) blobs: Arc<MemoryBlobs>,
    pub(crate) cx: CallCx,
    // Last, so that the backend is gone before it.
    pub(crate) dir: TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut NativeOptions)) -> Self {
        let dir = TempDir::new();
        let repo = sample_repo(&dir.0);
        let store = Arc::new(RepoStore::open(dir.0.join("store"), git_program()).unwrap());
        let mut options = NativeOptions::new(store.clone(), dir.0.join("state"));
        change(&mut options);
        let backend = NativeBackend::new(options).unwrap();
        let blobs = Arc::new(MemoryBlobs::default());
        let ambient = Ambient {
            clock: Arc::new(RealClock(Instant::now())),
            blobs: blobs.clone(),
            guard: Arc::new(NoGuard),
            secrets: Arc::new(NoSecrets),
        };
        let cx = CallCx::detached(ambient, CancelToken::new());
        Self {
            repo,
            store,
            backend,
            blobs,
            cx,
            dir,
        }
    }

    pub(crate) fn spec(&self) -> SandboxSpec {
        let imported = self
            .store
            .import(&self.repo, None, Uncommitted::Exclude)
            .unwrap();
        SandboxSpec {
            source: Some(RepoSource {
                commit: imported.commit,
            }),
            ..SandboxSpec::default()
        }
    }

    pub(crate) fn try_open(&self, spec: &SandboxSpec) -> Result<Boxed, SandboxError> {
        block_on(self.backend.open(spec, &self.cx))
    }

    pub(crate) fn open(&self) -> Boxed {
        self.try_open(&self.spec()).unwrap()
    }

    pub(crate) fn try_exec(&self, s: &Boxed, what: &Invocation) -> Result<Execution, SandboxError> {
        block_on(s.exec(what, &mut |_, _| {}, &self.cx))
    }

    pub(crate) fn exec(&self, s: &Boxed, what: &Invocation) -> Execution {
        self.try_exec(s, what).unwrap()
    }

    pub(crate) fn sh(&self, s: &Boxed, script: &str) -> Execution {
        self.exec(s, &Invocation::new(["sh", "-c", script]))
    }

    /// The output of a script that must succeed.
    pub(crate) fn out(&self, s: &Boxed, script: &str) -> String {
        let done = self.sh(s, script);
        assert!(done.ok(), "{script}: {:?} {}", done.ended, done.text());
        String::from_utf8(done.stdout).unwrap()
    }

    /// Directories of sandboxes, which have numbers for names.
    pub(crate) fn sandboxes_left(&self) -> usize {
        let boxes = fs::read_dir(self.dir.0.join("state/sandboxes")).unwrap();
        let inside = boxes.flat_map(|owner| fs::read_dir(owner.unwrap().path()).unwrap());
        let names = inside.map(|e| e.unwrap().file_name());
        let number = |n: &std::ffi::OsString| n.to_str().is_some_and(|n| n.parse::<u64>().is_ok());
        names.filter(number).count()
    }

    /// A script that the sandbox must stop.
    pub(crate) fn refused(&self, s: &Boxed, script: &str) -> String {
        let done = self.sh(s, script);
        assert!(!done.ok(), "not refused: {script}: {}", done.text());
        done.text()
    }
}

pub(crate) fn close(s: Boxed) {
    block_on(s.close()).unwrap();
}

pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").unwrap().uid() == 0
}
