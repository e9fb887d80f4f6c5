use crate::{
    Ambient, AskId, BlobRef, CallCx, CancelToken, Checkpoint, Digest, DispatchKey, Effect, Failure,
    FailureClass, Halt, HostCall, HostReply, Notice, PriorStep, Question, StepIntent, StepKey,
    StepRecord, Subject, TaskEnvelope, TaskHost, TaskSpec, Usage, Verdict, lock,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    sync::{Arc, Mutex},
};

/// The task as its worker sees it. Cheap to clone.
#[derive(Clone)]
pub struct TaskContext(Arc<Inner>);

struct Inner {
    env: Arc<TaskEnvelope>,
    host: Arc<dyn TaskHost>,
    ambient: Ambient,
    cancel: CancelToken,
    steps: Mutex<BTreeMap<StepKey, PriorStep>>,
    checkpoint: Mutex<Option<BlobRef>>,
}

impl fmt::Debug for TaskContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TaskContext({})", self.0.env.key)
    }
}

/// One step of a worker, before it is done.
///
/// `Step::new("turn/3/chat").effect(Effect::Idempotent).input(&request)`
pub struct Step<'a> {
    key: StepKey,
    effect: Effect,
    input: Result<Value, String>,
    subject: Option<Subject>,
    state: Option<&'a dyn Checkpoint>,
    reserve: Option<Usage>,
}

impl fmt::Debug for Step<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Step({}, {:?})", self.key, self.effect)
    }
}

impl<'a> Step<'a> {
    /// A [`Effect::Pure`] step of that name.
    pub fn new(key: impl Into<StepKey>) -> Self {
        Self {
            key: key.into(),
            effect: Effect::Pure,
            input: Ok(Value::Null),
            subject: None,
            state: None,
            reserve: None,
        }
    }
    /// How it is settled when a crash leaves it in doubt.
    #[must_use]
    pub fn effect(mut self, e: Effect) -> Self {
        self.effect = e;
        self
    }
    /// What it depends on. A recorded step whose input differs is a typed failure
    /// (`step.diverged`), not a stale answer.
    #[must_use]
    pub fn input(mut self, v: &impl Serialize) -> Self {
        self.input = serde_json::to_value(v).map_err(|e| e.to_string());
        self
    }
    /// Checked by the guardrail before the step begins; may ask a person; not checked on replay.
    #[must_use]
    pub fn guarded(mut self, s: Subject) -> Self {
        self.subject = Some(s);
        self
    }
    /// Changes this workspace and nothing else.
    #[must_use]
    pub fn in_workspace(mut self, c: &'a dyn Checkpoint) -> Self {
        self.effect = Effect::Workspace;
        self.state = Some(c);
        self
    }
    /// Holds this much of the budget from its begin to its end, in the same two appends.
    #[must_use]
    pub fn reserving(mut self, most: Usage) -> Self {
        self.reserve = Some(most);
        self
    }
}

impl TaskContext {
    /// For executors: a task placed in this process.
    pub fn new(
        env: impl Into<Arc<TaskEnvelope>>,
        host: Arc<dyn TaskHost>,
        ambient: Ambient,
        cancel: CancelToken,
    ) -> Self {
        let env = env.into();
        let steps = env
            .steps
            .iter()
            .map(|s| (s.intent().key.clone(), s.clone()))
            .collect();
        let checkpoint = env.steps.iter().rev().find_map(|s| match s {
            PriorStep::Done(r) => r.checkpoint.clone(),
            PriorStep::InDoubt(_) => None,
        });
        Self(Arc::new(Inner {
            env,
            host,
            ambient,
            cancel,
            steps: Mutex::new(steps),
            checkpoint: Mutex::new(checkpoint),
        }))
    }
    /// Whose placement this is.
    pub fn key(&self) -> &DispatchKey {
        &self.0.env.key
    }
    /// The task.
    pub fn spec(&self) -> &TaskSpec {
        &self.0.env.spec
    }
    /// Revision and states of the graph, if the spec asks for them.
    pub fn view(&self) -> Option<&Value> {
        self.0.env.view.as_ref()
    }
    /// What the process supplies.
    pub fn ambient(&self) -> &Ambient {
        &self.0.ambient
    }
    /// Cancelled when the task is to stop.
    pub fn cancel(&self) -> &CancelToken {
        &self.0.cancel
    }
    /// For calls that need no record (opening a sandbox, reading a file): it can be cancelled, it
    /// cannot spend.
    pub fn local(&self) -> CallCx {
        CallCx::local(self)
    }
    /// Something for eyes.
    pub fn notice(&self, n: Notice) {
        self.0.host.notice(self.key(), n);
    }
    /// Where a workspace must start: the checkpoint of the last finished mutating step.
    pub fn last_checkpoint(&self) -> Option<BlobRef> {
        lock(&self.0.checkpoint).clone()
    }

