//! The native backend keeps the contract; and the kit sees it when a backend does not.
#![allow(clippy::unwrap_used, reason = "tests")]

mod faulty;

use faulty::{FAULTS, Faulty, LEFT};
use libtest_mimic::{Arguments, Failed, Trial};
use smallhands_core::{
    BlobRef, BlobStore, CallCx, CancelToken, Failure, FailureClass, Timestamp, async_trait,
};
use smallhands_sandbox::{
    Cache, CacheKind, CommitMeta, Generation, Invocation, Origin, RepoSource, RepoStore,
    SandboxSpec,
    linux::{NativeBackend, NativeOptions},
};
use smallhands_testkit::{SandboxBed, sandbox, sandbox_files};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

/// Nothing is stored while a generation is made.
#[derive(Debug)]
struct NoBlobs;

#[async_trait]
impl BlobStore for NoBlobs {
    async fn put(&self, _: Vec<u8>) -> Result<BlobRef, Failure> {
        Err(Failure::new("none", FailureClass::Store, "no blobs"))
    }
    async fn get(&self, _: &BlobRef) -> Result<Vec<u8>, Failure> {
        Err(Failure::new("none", FailureClass::Store, "no blobs"))
    }
}

/// A generation for all beds, with what the kit looks for.
fn generation(root: &Path) -> Generation {
    static MADE: OnceLock<Generation> = OnceLock::new();
    let make = || {
        let given = bare(root, false);
        let cache = Cache::open(root.join("cache"), CacheKind::CargoTarget).unwrap();
        let view = cache.view("/cache/kit").unwrap();
        let spec = SandboxSpec {
            caches: vec![view.clone()],
            ..SandboxSpec::default()
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let ambient = smallhands_testkit::ambient(Arc::new(NoBlobs));
        let cx = CallCx::detached(ambient, CancelToken::new());
        let script = "mkdir /cache/kit/shared; echo known > /cache/kit/shared/known";
        let made = runtime.block_on(async {
            let s = given.backend.open(&spec, &cx).await?;
            let what = Invocation::new(["sh", "-c", script]);
            assert!(s.exec(&what, &mut |_, _| {}, &cx).await?.ok());
            let done = cache.promote(&*s, &view, Origin::Setup).await?;
            s.close().await.map(|()| done.generation)
        });
        made.unwrap()
    };
    MADE.get_or_init(make).clone()
}

fn bed(root: &Path, always_copy: bool) -> SandboxBed {
    SandboxBed {
        generation: Some(generation(root)),
        ..bare(root, always_copy)
    }
}

/// A native backend in a new directory, with the kit's commit.
fn bare(root: &Path, always_copy: bool) -> SandboxBed {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let dir = root.join(NEXT.fetch_add(1, Ordering::Relaxed).to_string());
    let (store_dir, state_dir) = (dir.join("store"), dir.join("state"));
    let git = ["/usr/local/bin/git", "/usr/bin/git"].map(PathBuf::from);
    let git = git.into_iter().find(|g| g.exists()).unwrap();
    let store = Arc::new(RepoStore::open(&store_dir, git).unwrap());
    let meta = CommitMeta {
        message: "kit".into(),
        author_name: "kit".into(),
        author_email: "kit@localhost".into(),
        time: Timestamp(0),
    };
    let commit = store.commit(None, &sandbox_files(), &meta).unwrap();
    let source_dir = store.checkout(&commit).unwrap();
    let mut options = NativeOptions::new(store, &state_dir);
    options.always_copy = always_copy;
    SandboxBed {
        backend: Arc::new(NativeBackend::new(options).unwrap()),
        source: RepoSource { commit },
        source_dir,
        state_dir,
        generation: None,
    }
}

/// A backend fails the check that is there for its fault, and passes it without the fault.
fn caught(root: &Path, fault: &'static str, check: &str) -> Result<(), Failed> {
    let run = |fault| {
        let root = root.to_owned();
        let kit = sandbox(move || {
            let given = bed(&root, false);
            let backend = Arc::new(Faulty(given.backend, fault, Mutex::default()));
            SandboxBed { backend, ..given }
        });
        kit.into_iter().find(|c| c.name == check).unwrap().run()
    };
    run("")?;
    match run(fault) {
        Err(_) => Ok(()),
        Ok(()) => Err("the kit did not notice".into()),
    }
}

/// Everything once more, as somebody without any privilege.
#[allow(
    clippy::disallowed_methods,
    reason = "the same program as another user"
)]
fn again() -> Result<(), Failed> {
    let user = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let me = std::env::current_exe()?;
    let out = Command::new("setpriv")
        .args(user)
        .arg(me)
        .current_dir("/")
        .output()?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    match out.status.success() {
        true => Ok(()),
        false => Err(text.into()),
    }
}

fn main() -> ExitCode {
    smallhands_sandbox::linux::init();
    let root = std::env::temp_dir().join(format!("sbx-kit-{}", std::process::id()));
    // Before anything that has a runtime of its own.
    generation(&root);
    let mut trials = Vec::new();
    for (name, always_copy) in [("overlay", false), ("copy", true)] {
        let root = root.clone();
        for check in sandbox(move || bed(&root, always_copy)) {
            let title = format!("{name}: {}", check.name);
            trials.push(Trial::test(title, move || {
                check.run().map_err(Failed::from)
            }));
        }
    }
    for (fault, check) in FAULTS {
        let root = root.clone();
        let title = format!("noticed: {fault}");
        trials.push(Trial::test(title, move || caught(&root, fault, check)));
    }
    // A root that may become somebody else.
    let proc = |file: &str| fs::read_to_string(format!("/proc/self/{file}")).unwrap();
    let alone = proc("uid_map").split_whitespace().nth(2) == Some("1");
    if proc("status").contains("\nUid:\t0\t") && !alone {
        trials.push(Trial::test("once more without privilege", again));
    }
    let code = libtest_mimic::run(&Arguments::from_args(), trials).exit_code();
    LEFT.lock().unwrap().clear();
    // A dropped sandbox ends in the background.
    for _ in 0..100 {
        if fs::remove_dir_all(&root).is_ok() || !root.exists() {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    code
}
