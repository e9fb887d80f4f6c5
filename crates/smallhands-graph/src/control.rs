//! What can be done to a run from outside: answers, settlements, forks, listing, deleting.

use crate::{
    Engine, Event, GraphError, Lease, NodeState, Record, RunInfo, RunState, RunStatus, StateStore,
    fold::{info, unreadable},
    schema::answer_fits,
};
use serde_json::Value;
use smallhands_core::{
    AskId, Failure, Halt, Outcome, PriorStep, Ran, RunId, StepIntent, StepKey, StepRecord, TaskId,
    Timestamp,
};
use std::{collections::VecDeque, sync::Arc, time::Duration};

impl Engine {
    /// Answers a question of a run that nobody drives. The same answer again is accepted.
    ///
    /// # Errors
    /// No such run or open question; an answer that does not fit its schema; somebody drives the
    /// run; the store failed.
    pub async fn answer(
        &self,
        run: &RunId,
        task: &TaskId,
        ask: &AskId,
        value: Value,
    ) -> Result<(), GraphError> {
        self.add(run, |state| {
            let new = is_new_answer(state, run, task, ask, &value)?;
            let event = Event::Answered {
                task: task.clone(),
                id: ask.clone(),
                answer: value,
            };
            Ok(new.then_some(event).into_iter().collect())
        })
        .await
    }

    /// Cancels a run that nobody drives, for good; of one that is driven, see
    /// [`RunHandle::cancel`](crate::RunHandle::cancel).
    ///
    /// # Errors
    /// No such run; it is over; somebody drives it; the store failed.
    pub async fn cancel(&self, run: &RunId) -> Result<(), GraphError> {
        self.add(run, |state| {
            if state.status.is_final() {
                return Err(GraphError::Ended {
                    run: run.clone(),
                    status: state.status.to_string(),
                });
            }
            let status = RunStatus::Cancelled;
            Ok(vec![Event::CancelRequested, Event::Stopped { status }])
        })
        .await
    }

    /// Says of a step whose outcome nobody knows (`outcome.unknown`) what became of it, and lets
    /// its task go on from there when the run is resumed.
    ///
    /// # Errors
    /// No such run or task; a step that is not in doubt; somebody drives the run; the store failed.
    pub async fn settle(
        &self,
        run: &RunId,
        task: &TaskId,
        step: &StepKey,
        result: Result<Value, Failure>,
    ) -> Result<(), GraphError> {
        self.add(run, |state| {
            let record = StepRecord {
                intent: in_doubt(state, run, task, step)?,
                result,
                checkpoint: None,
                usage: None,
            };
            Ok(vec![
                Event::StepEnded {
                    task: task.clone(),
                    fence: 0,
                    record,
                },
                Event::Revived {
                    tasks: vec![task.clone()],
                },
                Event::Stopped {
                    status: RunStatus::Paused,
                },
            ])
        })
        .await
    }

    /// A new run that shares the past of another up to a record, and goes on from there when it is
    /// resumed. Nothing is copied; the other run goes its own way. What was placed at that record
    /// is placed anew. What counts only together is not torn apart: a record within the first append,
    /// or between the end of a task and the work that it added, stands for the last of these.
    ///
    /// # Errors
    /// No such run or record; the new id is taken; the store failed.
    pub async fn fork(&self, from: &RunId, at: u64, to: &RunId) -> Result<(), GraphError> {
        let head = self.info(from).await?.head;
        let at = self.whole(from, at).await?;
        let head = crate::RunHead {
            status: RunStatus::Paused.to_string(),
            created: self.clock.now(),
            updated: self.clock.now(),
            snapshot: head.snapshot.filter(|s| s.seq <= at),
            ..head
        };
        self.store.fork(from, at, to, head).await?;
        Ok(())
    }

    /// The record up to which a fork at `at` must go: what an append decided as one thing would
    /// otherwise be half decided, and the fork would go on as nobody decided.
    async fn whole(&self, run: &RunId, at: u64) -> Result<u64, GraphError> {
        let next = self.store.read(run, at, 2).await?.into_iter();
        // What cannot be read is met when the fork is loaded.
        let next: Vec<_> = next.map(|s| Event::from_record(&s.record)).collect();
        let more = match (at, next.as_slice()) {
            (0, _) => 0,
            // Its creation, its opening, its graph.
            (1 | 2, _) => 3 - at,
            (_, [Ok(Event::Patched { by: Some(_), .. }), ..]) => 1,
            (_, [Ok(Event::Dispatched { .. }), Ok(e)]) if unjudged(e) => 2,
            (_, [Ok(e), ..]) if unjudged(e) => 1,
            _ => 0,
        };
        Ok(at + more)
    }