    pub(crate) async fn host(&self, c: HostCall) -> Result<HostReply, Halt> {
        self.0.host.call(self.key(), c).await
    }

    /// A durable question; the process may be gone before the answer comes.
    ///
    /// # Errors
    /// [`Halt::Suspended`] until there is an answer: return it, and the task is woken by the answer.
    pub async fn ask(&self, id: impl Into<AskId>, question: Question) -> Result<Value, Halt> {
        let id = id.into();
        if let Some(a) = self.0.env.answers.get(&id) {
            return Ok(a.clone());
        }
        let ask = HostCall::Ask {
            id: id.clone(),
            question,
        };
        match self.host(ask).await? {
            HostReply::Answer(a) => Ok(a),
            _ => Err(Halt::Suspended(id)),
        }
    }

    /// Does `act` once and for all: its begin is durable before it acts, its result before it
    /// returns. A resumed attempt gets the recorded result and does not act again.
    ///
    /// A live step returns its decoded record, so that a live and a replayed worker see the same.
    ///
    /// # Errors
    /// The failure of `act`, recorded; `step.diverged` if a recorded step had another input;
    /// `guard.denied`; `budget.exhausted`; and the halts of the engine.
    pub async fn step<T, F, Fut>(&self, step: Step<'_>, act: F) -> Result<T, Halt>
    where
        T: Serialize + DeserializeOwned + Send,
        F: FnOnce(CallCx) -> Fut + Send,
        Fut: Future<Output = Result<T, Failure>> + Send,
    {
        self.step_or_verify(step, |_| async { Ok(None) }, act).await
    }

    /// As [`step`](Self::step); if an earlier placement left it in doubt, `verify` looks at the
    /// world first, and what it finds is taken as the result.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    pub async fn step_or_verify<T, V, VFut, F, Fut>(
        &self,
        step: Step<'_>,
        verify: V,
        act: F,
    ) -> Result<T, Halt>
    where
        T: Serialize + DeserializeOwned + Send,
        V: FnOnce(CallCx) -> VFut + Send,
        VFut: Future<Output = Result<Option<T>, Failure>> + Send,
        F: FnOnce(CallCx) -> Fut + Send,
        Fut: Future<Output = Result<T, Failure>> + Send,
    {
        let Step {
            key,
            effect,
            input,
            subject,
            state,
            reserve,
        } = step;
        let input =
            input.map_err(|e| Failure::new("step.encode", FailureClass::Input, e.clone()))?;
        let intent = StepIntent {
            key: key.clone(),
            effect,
            fingerprint: Digest::of_json(&input),
            reserve,
        };
        let in_doubt = match self.prior(&intent)? {
            Some(PriorStep::Done(r)) => return self.finish(r),
            Some(PriorStep::InDoubt(_)) => true,
            None => false,
        };
        if self.cancel().is_cancelled() {
            return Err(Halt::Cancelled);
        }
        if in_doubt && effect == Effect::AtMostOnce {
            return Err(Halt::Unknown(key));
        }
        let call = CallCx::of_step(self, &key, self.idempotency(&key), reserve);
        if let Some(s) = subject {
            self.permit(&key, &s, &call).await?;
        }
        if let HostReply::Recorded(r) = self.host(HostCall::BeginStep(intent.clone())).await? {
            return self.finish(r);
        }
        if in_doubt && let Some(c) = state {
            self.roll_back(c).await?;
        }
        let verified = match in_doubt && effect == Effect::Verifiable {
            true => verify(call.clone()).await?,
            false => None,
        };
        let acted = match verified {
            Some(t) => Ok(t),
            None => act(call.clone()).await,
        };
        let result = match acted.and_then(|t| encode(&key, &t)) {
            Ok(v) => self.clean(v, &call).await,
            Err(f) => Err(f),
        };
        if result.is_err() && self.cancel().is_cancelled() {
            // Left in doubt on purpose: a resumed run does it again.
            return Err(Halt::Cancelled);
        }
        let checkpoint = match (state, &result) {
            // Durable before the record that names it.
            (Some(c), Ok(_)) => Some(c.save(&*self.0.ambient.blobs).await?),
            (Some(c), Err(_)) => {
                self.roll_back(c).await?;
                None
            }
            (None, _) => None,
        };
        let usage = match (&result, reserve) {
            (_, None) => None,
            (Ok(_), Some(_)) => call.metered(),
            (Err(_), Some(_)) => call.metered().filter(|u| *u != Usage::default()),
        };
        let record = StepRecord {
            intent,
            result,
            checkpoint,
            usage,
        };
        self.host(HostCall::EndStep(record.clone())).await?;
        self.finish(record)
    }

