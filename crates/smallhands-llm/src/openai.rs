//! OpenAI's Chat Completions, as OpenAI and most other servers speak it.

use crate::{
    ChatModel, ChatRequest, ChatResponse, ChatStream, Endpoint, Finish, LlmError, ModelInfo, Role,
    http::{Api, Ask, Bad, Part, Run, Wire, number, schema_words},
};
use serde_json::{Value, json};
use smallhands_core::{CallCx, Usage, async_trait};

static WIRE: Wire = Wire {
    path: &["chat", "completions"],
    key: ("authorization", "Bearer "),
    headers: &[],
    always_says_done: false,
    body,
    read,
};

/// A model behind OpenAI's Chat Completions. An assistant's begun answer is not part of this
/// wire, so [`ChatRequest::prefill`] is left out.
#[derive(Debug)]
pub struct OpenAi(Api);

impl OpenAi {
    /// At this endpoint; nothing is sent yet.
    ///
    /// # Errors
    /// [`LlmError::Failed`] with code `llm.endpoint` for an address or a key that cannot be one,
    /// and for a key that would travel unencrypted.
    pub fn new(mut endpoint: Endpoint) -> Result<Self, LlmError> {
        endpoint.quirks.no_prefill = true;
        Api::new(endpoint, &WIRE).map(Self)
    }
}

#[async_trait]
impl ChatModel for OpenAi {
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
    let q = e.quirks;
    let limit = if q.legacy_max_tokens {
        "max_tokens"
    } else {
        "max_completion_tokens"
    };
    let mut b = json!({
        "model": e.model,
        "messages": messages(r, q.schema_in_words),
        "stream": true,
        limit: r.max_tokens,
    });
    if !q.no_stream_options {
        b["stream_options"] = json!({"include_usage": true});
    }
    if !q.no_temperature {
        b["temperature"] = number(ask.temperature);
    }
    if ask.samples > 1 {
        b["n"] = ask.samples.into();
    }
    if !r.stop.is_empty() {
        b["stop"] = json!(r.stop);
    }
    if let Some(seed) = ask.seed {
        b["seed"] = seed.into();
    }
    if let Some(schema) = r.schema.as_ref().filter(|_| !q.schema_in_words) {
        let wanted = json!({"name": "answer", "strict": is_strict(schema), "schema": schema});
        b["response_format"] = json!({"type": "json_schema", "json_schema": wanted});
    }
    b
}

fn messages(r: &ChatRequest, schema_in_words: bool) -> Vec<Value> {
    let mut all: Vec<_> = r
        .messages
        .iter()
        .map(|m| (m.role, m.text.clone()))
        .collect();
    if let Some(schema) = r.schema.as_ref().filter(|_| schema_in_words) {
        let words = schema_words(schema);
        // Many templates know one system message only, the first.
        match all.first_mut() {
            Some((Role::System, text)) => *text = format!("{text}\n\n{words}"),
            _ => all.insert(0, (Role::System, words)),
        }
    }
    let wire = |(role, text): (Role, String)| json!({"role": role.as_str(), "content": text});
    all.into_iter().map(wire).collect()
}

/// Whether OpenAI would take the schema as strict; it refuses others, but follows them loosely.
fn is_strict(schema: &Value) -> bool {
    const UNKNOWN: [&str; 7] = [
        "oneOf",
        "allOf",
        "not",
        "if",
        "patternProperties",
        "dependentRequired",
        "dependentSchemas",
    ];
    let object = |s: &Value| {
        let Some(properties) = s.get("properties").and_then(Value::as_object) else {
            return s.get("type") != Some(&json!("object"));
        };
        let required = s.get("required").and_then(Value::as_array);
        s.get("additionalProperties") == Some(&json!(false))
            && properties
                .keys()
                .all(|k| required.is_some_and(|r| r.contains(&json!(k))))
    };
    fn every(s: &Value, test: &dyn Fn(&Value) -> bool) -> bool {
        match s {
            Value::Object(o) => test(s) && o.values().all(|v| every(v, test)),
            Value::Array(a) => a.iter().all(|v| every(v, test)),
            _ => true,
        }
    }
    schema.get("type") == Some(&json!("object"))
        && every(schema, &|s| {
            object(s) && UNKNOWN.iter().all(|k| s.get(k).is_none())
        })
}

fn read(v: &Value, part: &mut Part) -> Result<(), Bad> {
    if let Some(error) = v.get("error").filter(|e| !e.is_null()) {
        return Err(Bad::Said(error.clone()));
    }
    if let Some(model) = v["model"].as_str().filter(|m| !m.is_empty()) {
        part.model = Some(model.to_owned());
    }
    if let Some(input) = v["usage"]["prompt_tokens"].as_u64() {
        let output = v["usage"]["completion_tokens"].as_u64().unwrap_or(0);
        part.usage = Some((input, output));
    }
    for c in v["choices"].as_array().into_iter().flatten() {
        let index = c["index"].as_u64().unwrap_or(0);
        // A server that does not stream sends messages in place of deltas.
        let said = if c["delta"].is_object() {
            &c["delta"]
        } else {
            &c["message"]
        };
        if let Some(text) = said["content"].as_str() {
            part.text(index, text);
        }
        let refusal = said["refusal"].as_str().filter(|t| !t.is_empty());
        if let Some(text) = refusal {
            part.text(index, text);
            part.refused(index);
        }
        if let Some(reason) = c["finish_reason"].as_str().filter(|r| !r.is_empty()) {
            part.finish(index, finish(reason)?);
        }
    }
    Ok(())
}

fn finish(reason: &str) -> Result<Finish, Bad> {
    match reason {
        "stop" | "eos" | "eos_token" | "stop_sequence" | "tool_calls" | "function_call" => {
            Ok(Finish::Stop)
        }
        "length" | "max_tokens" | "model_length" => Ok(Finish::Length),
        "content_filter" | "safety" => Ok(Finish::Filtered),
        "abort" | "error" | "insufficient_system_resource" => Err(Bad::Said(
            json!({"type": "server_error", "message": reason}),
        )),
        other => Err(Bad::Read(format!("finish_reason `{other}` is unknown"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_closed_schemas_are_strict() {
        let closed = json!({"type": "object", "additionalProperties": false, "required": ["a"],
            "properties": {"a": {"type": "array", "items": {"type": "string"}}}});
        assert!(is_strict(&closed));
        for (key, value) in [
            ("required", json!([])),
            ("additionalProperties", json!(true)),
            ("oneOf", json!([])),
            ("properties", json!({"a": {"type": "object"}})),
        ] {
            let mut open = closed.clone();
            open[key] = value;
            assert!(!is_strict(&open), "{key}");
        }
    }
}