    /// Forks a run where it stands, and in the fork a task and all that follows from it are as if
    /// they had never been.
    ///
    /// # Errors
    /// As [`fork`](Self::fork); no such task.
    pub async fn rerun(&self, from: &RunId, task: &TaskId, to: &RunId) -> Result<(), GraphError> {
        let state = self.load(from).await?;
        if !state.nodes.contains_key(task) {
            return Err(GraphError::UnknownTask {
                run: from.clone(),
                task: task.clone(),
            });
        }
        self.fork(from, state.seq, to).await?;
        let task = task.clone();
        let status = RunStatus::Paused;
        let events = vec![Event::Reset { task }, Event::Stopped { status }];
        self.add(to, |_| Ok(events)).await
    }

    /// Runs, in order of id, that a filter lets through.
    ///
    /// # Errors
    /// The store failed.
    pub async fn runs(
        &self,
        wanted: impl Fn(&RunInfo) -> bool,
    ) -> Result<Vec<RunInfo>, GraphError> {
        const PAGE: usize = 1000;
        let (mut all, mut from) = (Vec::new(), None);
        loop {
            let page = self.store.runs(from.take(), PAGE).await?;
            let full = page.len() == PAGE;
            from = page.last().map(|r| r.id.clone());
            all.extend(page.into_iter().filter(&wanted));
            if !full {
                return Ok(all);
            }
        }
    }

    /// One run as it is listed.
    ///
    /// # Errors
    /// No such run; the store failed.
    pub async fn info(&self, run: &RunId) -> Result<RunInfo, GraphError> {
        info(&*self.store, run).await
    }

    /// Deletes a run that nobody drives. Its blobs stay until they are swept.
    ///
    /// # Errors
    /// No such run; somebody drives it; the store failed.
    pub async fn delete(&self, run: &RunId) -> Result<(), GraphError> {
        let lease = self.lease_existing(run).await?;
        self.store.delete(&lease).await?;
        Ok(())
    }

