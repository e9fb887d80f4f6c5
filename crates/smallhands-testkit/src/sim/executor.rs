use super::{SimClock, SimRng};
use serde_json::json;
use smallhands_core::{
    AskId, AttemptReport, CancelMode, CancelToken, Clock, Digest, DispatchKey, Effect, Executor,
    ExecutorCapabilities, Failure, FailureClass, Halt, HostCall, HostReply, Outcome, Question, Ran,
    StepIntent, StepRecord, TaskEnvelope, TaskHandle, TaskHost, TaskOutput, async_trait,
};
use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::watch;

/// How one placement goes.
#[derive(Clone, Debug)]
pub struct SimAct {
    /// How long it takes, in simulated time.
    pub takes: Duration,
    /// Recorded steps before its end, which share its time.
    pub steps: u32,
    /// How it ends.
    pub end: SimEnd,
}

/// How a placement ends.
#[derive(Clone, Debug)]
pub enum SimEnd {
    /// With an output.
    Done(TaskOutput),
    /// It fails.
    Fails(Failure),
    /// Its process dies.
    Lost,
    /// It asks, sleeps until it is answered, and is then done with the answer.
    Asks(AskId, Question),
}

type Script = dyn Fn(&TaskEnvelope, &mut SimRng) -> SimAct + Send + Sync;

/// Runs no worker: a script decides from a seed how each placement goes and how long it takes.
/// Needs the runtime of its [`SimClock`].
pub struct SimExecutor {
    clock: SimClock,
    seed: u64,
    script: Arc<Script>,
    placed: Mutex<HashMap<DispatchKey, Arc<Placement>>>,
}

impl fmt::Debug for SimExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimExecutor({})", self.seed)
    }
}

impl SimExecutor {
    /// One in which most placements end well, some fail and may be tried again, a few are lost. The
    /// output is `{"n": <number>}`.
    pub fn new(clock: SimClock, seed: u64) -> Self {
        Self::scripted(clock, seed, |_, rng| SimAct {
            takes: Duration::from_millis(rng.below(50)),
            steps: u32::try_from(rng.below(3)).unwrap_or(0),
            end: match rng.below(100) {
                0..10 => SimEnd::Fails(
                    Failure::new("sim.failed", FailureClass::Task, "as the seed has it")
                        .retryable(),
                ),
                10..15 => SimEnd::Lost,
                n => SimEnd::Done(json!({ "n": n }).into()),
            },
        })
    }
    /// One that goes by a script, which gets numbers that depend on the seed and the placement.
    pub fn scripted(
        clock: SimClock,
        seed: u64,
        script: impl Fn(&TaskEnvelope, &mut SimRng) -> SimAct + Send + Sync + 'static,
    ) -> Self {
        Self {
            clock,
            seed,
            script: Arc::new(script),
            placed: Mutex::default(),
        }
    }
}

#[async_trait]
impl Executor for SimExecutor {
    fn name(&self) -> &'static str {
        "simulated"
    }
    fn capabilities(&self) -> ExecutorCapabilities {
        ExecutorCapabilities::default()
    }
    async fn submit(
        &self,
        task: Arc<TaskEnvelope>,
        host: Arc<dyn TaskHost>,
    ) -> Result<Arc<dyn TaskHandle>, Failure> {
        let key = task.key.clone();
        let mut placed = self.placed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(p) = placed.get(&key) {
            return Ok(p.clone());
        }
        let mut rng = SimRng::of(self.seed, &key.to_string());
        let act = (self.script)(&task, &mut rng);
        let (report, seen) = watch::channel(None);
        let cancel = CancelToken::new();
        let placement = Arc::new(Placement {
            key: key.clone(),
            seen,
            cancel: cancel.clone(),
        });
        placed.insert(key, placement.clone());
        drop(placed);
        let clock = self.clock.clone();
        drop(tokio::spawn(async move {
            let end = tokio::select! {
                biased;
                () = cancel.cancelled() => cancelled(),
                r = go(&clock, &task, &*host, act) => r,
            };
            // Nobody may wait for it any more.
            report.send_replace(Some(end));
        }));
        Ok(placement)
    }
}

async fn go(
    clock: &SimClock,
    task: &TaskEnvelope,
    host: &dyn TaskHost,
    act: SimAct,
) -> AttemptReport {
    let each = act.takes / (act.steps + 1);
    for i in 0..act.steps {
        clock.sleep(each).await;
        if let Err(h) = step(task, host, i).await {
            return halted(h);
        }
    }
    clock.sleep(each).await;
    let value = match act.end {
        SimEnd::Done(out) => return done(out),
        SimEnd::Fails(f) => return halted(Halt::Failed(f)),
        SimEnd::Lost => {
            let f = Failure::new(
                "worker.lost",
                FailureClass::WorkerLost,
                "as the seed has it",
            );
            return AttemptReport {
                outcome: Outcome::Halted(f.into()),
                ran: Ran::Maybe,
            };
        }
        SimEnd::Asks(id, question) => match task.answers.get(&id) {
            Some(a) => a.clone(),
            None => match host
                .call(
                    &task.key,
                    HostCall::Ask {
                        id: id.clone(),
                        question,
                    },
                )
                .await
            {
                Ok(HostReply::Answer(a)) => a,
                Ok(_) => return halted(Halt::Suspended(id)),
                Err(h) => return halted(h),
            },
        },
    };
    done(value.into())
}

async fn step(task: &TaskEnvelope, host: &dyn TaskHost, i: u32) -> Result<(), Halt> {
    let key = format!("step/{i}").into();
    if task.steps.iter().any(|s| s.intent().key == key) {
        return Ok(());
    }
    let intent = StepIntent {
        key,
        effect: Effect::Pure,
        fingerprint: Digest::of_json(&json!(i)),
        reserve: None,
    };
    host.call(&task.key, HostCall::BeginStep(intent.clone()))
        .await?;
    let record = StepRecord {
        intent,
        result: Ok(json!(i)),
        checkpoint: None,
        usage: None,
    };
    host.call(&task.key, HostCall::EndStep(record))
        .await
        .map(drop)
}

fn done(out: TaskOutput) -> AttemptReport {
    AttemptReport {
        outcome: Outcome::Done(out),
        ran: Ran::Yes,
    }
}
fn halted(h: Halt) -> AttemptReport {
    AttemptReport {
        outcome: Outcome::Halted(h),
        ran: Ran::Yes,
    }
}
fn cancelled() -> AttemptReport {
    AttemptReport {
        outcome: Outcome::Halted(Halt::Cancelled),
        ran: Ran::Maybe,
    }
}

#[derive(Debug)]
struct Placement {
    key: DispatchKey,
    seen: watch::Receiver<Option<AttemptReport>>,
    cancel: CancelToken,
}

#[async_trait]
impl TaskHandle for Placement {
    fn key(&self) -> &DispatchKey {
        &self.key
    }
    async fn report(&self) -> AttemptReport {
        let mut seen = self.seen.clone();
        let report = seen.wait_for(Option::is_some).await;
        report
            .ok()
            .and_then(|r| r.clone())
            .unwrap_or_else(cancelled)
    }
    async fn cancel(&self, _: CancelMode) {
        self.cancel.cancel();
    }
}
