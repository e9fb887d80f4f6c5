use crate::{ChatRequest, ChatResponse, LlmError};
use futures_core::Stream;
use serde::{Deserialize, Serialize};
use smallhands_core::{CallCx, Usage, async_trait};
use std::{
    fmt::Debug,
    pin::Pin,
    task::{Context, Poll},
};

/// What a model is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// As journaled: provider and name, `local:qwen2.5-coder-1.5b`.
    pub id: String,
    /// Tokens of prompt and answer together.
    pub context: u64,
    /// Whether it can go on from [`ChatRequest::prefill`].
    pub prefill: bool,
    /// Whether [`ChatRequest::schema`] is enforced while it writes.
    pub constrained: bool,
    /// Whether several samples share the work of the prompt.
    pub shared_prompt: bool,
}

/// A part of an answer as it comes.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Delta {
    /// New text of one sample.
    Text {
        /// Which sample.
        choice: u32,
        /// The text.
        text: String,
    },
    /// The whole; exactly once, last.
    End(Box<ChatResponse>),
}

/// Deltas; ends after [`Delta::End`] or an error.
pub type ChatStream<'a> = Pin<Box<dyn Stream<Item = Result<Delta, LlmError>> + Send + 'a>>;

/// A model that answers conversations.
#[async_trait]
pub trait ChatModel: Debug + Send + Sync + 'static {
    /// What it is.
    fn info(&self) -> &ModelInfo;
    /// An upper bound of what a request can use, so that it can be reserved before it is spent.
    ///
    /// # Behavior
    /// - What `chat` reports is never more, in any dimension but time.
    /// - An unknown price is `None`, never zero.
    fn worst_case(&self, r: &ChatRequest) -> Usage;
    /// Answers.
    ///
    /// # Behavior
    /// - As many choices as samples, or an error.
    /// - An answer that was cut off is an error, never a short success.
    /// - Ends soon after the call is cancelled.
    async fn chat(&self, r: &ChatRequest, cx: &CallCx) -> Result<ChatResponse, LlmError>;
    /// Answers bit by bit; by default all at once.
    ///
    /// # Behavior
    /// - The texts of a choice, joined, are its text in the end.
    async fn stream<'a>(
        &'a self,
        r: &'a ChatRequest,
        cx: &'a CallCx,
    ) -> Result<ChatStream<'a>, LlmError> {
        let end = self.chat(r, cx).await?;
        Ok(Box::pin(Once(Some(Ok(Delta::End(Box::new(end)))))))
    }
}

struct Once<T>(Option<T>);
impl<T: Unpin> Stream for Once<T> {
    type Item = T;
    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<T>> {
        Poll::Ready(self.0.take())
    }
}