    fn prior(&self, intent: &StepIntent) -> Result<Option<PriorStep>, Halt> {
        let prior = lock(&self.0.steps).get(&intent.key).cloned();
        match prior {
            Some(p) if p.intent().fingerprint != intent.fingerprint => Err(Failure::new(
                "step.diverged",
                FailureClass::Diverged,
                format!("step {} was recorded with another input", intent.key),
            )
            .into()),
            p => Ok(p),
        }
    }

    /// Outlives attempts and placements.
    fn idempotency(&self, step: &StepKey) -> Digest {
        let (k, env) = (self.key(), &self.0.env);
        let mut of = match &env.spec.idempotency_key {
            Some(own) => vec![json!(own)],
            None => vec![json!(k.run), json!(k.task)],
        };
        of.push(json!(step));
        if env.iteration > 0 {
            of.push(json!(env.iteration));
        }
        Digest::of_json(&Value::Array(of))
    }

    async fn roll_back(&self, c: &dyn Checkpoint) -> Result<(), Failure> {
        c.restore(self.last_checkpoint().as_ref(), &*self.0.ambient.blobs)
            .await
    }

    fn finish<T: DeserializeOwned>(&self, r: StepRecord) -> Result<T, Halt> {
        if r.checkpoint.is_some() {
            lock(&self.0.checkpoint).clone_from(&r.checkpoint);
        }
        let key = r.intent.key.clone();
        lock(&self.0.steps).insert(key.clone(), PriorStep::Done(r.clone()));
        serde_json::from_value(r.result?).map_err(|e| {
            Failure::new(
                "step.decode",
                FailureClass::Diverged,
                format!("{key} was recorded as something else: {e}"),
            )
            .into()
        })
    }

    async fn permit(&self, key: &StepKey, s: &Subject, cx: &CallCx) -> Result<(), Halt> {
        match self.0.ambient.guard.check(s, cx).await {
            Verdict::Allow | Verdict::Redact { .. } => Ok(()),
            Verdict::Deny { rule, reason } => Err(denied(&rule, &reason).into()),
            Verdict::Ask { rule, reason } => {
                let q = Question::new(format!("{rule}: {reason}"))
                    .schema(json!({"type": "boolean"}))
                    .default(false);
                match self.ask(format!("permit/{key}"), q).await? {
                    Value::Bool(true) => Ok(()),
                    _ => Err(denied(&rule, "refused by a person").into()),
                }
            }
        }
    }

    async fn clean(&self, v: Value, cx: &CallCx) -> Result<Value, Failure> {
        let subject = Subject::StepResult(v);
        match self.0.ambient.guard.check(&subject, cx).await {
            Verdict::Redact { with, .. } => Ok(with),
            Verdict::Deny { rule, reason } => Err(denied(&rule, &reason)),
            _ => match subject {
                Subject::StepResult(v) => Ok(v),
                _ => Ok(Value::Null),
            },
        }
    }
}

fn denied(rule: &str, reason: &str) -> Failure {
    Failure::new(
        "guard.denied",
        FailureClass::Denied,
        format!("{rule}: {reason}"),
    )
}

fn encode<T: Serialize>(key: &StepKey, t: &T) -> Result<Value, Failure> {
    serde_json::to_value(t).map_err(|e| {
        Failure::new(
            "step.encode",
            FailureClass::Task,
            format!("the result of {key} is not JSON: {e}"),
        )
    })
}
