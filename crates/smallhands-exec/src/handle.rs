use smallhands_core::{
    AttemptReport, BoxFuture, CancelMode, DispatchKey, Failure, FailureClass, Ran, TaskHandle,
    async_trait,
};
use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};
use tokio::sync::watch;

type OnCancel = Box<dyn Fn(CancelMode) -> BoxFuture<'static, ()> + Send + Sync>;
type Live = Mutex<HashMap<DispatchKey, Arc<Placement>>>;

/// The placements of an executor, by key, until their report is acknowledged.
#[derive(Clone, Default)]
pub(crate) struct Placements(Arc<Live>);

impl fmt::Debug for Placements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.lock().keys()).finish()
    }
}

impl Placements {
    fn lock(&self) -> MutexGuard<'_, HashMap<DispatchKey, Arc<Placement>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The placement of that key, made by `start` if there is none; `start` gets where to report.
    pub(crate) fn get_or_start(
        &self,
        key: &DispatchKey,
        start: impl FnOnce(watch::Sender<Option<AttemptReport>>) -> OnCancel,
    ) -> Arc<Placement> {
        let mut live = self.lock();
        if let Some(p) = live.get(key) {
            return p.clone();
        }
        let (tx, report) = watch::channel(None);
        let p = Arc::new(Placement {
            key: key.clone(),
            report,
            cancel: start(tx),
            live: Arc::downgrade(&self.0),
        });
        live.insert(key.clone(), p.clone());
        p
    }

    pub(crate) fn all(&self) -> Vec<Arc<Placement>> {
        self.lock().values().cloned().collect()
    }
}

/// One placement, as the engine holds it.
pub(crate) struct Placement {
    key: DispatchKey,
    report: watch::Receiver<Option<AttemptReport>>,
    cancel: OnCancel,
    live: Weak<Live>,
}

impl fmt::Debug for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Placement({})", self.key)
    }
}

#[async_trait]
impl TaskHandle for Placement {
    fn key(&self) -> &DispatchKey {
        &self.key
    }
    async fn report(&self) -> AttemptReport {
        let mut rx = self.report.clone();
        let report = rx.wait_for(Option::is_some).await;
        match report.ok().and_then(|r| r.clone()) {
            Some(r) => r,
            // The reporting side went away without a word, as when its runtime shut down.
            None => crate::halted(
                Failure::new(
                    "worker.lost",
                    FailureClass::WorkerLost,
                    "the executor stopped",
                ),
                Ran::Maybe,
            ),
        }
    }
    async fn cancel(&self, how: CancelMode) {
        (self.cancel)(how).await;
    }
    async fn acknowledge(&self) {
        if let Some(live) = self.live.upgrade() {
            let mut live = live.lock().unwrap_or_else(PoisonError::into_inner);
            live.remove(&self.key);
        }
    }
}
