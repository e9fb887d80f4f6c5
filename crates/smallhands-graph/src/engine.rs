use crate::{
    Conditions, Durability, Event, GraphError, GraphPatch, Lease, Node, NodeState, RunState,
    RunStatus, StateStore, TaskGraph,
    driver::{Driver, Plan},
    host::Msg,
    placement::at_once,
};
use serde_json::Value;
use smallhands_core::{
    AskId, Budget, Clock, DispatchKey, Executor, GroupLimit, Notice, Resources, RunId, SecretName,
    TaskId, Timestamp,
};
use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};
use tokio::{
    sync::{broadcast, mpsc, oneshot},
    task::JoinHandle,
};
use tracing::Instrument;

/// Runs graphs: on an executor, with a journal.
#[derive(Clone, Debug)]
pub struct Engine {
    pub(crate) store: Arc<dyn StateStore>,
    pub(crate) executor: Arc<dyn Executor>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) conditions: Conditions,
    pub(crate) owner: String,
    pub(crate) max_parallel: usize,
    pub(crate) grace: Duration,
    pub(crate) lease_ttl: Duration,
    pub(crate) capacity: Option<Resources>,
    pub(crate) snapshot_every: Option<u64>,
}

/// What a new run is made of.
#[derive(Clone, Debug)]
pub struct NewRun {
    /// Its id; must be new.
    pub id: RunId,
    /// What it is for.
    pub goal: String,
    /// From what worker processes build their workers; holds no secret.
    pub config: Value,
    /// Caps for the whole run.
    pub budget: Budget,
    /// The work.
    pub graph: TaskGraph,
    /// What its appends survive.
    pub durability: Durability,
    /// What it runs in, as its author wants it noted: versions, toolchain.
    pub environment: Value,
    /// Names of the secrets that its tasks may ask for; never their values.
    pub secrets: Vec<SecretName>,
    /// Limits of groups of tasks, by the name that their specs give.
    pub limits: BTreeMap<String, GroupLimit>,
}

impl NewRun {
    /// A run without caps, safe against crashes of processes.
    pub fn new(id: impl Into<RunId>, graph: TaskGraph) -> Self {
        Self {
            id: id.into(),
            goal: String::new(),
            config: Value::Null,
            budget: Budget::default(),
            graph,
            durability: Durability::default(),
            environment: Value::Null,
            secrets: Vec::new(),
            limits: BTreeMap::new(),
        }
    }
}

/// Whether tasks that failed are tried again when a run is resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResumeFailed {
    /// A run that has failed stays failed.
    No,
    /// Each failed task gets one more attempt.
    Retry,
}

/// Something that happened, as it happened: for eyes. Bounded; a slow reader misses some.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Update {
    /// A record, now durable.
    Event {
        /// Its place in the journal.
        seq: u64,
        /// When.
        at: Timestamp,
        /// What.
        event: Arc<Event>,
    },
    /// Something that a task said.
    Notice {
        /// Which.
        from: DispatchKey,
        /// What.
        notice: Notice,
    },
}

/// A stream of [`Update`]s.
#[derive(Debug)]
pub struct Updates(broadcast::Receiver<Update>, u64);

