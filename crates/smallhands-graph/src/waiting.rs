use smallhands_core::RunId;
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;

/// Who waits for a run to go on, in this process. A run that nobody waits for has no entry.
#[derive(Default)]
pub(crate) struct Waiting(Mutex<HashMap<RunId, watch::Sender<u64>>>);

impl Waiting {
    fn runs(&self) -> MutexGuard<'_, HashMap<RunId, watch::Sender<u64>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The run ends at `last` now, and durably so.
    pub(crate) fn tell(&self, run: &RunId, last: u64) {
        if let Some(tx) = self.runs().get(run) {
            tx.send_replace(last);
        }
    }

    /// What is told after this call is not missed.
    pub(crate) fn join<'a>(&'a self, run: &'a RunId) -> Waiter<'a> {
        let mut runs = self.runs();
        let tx = runs
            .entry(run.clone())
            .or_insert_with(|| watch::Sender::new(0));
        Waiter {
            rx: tx.subscribe(),
            all: self,
            run,
        }
    }
}

/// One who waits.
pub(crate) struct Waiter<'a> {
    rx: watch::Receiver<u64>,
    all: &'a Waiting,
    run: &'a RunId,
}

impl Waiter<'_> {
    /// Until the run is told to go beyond `after`.
    pub(crate) async fn beyond(&mut self, after: u64) {
        // The sender lives in the map as long as this waiter does.
        drop(self.rx.wait_for(|last| *last > after).await);
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut runs = self.all.runs();
        // The last one out: its own receiver is the one that is left.
        if runs
            .get(self.run)
            .is_some_and(|tx| tx.receiver_count() <= 1)
        {
            runs.remove(self.run);
        }
    }
}
