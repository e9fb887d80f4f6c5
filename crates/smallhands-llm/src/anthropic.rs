//! Anthropic's Messages.

use crate::{
    ChatModel, ChatRequest, ChatResponse, ChatStream, Endpoint, Finish, LlmError, ModelInfo, Role,
    http::{Api, Ask, Bad, Part, Run, Wire, number, schema_words},
};
use serde_json::{Value, json};
use smallhands_core::{CallCx, Usage, async_trait};

static WIRE: Wire = Wire {
    path: &["messages"],
    key: ("x-api-key", ""),
    headers: &[("anthropic-version", "2023-06-01")],
    always_says_done: true,
    body,
    read,
};

/// A model behind Anthropic's Messages. Each sample is a call of its own, there is no seed, and a
/// schema is asked for in words and checked to be JSON.
#[derive(Debug)]
pub struct Anthropic(Api);

impl Anthropic {
    /// At this endpoint; nothing is sent yet.
    ///
    /// # Errors
    /// [`LlmError::Failed`] with code `llm.endpoint` for an address or a key that cannot be one,
    /// and for a key that would travel unencrypted.
    pub fn new(mut endpoint: Endpoint) -> Result<Self, LlmError> {
        endpoint.quirks.one_sample_per_call = true;
        endpoint.quirks.schema_in_words = true;
        Api::new(endpoint, &WIRE).map(Self)
    }
}

#[async_trait]
impl ChatModel for Anthropic {
    fn info(&self) -> &ModelInfo {
        &self.0.info
    }
    fn worst_case(&self, r: &ChatRequest) -> Usage {
        self.0.worst_case(r)
    }
    async fn chat(&self, r: &ChatRequest, cx: &CallCx) -> Result<ChatResponse, LlmError> {
        Run::new(&self.0, r, cx).whole().await
    }
    async fn stream<'a>(
        &'a self,
        r: &'a ChatRequest,
        cx: &'a CallCx,
    ) -> Result<ChatStream<'a>, LlmError> {
        Run::new(&self.0, r, cx).stream().await
    }
}

fn body(e: &Endpoint, r: &ChatRequest, ask: Ask) -> Value {
    let (system, said): (Vec<_>, Vec<_>) = r.messages.iter().partition(|m| m.role == Role::System);
    let mut messages: Vec<_> = said
        .iter()
        .map(|m| json!({"role": m.role.as_str(), "content": m.text}))
        .collect();
    // White space at the end of a begun answer is refused; the rest of the call makes up for it.
    let begun = r.prefill.as_deref().map(str::trim_end);
    if let Some(text) = begun.filter(|t| !t.is_empty() && !e.quirks.no_prefill) {
        messages.push(json!({"role": "assistant", "content": text}));
    }
    let system: Vec<_> = system
        .into_iter()
        .map(|m| m.text.clone())
        .chain(r.schema.as_ref().map(schema_words))
        .collect();
    let mut b = json!({
        "model": e.model,
        "messages": messages,
        "max_tokens": r.max_tokens,
        "stream": true,
    });
    if !system.is_empty() {
        b["system"] = system.join("\n\n").into();
    }
    if !e.quirks.no_temperature {
        b["temperature"] = number(ask.temperature.min(1.0));
    }
    if !r.stop.is_empty() {
        b["stop_sequences"] = json!(r.stop);
    }
    b
}

fn read(v: &Value, part: &mut Part) -> Result<(), Bad> {
    match v["type"].as_str().unwrap_or_default() {
        "error" => return Err(Bad::Said(v["error"].clone())),
        "message_start" => began(&v["message"], part),
        "content_block_start" => part.text(0, v["content_block"]["text"].as_str().unwrap_or("")),
        // Only text has a text: thinking, signatures and arguments are named otherwise.
        "content_block_delta" => part.text(0, v["delta"]["text"].as_str().unwrap_or("")),
        "message_delta" => {
            count(&v["usage"], part);
            stopped(&v["delta"], part)?;
        }
        "message_stop" => part.done = true,
        // A server that does not stream.
        "message" => {
            began(v, part);
            for block in v["content"].as_array().into_iter().flatten() {
                part.text(0, block["text"].as_str().unwrap_or(""));
            }
            stopped(v, part)?;
        }
        _ => {}
    }
    Ok(())
}

fn began(message: &Value, part: &mut Part) {
    part.model = message["model"].as_str().map(str::to_owned);
    count(&message["usage"], part);
}

/// Counts are totals so far; those of the cache are not in the input's.
fn count(usage: &Value, part: &mut Part) {
    let (mut input, mut output) = part.usage.unwrap_or_default();
    if let Some(n) = usage["input_tokens"].as_u64() {
        let cache = |k: &str| usage[k].as_u64().unwrap_or(0);
        let cached = ["cache_read_input_tokens", "cache_creation_input_tokens"].map(cache);
        input = input.max(cached.into_iter().fold(n, u64::saturating_add));
    }
    if let Some(n) = usage["output_tokens"].as_u64() {
        output = output.max(n);
    }
    if usage.is_object() {
        part.usage = Some((input, output));
    }
}

fn stopped(v: &Value, part: &mut Part) -> Result<(), Bad> {
    let finish = match v["stop_reason"].as_str() {
        None => return Ok(()),
        Some("end_turn" | "stop_sequence" | "tool_use") => Finish::Stop,
        Some("max_tokens" | "model_context_window_exceeded") => Finish::Length,
        Some("refusal") => Finish::Filtered,
        Some(other) => return Err(Bad::Read(format!("stop_reason `{other}` is unknown"))),
    };
    part.finish(0, finish);
    Ok(())
}