impl Updates {
    /// The next one; `None` when the run is no longer driven.
    pub async fn next(&mut self) -> Option<Update> {
        loop {
            match self.0.recv().await {
                Ok(u) => return Some(u),
                Err(broadcast::error::RecvError::Lagged(n)) => self.1 += n,
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
    /// How many were missed.
    pub fn missed(&self) -> u64 {
        self.1
    }
}

/// How the driving of a run ended.
#[derive(Debug)]
#[non_exhaustive]
pub struct RunResult {
    /// The run.
    pub run: RunId,
    /// How it stands now.
    pub status: RunStatus,
    /// Everything about it.
    pub state: RunState,
}

/// A run that this process drives. Dropping it stops the run as a crash would; it can be resumed.
pub struct RunHandle {
    run: RunId,
    to: mpsc::Sender<Msg>,
    updates: Option<broadcast::Receiver<Update>>,
    source: broadcast::WeakSender<Update>,
    task: JoinHandle<Result<RunResult, GraphError>>,
    store: Arc<dyn StateStore>,
    lease: Lease,
}

impl fmt::Debug for RunHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RunHandle({})", self.run)
    }
}

impl RunHandle {
    /// Which run.
    pub fn id(&self) -> &RunId {
        &self.run
    }
    /// What happens, from the start of this drive if called first and once.
    pub fn updates(&mut self) -> Updates {
        let rx = self.updates.take();
        Updates(rx.unwrap_or_else(|| broadcast::channel(1).1), 0)
    }
    /// What happens from now on; any number of watchers.
    pub fn watch(&self) -> Updates {
        let rx = self.source.upgrade().map(|s| s.subscribe());
        Updates(rx.unwrap_or_else(|| broadcast::channel(1).1), 0)
    }
    /// Stops driving: what runs is asked to stop, and is left to be resumed.
    pub fn stop(&self) {
        // Full or closed means that it is about to look, or is over.
        self.send(Msg::Stop);
    }
    /// Starts nothing new and lets what runs end; the run is then paused, and can be resumed.
    pub fn pause(&self) {
        self.send(Msg::Pause);
    }
    /// Changes the graph; returns the revision that this made.
    ///
    /// # Errors
    /// [`GraphError::Patch`] with the reason if it does not fit; the run is no longer driven.
    pub async fn patch(&self, patch: GraphPatch) -> Result<u64, GraphError> {
        let (reply, done) = oneshot::channel();
        let patch = Box::new(patch);
        self.ask(Msg::Patch { patch, reply }, done).await
    }
    /// Cancels the run for good.
    pub fn cancel(&self) {
        self.send(Msg::Cancel);
    }
    /// Something that stops the run from elsewhere, such as a signal handler.
    pub fn stopper(&self) -> impl Fn() + Send + Sync + 'static + use<> {
        let to = self.to.clone();
        move || send(&to, Msg::Stop)
    }
    fn send(&self, m: Msg) {
        send(&self.to, m);
    }
    /// Answers a question.
    ///
    /// # Errors
    /// No such open question; or the run is no longer driven.
    pub async fn answer(&self, task: &TaskId, ask: &AskId, value: Value) -> Result<(), GraphError> {
        let (reply, done) = oneshot::channel();
        let msg = Msg::Answer {
            task: task.clone(),
            ask: ask.clone(),
            value,
            reply,
        };
        self.ask(msg, done).await
    }
    async fn ask<T>(
        &self,
        msg: Msg,
        done: oneshot::Receiver<Result<T, GraphError>>,
    ) -> Result<T, GraphError> {
        let gone = || GraphError::Stopped("the run is no longer driven here".into());
        self.to.send(msg).await.map_err(|_| gone())?;
        done.await.map_err(|_| gone())?
    }
    /// Waits until it is over, stopped, or can only go on with an answer.
    ///
    /// # Errors
    /// The journal failed, or the lease was lost: what was not journaled did not count.
    pub async fn wait(mut self) -> Result<RunResult, GraphError> {
        // Nobody can ask for them any more.
        self.updates = None;
        match (&mut self.task).await {
            Ok(r) => r,
            Err(e) => Err(GraphError::Stopped(e.to_string())),
        }
    }
}

impl Drop for RunHandle {
    /// The driver is dropped when its runtime comes to it; whoever resumes the run must not have to
    /// wait for that.
    fn drop(&mut self) {
        if self.task.is_finished() {
            return;
        }
        self.task.abort();
        let (store, lease) = (self.store.clone(), self.lease.clone());
        give_back(store, lease);
    }
}

/// Gives a lease back, at once where the store can.
pub(crate) fn give_back(store: Arc<dyn StateStore>, lease: Lease) {
    let mut release = Box::pin(async move { store.release(&lease).await });
    if at_once(&mut release).is_none()
        && let Ok(runtime) = tokio::runtime::Handle::try_current()
    {
        drop(runtime.spawn(release));
    }
}

fn send(to: &mpsc::Sender<Msg>, m: Msg) {
    if let Err(mpsc::error::TrySendError::Full(m)) = to.try_send(m) {
        let to = to.clone();
        drop(tokio::spawn(async move { to.send(m).await }));
    }
}

fn check_limits(limits: &BTreeMap<String, GroupLimit>) -> Result<(), GraphError> {
    for (group, l) in limits {
        for (which, n) in [("max_parallel", l.max_parallel), ("starts", l.starts)] {
            if n == Some(0) {
                let group = group.clone();
                return Err(GraphError::Limit { group, which });
            }
        }
    }
    Ok(())
}

impl Engine {
    /// An engine; needs a tokio runtime around its async functions.
    pub fn new(
        store: Arc<dyn StateStore>,
        executor: Arc<dyn Executor>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let slots = executor.capabilities().slots;
        Self {
            store,
            executor,
            clock,
            conditions: Conditions::default(),
            owner: "this process".into(),
            max_parallel: if slots == 0 { 64 } else { slots },
            grace: Duration::from_millis(1500),
            lease_ttl: Duration::from_secs(15),
            capacity: None,
            snapshot_every: None,
        }
    }
    /// The functions that conditions refer to.
    #[must_use]
    pub fn conditions(mut self, c: Conditions) -> Self {
        self.conditions = c;
        self
    }
    /// Named to others who want to drive the same run.
    #[must_use]
    pub fn owner(mut self, who: impl Into<String>) -> Self {
        self.owner = who.into();
        self
    }
    /// How many tasks are placed at once; by default the executor's slots, or 64.
    #[must_use]
    pub fn max_parallel(mut self, n: usize) -> Self {
        self.max_parallel = n.max(1);
        self
    }
    /// What the placed tasks may take together; a zero is no limit of that kind.
    #[must_use]
    pub fn capacity(mut self, r: Resources) -> Self {
        self.capacity = Some(r);
        self
    }
    /// How long a lease lives without being renewed, on stores that count time.
    #[must_use]
    pub fn lease_ttl(mut self, d: Duration) -> Self {
        self.lease_ttl = d;
        self
    }
    /// After so many records the state of a run is put aside, so that a resume folds only what came
    /// later. By default so seldom that it costs little beside what it saves: each costs time and
    /// disk in proportion to the tasks of the run. `u64::MAX` is never.
    #[must_use]
    pub fn snapshot_every(mut self, records: u64) -> Self {
        self.snapshot_every = Some(records.max(1));
        self
    }
    /// How long tasks may take to stop before they are killed.
    #[must_use]
    pub fn grace(mut self, d: Duration) -> Self {
        self.grace = d;
        self
    }

