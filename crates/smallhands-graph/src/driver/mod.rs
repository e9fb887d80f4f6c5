//! The one task that changes a run. It takes what has come, turns it into events, has these
//! appended at once, and lets nobody know before they are durable. While one batch is written, the
//! next one is gathered.

mod calls;
mod end;
mod place;
mod schedule;
mod snapshot;
mod unordered;

use crate::{
    Durability, Engine, Event, GraphError, Lease, Record, RunHead, RunResult, RunState, Update,
    host::{Host, Msg},
    state::Ix,
};
use smallhands_core::{
    AskId, AttemptReport, BlobRef, BoxFuture, Effect, Failure, Halt, HostReply, TaskEnvelope,
    TaskHandle, Timestamp,
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::sync::{broadcast, mpsc, oneshot};
use unordered::Unordered;

pub(crate) struct Plan {
    pub(crate) engine: Arc<Engine>,
    pub(crate) lease: Lease,
    pub(crate) state: RunState,
    pub(crate) updates: broadcast::Sender<Update>,
}

/// One placement, by its fence.
type Placement = (Ix, u64);
type Placed = Result<Arc<dyn TaskHandle>, Failure>;

pub(crate) struct Driver {
    plan: Plan,
    host: Arc<Host>,
    rx: mpsc::Receiver<Msg>,
    at: Timestamp,
    /// Applied, and not yet being written.
    batch: Vec<(Timestamp, Arc<Event>)>,
    after: Vec<After>,
    writing: Option<Writing>,
    /// As the store has it.
    head: RunHead,
    snapshots: snapshot::Snapshots,
    /// Submissions that an executor keeps waiting.
    placing: Unordered<(Placement, Placed)>,
    live: Unordered<(Placement, AttemptReport)>,
    /// In order, so that a simulated run stops them in the same order each time.
    handles: BTreeMap<u64, (Ix, Arc<dyn TaskHandle>)>,
    ticks: Unordered<Tick>,
    /// When the rate of a group lets the next task start, if that is waited for.
    rate_tick: bool,
    /// Placements whose report is still to come.
    open: usize,
    /// Placements that were set aside and still run, of tasks that are to run again: these wait.
    aside: BTreeMap<u64, Ix>,
    /// What runs was asked to stop because the run fails.
    failed: bool,
    pausing: bool,
    stopping: bool,
    grace_over: bool,
    lease_held: bool,
}

/// A batch on its way to the store, and what waits for it.
struct Writing {
    done: BoxFuture<'static, Result<u64, crate::StoreError>>,
    first: u64,
    events: Vec<(Timestamp, Arc<Event>)>,
    after: Vec<After>,
}

/// What follows once a batch is durable.
#[expect(clippy::large_enum_variant, reason = "short-lived, a few at a time")]
enum After {
    Reply(
        oneshot::Sender<Result<HostReply, Halt>>,
        Result<HostReply, Halt>,
    ),
    Answered(crate::host::Reply<()>),
    Patched(crate::host::Reply<u64>, u64),
    Place(Ix, Arc<TaskEnvelope>),
    Acknowledge(Arc<dyn TaskHandle>),
}

/// What a driver waited for.
enum Next {
    Written(Result<u64, crate::StoreError>),
    Said(Option<Msg>),
    Reported(Placement, AttemptReport),
    Placed(Placement, Placed),
    Tick(Tick),
    Saved(Result<BlobRef, Failure>),
}

/// Something whose time has come.
enum Tick {
    /// The wait before an attempt is over.
    Wake(Ix),
    Deadline(Ix, AskId),
    Rate,
    /// A placement that was set aside has had its time.
    Aside(u64),
    /// What was asked to stop has had its time.
    GraceOver,
    Nothing,
}

/// So many messages are taken into one append at most. Where an append costs little, smaller ones
/// let the store write while the next is gathered.
fn batch(level: Durability) -> usize {
    match level {
        Durability::ProcessCrash => 256,
        Durability::PowerLoss => 1024,
    }
}

impl Driver {
    pub(crate) async fn open(
        plan: Plan,
        first: Vec<Event>,
    ) -> Result<(Self, mpsc::Sender<Msg>), GraphError> {
        let (to, rx) = mpsc::channel(4096);
        let host = Arc::new(Host {
            to: to.clone(),
            updates: plan.updates.clone(),
            unseen: 0.into(),
        });
        let mut d = Self {
            at: plan.engine.clock.now(),
            snapshots: snapshot::Snapshots::after(
                plan.state.snapshot.as_ref().map_or(0, |s| s.seq),
            ),
            plan,
            host,
            rx,
            batch: Vec::new(),
            after: Vec::new(),
            writing: None,
            head: RunHead::default(),
            placing: Unordered::default(),
            live: Unordered::default(),
            handles: BTreeMap::new(),
            ticks: Unordered::default(),
            rate_tick: false,
            open: 0,
            aside: BTreeMap::new(),
            failed: false,
            pausing: false,
            stopping: false,
            grace_over: false,
            lease_held: true,
        };
        for e in first {
            d.log(e);
        }
        d.flush().await?;
        d.find_running().await?;
        d.set_clocks();
        Ok((d, to))
    }

    pub(crate) async fn run(mut self) -> Result<RunResult, GraphError> {
        self.keep_lease();
        loop {
            self.at = self.plan.engine.clock.now();
            self.schedule();
            self.stop_unwanted().await;
            if self.writing.is_none() {
                if self.batch.is_empty() && self.after.is_empty() {
                    if let Some(status) = self.rest() {
                        return self.finish(status).await;
                    }
                } else {
                    self.write();
                }
            }
            self.take_one().await?;
            self.take_more().await?;
        }
    }

    /// Waits for whatever happens next.
    async fn take_one(&mut self) -> Result<(), GraphError> {
        let next = tokio::select! {
            biased;
            r = written(&mut self.writing) => Next::Written(r),
            m = self.rx.recv() => Next::Said(m),
            (p, report) = self.live.next() => Next::Reported(p, report),
            (p, placed) = self.placing.next() => Next::Placed(p, placed),
            t = self.ticks.next() => Next::Tick(t),
            s = snapshot::saved(&mut self.snapshots.saving) => Next::Saved(s),
        };
        // It may have been a long wait.
        self.at = self.plan.engine.clock.now();
        match next {
            Next::Written(r) => {
                self.written(r).await?;
                // What waited for the append was served first.
                self.save_state();
            }
            Next::Said(Some(m)) => self.take(m).await?,
            Next::Said(None) => return Err(GraphError::Stopped("nobody holds the run".into())),
            Next::Reported(p, report) => self.reported(p, report),
            Next::Placed(p, placed) => self.placed(p, placed).await,
            Next::Tick(t) => self.tick(t).await,
            Next::Saved(put) => self.saved(put),
        }
        Ok(())
    }

    /// Takes what has come, and what comes while others have their turn: an append serves them
    /// all, and whoever spoke first would otherwise have one of its own.
    async fn take_more(&mut self) -> Result<(), GraphError> {
        let level = self.plan.state.durability;
        let mut room = batch(level) - 1;
        // Where an append costs a sync, what is about to end is worth a little patience.
        let mut patience = match level {
            Durability::PowerLoss if self.open > 0 => 32,
            _ => 0,
        };
        loop {
            if self.writing.is_none() {
                tokio::task::yield_now().await;
            }
            self.at = self.plan.engine.clock.now();
            let before = room;
            while room > 0
                && let Ok(m) = self.rx.try_recv()
            {
                room -= 1;
                self.take(m).await?;
            }
            // Asked without a waker: whoever waits for them asks again.
            while room > 0
                && let Some((p, report)) = self.live.ended()
            {
                room -= 1;
                self.reported(p, report);
            }
            if room == 0 || self.writing.is_some() || (room == before && patience == 0) {
                return Ok(());
            }
            patience -= u32::from(room == before);
        }
    }

    async fn take(&mut self, m: Msg) -> Result<(), GraphError> {
        match m {
            Msg::Call { from, call, reply } => {
                let r = self.call(&from, call);
                self.after.push(After::Reply(reply, r));
            }
            Msg::Answer {
                task,
                ask,
                value,
                reply,
            } => self.answer(task, ask, value, reply),
            Msg::Patch { patch, reply } => self.patch(*patch, reply),
            Msg::Pause => self.pausing = true,
            Msg::Cancel => {
                self.log(Event::CancelRequested);
                self.stop_all().await;
            }
            Msg::Stop => {
                self.stopping = true;
                self.stop_all().await;
            }
            Msg::LeaseLost(e) => return Err(e),
        }
        Ok(())
    }

    // ---- events and their durability

    /// Applies an event; it counts once its batch is written.
    fn log(&mut self, e: Event) -> u64 {
        self.logged(|s, seq, at, e| s.apply(seq, at, e), e)
    }

    /// As [`log`](Self::log), of an event about the task of that number.
    fn log_of(&mut self, ix: Ix, e: Event) -> u64 {
        self.logged(|s, seq, at, e| s.apply_to(ix, seq, at, e), e)
    }

    fn logged(
        &mut self,
        apply: impl FnOnce(&mut RunState, u64, Timestamp, &Event) -> Result<(), String>,
        e: Event,
    ) -> u64 {
        let seq = self.plan.state.seq + 1;
        if let Err(why) = apply(&mut self.plan.state, seq, self.at, &e) {
            tracing::error!(%why, "the driver made an event that does not fit");
        }
        self.batch.push((self.at, Arc::new(e)));
        seq
    }

    fn write(&mut self) {
        let events = std::mem::take(&mut self.batch);
        let after = std::mem::take(&mut self.after);
        let state = &self.plan.state;
        let count = events.len() as u64;
        let before = state.seq - count;
        let done: BoxFuture<'static, _> = if events.is_empty() {
            Box::pin(std::future::ready(Ok(state.seq)))
        } else {
            let once = |e: &Event| match e {
                Event::StepBegan { intent, .. } => intent.effect == Effect::AtMostOnce,
                Event::Dispatched { task, .. } => state.is_once(task),
                _ => false,
            };
            let level = match events.iter().any(|(_, e)| once(e)) {
                true => Durability::PowerLoss,
                false => state.durability,
            };
            let of = |(at, e): &(Timestamp, Arc<Event>)| Record::of(e.clone(), *at);
            let records = events.iter().map(of).collect();
            let (store, lease) = (self.plan.engine.store.clone(), self.plan.lease.clone());
            let head = state.head();
            // One that says nothing new but the time is not worth a page.
            let news = RunHead {
                updated: self.head.updated,
                ..head.clone()
            } != self.head;
            let head = news.then(|| self.head.clone_from(&head)).map(|()| head);
            Box::pin(async move { store.append(&lease, before, records, head, level).await })
        };
        self.writing = Some(Writing {
            done,
            first: before + 1,
            events,
            after,
        });
    }

    async fn written(&mut self, r: Result<u64, crate::StoreError>) -> Result<(), GraphError> {
        let Some(w) = self.writing.take() else {
            return Ok(());
        };
        r?;
        if self.plan.updates.receiver_count() > 0 {
            for (seq, (at, event)) in (w.first..).zip(w.events) {
                // Whoever watched may just have gone.
                drop(self.plan.updates.send(Update::Event { seq, at, event }));
            }
        }
        for a in w.after {
            match a {
                // A caller that is gone needs no reply.
                After::Reply(tx, r) => drop(tx.send(r)),
                After::Answered(tx) => drop(tx.send(Ok(()))),
                After::Patched(tx, revision) => drop(tx.send(Ok(revision))),
                After::Place(ix, env) => self.place(ix, env).await,
                After::Acknowledge(h) => h.acknowledge().await,
            }
        }
        Ok(())
    }

    /// Writes all there is and waits for it.
    async fn flush(&mut self) -> Result<(), GraphError> {
        while self.writing.is_some() || !self.batch.is_empty() || !self.after.is_empty() {
            if self.writing.is_none() {
                self.write();
            }
            let r = written(&mut self.writing).await;
            self.written(r).await?;
        }
        Ok(())
    }

    fn later(&mut self, after: Duration, tick: Tick) {
        let clock = self.plan.engine.clock.clone();
        self.ticks.push(Box::pin(async move {
            clock.sleep(after).await;
            tick
        }));
    }
}

/// The end of a write; never, if there is none.
async fn written(w: &mut Option<Writing>) -> Result<u64, crate::StoreError> {
    match w {
        Some(w) => (&mut w.done).await,
        None => std::future::pending().await,
    }
}
