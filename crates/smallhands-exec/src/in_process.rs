use crate::{halted, handle::Placements};
use smallhands_core::{
    Ambient, AttemptReport, CancelMode, CancelToken, Executor, ExecutorCapabilities, Failure,
    FailureClass, Halt, Outcome, Ran, TaskContext, TaskEnvelope, TaskHandle, TaskHost, Worker,
    WorkerName, async_trait,
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tracing::Instrument;

/// Runs tasks on the tokio runtime of the engine's own process.
#[derive(Debug)]
pub struct InProcess {
    workers: BTreeMap<WorkerName, Arc<dyn Worker>>,
    ambient: Ambient,
    placements: Placements,
}

impl InProcess {
    /// With these workers.
    pub fn new(workers: impl IntoIterator<Item = Arc<dyn Worker>>, ambient: Ambient) -> Self {
        let workers = workers.into_iter().map(|w| (w.name().clone(), w));
        Self {
            workers: workers.collect(),
            ambient,
            placements: Placements::default(),
        }
    }
}

#[async_trait]
impl Executor for InProcess {
    fn name(&self) -> &'static str {
        "in-process"
    }
    fn capabilities(&self) -> ExecutorCapabilities {
        ExecutorCapabilities::default()
    }
    async fn submit(
        &self,
        task: TaskEnvelope,
        host: Arc<dyn TaskHost>,
    ) -> Result<Arc<dyn TaskHandle>, Failure> {
        let key = task.key.clone();
        let placement = self.placements.get_or_start(&key, |report| {
            let cancel = CancelToken::new();
            let work = attempt(
                self.workers.clone(),
                task,
                host,
                self.ambient.clone(),
                cancel.clone(),
            );
            let running = tokio::spawn(work.in_current_span());
            let abort = running.abort_handle();
            tokio::spawn(async move {
                let r = match running.await {
                    Ok(r) => r,
                    Err(e) if e.is_panic() => panicked(),
                    Err(_) => AttemptReport {
                        outcome: Outcome::Halted(Halt::Cancelled),
                        ran: Ran::Maybe,
                    },
                };
                report.send_replace(Some(r));
            });
            Box::new(move |how| {
                cancel.cancel();
                if how == CancelMode::Hard {
                    abort.abort();
                }
                Box::pin(async {})
            })
        });
        Ok(placement)
    }
    async fn shutdown(&self, _: Duration) -> Result<(), Failure> {
        for p in self.placements.all() {
            p.cancel(CancelMode::Hard).await;
        }
        Ok(())
    }
}

pub(crate) fn panicked() -> AttemptReport {
    let f = Failure::new("worker.panic", FailureClass::Task, "the worker panicked");
    halted(f, Ran::Yes)
}

/// One attempt in this process.
pub(crate) async fn attempt(
    workers: BTreeMap<WorkerName, Arc<dyn Worker>>,
    task: TaskEnvelope,
    host: Arc<dyn TaskHost>,
    ambient: Ambient,
    cancel: CancelToken,
) -> AttemptReport {
    let name = &task.spec.worker;
    let Some(worker) = workers.get(name).cloned() else {
        let known: Vec<_> = workers.keys().map(WorkerName::as_str).collect();
        let why = format!(
            "there is no worker `{name}`; known are: {}",
            known.join(", ")
        );
        return halted(
            Failure::new("worker.unknown", FailureClass::Input, why),
            Ran::No,
        );
    };
    let span = tracing::info_span!("task", run = %task.key.run, task = %task.key.task, attempt = task.key.attempt);
    let input = task.input.clone();
    let cx = TaskContext::new(task, host, ambient, cancel);
    let outcome = worker.run(input, &cx).instrument(span).await;
    AttemptReport {
        outcome: outcome.into(),
        ran: Ran::Yes,
    }
}
