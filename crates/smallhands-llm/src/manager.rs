use crate::{ChatModel, ChatRequest, ChatResponse, Delta, LlmError};
use serde_json::json;
use smallhands_core::{
    CallCx, Effect, Failure, FailureClass, Halt, Notice, Step, StepKey, Subject, TaskContext, Usage,
};
use std::{future::poll_fn, mem, sync::Arc, time::Duration};

/// Bytes of an answer that are shown at once: a notice for each token would be a flood.
const SHOWN: usize = 64;

/// Models by strength, the smallest first. The caller moves up a tier when a check (tests, a
/// schema) says that the answers of one do not do; nothing is guessed from the words of an answer.
#[derive(Clone, Debug)]
pub struct ModelManager {
    tiers: Vec<Arc<dyn ChatModel>>,
    attempts: u32,
}

impl ModelManager {
    /// With these models, the smallest first.
    ///
    /// # Errors
    /// There is none.
    pub fn new(tiers: impl IntoIterator<Item = Arc<dyn ChatModel>>) -> Result<Self, Failure> {
        let tiers: Vec<_> = tiers.into_iter().collect();
        if tiers.is_empty() {
            let why = "a model manager needs at least one model";
            return Err(Failure::new("llm.no_model", FailureClass::Input, why));
        }
        Ok(Self { tiers, attempts: 3 })
    }
    /// How many tiers.
    pub fn tiers(&self) -> usize {
        self.tiers.len()
    }
    /// The model of a tier; above the highest, the strongest.
    pub fn tier(&self, n: usize) -> &Arc<dyn ChatModel> {
        &self.tiers[n.min(self.tiers.len() - 1)]
    }
    /// The strongest.
    pub fn strongest(&self) -> &Arc<dyn ChatModel> {
        self.tier(usize::MAX)
    }

    /// One durable call of the model of a tier, tried again on failures that pass by.
    ///
    /// # Errors
    /// As [`chat_step`].
    pub async fn chat(
        &self,
        cx: &TaskContext,
        key: impl Into<StepKey>,
        tier: usize,
        request: ChatRequest,
    ) -> Result<ChatResponse, Halt> {
        call(cx, key.into(), self.tier(tier), request, self.attempts).await
    }
}

/// A model call as a step, the only way in which a worker should talk to a model: checked by the
/// guardrail, its worst case held from the budget, its answer recorded, its real use settled. The
/// first sample is shown as it comes ([`Notice::Delta`]); only the whole is recorded.
///
/// # Errors
/// The model's failure; `budget.exhausted`; `guard.denied`; the halts of the engine.
pub async fn chat_step(
    cx: &TaskContext,
    key: impl Into<StepKey>,
    model: &Arc<dyn ChatModel>,
    request: ChatRequest,
) -> Result<ChatResponse, Halt> {
    call(cx, key.into(), model, request, 1).await
}

async fn call(
    cx: &TaskContext,
    key: StepKey,
    model: &Arc<dyn ChatModel>,
    request: ChatRequest,
    attempts: u32,
) -> Result<ChatResponse, Halt> {
    let id = &model.info().id;
    let worst = model.worst_case(&request);
    let all = (1..attempts).fold(worst, |sum, _| sum.plus(worst));
    let step = Step::new(key)
        .effect(Effect::Idempotent)
        .input(&(id, &request))
        .guarded(Subject::Prompt(json!(request.messages)))
        .reserving(all);
    let span =
        tracing::info_span!("chat", gen_ai.operation.name = "chat", gen_ai.request.model = %id);
    let act = |call: CallCx| async move {
        let mut attempt = 1;
        loop {
            let held = call.reserve(worst).await?;
            let started = call.ambient().clock.monotonic();
            match shown(&**model, &request, &call).await {
                Ok(mut r) => {
                    let took = call.ambient().clock.monotonic().saturating_sub(started);
                    r.usage.millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
                    held.settle(r.usage).await?;
                    return Ok(r);
                }
                Err(e) if e.is_retryable() && attempt < attempts => {
                    tracing::warn!(%e, attempt, "a model call failed and is tried again");
                    if e.is_free() {
                        held.settle(Usage::default()).await?;
                    }
                    call.notice(Notice::Progress {
                        text: format!("{e}: trying again"),
                        done: None,
                    });
                    wait(&call, attempt, e.retry_after()).await?;
                    attempt += 1;
                }
                Err(e) => {
                    if e.is_free() {
                        held.settle(Usage::default()).await?;
                    }
                    return Err(e.into());
                }
            }
        }
    };
    tracing::Instrument::instrument(cx.step(step, act), span).await
}

async fn shown(
    model: &dyn ChatModel,
    request: &ChatRequest,
    call: &CallCx,
) -> Result<ChatResponse, LlmError> {
    let mut stream = model.stream(request, call).await?;
    let mut new = String::new();
    loop {
        let end = match poll_fn(|task| stream.as_mut().poll_next(task)).await {
            Some(Ok(Delta::Text { choice, text })) => {
                if choice == 0 {
                    new += &text;
                }
                None
            }
            Some(Ok(Delta::End(end))) => Some(*end),
            Some(Err(e)) => return Err(e),
            None => {
                return Err(LlmError::Malformed {
                    model: model.info().id.clone(),
                    reason: "it ended without an end".into(),
                });
            }
        };
        if new.len() >= SHOWN || (end.is_some() && !new.is_empty()) {
            let text = mem::take(&mut new);
            call.notice(Notice::Delta { text });
        }
        if let Some(end) = end {
            return Ok(end);
        }
    }
}

async fn wait(call: &CallCx, attempt: u32, asked: Option<Duration>) -> Result<(), Failure> {
    let own = Duration::from_millis(500 << attempt.min(6));
    let clock = &call.ambient().clock;
    let (mut sleep, mut cancelled) = (
        clock.sleep(own.max(asked.unwrap_or(own))),
        call.cancel().cancelled(),
    );
    // Whichever comes first, without a runtime's select.
    std::future::poll_fn(|cx| {
        use std::{future::Future, pin::Pin, task::Poll};
        if Pin::new(&mut cancelled).poll(cx).is_ready() {
            return Poll::Ready(Err(LlmError::Cancelled.into()));
        }
        sleep.as_mut().poll(cx).map(Ok)
    })
    .await
}
