use crate::{DispatchKey, Failure, Outcome, Ran, RunId, TaskEnvelope, TaskHost, async_trait};
use serde::{Deserialize, Serialize};
use std::{fmt::Debug, sync::Arc, time::Duration};

/// How hard a task is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CancelMode {
    /// The worker is asked to stop.
    Soft,
    /// Its process is killed, where it has one of its own.
    Hard,
}

/// What an executor can do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExecutorCapabilities {
    /// Tasks live on when the engine's process dies, and can be found again.
    pub survives_engine_restart: bool,
    /// [`CancelMode::Hard`] really kills.
    pub hard_cancel: bool,
    /// Tasks run outside the engine's process: objects given to a builder do not reach them.
    pub crosses_processes: bool,
    /// How many tasks run at once; 0: as many as are submitted.
    pub slots: usize,
}

/// How one placement of an attempt ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttemptReport {
    /// What came of it.
    pub outcome: Outcome,
    /// Whether any of it ran.
    pub ran: Ran,
}

/// What became of a placement from before.
#[derive(Debug)]
#[non_exhaustive]
pub enum Reattached {
    /// It still runs.
    Running(Arc<dyn TaskHandle>),
    /// It ended meanwhile.
    Finished(AttemptReport),
    /// Nothing is known of it.
    Unknown,
}

/// Places attempts on processes and keeps those alive. Retries, leases and results belong to the
/// graph.
#[async_trait]
pub trait Executor: Debug + Send + Sync + 'static {
    /// Stable; journaled with the run.
    fn name(&self) -> &str;
    /// What it can do.
    fn capabilities(&self) -> ExecutorCapabilities;
    /// Takes a task.
    ///
    /// # Behavior
    /// - An error means that nothing ran.
    /// - Idempotent on the whole key, fence included: the same key again gives the same placement.
    /// - The task's calls reach `host` in the order in which each was made, and each reply reaches
    ///   its caller.
    async fn submit(
        &self,
        task: Arc<TaskEnvelope>,
        host: Arc<dyn TaskHost>,
    ) -> Result<Arc<dyn TaskHandle>, Failure>;
    /// Finds a placement from before the engine restarted.
    ///
    /// # Behavior
    /// - Never starts anything.
    async fn reattach(
        &self,
        _key: &DispatchKey,
        _host: Arc<dyn TaskHost>,
    ) -> Result<Reattached, Failure> {
        Ok(Reattached::Unknown)
    }
    /// The placements of a run that it knows.
    async fn list(&self, _run: &RunId) -> Result<Vec<DispatchKey>, Failure> {
        Ok(Vec::new())
    }
    /// Stops: asks what runs to end, and kills it after `grace`.
    async fn shutdown(&self, _grace: Duration) -> Result<(), Failure> {
        Ok(())
    }
}

/// One placement of a task.
#[async_trait]
pub trait TaskHandle: Debug + Send + Sync {
    /// Whose placement this is.
    fn key(&self) -> &DispatchKey;
    /// How it ended.
    ///
    /// # Behavior
    /// - Waits until there is an answer; may be called many times and at once; always the same.
    /// - A lost process is an answer too (class `WorkerLost`), never a hang.
    async fn report(&self) -> AttemptReport;
    /// Stops it.
    ///
    /// # Behavior
    /// - Before the start, while it runs and after the end: harmless, repeatable.
    /// - `report` then answers, soon.
    async fn cancel(&self, how: CancelMode);
    /// The report is durable: it may be forgotten.
    async fn acknowledge(&self) {}
}
