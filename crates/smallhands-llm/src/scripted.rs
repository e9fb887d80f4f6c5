use crate::{ChatModel, ChatRequest, ChatResponse, Choice, Finish, LlmError, ModelInfo};
use smallhands_core::{CallCx, Usage, async_trait};
use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

type Script = Box<dyn Fn(&ChatRequest, u32) -> String + Send + Sync>;

/// A model that follows a script: for tests, examples and demonstrations without a model.
pub struct Scripted {
    info: ModelInfo,
    script: Script,
    calls: AtomicU64,
}

impl fmt::Debug for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scripted({})", self.info.id)
    }
}

impl Scripted {
    /// Answers with what the function returns for a request and the number of a sample.
    pub fn new(
        name: &str,
        script: impl Fn(&ChatRequest, u32) -> String + Send + Sync + 'static,
    ) -> Self {
        Self {
            info: ModelInfo {
                id: format!("scripted:{name}"),
                context: 32_768,
                prefill: false,
                constrained: false,
                shared_prompt: true,
            },
            script: Box::new(script),
            calls: AtomicU64::new(0),
        }
    }
    /// How often it was asked.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl ChatModel for Scripted {
    fn info(&self) -> &ModelInfo {
        &self.info
    }
    fn worst_case(&self, r: &ChatRequest) -> Usage {
        let written = u64::from(r.max_tokens) * u64::from(r.samples);
        Usage {
            input_tokens: r.prompt_bound(),
            output_tokens: written,
            calls: 1,
            ..Usage::default()
        }
    }
    async fn chat(&self, r: &ChatRequest, cx: &CallCx) -> Result<ChatResponse, LlmError> {
        if cx.cancel().is_cancelled() {
            return Err(LlmError::Cancelled);
        }
        self.calls.fetch_add(1, Ordering::SeqCst);
        let limit = r.max_tokens as usize * 4;
        let choices: Vec<_> = (0..r.samples)
            .map(|i| {
                let mut text = (self.script)(r, i);
                let long = text.len() > limit;
                if long {
                    text.truncate(text.floor_char_boundary(limit));
                }
                let finish = if long { Finish::Length } else { Finish::Stop };
                Choice { text, finish }
            })
            .collect();
        let tokens = |n: usize| n.div_ceil(4) as u64;
        let usage = Usage {
            input_tokens: r.messages.iter().map(|m| tokens(m.text.len())).sum(),
            output_tokens: choices.iter().map(|c| tokens(c.text.len())).sum(),
            calls: 1,
            ..Usage::default()
        };
        Ok(ChatResponse {
            choices,
            usage,
            model: self.info.id.clone(),
        })
    }
}
