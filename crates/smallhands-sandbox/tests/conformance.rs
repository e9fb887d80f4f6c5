//! The native backend keeps the contract; and the kit sees it when a backend does not.
#![allow(clippy::unwrap_used, reason = "tests")]

mod faulty;

use faulty::{FAULTS, Faulty, LEFT};
use libtest_mimic::{Arguments, Failed, Trial};
use smallhands_core::Timestamp;
use smallhands_sandbox::{
    CommitMeta, RepoSource, RepoStore,
    linux::{NativeBackend, NativeOptions},
};
use smallhands_testkit::{SandboxBed, sandbox, sandbox_files};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

/// A native backend in a new directory, with the kit's commit.
fn bed(root: &Path, always_copy: bool) -> SandboxBed {
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
    }
}

/// A backend fails the check that is there for its fault, and passes it without the fault.
fn caught(root: &Path, fault: &'static str, check: &str) -> Result<(), Failed> {
    let run = |fault| {
        let root = root.to_owned();
        let kit = sandbox(move || {
            let given = bed(&root, false);
            let backend = Arc::new(Faulty(given.backend, fault));
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
