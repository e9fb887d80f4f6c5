//! An executor of one's own, around another: it lets at most one task of a kind run at a time and
//! tells how long each waited. Retries, journal and results stay with the engine.
//!
//! `cargo run -p smallhands-examples --bin custom_executor`

use smallhands::{
    SmallHands,
    core::{
        Ambient, AttemptReport, CancelMode, DispatchKey, Executor, ExecutorCapabilities, Failure,
        NoGuard, NoSecrets, TaskEnvelope, TaskHandle, TaskHost, TaskSpec, WorkerName, async_trait,
        worker,
    },
    exec::InProcess,
    graph::{MemoryBlobs, NewRun, SystemClock, TaskGraph},
};
use std::{
    collections::BTreeMap,
    error::Error,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{Mutex, OwnedMutexGuard};

#[derive(Debug)]
struct OneOfAKind {
    inner: Arc<dyn Executor>,
    kinds: Mutex<BTreeMap<WorkerName, Arc<Mutex<()>>>>,
}

#[async_trait]
impl Executor for OneOfAKind {
    fn name(&self) -> &str {
        "one-of-a-kind"
    }
    fn capabilities(&self) -> ExecutorCapabilities {
        self.inner.capabilities()
    }
    async fn submit(
        &self,
        task: Arc<TaskEnvelope>,
        host: Arc<dyn TaskHost>,
    ) -> Result<Arc<dyn TaskHandle>, Failure> {
        let kind = self
            .kinds
            .lock()
            .await
            .entry(task.spec.worker.clone())
            .or_default()
            .clone();
        let (asked, id) = (Instant::now(), task.key.task.clone());
        let turn = kind.lock_owned().await;
        println!("{id} waited {} ms", asked.elapsed().as_millis());
        let inner = self.inner.submit(task, host).await?;
        Ok(Arc::new(Handle {
            inner,
            turn: Mutex::new(Some(turn)),
        }))
    }
}

#[derive(Debug)]
struct Handle {
    inner: Arc<dyn TaskHandle>,
    turn: Mutex<Option<OwnedMutexGuard<()>>>,
}

#[async_trait]
impl TaskHandle for Handle {
    fn key(&self) -> &DispatchKey {
        self.inner.key()
    }
    async fn report(&self) -> AttemptReport {
        let report = self.inner.report().await;
        self.turn.lock().await.take();
        report
    }
    async fn cancel(&self, how: CancelMode) {
        self.inner.cancel(how).await;
    }
    async fn acknowledge(&self) {
        self.inner.acknowledge().await;
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let sleep = |name: &str| {
        worker(name, |ms: u64, _| async move {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            Ok(ms)
        })
    };
    let ambient = Ambient {
        clock: Arc::new(SystemClock),
        blobs: Arc::new(MemoryBlobs::default()),
        guard: Arc::new(NoGuard),
        secrets: Arc::new(NoSecrets),
    };
    let inner = Arc::new(InProcess::new([sleep("disk"), sleep("net")], ambient));
    let executor = OneOfAKind {
        inner,
        kinds: Mutex::default(),
    };
    let graph = TaskGraph::new()
        .task(TaskSpec::new("disk/1", "disk").input(40))
        .task(TaskSpec::new("disk/2", "disk").input(40))
        .task(TaskSpec::new("net/1", "net").input(40))
        .build()?;
    let hands = SmallHands::builder().executor(Arc::new(executor)).build()?;
    let done = hands.run(NewRun::new("r", graph)).await?.wait().await?;
    println!("{}", done.status);
    Ok(())
}
