use smallhands_agents::{Delivery, IndexFiles, Memory, PlanMode, RepairParts, RepairSpec, start};
use smallhands_core::{
    Ambient, Budget, Clock, Executor, Failure, FailureClass, Guardrail, NoGuard, NoSecrets, RunId,
    Secrets, Worker,
};
use smallhands_exec::InProcess;
use smallhands_graph::{
    Engine, GraphError, MemoryStore, NewRun, ResumeFailed, RunHandle, StateStore, SystemClock,
    TaskGraph, Update,
};
use smallhands_llm::{ChatModel, ModelManager};
use smallhands_sandbox::SandboxBackend;
use smallhands_tools::{Registry, developer_tools};
use std::{
    fmt::{self, Debug},
    sync::Arc,
};

/// Gets everything that happens in a run: for eyes, never for decisions.
pub trait Sink: Debug + Send + Sync + 'static {
    /// One event or notice.
    ///
    /// # Behavior
    /// - Returns soon; a slow sink misses some.
    fn update(&self, run: &RunId, update: &Update);
}

type MakeExecutor = dyn Fn(Vec<Arc<dyn Worker>>, Ambient) -> Arc<dyn Executor> + Send + Sync;

/// What places the workers that the builder's other layers make.
struct Make(Box<MakeExecutor>);

impl Default for Make {
    fn default() -> Self {
        Self(Box::new(|w, a| Arc::new(InProcess::new(w, a))))
    }
}

impl Debug for Make {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Make")
    }
}

/// Takes each layer as a trait object. What is not given is a default, or is not needed.
#[derive(Debug, Default)]
#[must_use]
pub struct Builder {
    executor: Option<Arc<dyn Executor>>,
    make: Make,
    sandbox: Option<Arc<dyn SandboxBackend>>,
    models: Vec<Arc<dyn ChatModel>>,
    memory: Option<Arc<dyn Memory>>,
    tools: Option<Registry>,
    store: Option<Arc<dyn StateStore>>,
    delivery: Option<Arc<dyn Delivery>>,
    guard: Option<Arc<dyn Guardrail>>,
    secrets: Option<Arc<dyn Secrets>>,
    clock: Option<Arc<dyn Clock>>,
    sinks: Vec<Arc<dyn Sink>>,
    workers: Vec<Arc<dyn Worker>>,
    plan: PlanMode,
    owner: Option<String>,
}

impl Builder {
    /// Where tasks run, with workers of its own; by default in this process.
    pub fn executor(mut self, e: Arc<dyn Executor>) -> Self {
        self.executor = Some(e);
        self
    }
    /// Where tasks run in this process: makes an executor of the workers that the other layers
    /// give, for each run.
    pub fn executor_with(
        mut self,
        make: impl Fn(Vec<Arc<dyn Worker>>, Ambient) -> Arc<dyn Executor> + Send + Sync + 'static,
    ) -> Self {
        self.make = Make(Box::new(make));
        self
    }
    /// Where code runs; needed for repairs.
    pub fn sandbox(mut self, s: Arc<dyn SandboxBackend>) -> Self {
        self.sandbox = Some(s);
        self
    }
    /// A model; several form a cascade, the first being the smallest. Needed for repairs.
    pub fn model(mut self, m: Arc<dyn ChatModel>) -> Self {
        self.models.push(m);
        self
    }
    /// What finds code; by default chunks and BM25 in memory.
    pub fn memory(mut self, m: Arc<dyn Memory>) -> Self {
        self.memory = Some(m);
        self
    }
    /// The tools; by default the developer tools for the repair's test command.
    pub fn tools(mut self, r: Registry) -> Self {
        self.tools = Some(r);
        self
    }
    /// The journal; by default in memory.
    pub fn store(mut self, s: Arc<dyn StateStore>) -> Self {
        self.store = Some(s);
        self
    }
    /// Where results go; needed for repairs.
    pub fn delivery(mut self, d: Arc<dyn Delivery>) -> Self {
        self.delivery = Some(d);
        self
    }
    /// The policy; by default none.
    pub fn guardrail(mut self, g: Arc<dyn Guardrail>) -> Self {
        self.guard = Some(g);
        self
    }
    /// Secret values; by default none.
    pub fn secrets(mut self, s: Arc<dyn Secrets>) -> Self {
        self.secrets = Some(s);
        self
    }
    /// Time; by default the computer's.
    pub fn clock(mut self, c: Arc<dyn Clock>) -> Self {
        self.clock = Some(c);
        self
    }
    /// Somebody who watches; may be called several times.
    pub fn sink(mut self, s: Arc<dyn Sink>) -> Self {
        self.sinks.push(s);
        self
    }
    /// A worker; one of the same name as a standard one (`planner`, `reproduce`, `locate`,
    /// `propose`, `validate`, `finish`) takes its place.
    pub fn worker(mut self, w: Arc<dyn Worker>) -> Self {
        self.workers.push(w);
        self
    }
    /// The planner, in place of the standard one; a worker of the name `planner`.
    pub fn planner(self, w: Arc<dyn Worker>) -> Self {
        self.worker(w)
    }
    /// How the standard planner works.
    pub fn plan(mut self, p: PlanMode) -> Self {
        self.plan = p;
        self
    }
    /// Who drives the runs, for others who would like to.
    pub fn owner(mut self, who: impl Into<String>) -> Self {
        self.owner = Some(who.into());
        self
    }