    /// Starts a run. Its first records are durable when this returns.
    ///
    /// # Errors
    /// The id is taken; a limit under which nothing can start; the store failed.
    pub async fn start(&self, new: NewRun) -> Result<RunHandle, GraphError> {
        check_limits(&new.limits)?;
        let config =
            serde_json::to_vec(&new.config).map_err(|e| GraphError::Parse(e.to_string()))?;
        let config = self.store.blobs().put(config).await?;
        let lease = self
            .store
            .lease(&new.id, &self.owner, self.lease_ttl)
            .await?;
        if !self.store.read(&new.id, 0, 1).await?.is_empty() {
            self.store.release(&lease).await?;
            return Err(GraphError::RunExists(new.id));
        }
        let events = vec![
            Event::Created {
                goal: new.goal,
                config,
                budget: new.budget,
                durability: new.durability,
                executor: self.executor.name().into(),
                environment: new.environment,
                secrets: new.secrets,
                limits: new.limits,
            },
            self.opened(&lease),
            Event::Patched {
                patch: GraphPatch::adding(new.graph.into_tasks()),
                by: None,
            },
        ];
        self.drive(lease, RunState::default(), events).await
    }

    /// Takes a run up where its journal ends: finished tasks and steps are not run again.
    ///
    /// # Errors
    /// No such run; it is over; another process drives it; the store failed.
    pub async fn resume(&self, run: &RunId, failed: ResumeFailed) -> Result<RunHandle, GraphError> {
        let lease = self.lease_existing(run).await?;
        let state = match self.load(run).await {
            Ok(s) => s,
            Err(e) => {
                self.store.release(&lease).await?;
                return Err(e);
            }
        };
        let mut events = vec![self.opened(&lease)];
        let retry = failed == ResumeFailed::Retry && state.status != RunStatus::Succeeded;
        if retry {
            let failed = |n: &Node| matches!(n.state, NodeState::Failed(_));
            let tasks = state.nodes.iter().filter(|(_, n)| failed(n));
            events.push(Event::Revived {
                tasks: tasks.map(|(id, _)| id.clone()).collect(),
            });
        } else if state.status.is_final() {
            self.store.release(&lease).await?;
            return Err(GraphError::Ended {
                run: run.clone(),
                status: state.status.to_string(),
            });
        }
        self.drive(lease, state, events).await
    }

    /// Reads a run; needs no lease, sees what is durable.
    ///
    /// # Errors
    /// No such run; a record that this program cannot read; the store failed.
    pub async fn load(&self, run: &RunId) -> Result<RunState, GraphError> {
        RunState::load_beside(self.store.clone(), run).await
    }

    fn opened(&self, lease: &Lease) -> Event {
        Event::Opened {
            owner: self.owner.clone(),
            epoch: lease.epoch,
        }
    }

    /// A lease of a run that is there: of another it would make one.
    pub(crate) async fn lease_existing(&self, run: &RunId) -> Result<Lease, GraphError> {
        if self.store.read(run, 0, 1).await?.is_empty() {
            return Err(GraphError::UnknownRun(run.clone()));
        }
        Ok(self.store.lease(run, &self.owner, self.lease_ttl).await?)
    }

    async fn drive(
        &self,
        lease: Lease,
        state: RunState,
        first: Vec<Event>,
    ) -> Result<RunHandle, GraphError> {
        let run = lease.run.clone();
        let (updates, rx) = broadcast::channel(4096);
        let source = updates.downgrade();
        let (store, held) = (self.store.clone(), lease.clone());
        let plan = Plan {
            engine: Arc::new(self.clone()),
            lease,
            state,
            updates,
        };
        let (driver, to) = Driver::open(plan, first).await?;
        let span = tracing::info_span!("run", %run);
        Ok(RunHandle {
            run,
            to,
            updates: Some(rx),
            source,
            store,
            lease: held,
            task: tokio::spawn(driver.run().instrument(span)),
        })
    }
}
