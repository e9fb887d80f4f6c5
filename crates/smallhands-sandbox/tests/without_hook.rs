//! A program that did not call the hook: nothing is opened, and nothing is started.

use smallhands_core::{
    Ambient, BlobRef, BlobStore, BoxFuture, CallCx, CancelToken, Clock, Failure, FailureClass,
    NoGuard, NoSecrets, Timestamp, async_trait,
};
use smallhands_sandbox::{
    RepoStore, SandboxBackend, SandboxError, SandboxSpec,
    linux::{NativeBackend, NativeOptions},
};
use std::{
    future::Future,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

#[derive(Debug)]
struct Nothing;

impl Clock for Nothing {
    fn now(&self) -> Timestamp {
        Timestamp(0)
    }
    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
}

#[async_trait]
impl BlobStore for Nothing {
    async fn put(&self, _: Vec<u8>) -> Result<BlobRef, Failure> {
        Err(Failure::new("blob.none", FailureClass::Store, "none"))
    }
    async fn get(&self, _: &BlobRef) -> Result<Vec<u8>, Failure> {
        Err(Failure::new("blob.none", FailureClass::Store, "none"))
    }
}

/// A future that must be ready at once.
fn at_once<T>(f: impl Future<Output = T>) -> T {
    let mut f = std::pin::pin!(f);
    match f.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => panic!("it waits for something"),
    }
}

#[allow(clippy::unwrap_used)] // Clippy sees no test in a helper of one.
fn children() -> String {
    let mut all = String::new();
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        all += &std::fs::read_to_string(task.unwrap().path().join("children")).unwrap();
    }
    all
}

#[test]
fn without_the_hook_nothing_is_started() {
    let dir = std::env::temp_dir().join(format!("sbx-hook-{}", std::process::id()));
    let git = ["/usr/bin/git", "/usr/local/bin/git"];
    let git = git
        .iter()
        .find(|g| std::path::Path::new(g).exists())
        .unwrap();
    let store = Arc::new(RepoStore::open(dir.join("store"), git).unwrap());
    let backend = NativeBackend::new(NativeOptions::new(store, dir.join("state"))).unwrap();
    let ambient = Ambient {
        clock: Arc::new(Nothing),
        blobs: Arc::new(Nothing),
        guard: Arc::new(NoGuard),
        secrets: Arc::new(NoSecrets),
    };
    let cx = CallCx::detached(ambient, CancelToken::new());
    let opened = at_once(backend.open(&SandboxSpec::default(), &cx));
    assert!(
        matches!(opened, Err(SandboxError::NotInitialised)),
        "{opened:?}"
    );
    let found = at_once(backend.probe());
    assert!(
        !found.usable() && format!("{found:?}").contains("smallhands::init()"),
        "{found:?}"
    );
    assert_eq!(children(), "");
    drop(backend);
    std::fs::remove_dir_all(dir).unwrap();
}
