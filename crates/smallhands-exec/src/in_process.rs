use crate::{
    halted,
    handle::{Placements, Report},
    pump::{Job, Pump},
};
use smallhands_core::{
    Ambient, AttemptReport, CancelMode, CancelToken, Effect, Executor, ExecutorCapabilities,
    Failure, FailureClass, Halt, Outcome, Ran, TaskContext, TaskEnvelope, TaskHandle, TaskHost,
    Worker, WorkerName, async_trait,
};
use std::{collections::BTreeMap, fmt, sync::Arc, thread, time::Duration};
use tracing::{Instrument, Span};

pub(crate) type Workers = BTreeMap<WorkerName, Arc<dyn Worker>>;

/// Runs tasks on the tokio runtime of the engine's own process.
pub struct InProcess {
    common: Arc<Common>,
    placements: Placements,
    pump: Arc<Pump<Running>>,
}

/// What all attempts have.
struct Common {
    workers: Workers,
    ambient: Ambient,
}

impl fmt::Debug for InProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InProcess")
            .field("workers", &self.common.workers.keys())
            .field("placements", &self.placements)
            .finish_non_exhaustive()
    }
}

impl InProcess {
    /// With these workers.
    pub fn new(workers: impl IntoIterator<Item = Arc<dyn Worker>>, ambient: Ambient) -> Self {
        let workers = workers.into_iter().map(|w| (w.name().clone(), w));
        Self {
            common: Arc::new(Common {
                workers: workers.collect(),
                ambient,
            }),
            placements: Placements::default(),
            pump: Arc::default(),
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
        task: Arc<TaskEnvelope>,
        host: Arc<dyn TaskHost>,
    ) -> Result<Arc<dyn TaskHandle>, Failure> {
        let (key, kept) = (task.key.clone(), task.clone());
        let placement = self.placements.get_or_start(&key, |report| {
            let cancel = CancelToken::new();
            let abort = self.pump.start(Running {
                common: self.common.clone(),
                task,
                host,
                reporter: Reporter {
                    to: report,
                    cancel: cancel.clone(),
                },
                span: Span::current(),
            });
            // Kept until the engine lets the placement go, so that it is freed by the thread that made it.
            let made = kept;
            Box::new(move |how| {
                let _ = &made;
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

/// One attempt on its way.
struct Running {
    common: Arc<Common>,
    task: Arc<TaskEnvelope>,
    host: Arc<dyn TaskHost>,
    reporter: Reporter,
    span: Span,
}

impl Job for Running {
    fn begin(self) -> impl Future<Output = ()> + Send + 'static {
        let Self {
            common,
            task,
            host,
            reporter,
            span,
        } = self;
        let all = async move {
            let ambient = common.ambient.clone();
            let cancel = reporter.cancel.clone();
            let report = attempt(&common.workers, task, host, ambient, cancel).await;
            reporter.to.send(report);
        };
        all.instrument(span)
    }
}

/// Reports for an attempt, one that panics or is aborted too: its drop is then all that runs.
struct Reporter {
    to: Report,
    cancel: CancelToken,
}

impl Drop for Reporter {
    fn drop(&mut self) {
        if thread::panicking() {
            self.to.send(panicked());
        } else if self.cancel.is_cancelled() {
            self.to.send(AttemptReport {
                outcome: Outcome::Halted(Halt::Cancelled),
                ran: Ran::Maybe,
            });
        }
        // Else the runtime went away, and the closed channel says so.
    }
}

pub(crate) fn panicked() -> AttemptReport {
    let f = Failure::new("worker.panic", FailureClass::Task, "the worker panicked");
    halted(f, Ran::Yes)
}

/// One attempt in this process.
pub(crate) async fn attempt(
    workers: &Workers,
    task: Arc<TaskEnvelope>,
    host: Arc<dyn TaskHost>,
    ambient: Ambient,
    cancel: CancelToken,
) -> AttemptReport {
    let name = &task.spec.worker;
    let Some(worker) = workers.get(name) else {
        let known: Vec<_> = workers.keys().map(WorkerName::as_str).collect();
        let why = format!(
            "there is no worker `{name}`; known are: {}",
            known.join(", ")
        );
        return halted(
            Failure::new("worker.unknown", FailureClass::Input, why)
                .hint("give the executor such a worker, then resume with failed tasks retried"),
            Ran::No,
        );
    };
    let span = tracing::info_span!("task", run = %task.key.run, task = %task.key.task, attempt = task.key.attempt);
    let (input, looks) = (
        task.input.clone(),
        task.again && task.spec.effect == Effect::Verifiable,
    );
    let cx = TaskContext::new(task, host, ambient, cancel);
    let work = async {
        if looks && let Some(found) = worker.verify(&input, &cx).await? {
            return Ok(found);
        }
        worker.run(input, &cx).await
    };
    let outcome: Result<_, Halt> = work.instrument(span).await;
    AttemptReport {
        outcome: outcome.into(),
        ran: Ran::Yes,
    }
}
