//! Backends with one fault each, to show that the kit sees it.

use smallhands_core::{BlobRef, BlobStore, CallCx, CancelToken, async_trait};
use smallhands_sandbox::{
    Capabilities, DirEntry, Execution, Invocation, OutputSink, Refused, Sandbox, SandboxBackend,
    SandboxError, SandboxProcess, SandboxSpec, SandboxUsage,
};
use std::{
    path::Path,
    sync::{Arc, Mutex},
};

/// What "close leaves it" left, for the end of the program.
pub(crate) static LEFT: Mutex<Vec<Box<dyn Sandbox>>> = Mutex::new(Vec::new());

/// The fault, and the check that is there for it.
pub(crate) const FAULTS: &[(&str, &str)] = &[
    (
        "fork shares the files",
        "a fork has the changes and is independent both ways",
    ),
    (
        "fork starts clean",
        "a fork has the changes and is independent both ways",
    ),
    ("diff misses deletions", "a diff names exactly what changed"),
    (
        "cut bytes are not counted",
        "output over the cap is cut in the middle and counted",
    ),
    (
        "cancelling is ignored",
        "cancelling the call kills the command, and the sandbox goes on",
    ),
    (
        "the environment is inherited",
        "the environment is made, not inherited",
    ),
    (
        "arguments go through a shell",
        "arguments arrive as they are",
    ),
    (
        "parent directories are dropped from paths",
        "a path that leaves the workspace is refused",
    ),
    (
        "restore does nothing",
        "a restore brings back a snapshot or the base",
    ),
    (
        "snapshots are not opened",
        "a snapshot opens elsewhere with everything",
    ),
    ("close leaves it", "after close nothing is left"),
    (
        "requirements are ignored",
        "what is not there cannot be opened",
    ),
    (
        "a list of hosts is ignored",
        "a list of hosts is kept to, or refused",
    ),
    (
        "caches are not shown",
        "what is written to a cache is seen in its sandbox only, or caches are refused",
    ),
    (
        "sandboxes share what they write to a cache",
        "what is written to a cache is seen in its sandbox only, or caches are refused",
    ),
    (
        "forks start with the cache as it was",
        "what is written to a cache is seen in its sandbox only, or caches are refused",
    ),
    (
        "export takes everything",
        "plain files come out, and nothing else",
    ),
    (
        "export knows no bound",
        "plain files come out, and nothing else",
    ),
    (
        "environments are not shown",
        "an environment is part of the base, or refused",
    ),
    (
        "environments are files like any other",
        "an environment is part of the base, or refused",
    ),
    (
        "a process gets another environment",
        "a process is spoken to and ends when it is dropped, if that is offered",
    ),
];

#[derive(Debug)]
pub(crate) struct Faulty(
    pub(crate) Arc<dyn SandboxBackend>,
    pub(crate) &'static str,
    pub(crate) Mutex<Option<Arc<Box<dyn Sandbox>>>>,
);

impl Faulty {
    fn shared(&self) -> Option<Arc<Box<dyn Sandbox>>> {
        self.2.lock().unwrap().clone()
    }
}

#[derive(Debug)]
struct FaultySandbox {
    inner: Arc<Box<dyn Sandbox>>,
    backend: Arc<dyn SandboxBackend>,
    spec: SandboxSpec,
    cx: CallCx,
    fault: &'static str,
}

#[async_trait]
impl SandboxBackend for Faulty {
    fn name(&self) -> &str {
        self.0.name()
    }
    async fn probe(&self) -> Capabilities {
        self.0.probe().await
    }
    async fn open(
        &self,
        spec: &SandboxSpec,
        cx: &CallCx,
    ) -> Result<Box<dyn Sandbox>, SandboxError> {
        let mut spec = spec.clone();
        if self.1 == "snapshots are not opened" {
            spec.from = None;
        }
        if self.1 == "requirements are ignored" {
            spec.require.clear();
        }
        if self.1 == "a list of hosts is ignored" {
            spec.egress = None;
        }
        if self.1 == "caches are not shown" {
            spec.caches.clear();
        }
        let environment = match self.1 {
            "environments are not shown" | "environments are files like any other" => {
                spec.environment.take()
            }
            _ => None,
        };
        let inner = match self.shared() {
            Some(inner) => inner,
            None => Arc::new(self.0.open(&spec, cx).await?),
        };
        if self.1 == "sandboxes share what they write to a cache" {
            *self.2.lock().unwrap() = Some(inner.clone());
        }
        if let Some(e) = environment.filter(|_| self.1 == "environments are files like any other") {
            let known = std::fs::read(e.path.join("shared/known")).unwrap();
            inner.write("shared/known", &known).await?;
        }
        Ok(Box::new(FaultySandbox {
            inner,
            backend: self.0.clone(),
            spec,
            cx: cx.clone(),
            fault: self.1,
        }))
    }
}

