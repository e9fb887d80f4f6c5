//! The smaller layers: model, memory, tools, store, guardrail, sink, delivery, clock, secrets.

use crate::Uses;
use serde_json::{Value, json};
use smallhands::{
    Sink,
    agents::{Delivered, Delivery, Memory},
    core::{
        BlobRef, BoxFuture, CallCx, Clock, Effect, Failure, FailureClass, Guardrail, RunId,
        SecretName, Secrets, Subject, Timestamp, Usage, Verdict, async_trait,
    },
    graph::{MemoryStore, SystemClock, Update, store_around},
    llm::{ChatModel, ChatRequest, ChatResponse, Choice, Finish, LlmError, ModelInfo},
    memory::{Chunk, ChunkKind, CodeQuery, Hit, MemoryError, Retriever},
    sandbox::Sandbox,
    tools::{DynTool, TestCommand, ToolCard, ToolCx, ToolError, ToolOutcome},
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// A model that knows one repair: it adds where the code in the question subtracts.
#[derive(Debug)]
pub struct Answers {
    info: ModelInfo,
    uses: Uses,
}

impl Answers {
    /// Counts its calls.
    pub fn new(uses: Uses) -> Self {
        let info = ModelInfo {
            id: "embedder:adds".into(),
            context: 8192,
            prefill: false,
            constrained: false,
            shared_prompt: true,
        };
        Self { info, uses }
    }
}

#[async_trait]
impl ChatModel for Answers {
    fn info(&self) -> &ModelInfo {
        &self.info
    }
    fn worst_case(&self, r: &ChatRequest) -> Usage {
        Usage {
            input_tokens: r.prompt_bound(),
            output_tokens: u64::from(r.max_tokens) * u64::from(r.samples),
            calls: 1,
            ..Usage::default()
        }
    }
    async fn chat(&self, r: &ChatRequest, _: &CallCx) -> Result<ChatResponse, LlmError> {
        self.uses.add("model");
        let asked = r.messages.last().map_or("", |m| &m.text);
        let code = asked
            .split("```")
            .nth(1)
            .unwrap_or("")
            .replace(" - ", " + ");
        let choice = Choice {
            text: format!("```{code}```"),
            finish: Finish::Stop,
        };
        Ok(ChatResponse {
            usage: Usage {
                input_tokens: asked.len() as u64 / 4,
                output_tokens: code.len() as u64 / 4,
                calls: 1,
                ..Usage::default()
            },
            choices: vec![choice; r.samples as usize],
            model: self.info.id.clone(),
        })
    }
}

/// Finds files by the words of a question, with no index.
#[derive(Clone, Debug)]
pub struct Grep(pub Uses);

#[derive(Debug)]
struct Texts(Vec<(String, String)>, Uses);

#[async_trait]
impl Memory for Grep {
    async fn open(&self, files: &dyn Sandbox, _: &CallCx) -> Result<Arc<dyn Retriever>, Failure> {
        let mut texts = Vec::new();
        for e in files.list("").await? {
            if let Ok(text) = String::from_utf8(files.read(&e.path).await?) {
                texts.push((e.path, text));
            }
        }
        Ok(Arc::new(Texts(texts, self.0.clone())))
    }
}

#[async_trait]
impl Retriever for Texts {
    async fn retrieve(&self, query: &CodeQuery, _: &CallCx) -> Result<Vec<Hit>, MemoryError> {
        self.1.add("memory");
        let hit = |(path, text): &(String, String)| {
            let words = query.text.split_whitespace();
            let found = words.filter(|w| w.len() > 2 && text.contains(*w)).count();
            let chunk = Chunk {
                path: path.clone(),
                lines: (1, text.lines().count() as u32),
                bytes: (0, text.len()),
                symbol: None,
                kind: ChunkKind::Window,
                context: None,
                part: 0,
                is_test: path.contains("test"),
                text: text.clone(),
            };
            Hit::new(chunk, vec![("words".into(), found as f32)])
        };
        let mut hits: Vec<_> = self.0.iter().map(hit).collect();
        hits.sort_by(|a, b| b.score.total_cmp(&a.score));
        hits.truncate(query.limit);
        Ok(hits)
    }
}

/// `run_tests`, without the schema crate: an erased tool.
#[derive(Debug)]
pub struct Tests(pub TestCommand, pub Uses);

#[async_trait]
impl DynTool for Tests {
    fn card(&self) -> ToolCard {
        ToolCard {
            name: "run_tests".into(),
            about: "Runs the tests.".into(),
            effect: Effect::Workspace,
            input: json!({"type": "object"}),
            output: json!({"type": "object"}),
        }
    }
    async fn call(&self, _: Value, cx: ToolCx<'_>) -> Result<ToolOutcome, ToolError> {
        self.1.add("tools");
        let report = self.0.run(cx.files()?, cx.call).await?;
        Ok(ToolOutcome {
            ok: report.ok,
            model_view: report.summary(),
            value: serde_json::to_value(&report).map_err(|e| ToolError::broken(e.to_string()))?,
            artifacts: Vec::new(),
        })
    }
}

/// A journal that counts what is appended to another.
#[derive(Debug)]
pub struct CountingStore(MemoryStore, Uses);

impl CountingStore {
    /// In memory.
    pub fn new(uses: Uses) -> Self {
        Self(MemoryStore::new(Arc::new(SystemClock)), uses)
    }
}

store_around!(CountingStore, 0, {
    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        self.0.release(lease).await
    }
    async fn append(
        &self,
        lease: &Lease,
        after: u64,
        records: Vec<Record>,
        head: Option<RunHead>,
        level: Durability,
    ) -> Result<u64, StoreError> {
        self.1.add("store");
        self.0.append(lease, after, records, head, level).await
    }
});

