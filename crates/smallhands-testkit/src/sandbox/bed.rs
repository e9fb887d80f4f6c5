use super::SandboxBed;
use crate::ambient;
use smallhands_core::{BlobRef, BlobStore, CallCx, CancelToken, Failure, async_trait};
use smallhands_graph::MemoryBlobs;
use smallhands_sandbox::{Execution, Invocation, Sandbox, SandboxError, SandboxSpec};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

pub(super) type Boxed = Box<dyn Sandbox>;

/// Blobs that count how many were put.
#[derive(Debug, Default)]
pub(super) struct Counted {
    blobs: MemoryBlobs,
    puts: AtomicUsize,
}

impl Counted {
    pub(super) fn puts(&self) -> usize {
        self.puts.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl BlobStore for Counted {
    async fn put(&self, bytes: Vec<u8>) -> Result<BlobRef, Failure> {
        self.puts.fetch_add(1, Ordering::Relaxed);
        self.blobs.put(bytes).await
    }
    async fn get(&self, blob: &BlobRef) -> Result<Vec<u8>, Failure> {
        self.blobs.get(blob).await
    }
}

/// What one check works with.
pub(super) struct Bed {
    pub(super) given: SandboxBed,
    pub(super) blobs: Arc<Counted>,
    pub(super) cancel: CancelToken,
    pub(super) cx: CallCx,
}

pub(super) fn said(e: impl ToString) -> String {
    e.to_string()
}

impl Bed {
    pub(super) fn new(given: SandboxBed) -> Self {
        let (blobs, cancel) = (Arc::<Counted>::default(), CancelToken::new());
        let cx = CallCx::detached(ambient(blobs.clone()), cancel.clone());
        Self {
            given,
            blobs,
            cancel,
            cx,
        }
    }
    pub(super) fn spec(&self) -> SandboxSpec {
        SandboxSpec {
            source: Some(self.given.source.clone()),
            ..SandboxSpec::default()
        }
    }
    pub(super) async fn try_open(&self, spec: &SandboxSpec) -> Result<Boxed, SandboxError> {
        self.given.backend.open(spec, &self.cx).await
    }
    pub(super) async fn open(&self) -> Result<Boxed, String> {
        self.try_open(&self.spec()).await.map_err(said)
    }
    pub(super) async fn try_exec(
        &self,
        s: &Boxed,
        what: &Invocation,
    ) -> Result<Execution, SandboxError> {
        s.exec(what, &mut |_, _| {}, &self.cx).await
    }
    pub(super) async fn exec(&self, s: &Boxed, what: &Invocation) -> Result<Execution, String> {
        self.try_exec(s, what).await.map_err(said)
    }
    pub(super) async fn sh(&self, s: &Boxed, script: &str) -> Result<Execution, String> {
        self.exec(s, &shell(script)).await
    }
    /// The output of a script that must succeed.
    pub(super) async fn out(&self, s: &Boxed, script: &str) -> Result<String, String> {
        let done = self.sh(s, script).await?;
        match done.ok() {
            true => Ok(String::from_utf8_lossy(&done.stdout).into_owned()),
            false => Err(format!("{script}: {:?} {}", done.ended, done.text())),
        }
    }
    /// Everything in the workspace: kinds, modes, targets and checksums.
    pub(super) async fn tree(&self, s: &Boxed) -> Result<String, String> {
        const EACH: &str = "for f; do if test -L \"$f\"; then echo \"$f -> $(readlink \"$f\")\"; \
                            elif test -d \"$f\"; then echo \"$f/\"; else test -x \"$f\" && x=x || x=-; \
                            echo \"$f $x $(cksum < \"$f\")\"; fi; done";
        let script = "find . -path ./.git -prune -o -exec sh -c \"$0\" sh {} + | LC_ALL=C sort";
        let done = self
            .exec(s, &Invocation::new(["sh", "-c", script, EACH]))
            .await?;
        match done.ok() && done.stderr.is_empty() {
            true => Ok(String::from_utf8_lossy(&done.stdout).into_owned()),
            false => Err(done.text()),
        }
    }
    /// The host's files that nothing inside may change.
    pub(super) fn source(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        walk(&self.given.source_dir)
    }
    /// What the backend keeps, by name.
    pub(super) fn kept(&self) -> Vec<PathBuf> {
        walk(&self.given.state_dir).into_keys().collect()
    }
}

pub(super) fn shell(script: &str) -> Invocation {
    Invocation::new(["sh", "-c", script])
}

/// Everything below a directory of the host; of a link its target, of a directory nothing.
fn walk(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let (path, kind) = (entry.path(), entry.file_type());
            let bytes = match kind {
                Ok(k) if k.is_dir() => {
                    open.push(path.clone());
                    Vec::new()
                }
                Ok(k) if k.is_symlink() => fs::read_link(&path)
                    .map(|t| t.into_os_string().into_encoded_bytes())
                    .unwrap_or_default(),
                _ => fs::read(&path).unwrap_or_default(),
            };
            found.insert(path, bytes);
        }
    }
    found
}
