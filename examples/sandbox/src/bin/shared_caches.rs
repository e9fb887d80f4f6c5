//! A cache that two tasks share without trusting each other, and an environment that is set up once.
//!
//! `cargo run -p sandbox-examples --bin shared_caches`

use smallhands_core::{Ambient, CallCx, CancelToken, Digest, NoGuard, NoSecrets};
use smallhands_graph::{MemoryBlobs, SystemClock};
use smallhands_sandbox::{
    Cache, CacheKind, Checksums, Environment, Environments, Invocation, Origin, RepoStore, Sandbox,
    SandboxBackend, SandboxSpec,
    linux::{self, NativeBackend, NativeOptions},
};
use std::{error::Error, path::PathBuf, sync::Arc};

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result {
    // First in main: sandboxes start this program again as their helper.
    linux::init();
    tokio::runtime::Runtime::new()?.block_on(run())
}

async fn run() -> Result {
    let dir = tempfile::tempdir()?;
    let git = ["/usr/bin/git", "/usr/local/bin/git"].map(PathBuf::from);
    let git = git
        .into_iter()
        .find(|g| g.exists())
        .ok_or("git is needed")?;
    let store = Arc::new(RepoStore::open(dir.path().join("store"), git)?);
    let backend = NativeBackend::new(NativeOptions::new(store, dir.path().join("state")))?;
    let ambient = Ambient {
        clock: Arc::new(SystemClock),
        blobs: Arc::new(MemoryBlobs::default()),
        guard: Arc::new(NoGuard),
        secrets: Arc::new(NoSecrets),
    };
    let cx = CallCx::detached(ambient, CancelToken::new());

    let cache = Cache::open(dir.path().join("cargo"), CacheKind::CargoRegistry)?;
    // What the user's Cargo.lock says.
    let mut sums = Checksums::default();
    sums.add("tiny", "1.0.0", Digest::of_bytes(b"tiny").hex());
    for content in ["poison", "tiny", "poison"] {
        let view = cache.view("/cache/cargo")?;
        let spec = SandboxSpec {
            env: vec![cache.kind().environment(&view.at)],
            caches: vec![view.clone()],
            ..SandboxSpec::default()
        };
        let task = backend.open(&spec, &cx).await?;
        let script = "cd $CARGO_HOME; echo a task begins with: $(find . -type f); \
                      mkdir -p registry/cache/r; printf %s \"$0\" > registry/cache/r/tiny-1.0.0.crate";
        show(&*task, Invocation::new(["sh", "-c", script, content]), &cx).await?;
        let done = cache.promote(&*task, &view, Origin::Task(&sums)).await?;
        println!("it left {content}: added {:?}", done.added);
        for r in done.refused {
            println!("  refused {}: {}", r.path.display(), r.why);
        }
        task.close().await?;
    }

    let environments = Environments::open(dir.path().join("environments"))?;
    let what = Environment {
        setup: vec![Invocation::new(["sh", "-c", "mkdir env; date > env/made"])],
        makes: vec!["env".into()],
        ..Environment::default()
    };
    for _ in 0..2 {
        let ready = environments.get(&backend, &what, &cx).await?;
        println!("commands run to set it up: {}", ready.setup.len());
        let spec = SandboxSpec {
            environment: Some(ready.generation.clone()),
            ..SandboxSpec::default()
        };
        let task = backend.open(&spec, &cx).await?;
        show(&*task, Invocation::new(["cat", "env/made"]), &cx).await?;
        task.close().await?;
    }
    Ok(())
}

async fn show(task: &dyn Sandbox, what: Invocation, cx: &CallCx) -> Result {
    let done = task.exec(&what, &mut |_, _| {}, cx).await?;
    print!("{}", done.text());
    Ok(())
}