    /// Puts them together.
    ///
    /// # Errors
    /// `build.executor`: an executor was given, which brings its own workers, together with a layer
    /// that those workers would never see.
    pub fn build(self) -> Result<SmallHands, Failure> {
        let own = [
            ("sandbox", self.sandbox.is_some()),
            ("model", !self.models.is_empty()),
            ("memory", self.memory.is_some()),
            ("tools", self.tools.is_some()),
            ("delivery", self.delivery.is_some()),
            ("worker", !self.workers.is_empty()),
            ("guardrail", self.guard.is_some()),
        ];
        let lost = own.iter().find(|(_, given)| *given);
        if let (Some(_), Some((what, _))) = (&self.executor, lost) {
            let why = format!(
                "the executor brings its own workers, which the {what} given to the builder would not reach"
            );
            return Err(Failure::new("build.executor", FailureClass::Input, why).hint(
                "give the builder `executor_with`, or make the layer where the executor's workers are made",
            ));
        }
        let clock = self.clock.clone().unwrap_or_else(|| Arc::new(SystemClock));
        let store = self
            .store
            .clone()
            .unwrap_or_else(|| Arc::new(MemoryStore::new(clock.clone())));
        Ok(SmallHands {
            ambient: Ambient {
                clock,
                blobs: store.blobs(),
                guard: self.guard.clone().unwrap_or_else(|| Arc::new(NoGuard)),
                secrets: self.secrets.clone().unwrap_or_else(|| Arc::new(NoSecrets)),
            },
            store,
            given: self,
        })
    }
}

/// The layers, put together.
#[derive(Debug)]
pub struct SmallHands {
    given: Builder,
    ambient: Ambient,
    store: Arc<dyn StateStore>,
}

impl SmallHands {
    /// Starts with nothing.
    pub fn builder() -> Builder {
        Builder::default()
    }
    /// The journal.
    pub fn store(&self) -> &Arc<dyn StateStore> {
        &self.store
    }

    /// An engine with the workers that were given.
    pub fn engine(&self) -> Engine {
        self.engine_with(self.given.workers.clone())
    }

    fn engine_with(&self, workers: Vec<Arc<dyn Worker>>) -> Engine {
        let executor = self
            .given
            .executor
            .clone()
            .unwrap_or_else(|| (self.given.make.0)(workers, self.ambient.clone()));
        let clock = self.ambient.clock.clone();
        let engine = Engine::new(self.store.clone(), executor, clock);
        match &self.given.owner {
            Some(o) => engine.owner(o.as_str()),
            None => engine,
        }
    }

    /// Runs a graph of the workers that were given.
    ///
    /// # Errors
    /// As [`Engine::start`].
    pub async fn run(&self, run: NewRun) -> Result<RunHandle, GraphError> {
        let handle = self.engine().start(run).await?;
        Ok(self.watched(handle))
    }

    /// Starts a repair: plan, reproduce, rounds of candidates judged by tests, delivery.
    ///
    /// # Errors
    /// A layer that it needs was not given; else as [`Engine::start`].
    pub async fn repair(
        &self,
        id: impl Into<RunId>,
        spec: RepairSpec,
        config: serde_json::Value,
        budget: Budget,
    ) -> Result<RunHandle, GraphError> {
        let mut run = NewRun::new(id, TaskGraph::from_tasks(start())?);
        run.goal.clone_from(&spec.goal);
        run.config = config;
        run.budget = budget;
        let handle = self.repair_engine(spec)?.start(run).await?;
        Ok(self.watched(handle))
    }

    /// Takes up a repair where its journal ends.
    ///
    /// # Errors
    /// As [`Engine::resume`].
    pub async fn resume_repair(
        &self,
        id: &RunId,
        spec: RepairSpec,
        failed: ResumeFailed,
    ) -> Result<RunHandle, GraphError> {
        let handle = self.repair_engine(spec)?.resume(id, failed).await?;
        Ok(self.watched(handle))
    }

    fn repair_engine(&self, spec: RepairSpec) -> Result<Engine, Failure> {
        if self.given.executor.is_some() {
            return Ok(self.engine());
        }
        let missing = |what: &str| {
            let why = format!("a repair needs a {what}, and none was given to the builder");
            Failure::new("build.missing", FailureClass::Input, why)
        };
        let given = &self.given;
        let parts = RepairParts {
            models: ModelManager::new(given.models.clone())?,
            sandboxes: given.sandbox.clone().ok_or_else(|| missing("sandbox"))?,
            memory: given.memory.clone().unwrap_or_else(|| Arc::new(IndexFiles)),
            tools: given
                .tools
                .clone()
                .unwrap_or_else(|| developer_tools(spec.tests.clone())),
            delivery: given.delivery.clone().ok_or_else(|| missing("delivery"))?,
            plan: given.plan,
        };
        let mut workers = parts.workers(spec);
        for w in &given.workers {
            workers.insert(w.name().clone(), w.clone());
        }
        Ok(self.engine_with(workers.into_values().collect()))
    }

    fn watched(&self, handle: RunHandle) -> RunHandle {
        for s in &self.given.sinks {
            let (sink, run, mut updates) = (s.clone(), handle.id().clone(), handle.watch());
            tokio::spawn(async move {
                while let Some(u) = updates.next().await {
                    sink.update(&run, &u);
                }
            });
        }
        handle
    }
}