impl FaultySandbox {
    fn has(&self, fault: &str) -> bool {
        self.fault == fault
    }
    fn path(&self, path: &str) -> String {
        match self.has("parent directories are dropped from paths") {
            true => path.trim_start_matches(['/', '.']).into(),
            false => path.into(),
        }
    }
    fn with(&self, inner: Arc<Box<dyn Sandbox>>) -> Box<dyn Sandbox> {
        Box::new(Self {
            inner,
            backend: self.backend.clone(),
            spec: self.spec.clone(),
            cx: self.cx.clone(),
            fault: self.fault,
        })
    }
}

#[async_trait]
impl Sandbox for FaultySandbox {
    async fn exec(
        &self,
        what: &Invocation,
        live: OutputSink<'_>,
        cx: &CallCx,
    ) -> Result<Execution, SandboxError> {
        let (mut what, mut cx) = (what.clone(), cx.clone());
        match self.fault {
            "cancelling is ignored" => {
                cx = CallCx::detached(cx.ambient().clone(), CancelToken::new());
            }
            "the environment is inherited" => what.env.extend(std::env::vars()),
            "arguments go through a shell" => {
                what.argv = vec!["sh".into(), "-c".into(), what.argv.join(" ")];
            }
            _ => {}
        }
        let mut done = self.inner.exec(&what, live, &cx).await?;
        if self.has("cut bytes are not counted") {
            done.cut_bytes = 0;
        }
        Ok(done)
    }
    async fn spawn(
        &self,
        what: &Invocation,
        cx: &CallCx,
    ) -> Result<Box<dyn SandboxProcess>, SandboxError> {
        let mut what = what.clone();
        if self.has("a process gets another environment") {
            what.env.clear();
        }
        self.inner.spawn(&what, cx).await
    }
    async fn usage(&self) -> Result<SandboxUsage, SandboxError> {
        self.inner.usage().await
    }
    async fn read(&self, path: &str) -> Result<Vec<u8>, SandboxError> {
        self.inner.read(&self.path(path)).await
    }
    async fn write(&self, path: &str, bytes: &[u8]) -> Result<(), SandboxError> {
        self.inner.write(&self.path(path), bytes).await
    }
    async fn remove(&self, path: &str) -> Result<(), SandboxError> {
        self.inner.remove(&self.path(path)).await
    }
    async fn list(&self, dir: &str) -> Result<Vec<DirEntry>, SandboxError> {
        self.inner.list(&self.path(dir)).await
    }
    async fn snapshot(&self, into: &dyn BlobStore) -> Result<BlobRef, SandboxError> {
        self.inner.snapshot(into).await
    }
    async fn restore(
        &self,
        to: Option<&BlobRef>,
        from: &dyn BlobStore,
    ) -> Result<(), SandboxError> {
        match self.has("restore does nothing") {
            true => Ok(()),
            false => self.inner.restore(to, from).await,
        }
    }
    async fn fork(&self) -> Result<Box<dyn Sandbox>, SandboxError> {
        Ok(match self.fault {
            "fork shares the files" => self.with(self.inner.clone()),
            "forks start with the cache as it was" => {
                let blobs = &self.cx.ambient().blobs;
                let spec = SandboxSpec {
                    from: Some(self.inner.snapshot(&**blobs).await?),
                    ..self.spec.clone()
                };
                self.backend.open(&spec, &self.cx).await?
            }
            "fork starts clean" => self.backend.open(&self.spec, &self.cx).await?,
            _ => self.inner.fork().await?,
        })
    }
    async fn diff(&self) -> Result<String, SandboxError> {
        let patch = self.inner.diff().await?;
        if !self.has("diff misses deletions") {
            return Ok(patch);
        }
        let parts = patch
            .split_inclusive("diff --git ")
            .filter(|p| !p.contains("deleted"));
        Ok(parts.collect())
    }
    async fn export(
        &self,
        from: &str,
        into: &Path,
        max_bytes: u64,
    ) -> Result<Vec<Refused>, SandboxError> {
        let max_bytes = match self.has("export knows no bound") {
            true => u64::MAX,
            false => max_bytes,
        };
        let refused = self.inner.export(from, into, max_bytes).await?;
        if self.has("export takes everything") {
            for r in &refused {
                std::fs::write(into.join(&r.path), "x").unwrap();
            }
        }
        Ok(refused)
    }
    async fn close(self: Box<Self>) -> Result<(), SandboxError> {
        match Arc::into_inner(self.inner) {
            Some(inner) if self.fault == "close leaves it" => {
                LEFT.lock().unwrap().push(inner);
                Ok(())
            }
            Some(inner) => inner.close().await,
            None => Ok(()),
        }
    }
}
