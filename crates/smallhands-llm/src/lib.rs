//! Models behind one trait.
//!
//! [`ChatModel`] is what agents talk to. Behind it: any server that speaks OpenAI's Chat
//! Completions or Anthropic's Messages (feature `http`), a GGUF model in this process (feature
//! `local-model`), a [`Scripted`] model for tests. [`ModelManager`] holds several, smallest first,
//! and escalates on evidence. [`chat_step`] makes a call durable: reserved, recorded, settled.
#![forbid(unsafe_code)]

mod chat;
mod error;
mod manager;
mod port;
mod price;
mod scripted;

#[cfg(feature = "http")]
mod anthropic;
#[cfg(feature = "http")]
mod http;
#[cfg(feature = "local-model")]
mod local;
#[cfg(feature = "http")]
mod openai;
#[cfg(feature = "http")]
mod sse;

#[cfg(feature = "http")]
pub use anthropic::Anthropic;
pub use chat::{ChatRequest, ChatResponse, Choice, Finish, Message, Role};
pub use error::LlmError;
#[cfg(feature = "http")]
pub use http::{Endpoint, Key, Quirks};
#[cfg(feature = "local-model")]
pub use local::{LocalModel, LocalOptions};
pub use manager::{ModelManager, chat_step};
#[cfg(feature = "http")]
pub use openai::OpenAi;
pub use port::{ChatModel, ChatStream, Delta, ModelInfo};
pub use price::Price;
pub use scripted::Scripted;
