//! Runs from their journals.

use crate::{Event, GraphError, RunState, StateStore};
use smallhands_core::{RunId, Timestamp};
use std::sync::Arc;
use tokio::sync::mpsc;

const PAGE: usize = 2048;

type Page = Vec<(u64, Timestamp, Event)>;

/// Up to `limit` events after a record.
async fn page(
    store: &dyn StateStore,
    run: &RunId,
    after: u64,
    limit: usize,
) -> Result<Page, GraphError> {
    let stored = store.read(run, after, limit).await?;
    let decoded = stored.into_iter().map(|s| {
        let event = Event::from_record(&s.record).map_err(|why| unreadable(run, s.seq, why))?;
        Ok((s.seq, s.record.at, event))
    });
    decoded.collect()
}

pub(crate) fn unreadable(run: &RunId, seq: u64, reason: String) -> GraphError {
    GraphError::Journal {
        run: run.clone(),
        seq,
        reason,
    }
}

impl RunState {
    /// Folds the journal of a run.
    ///
    /// # Errors
    /// No such run; a record that this program cannot read; the store failed.
    pub async fn load(store: &dyn StateStore, run: &RunId) -> Result<Self, GraphError> {
        Self::load_until(store, run, u64::MAX).await
    }

    /// Folds the journal of a run up to a record: the run as it was then.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub async fn load_until(
        store: &dyn StateStore,
        run: &RunId,
        until: u64,
    ) -> Result<Self, GraphError> {
        let mut state = Self::default();
        while state.seq < until {
            let left = usize::try_from(until - state.seq).unwrap_or(PAGE);
            let limit = PAGE.min(left);
            let page = page(store, run, state.seq, limit).await?;
            let last = page.len() < limit;
            state.follow(run, page)?;
            if last {
                break;
            }
        }
        state.existing(run)
    }

    /// As [`load`](Self::load), with the next page read and decoded while one is applied.
    pub(crate) async fn load_beside(
        store: Arc<dyn StateStore>,
        run: &RunId,
    ) -> Result<Self, GraphError> {
        let (to, mut pages) = mpsc::channel(4);
        let id = run.clone();
        let reader = tokio::spawn(async move {
            let mut after = 0;
            loop {
                let next = page(&*store, &id, after, PAGE).await;
                let more = next.as_ref().is_ok_and(|p| p.len() == PAGE);
                after += PAGE as u64;
                // Nobody waits for more after an event that does not fit.
                if to.send(next).await.is_err() || !more {
                    return;
                }
            }
        });
        let mut state = Self::default();
        while let Some(page) = pages.recv().await {
            state.follow(run, page?)?;
        }
        // A reader that was cut off has not read to the end.
        reader
            .await
            .map_err(|e| GraphError::Stopped(e.to_string()))?;
        state.existing(run)
    }

    fn follow(&mut self, run: &RunId, page: Page) -> Result<(), GraphError> {
        for (seq, at, event) in page {
            self.apply(seq, at, &event)
                .map_err(|why| unreadable(run, seq, why))?;
        }
        Ok(())
    }

    fn existing(self, run: &RunId) -> Result<Self, GraphError> {
        match self.seq {
            0 => Err(GraphError::UnknownRun(run.clone())),
            _ => Ok(self),
        }
    }
}