    /// Deletes what a policy lets go; runs that somebody drives, and those that can still go on
    /// unless the policy says so, are kept. Returns what was, or would be, deleted.
    ///
    /// # Errors
    /// The store failed.
    pub async fn prune(&self, p: &Prune) -> Result<Vec<RunInfo>, GraphError> {
        let over =
            |r: &RunInfo| matches!(r.head.status.as_str(), "succeeded" | "failed" | "cancelled");
        let all = self.runs(|_| true).await?;
        let mut runs: Vec<_> = all
            .iter()
            .filter(|r| p.unfinished || over(r))
            .cloned()
            .collect();
        runs.sort_by_key(|r| (r.head.updated, r.id.clone()));
        let now = self.clock.now().0;
        let mut bytes: u64 = all.iter().map(|r| r.bytes).sum();
        let mut gone = Vec::new();
        for r in runs {
            let old = p
                .older_than
                .is_some_and(|d| u128::from(now.saturating_sub(r.head.updated.0)) > d.as_millis());
            let too_much = p.max_bytes.is_some_and(|max| bytes > max);
            if !(old || too_much) {
                continue;
            }
            let deleted = match p.dry_run {
                true => Ok(()),
                false => self.delete(&r.id).await,
            };
            match deleted {
                Ok(()) => {
                    bytes -= r.bytes;
                    gone.push(r);
                }
                // Somebody drives it after all.
                Err(GraphError::Store(crate::StoreError::Held { .. })) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(gone)
    }

    /// What happens in a run, from the record after `after` on, whoever drives it.
    pub fn events(&self, run: &RunId, after: u64) -> Events {
        Events {
            store: self.store.clone(),
            run: run.clone(),
            after,
            page: VecDeque::new(),
        }
    }

    /// Appends what `events` says to a run that nobody drives, and that nobody changes meanwhile.
    async fn add(
        &self,
        run: &RunId,
        events: impl FnOnce(&RunState) -> Result<Vec<Event>, GraphError>,
    ) -> Result<(), GraphError> {
        let lease = self.lease_existing(run).await?;
        let added = self.add_under(&lease, events).await;
        self.store.release(&lease).await?;
        added
    }

    async fn add_under(
        &self,
        lease: &Lease,
        events: impl FnOnce(&RunState) -> Result<Vec<Event>, GraphError>,
    ) -> Result<(), GraphError> {
        let mut state = self.load(&lease.run).await?;
        let (after, at) = (state.seq, self.clock.now());
        let mut records = Vec::new();
        for e in events(&state)? {
            let seq = state.seq + 1;
            state
                .apply(seq, at, &e)
                .map_err(|why| unreadable(&lease.run, seq, why))?;
            records.push(Record::of(Arc::new(e), at));
        }
        if !records.is_empty() {
            let (head, level) = (Some(state.head()), state.durability);
            self.store
                .append(lease, after, records, head, level)
                .await?;
        }
        Ok(())
    }
}

/// What a failed task began and nobody knows the end of.
fn in_doubt(
    state: &RunState,
    run: &RunId,
    task: &TaskId,
    step: &StepKey,
) -> Result<StepIntent, GraphError> {
    let node = state
        .nodes
        .get(task)
        .ok_or_else(|| GraphError::UnknownTask {
            run: run.clone(),
            task: task.clone(),
        })?;
    let doubt = node.steps.iter().find_map(|s| match s {
        PriorStep::InDoubt(i) if i.key == *step => Some(i.clone()),
        _ => None,
    });
    let failed = matches!(node.state, NodeState::Failed(_));
    doubt
        .filter(|_| failed)
        .ok_or_else(|| GraphError::NotInDoubt {
            task: task.clone(),
            step: step.to_string(),
        })
}

/// Whether an answer can be taken and has not been: one that came twice is as good as one.
pub(crate) fn is_new_answer(
    state: &RunState,
    run: &RunId,
    task: &TaskId,
    ask: &AskId,
    value: &Value,
) -> Result<bool, GraphError> {
    let node = state.nodes.get(task);
    match node.and_then(|n| n.questions.get(ask)) {
        None if node.and_then(|n| n.answers.get(ask)) == Some(value) => Ok(false),
        None => Err(GraphError::UnknownQuestion {
            run: run.clone(),
            task: task.clone(),
            ask: ask.to_string(),
        }),
        Some(q) => match answer_fits(q, value) {
            Ok(()) => Ok(true),
            Err(reason) => Err(GraphError::Answer {
                task: task.clone(),
                ask: ask.to_string(),
                reason,
            }),
        },
    }
}

/// The end of a task that never ran because its condition could not be looked at.
fn unjudged(e: &Event) -> bool {
    let Event::Ended { report, .. } = e else {
        return false;
    };
    let code = match &report.outcome {
        Outcome::Halted(Halt::Failed(f)) => &*f.code,
        _ => "",
    };
    report.ran == Ran::No && code == "condition.failed"
}

/// What [`Engine::prune`] lets go. By default: nothing.
#[derive(Clone, Debug, Default)]
pub struct Prune {
    /// Runs whose last record is older.
    pub older_than: Option<Duration>,
    /// The oldest runs until the records of the rest take no more than this.
    pub max_bytes: Option<u64>,
    /// Runs that are paused, waiting, or were left by a crash, too.
    pub unfinished: bool,
    /// Only says what would go.
    pub dry_run: bool,
}

/// A run's records, in order and without a gap, as they become durable: for machines. Reads the
/// store, so that it works from any process.
#[derive(Debug)]
pub struct Events {
    store: Arc<dyn StateStore>,
    run: RunId,
    after: u64,
    page: VecDeque<crate::Stored>,
}

impl Events {
    /// The next event, waited for as long as it takes: its place, when, what.
    ///
    /// # Errors
    /// The store failed; a record that this program cannot read. Asked again, it goes on after it.
    pub async fn next(&mut self) -> Result<(u64, Timestamp, Event), GraphError> {
        loop {
            if let Some(s) = self.page.pop_front() {
                self.after = s.seq;
                let event = Event::from_record(&s.record)
                    .map_err(|why| unreadable(&self.run, s.seq, why))?;
                return Ok((s.seq, s.record.at, event));
            }
            self.page = self.store.read(&self.run, self.after, 256).await?.into();
            if self.page.is_empty() {
                let patience = Duration::from_secs(60);
                self.store.changed(&self.run, self.after, patience).await?;
            }
        }
    }
}
