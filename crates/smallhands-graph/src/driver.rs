use crate::{
    Durability, Engine, Event, GraphError, GraphPatch, Lease, NodeState, RunResult, RunState,
    RunStatus, Update,
    host::{Host, Msg},
    placement::{fits_schema, never_ran, restarted, within},
};
use smallhands_core::{
    AttemptReport, CancelMode, Digest, DispatchKey, Effect, Failure, FailureClass, Halt, HostCall,
    HostReply, Outcome, PriorStep, Reattached, TaskEnvelope, TaskHandle, TaskHost, TaskId,
    Timestamp,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{broadcast, mpsc, oneshot},
    task::JoinSet,
};
use tracing::Instrument;

pub(crate) struct Plan {
    pub(crate) engine: Arc<Engine>,
    pub(crate) lease: Lease,
    pub(crate) state: RunState,
    pub(crate) updates: broadcast::Sender<Update>,
}

/// The one task that changes a run. It takes a batch of messages, turns them into events, appends
/// these at once, and only then lets anybody know.
pub(crate) struct Driver {
    plan: Plan,
    host: Arc<Host>,
    rx: mpsc::Receiver<Msg>,
    batch: Vec<(Timestamp, Event)>,
    at: Timestamp,
    after: Vec<After>,
    handles: BTreeMap<TaskId, (DispatchKey, Arc<dyn TaskHandle>)>,
    delayed: BTreeSet<TaskId>,
    placements: JoinSet<()>,
    /// Placements whose report is still to come.
    open: usize,
    stopping: bool,
    grace_over: bool,
}

/// What follows once the batch is durable.
#[expect(clippy::large_enum_variant, reason = "short-lived, a few at a time")]
enum After {
    Reply(
        oneshot::Sender<Result<HostReply, Halt>>,
        Result<HostReply, Halt>,
    ),
    Answered(oneshot::Sender<Result<(), GraphError>>),
    Place(Box<TaskEnvelope>),
    Acknowledge(Arc<dyn TaskHandle>),
}

