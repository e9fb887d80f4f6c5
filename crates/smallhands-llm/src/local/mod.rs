//! A GGUF model in this process.

mod engine;
mod text;
mod worker;

use crate::{
    ChatModel, ChatRequest, ChatResponse, ChatStream, Choice, Delta, Finish, LlmError, ModelInfo,
    Price, Role,
};
use engine::{Completion, Engine, EngineError, Grammar, Options, Request};
use futures_core::Stream;
use smallhands_core::{CallCx, Usage, async_trait};
use std::{
    fmt,
    future::Future,
    path::Path,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};
use tokio::sync::{mpsc, oneshot};

/// How a local model runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalOptions {
    /// Tokens that a prompt and its samples may use together.
    pub context_tokens: u32,
    /// Threads that compute; by default the cores, at most 8. More than there are free cores is
    /// slower, not faster.
    pub threads: u32,
    /// Samples that are decoded together.
    pub parallel: u32,
}

impl Default for LocalOptions {
    fn default() -> Self {
        Self {
            context_tokens: 8192,
            threads: std::thread::available_parallelism()
                .map_or(2, |n| u32::try_from(n.get().min(8)).unwrap_or(8)),
            parallel: 4,
        }
    }
}

/// A GGUF model in this process, by llama.cpp. Loaded at its first use, so that a program that
/// never asks it does not pay for it; samples share the work of their prompt.
pub struct LocalModel {
    info: ModelInfo,
    path: std::path::PathBuf,
    options: LocalOptions,
    engine: Arc<std::sync::OnceLock<Result<Engine, String>>>,
}

impl fmt::Debug for LocalModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LocalModel({})", self.info.id)
    }
}

impl LocalModel {
    /// The model in a file; `name` is how the journal calls it.
    ///
    /// # Errors
    /// There is no such file.
    pub fn open(path: &Path, name: &str, options: LocalOptions) -> Result<Self, LlmError> {
        if !path.is_file() {
            let why = format!("there is no file {}", path.display());
            return Err(LlmError::Local(why));
        }
        Ok(Self {
            info: ModelInfo {
                id: format!("local:{name}"),
                context: u64::from(options.context_tokens),
                prefill: true,
                constrained: true,
                shared_prompt: true,
            },
            path: path.into(),
            options,
            engine: Arc::default(),
        })
    }

    /// Loading blocks for a second or so, hence a thread of its own.
    async fn engine(&self) -> Result<&Engine, LlmError> {
        if self.engine.get().is_none() {
            let (path, o, slot) = (self.path.clone(), self.options, self.engine.clone());
            let (tx, rx) = oneshot::channel();
            let load = move || {
                let options = Options {
                    context_tokens: o.context_tokens,
                    threads: o.threads,
                    parallel: o.parallel,
                };
                slot.get_or_init(|| Engine::load(&path, options).map_err(|e| e.to_string()));
                // Whoever waited may be gone; the model stays loaded.
                let _ = tx.send(());
            };
            std::thread::Builder::new()
                .name("smallhands-load".into())
                .spawn(load)
                .map_err(|e| LlmError::Local(e.to_string()))?;
            rx.await
                .map_err(|_| LlmError::Local("loading it crashed".into()))?;
        }
        match self.engine.get() {
            Some(Ok(e)) => Ok(e),
            Some(Err(why)) => Err(LlmError::Local(why.clone())),
            None => Err(LlmError::Local("it was not loaded".into())),
        }
    }

