use crate::Uses;
use smallhands::core::{
    Ambient, AttemptReport, CancelMode, CancelToken, DispatchKey, Executor, ExecutorCapabilities,
    Failure, FailureClass, Outcome, Ran, TaskContext, TaskEnvelope, TaskHandle, TaskHost, Worker,
    WorkerName, async_trait,
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    thread,
};
use tokio::sync::{Mutex, watch};

/// Runs each task on a thread of its own.
#[derive(Debug)]
pub struct Threads {
    workers: Arc<BTreeMap<WorkerName, Arc<dyn Worker>>>,
    ambient: Ambient,
    placed: Mutex<HashMap<DispatchKey, Arc<Placed>>>,
    uses: Uses,
}

#[derive(Debug)]
struct Placed {
    key: DispatchKey,
    cancel: CancelToken,
    report: watch::Receiver<Option<AttemptReport>>,
}

impl Threads {
    /// With these workers.
    pub fn new(workers: Vec<Arc<dyn Worker>>, ambient: Ambient, uses: Uses) -> Self {
        let workers = workers.into_iter().map(|w| (w.name().clone(), w));
        Self {
            workers: Arc::new(workers.collect()),
            ambient,
            placed: Mutex::default(),
            uses,
        }
    }
}

fn failed(code: &'static str, why: impl ToString, ran: Ran) -> AttemptReport {
    AttemptReport {
        outcome: Outcome::Halted(
            Failure::new(code, FailureClass::WorkerLost, why.to_string()).into(),
        ),
        ran,
    }
}

fn attempt(
    workers: &BTreeMap<WorkerName, Arc<dyn Worker>>,
    task: Arc<TaskEnvelope>,
    host: Arc<dyn TaskHost>,
    ambient: Ambient,
    cancel: CancelToken,
) -> AttemptReport {
    let Some(worker) = workers.get(&task.spec.worker) else {
        return failed("threads.worker", &task.spec.worker, Ran::No);
    };
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(r) => r,
        Err(e) => return failed("threads.runtime", e, Ran::No),
    };
    let input = task.input.clone();
    let cx = TaskContext::new(task, host, ambient, cancel);
    AttemptReport {
        outcome: runtime.block_on(worker.run(input, &cx)).into(),
        ran: Ran::Yes,
    }
}

#[async_trait]
impl Executor for Threads {
    fn name(&self) -> &str {
        "threads"
    }
    fn capabilities(&self) -> ExecutorCapabilities {
        ExecutorCapabilities::default()
    }
    async fn submit(
        &self,
        task: Arc<TaskEnvelope>,
        host: Arc<dyn TaskHost>,
    ) -> Result<Arc<dyn TaskHandle>, Failure> {
        let key = task.key.clone();
        let mut all = self.placed.lock().await;
        if let Some(p) = all.get(&key) {
            return Ok(p.clone());
        }
        self.uses.add("executor");
        let (tell, report) = watch::channel(None);
        let placed = Arc::new(Placed {
            key: key.clone(),
            cancel: CancelToken::new(),
            report,
        });
        let (workers, ambient, cancel) = (
            self.workers.clone(),
            self.ambient.clone(),
            placed.cancel.clone(),
        );
        thread::spawn(move || {
            tell.send_replace(Some(attempt(&workers, task, host, ambient, cancel)));
        });
        all.insert(key, placed.clone());
        Ok(placed)
    }
}

#[async_trait]
impl TaskHandle for Placed {
    fn key(&self) -> &DispatchKey {
        &self.key
    }
    async fn report(&self) -> AttemptReport {
        let mut report = self.report.clone();
        let found = report.wait_for(Option::is_some).await.map(|r| r.clone());
        match found {
            Ok(Some(r)) => r,
            // The thread panicked.
            _ => failed("threads.lost", "the thread is gone", Ran::Maybe),
        }
    }
    async fn cancel(&self, _: CancelMode) {
        self.cancel.cancel();
    }
}
