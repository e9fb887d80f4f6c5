//! Runs from their journals.

use crate::{Event, GraphError, RunInfo, RunState, StateStore};
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

/// One run as it is listed.
pub(crate) async fn info(store: &dyn StateStore, run: &RunId) -> Result<RunInfo, GraphError> {
    let page = store.runs(just_before(run), 1).await?;
    let found = page.into_iter().find(|r| r.id == *run);
    found.ok_or_else(|| GraphError::UnknownRun(run.clone()))
}

/// A name that comes before that of a run, with none between that anybody would use.
fn just_before(run: &RunId) -> Option<RunId> {
    let mut name = run.as_str().to_owned();
    let last = name.pop()?;
    // What is no character lies above U+D7FF.
    let below = (0..u32::from(last)).rev().find_map(char::from_u32);
    if let Some(c) = below {
        name.extend([c, char::MAX]);
    }
    (!name.is_empty()).then(|| name.into())
}

/// The latest state up to a record that was put aside and can be used, or that of no record.
async fn put_aside(store: &dyn StateStore, run: &RunId, until: u64) -> RunState {
    let Ok(info) = info(store, run).await else {
        return RunState::default();
    };
    // A journal that lost its end may have a head that knows more.
    let end = info.last.min(until);
    let Some(s) = info.head.snapshot.filter(|s| s.seq <= end) else {
        return RunState::default();
    };
    let state = match store.blobs().get(&s.blob).await {
        Ok(bytes) => RunState::decode(&bytes).map_err(|e| e.to_string()),
        Err(f) => Err(f.to_string()),
    };
    match state {
        Ok(mut state) if state.seq == s.seq => {
            state.snapshot = Some(s);
            state
        }
        other => {
            let why = other.err();
            tracing::debug!(%run, seq = s.seq, ?why, "a snapshot is passed over");
            RunState::default()
        }
    }
}

pub(crate) fn unreadable(run: &RunId, seq: u64, reason: String) -> GraphError {
    GraphError::Journal {
        run: run.clone(),
        seq,
        reason,
    }
}

impl RunState {
    /// Folds the journal of a run, from its last snapshot on if it has one that can be used.
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
        let mut state = put_aside(store, run, until).await;
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
        let mut state = put_aside(&*store, run, u64::MAX).await;
        let (to, mut pages) = mpsc::channel(4);
        let (id, mut after) = (run.clone(), state.seq);
        let reader = tokio::spawn(async move {
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