/// So many messages are taken into one append at most.
const BATCH: usize = 1024;

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
            plan,
            host,
            rx,
            batch: Vec::new(),
            at: Timestamp::default(),
            after: Vec::new(),
            handles: BTreeMap::new(),
            delayed: BTreeSet::new(),
            placements: JoinSet::new(),
            open: 0,
            stopping: false,
            grace_over: false,
        };
        d.at = d.plan.engine.clock.now();
        for e in first {
            d.log(e);
        }
        d.commit().await?;
        d.find_running().await?;
        Ok((d, to))
    }

    pub(crate) async fn run(mut self) -> Result<RunResult, GraphError> {
        self.keep_lease();
        loop {
            self.at = self.plan.engine.clock.now();
            self.schedule();
            if let Some(status) = self.rest() {
                self.log(Event::Stopped { status });
                self.commit().await?;
                self.plan.engine.store.release(&self.plan.lease).await?;
                self.placements.shutdown().await;
                return Ok(RunResult {
                    run: self.plan.lease.run,
                    status,
                    state: self.plan.state,
                });
            }
            self.commit().await?;
            // What has ended is let go: a set keeps it otherwise, however long the run.
            while self.placements.try_join_next().is_some() {}
            let Some(first) = self.rx.recv().await else {
                return Err(GraphError::Stopped("nobody holds the run".into()));
            };
            self.at = self.plan.engine.clock.now();
            self.take(first).await?;
            self.take_more().await?;
        }
    }

    /// Takes what has come, and what comes while others have their turn: a commit serves them all,
    /// and whoever spoke first would otherwise have one of its own.
    async fn take_more(&mut self) -> Result<(), GraphError> {
        let mut room = BATCH - 1;
        loop {
            tokio::task::yield_now().await;
            let before = room;
            while room > 0
                && let Ok(m) = self.rx.try_recv()
            {
                room -= 1;
                self.take(m).await?;
            }
            if room == 0 || room == before {
                return Ok(());
            }
        }
    }

    /// Applies an event; it counts once [`commit`](Self::commit) has returned.
    fn log(&mut self, e: Event) -> u64 {
        let seq = self.plan.state.seq + 1;
        if let Err(why) = self.plan.state.apply(seq, self.at, &e) {
            tracing::error!(%why, "the driver made an event that does not fit");
        }
        self.batch.push((self.at, e));
        seq
    }

    async fn commit(&mut self) -> Result<(), GraphError> {
        let events = std::mem::take(&mut self.batch);
        if !events.is_empty() {
            let state = &self.plan.state;
            let once = |e: &Event| matches!(e, Event::StepBegan { intent, .. } if intent.effect == Effect::AtMostOnce);
            let level = match events.iter().any(|(_, e)| once(e)) {
                true => Durability::PowerLoss,
                false => state.durability,
            };
            let after = state.seq - events.len() as u64;
            let records = events.iter().map(|(at, e)| crate::Record::of(Arc::new(e.clone()), *at)).collect();
            let store = &self.plan.engine.store;
            store
                .append(&self.plan.lease, after, records, Some(state.head()), level)
                .await?;
            for (seq, (at, event)) in (after + 1..).zip(events) {
                let event = Arc::new(event);
                // Nobody may be watching.
                drop(self.plan.updates.send(Update::Event { seq, at, event }));
            }
        }
        for a in std::mem::take(&mut self.after) {
            match a {
                // A caller that is gone needs no reply.
                After::Reply(tx, r) => drop(tx.send(r)),
                After::Answered(tx) => drop(tx.send(Ok(()))),
                After::Place(env) => self.place(*env),
                After::Acknowledge(h) => h.acknowledge().await,
            }
        }
        Ok(())
    }

    // ---- what to start

    fn schedule(&mut self) {
        if self.stopping || self.plan.state.cancelling || self.plan.state.failing {
            return;
        }
        loop {
            self.judge();
            let state = &self.plan.state;
            let room = state.running() < self.plan.engine.max_parallel;
            let next = state.ready().find(|id| !self.delayed.contains(*id));
            let Some(id) = next.filter(|_| room).cloned() else {
                return;
            };
            let attempt = state.nodes[&id].attempt;
            let input = state.input_for(&id);
            let fence = self.log(Event::Dispatched {
                task: id.clone(),
                attempt,
            });
            match input {
                Ok(input) => {
                    let env = self.envelope(&id, attempt, fence, input);
                    self.after.push(After::Place(Box::new(env)));
                }
                Err(f) => self.ended(&self.key(&id, attempt, fence), never_ran(f)),
            }
        }
    }

    fn judge(&mut self) {
        while let Some(id) = self.plan.state.undecided().cloned() {
            let outputs = self.plan.state.outputs_for(&id);
            let spec = &self.plan.state.nodes[&id].spec;
            let when = spec.when.clone();
            let holds = when.map_or(Ok(true), |c| {
                self.plan.engine.conditions.holds(&c, &outputs)
            });
            match holds {
                Ok(holds) => drop(self.log(Event::Judged { task: id, holds })),
                Err(why) => {
                    self.log(Event::Judged {
                        task: id.clone(),
                        holds: true,
                    });
                    let f = Failure::new("condition.failed", FailureClass::Input, why);
                    let fence = self.log(Event::Dispatched {
                        task: id.clone(),
                        attempt: 1,
                    });
                    self.ended(&self.key(&id, 1, fence), never_ran(f));
                }
            }
        }
    }

    fn key(&self, task: &TaskId, attempt: u32, fence: u64) -> DispatchKey {
        DispatchKey {
            run: self.plan.lease.run.clone(),
            task: task.clone(),
            attempt,
            fence,
        }
    }

    fn envelope(
        &self,
        id: &TaskId,
        attempt: u32,
        fence: u64,
        input: serde_json::Value,
    ) -> TaskEnvelope {
        let state = &self.plan.state;
        let n = &state.nodes[id];
        TaskEnvelope {
            v: TaskEnvelope::VERSION,
            key: self.key(id, attempt, fence),
            spec: n.spec.clone(),
            iteration: 0,
            input,
            steps: n.steps.clone(),
            answers: n.answers.clone(),
            view: n.spec.view.then(|| state.view()),
            config: state
                .config
                .clone()
                .unwrap_or_else(|| smallhands_core::BlobRef {
                    digest: Digest::of_bytes(b""),
                    len: 0,
                }),
            secrets: Vec::new(),
            traceparent: None,
        }
    }

    fn place(&mut self, env: TaskEnvelope) {
        let engine = self.plan.engine.clone();
        let host: Arc<dyn TaskHost> = self.host.clone();
        let to = self.host.to.clone();
        self.open += 1;
        let place = async move {
            let key = env.key.clone();
            let limit = env.spec.timeout_ms.map(Duration::from_millis);
            let report = match engine.executor.submit(env, host).await {
                Err(f) => never_ran(f),
                Ok(handle) => {
                    let placed = Msg::Placed(key.clone(), handle.clone());
                    if to.send(placed).await.is_err() {
                        return;
                    }
                    within(&engine, &*handle, limit).await
                }
            };
            // A driver that is gone has its successor ask again.
            drop(to.send(Msg::Report(key, report)).await);
        };
        self.placements.spawn(place.in_current_span());
    }

    /// After a restart: what was placed is found again, or is lost.
    async fn find_running(&mut self) -> Result<(), GraphError> {
        let running: Vec<_> = self
            .plan
            .state
            .nodes
            .iter()
            .filter_map(|(id, n)| match n.state {
                NodeState::Running { fence } => Some(self.key(id, n.attempt, fence)),
                _ => None,
            })
            .collect();
        for key in running {
            let host: Arc<dyn TaskHost> = self.host.clone();
            match self.plan.engine.executor.reattach(&key, host).await? {
                Reattached::Running(handle) => {
                    let to = self.host.to.clone();
                    self.open += 1;
                    self.handles
                        .insert(key.task.clone(), (key.clone(), handle.clone()));
                    self.placements.spawn(async move {
                        let report = handle.report().await;
                        drop(to.send(Msg::Report(key, report)).await);
                    });
                }
                Reattached::Finished(report) => self.ended(&key, report),
                _ => self.ended(&key, restarted()),
            }
        }
        self.commit().await
    }

    // ---- what comes in

    async fn take(&mut self, m: Msg) -> Result<(), GraphError> {
        match m {
            Msg::Call { from, call, reply } => {
                let r = self.call(&from, call);
                self.after.push(After::Reply(reply, r));
            }
            Msg::Placed(key, handle) => {
                if self.stopping || self.plan.state.cancelling || self.plan.state.failing {
                    handle.cancel(CancelMode::Soft).await;
                }
                self.handles.insert(key.task.clone(), (key, handle));
            }
            Msg::Report(key, report) => {
                self.open -= 1;
                if self.stopping && !matches!(report.outcome, Outcome::Done(_)) {
                    // Left as running: whoever resumes the run finds it so.
                    self.handles.remove(&key.task);
                } else {
                    self.ended(&key, report);
                    if self.plan.state.failing {
                        self.stop_all(CancelMode::Soft).await;
                    }
                }
            }
            Msg::Wake(task) => drop(self.delayed.remove(&task)),
            Msg::Answer {
                task,
                ask,
                value,
                reply,
            } => self.answer(task, ask, value, reply),
            Msg::Cancel => {
                self.log(Event::CancelRequested);
                self.stop_all(CancelMode::Soft).await;
            }
            Msg::Stop => {
                self.stopping = true;
                self.stop_all(CancelMode::Soft).await;
            }
            Msg::GraceOver => {
                self.grace_over = true;
                self.stop_all(CancelMode::Hard).await;
            }
            Msg::LeaseLost(e) => return Err(e),
        }
        Ok(())
    }

    fn answer(
        &mut self,
        task: TaskId,
        ask: smallhands_core::AskId,
        value: serde_json::Value,
        reply: oneshot::Sender<Result<(), GraphError>>,
    ) {
        let node = self.plan.state.nodes.get(&task);
        if node.is_some_and(|n| n.questions.contains_key(&ask)) {
            self.log(Event::Answered {
                task,
                id: ask,
                answer: value,
                expired: false,
            });
            self.after.push(After::Answered(reply));
        } else {
            let unknown = GraphError::UnknownQuestion {
                run: self.plan.lease.run.clone(),
                task,
                ask: ask.to_string(),
            };
            // Whoever asked may be gone.
            drop(reply.send(Err(unknown)));
        }
    }

    fn call(&mut self, from: &DispatchKey, call: HostCall) -> Result<HostReply, Halt> {
        let (task, fence) = (from.task.clone(), from.fence);
        if !self.plan.state.is_current(&task, fence) {
            return Err(Halt::Fenced);
        }
        let node = &self.plan.state.nodes[&task];
        match call {
            HostCall::BeginStep(intent) => {
                let done = node.steps.iter().find_map(|s| match s {
                    PriorStep::Done(r) if r.intent.key == intent.key => Some(r.clone()),
                    _ => None,
                });
                if let Some(r) = done {
                    return Ok(HostReply::Recorded(r));
                }
                if let Some(most) = intent.reserve {
                    self.afford(&task, most)?;
                }
                self.log(Event::StepBegan {
                    task,
                    fence,
                    intent,
                });
            }
            HostCall::EndStep(record) => {
                let again = node
                    .steps
                    .iter()
                    .any(|s| *s == PriorStep::Done(record.clone()));
                if !again {
                    self.log(Event::StepEnded {
                        task,
                        fence,
                        record,
                    });
                }
            }
            HostCall::Reserve { id, most } => {
                self.afford(&task, most)?;
                self.log(Event::Reserved {
                    task,
                    fence,
                    id,
                    most,
                });
            }
            HostCall::Settle { id, actual } => drop(self.log(Event::Settled {
                task,
                fence,
                id,
                actual,
            })),
            HostCall::Ask { id, question } => {
                if let Some(a) = node.answers.get(&id) {
                    return Ok(HostReply::Answer(a.clone()));
                }
                if !node.questions.contains_key(&id) {
                    self.log(Event::Asked { task, id, question });
                }
                return Ok(HostReply::NotYet);
            }
            _ => {}
        }
        Ok(HostReply::Proceed)
    }

    fn afford(&self, task: &TaskId, most: smallhands_core::Usage) -> Result<(), Halt> {
        self.plan.state.fits(task, most).map_err(|(whose, e)| {
            let why = format!("the budget of the {whose} is exhausted: {e}");
            Failure::new("budget.exhausted", FailureClass::Budget, why)
                .hint("raise the budget and resume with --retry-failed")
                .into()
        })
    }

    fn ended(&mut self, key: &DispatchKey, mut report: AttemptReport) {
        let task = key.task.clone();
        let handle = self.handles.remove(&task).filter(|(k, _)| k == key);
        if let Some((_, h)) = handle {
            self.after.push(After::Acknowledge(h));
        }
        let current = self.plan.state.is_current(&task, key.fence);
        let grown = if current {
            self.accept(&task, &mut report)
        } else {
            None
        };
        let next = if current {
            self.plan.state.retry_attempt(&task, &report)
        } else {
            None
        };
        let wait = next.map(|n| self.backoff(&task, n, &report));
        self.log(Event::Ended {
            task: task.clone(),
            fence: key.fence,
            report,
            retry_after_ms: wait.map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)),
            repeat: false,
        });
        // The result and the work that it adds are one append.
        if let Some(p) = grown {
            self.log(Event::Patched { patch: p, by: Some(task.clone()) });
        }
        if let Some(d) = wait.filter(|d| !d.is_zero()) {
            self.delayed.insert(task.clone());
            let (clock, to) = (self.plan.engine.clock.clone(), self.host.to.clone());
            self.placements.spawn(async move {
                clock.sleep(d).await;
                drop(to.send(Msg::Wake(task)).await);
            });
        }
    }

    /// An output counts only if it fits its schema and what it adds fits the graph.
    fn accept(&self, task: &TaskId, report: &mut AttemptReport) -> Option<GraphPatch> {
        let Outcome::Done(out) = &report.outcome else {
            return None;
        };
        let spec = &self.plan.state.nodes[task].spec;
        let expansion = out.expansion.clone().filter(|_| spec.expands);
        let verdict = fits_schema(spec, &out.value).and_then(|()| match expansion {
            None => Ok(None),
            Some(v) => {
                let rejected = |why: String| {
                    Failure::new("patch.rejected", FailureClass::Task, why).retryable()
                };
                let p: GraphPatch =
                    serde_json::from_value(v).map_err(|e| rejected(e.to_string()))?;
                self.plan.state.check_patch(&p).map_err(rejected)?;
                Ok(Some(p))
            }
        });
        verdict.unwrap_or_else(|f| {
            report.outcome = Outcome::Halted(f.into());
            None
        })
    }

    fn backoff(&self, task: &TaskId, next: u32, report: &AttemptReport) -> Duration {
        let retry = &self.plan.state.nodes[task].spec.retry;
        // Jitter without a source of randomness: a hash of who waits, the same in every replay.
        let seed = Digest::of_bytes(format!("{}/{task}/{next}", self.plan.lease.run).as_bytes());
        let random = u32::from_str_radix(&seed.hex()[..8], 16).unwrap_or(0);
        let d = retry.delay_before(next, f64::from(random) / (f64::from(u32::MAX) + 1.0));
        let asked = match &report.outcome {
            Outcome::Halted(Halt::Failed(f)) => f.retry_after_ms,
            _ => None,
        };
        d.max(Duration::from_millis(asked.unwrap_or(0)))
    }

    // ---- the end

    async fn stop_all(&mut self, how: CancelMode) {
        for (_, h) in self.handles.values() {
            h.cancel(how).await;
        }
        if how == CancelMode::Soft && self.plan.state.running() > 0 {
            let (clock, to, grace) = (
                self.plan.engine.clock.clone(),
                self.host.to.clone(),
                self.plan.engine.grace,
            );
            self.placements.spawn(async move {
                clock.sleep(grace).await;
                drop(to.send(Msg::GraceOver).await);
            });
        }
    }

    /// How the run stands if nothing more will happen here.
    fn rest(&self) -> Option<RunStatus> {
        let state = &self.plan.state;
        if self.stopping {
            let over = self.open == 0 || self.grace_over;
            let status = if state.running() == 0 && self.idle() {
                state.resting_status()
            } else {
                RunStatus::Paused
            };
            return over.then_some(status);
        }
        if state.running() > 0 {
            return None;
        }
        (state.failing || state.cancelling || self.idle()).then(|| state.resting_status())
    }

    fn idle(&self) -> bool {
        self.plan.state.ready().next().is_none() && self.plan.state.undecided().is_none()
    }

    fn keep_lease(&mut self) {
        let engine = self.plan.engine.clone();
        let (lease, to) = (self.plan.lease.clone(), self.host.to.clone());
        self.placements.spawn(async move {
            loop {
                engine.clock.sleep(engine.lease_ttl / 3).await;
                if let Err(e) = engine.store.renew(&lease, engine.lease_ttl).await {
                    drop(to.send(Msg::LeaseLost(e.into())).await);
                    return;
                }
            }
        });
    }
}
