use smallhands_core::{
    AttemptReport, BoxFuture, CancelMode, DispatchKey, Failure, FailureClass, Ran, TaskHandle,
    async_trait,
};
use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    task::{Poll, Waker},
};

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
        start: impl FnOnce(Report) -> OnCancel,
    ) -> Arc<Placement> {
        let mut live = self.lock();
        match live.entry(key.clone()) {
            Entry::Occupied(p) => p.get().clone(),
            Entry::Vacant(free) => {
                let p = Arc::new(Placement {
                    key: key.clone(),
                    report: Mutex::default(),
                    cancel: OnceLock::new(),
                    live: Arc::downgrade(&self.0),
                });
                let cancel = start(Report(p.clone()));
                p.cancel.get_or_init(|| cancel);
                free.insert(p).clone()
            }
        }
    }

    pub(crate) fn all(&self) -> Vec<Arc<Placement>> {
        self.lock().values().cloned().collect()
    }
}

/// Where a report is left for whoever waits for it.
#[derive(Default)]
struct Slot {
    report: Option<AttemptReport>,
    /// There is seldom another, and one costs no allocation.
    waiting: Option<Waker>,
    others: Vec<Waker>,
}

/// The side of a placement that reports, once.
pub(crate) struct Report(Arc<Placement>);

impl Report {
    /// What is sent after the first is not heard.
    pub(crate) fn send(&self, r: AttemptReport) {
        let mut slot = self.0.slot();
        slot.report.get_or_insert(r);
        let waiting = slot.waiting.take();
        let others = std::mem::take(&mut slot.others);
        drop(slot);
        waiting.into_iter().chain(others).for_each(Waker::wake);
    }
}

impl Drop for Report {
    /// It went away without a word, as when its runtime shut down.
    fn drop(&mut self) {
        if self.0.slot().report.is_none() {
            let why = "the executor stopped";
            let f = Failure::new("worker.lost", FailureClass::WorkerLost, why);
            self.send(crate::halted(f, Ran::Maybe));
        }
    }
}

/// One placement, as the engine holds it.
pub(crate) struct Placement {
    key: DispatchKey,
    report: Mutex<Slot>,
    /// Set before anybody else has the placement.
    cancel: OnceLock<OnCancel>,
    live: Weak<Live>,
}

impl Placement {
    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
        poll_fn(|cx| {
            let mut slot = self.slot();
            if let Some(r) = &slot.report {
                return Poll::Ready(r.clone());
            }
            let mut known = slot.waiting.iter().chain(&slot.others);
            if !known.any(|w| w.will_wake(cx.waker())) {
                let waker = cx.waker().clone();
                match slot.waiting {
                    None => slot.waiting = Some(waker),
                    Some(_) => slot.others.push(waker),
                }
            }
            Poll::Pending
        })
        .await
    }
    async fn cancel(&self, how: CancelMode) {
        if let Some(cancel) = self.cancel.get() {
            cancel(how).await;
        }
    }
    async fn acknowledge(&self) {
        if let Some(live) = self.live.upgrade() {
            let mut live = live.lock().unwrap_or_else(PoisonError::into_inner);
            live.remove(&self.key);
        }
    }
}