/// Denies every tool call by the name of `push`.
#[derive(Debug)]
pub struct NoPush(pub Uses);

#[async_trait]
impl Guardrail for NoPush {
    fn name(&self) -> &str {
        "no-push"
    }
    async fn check(&self, subject: &Subject, _: &CallCx) -> Verdict {
        match subject {
            Subject::ToolCall { tool, .. } if tool == "push" => {
                self.0.add("guard.denied");
                Verdict::Deny {
                    rule: "no-push".into(),
                    reason: "nothing leaves this house".into(),
                }
            }
            _ => {
                self.0.add("guard.allowed");
                Verdict::Allow
            }
        }
    }
}

/// Watches a run.
#[derive(Debug)]
pub struct Watcher(pub Uses);

impl Sink for Watcher {
    fn update(&self, _: &RunId, update: &Update) {
        match update {
            Update::Event { .. } => self.0.add("sink.event"),
            Update::Notice { .. } => self.0.add("sink.notice"),
            _ => {}
        }
    }
}

/// Keeps the patch that is delivered.
#[derive(Debug, Default)]
pub struct Inbox(Mutex<Option<String>>);

impl Inbox {
    /// What came.
    pub fn patch(&self) -> Option<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

#[async_trait]
impl Delivery for Inbox {
    async fn find(&self, _: &str, _: &CallCx) -> Result<Option<Delivered>, Failure> {
        Ok(None)
    }
    async fn deliver(
        &self,
        run: &str,
        _: &BlobRef,
        patch: &str,
        _: &CallCx,
    ) -> Result<Delivered, Failure> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.replace(patch.into()).is_some() {
            let why = "it was delivered twice";
            return Err(Failure::new("inbox.twice", FailureClass::Task, why));
        }
        Ok(Delivered {
            branch: None,
            commit: None,
            file: Some(format!("inbox:{run}")),
        })
    }
}

/// The computer's clock, counted.
#[derive(Debug)]
pub struct CountingClock(pub Uses);

impl Clock for CountingClock {
    fn now(&self) -> Timestamp {
        self.0.add("clock");
        SystemClock.now()
    }
    fn monotonic(&self) -> Duration {
        SystemClock.monotonic()
    }
    fn sleep(&self, d: Duration) -> BoxFuture<'static, ()> {
        SystemClock.sleep(d)
    }
}

/// Knows the secret `kit`.
#[derive(Debug)]
pub struct OneSecret(pub Uses);

impl Secrets for OneSecret {
    fn get(&self, name: &SecretName) -> Option<String> {
        self.0.add("secrets");
        (name.as_str() == "kit").then(|| "s3cret".into())
    }
}