    async fn streaming<'a>(
        &'a self,
        request: &'a ChatRequest,
        cx: &CallCx,
    ) -> Result<Streaming<'a>, LlmError> {
        Ok(Streaming {
            model: self,
            request,
            running: Some(self.begin(request).await?),
            cancelled: cx.cancel().cancelled(),
        })
    }

    async fn begin(&self, r: &ChatRequest) -> Result<Running, LlmError> {
        let engine = self.engine().await?;
        let cancel = Arc::new(AtomicBool::new(false));
        let role = |r: Role| match r {
            Role::System => engine::Role::System,
            Role::User => engine::Role::User,
            Role::Assistant => engine::Role::Assistant,
        };
        let request = Request {
            messages: r
                .messages
                .iter()
                .map(|m| (role(m.role), m.text.clone()))
                .collect(),
            assistant_prefix: r.prefill.clone(),
            samples: r.samples,
            greedy_first: r.greedy_first,
            max_tokens: r.max_tokens,
            temperature: r.temperature,
            seed: r.seed.unwrap_or(0),
            stop: r.stop.clone(),
            grammar: r
                .schema
                .as_ref()
                .map(|s| Grammar::JsonSchema(s.to_string())),
            cancel: cancel.clone(),
            ..Request::default()
        };
        let (tx, events) = mpsc::unbounded_channel();
        let done_tx = tx.clone();
        // Nobody may be listening, here and below.
        let said = move |choice: usize, text: &str| {
            let choice = u32::try_from(choice).unwrap_or(u32::MAX);
            let text = text.to_owned();
            drop(tx.send(Event::Said(Delta::Text { choice, text })));
        };
        if let Some(begun) = &r.prefill {
            (0..r.samples as usize).for_each(|i| said(i, begun));
        }
        let done = move |result| drop(done_tx.send(Event::Done(result)));
        engine
            .submit(request, Box::new(said), Box::new(done))
            .map_err(|e| self.failed(e))?;
        Ok(Running { cancel, events })
    }

    fn failed(&self, e: EngineError) -> LlmError {
        match e {
            EngineError::PromptTooLong {
                prompt_tokens,
                context_tokens,
                ..
            } => LlmError::TooLong {
                model: self.info.id.clone(),
                tokens: Some(prompt_tokens.into()),
                context: Some(context_tokens.into()),
            },
            EngineError::Invalid(reason) | EngineError::Grammar(reason) => LlmError::Refused {
                model: self.info.id.clone(),
                reason,
            },
            e => LlmError::Local(e.to_string()),
        }
    }

    fn response(
        &self,
        r: &ChatRequest,
        done: Result<Completion, EngineError>,
    ) -> Result<ChatResponse, LlmError> {
        let done = done.map_err(|e| self.failed(e))?;
        let cancelled = |c: &engine::Choice| c.finish == engine::Finish::Cancelled;
        if done.choices.iter().any(cancelled) {
            return Err(LlmError::Cancelled);
        }
        tracing::debug!(
            prompt = done.prompt_tokens,
            cached = done.cached_prompt_tokens,
            prompt_ms = done.prompt_time.as_millis() as u64,
            generate_ms = done.generate_time.as_millis() as u64,
            "local model"
        );
        let prefix = r.prefill.as_deref().unwrap_or("");
        let written: u64 = done.choices.iter().map(|c| u64::from(c.tokens)).sum();
        let read = u64::from(done.prompt_tokens);
        let choice = |c: engine::Choice| Choice {
            text: format!("{prefix}{}", c.text),
            finish: match c.finish {
                engine::Finish::Length => Finish::Length,
                _ => Finish::Stop,
            },
        };
        Ok(ChatResponse {
            choices: done.choices.into_iter().map(choice).collect(),
            usage: Usage {
                micro_usd: Some(Price::FREE.micro_usd(read, written)),
                input_tokens: read,
                output_tokens: written,
                calls: 1,
                millis: 0,
            },
            model: self.info.id.clone(),
        })
    }
}

enum Event {
    Said(Delta),
    Done(Result<Completion, EngineError>),
}

struct Running {
    cancel: Arc<AtomicBool>,
    events: mpsc::UnboundedReceiver<Event>,
}

/// Whoever stops listening wants no more.
impl Drop for Running {
    fn drop(&mut self) {
        self.cancel.store(true, Ordering::Relaxed);
    }
}

#[async_trait]
impl ChatModel for LocalModel {
    fn info(&self) -> &ModelInfo {
        &self.info
    }
    fn worst_case(&self, r: &ChatRequest) -> Usage {
        Usage {
            input_tokens: r.prompt_bound().min(self.info.context),
            output_tokens: u64::from(r.max_tokens) * u64::from(r.samples),
            calls: 1,
            ..Usage::default()
        }
    }
    async fn chat(&self, r: &ChatRequest, cx: &CallCx) -> Result<ChatResponse, LlmError> {
        let mut all = self.streaming(r, cx).await?;
        loop {
            let next = std::future::poll_fn(|task| Pin::new(&mut all).poll_next(task));
            match next.await {
                Some(Ok(Delta::End(end))) => return Ok(*end),
                Some(Ok(_)) => {}
                Some(Err(e)) => return Err(e),
                None => return Err(gone()),
            }
        }
    }
    async fn stream<'a>(
        &'a self,
        r: &'a ChatRequest,
        cx: &'a CallCx,
    ) -> Result<ChatStream<'a>, LlmError> {
        Ok(Box::pin(self.streaming(r, cx).await?))
    }
}

fn gone() -> LlmError {
    LlmError::Local("its thread is gone".into())
}

struct Streaming<'a> {
    model: &'a LocalModel,
    request: &'a ChatRequest,
    running: Option<Running>,
    cancelled: smallhands_core::Cancelled,
}

impl Stream for Streaming<'_> {
    type Item = Result<Delta, LlmError>;
    fn poll_next(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let Some(running) = &mut this.running else {
            return Poll::Ready(None);
        };
        if Pin::new(&mut this.cancelled).poll(task).is_ready() {
            this.running = None;
            return Poll::Ready(Some(Err(LlmError::Cancelled)));
        }
        let Poll::Ready(event) = running.events.poll_recv(task) else {
            return Poll::Pending;
        };
        let end = match event {
            Some(Event::Said(d)) => return Poll::Ready(Some(Ok(d))),
            Some(Event::Done(done)) => this.model.response(this.request, done),
            None => Err(gone()),
        };
        this.running = None;
        Poll::Ready(Some(end.map(|r| Delta::End(Box::new(r)))))
    }
}
