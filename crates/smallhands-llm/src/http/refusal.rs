//! From what a server says when it does not answer to what the caller can do about it.

use super::Api;
use crate::LlmError;
use reqwest::{StatusCode, header::HeaderMap};
use serde_json::Value;
use std::{error::Error, time::Duration};

/// The innermost cause, which names the system's reason; without the URL, which may hold secrets.
pub(super) fn reason(e: &reqwest::Error) -> String {
    let first: &dyn Error = e;
    let deepest = std::iter::successors(first.source(), |e| (*e).source()).last();
    deepest.map_or_else(
        || "the request could not be sent".into(),
        ToString::to_string,
    )
}

/// Either form in use; dates are not.
pub(super) fn retry_after(h: &HeaderMap) -> Option<Duration> {
    let number = |name| h.get(name)?.to_str().ok()?.trim().parse::<f64>().ok();
    let seconds = number("retry-after-ms").map(|ms| ms / 1000.0);
    Duration::try_from_secs_f64(seconds.or_else(|| number("retry-after"))?).ok()
}

/// The typed error of an answer with this status, or of an error event in a stream.
pub(super) fn error(
    api: &Api,
    status: Option<StatusCode>,
    after: Option<Duration>,
    body: &str,
) -> LlmError {
    let said = Said::read(&api.masked(body), status);
    let model = api.endpoint.model.clone();
    let code = status.map_or_else(|| said.status(), |s| s.as_u16());
    let reason = said.message.clone();
    let is = |kinds: &[&str]| kinds.iter().any(|k| said.kinds.iter().any(|s| s == k));
    if matches!(code, 400 | 413 | 422 | 500) && said.too_long() {
        let (tokens, context) = said.counts();
        return LlmError::TooLong {
            model,
            tokens,
            context,
        };
    }
    match code {
        401..=403 => LlmError::Auth { model, reason },
        _ if is(&["insufficient_quota"]) => LlmError::Auth { model, reason },
        _ if code == 404 || is(&["model_not_found"]) => LlmError::UnknownModel {
            model,
            endpoint: api.at.clone(),
            hint: format!(
                "it says \"{reason}\"; check the name, and that the base URL has its version \
                 (most end in /v1)"
            ),
        },
        429 => LlmError::RateLimited { model, after },
        501 => LlmError::Refused { model, reason },
        408 | 425 | 500.. => LlmError::Overloaded {
            model,
            reason,
            after,
        },
        300..=399 => LlmError::Refused {
            model,
            reason: format!("{code}: the server redirects; give the address it redirects to"),
        },
        _ => LlmError::Refused { model, reason },
    }
}

/// What servers write, in the forms of OpenAI, Anthropic, llama-server, vLLM and Ollama.
struct Said {
    message: String,
    /// Types and codes.
    kinds: Vec<String>,
    /// Tokens of prompt and context, where they are fields.
    fields: (Option<u64>, Option<u64>),
}

impl Said {
    fn read(body: &str, status: Option<StatusCode>) -> Self {
        let v: Value = serde_json::from_str(body).unwrap_or(Value::Null);
        let e = if v["error"].is_null() {
            &v
        } else {
            &v["error"]
        };
        let message = e.as_str().or_else(|| e["message"].as_str());
        let message = message.or_else(|| e["detail"].as_str());
        let message = message.unwrap_or(body).trim();
        let message = message[..message.floor_char_boundary(600)].to_owned();
        let kinds = ["type", "code"].into_iter().filter_map(|k| match &e[k] {
            Value::String(s) => Some(s.clone()),
            Value::Number(n) => Some(n.to_string()),
            _ => None,
        });
        Self {
            message: match status {
                Some(s) if message.is_empty() => s.to_string(),
                Some(_) => message,
                None => format!("in the middle of the answer: {message}"),
            },
            kinds: kinds.collect(),
            fields: (e["n_prompt_tokens"].as_u64(), e["n_ctx"].as_u64()),
        }
    }

    /// Of an error inside a stream. What is unknown may pass: the request itself was accepted.
    fn status(&self) -> u16 {
        let known = self.kinds.iter().find_map(|k| {
            Some(match k.as_str() {
                "authentication_error" | "permission_error" | "billing_error" => 401,
                "rate_limit_error" | "rate_limit_exceeded" | "requests" | "tokens" => 429,
                "not_found_error" => 404,
                "invalid_request_error" | "exceed_context_size_error" => 400,
                "context_length_exceeded" | "request_too_large" => 400,
                k => k.parse().ok().filter(|n| (400..600).contains(n))?,
            })
        });
        known.unwrap_or(500)
    }

    fn too_long(&self) -> bool {
        const KINDS: [&str; 3] = [
            "context_length_exceeded",
            "exceed_context_size_error",
            "request_too_large",
        ];
        const WORDS: [&str; 6] = [
            "context length",
            "context window",
            "context size",
            "context limit",
            "prompt is too long",
            "maximum prompt length",
        ];
        let text = self.message.to_lowercase();
        self.kinds.iter().any(|k| KINDS.contains(&k.as_str()))
            || WORDS.iter().any(|w| text.contains(w))
    }

    fn counts(&self) -> (Option<u64>, Option<u64>) {
        const TOKENS: [&str; 7] = [
            "resulted in ",
            "your request has ",
            "requested ",
            "request (",
            "too long: ",
            "context limit: ",
            "contains at least ",
        ];
        const CONTEXT: [&str; 4] = [
            "context length is ",
            "context size (",
            "context length is only ",
            " > ",
        ];
        let after = |marks: &[&str]| marks.iter().find_map(|m| number_after(&self.message, m));
        let (tokens, context) = self.fields;
        (
            tokens.or_else(|| after(&TOKENS)),
            context.or_else(|| after(&CONTEXT)),
        )
    }
}

fn number_after(text: &str, mark: &str) -> Option<u64> {
    let (_, rest) = text.split_once(mark)?;
    let digits = rest.chars().take_while(|c| c.is_ascii_digit() || *c == ',');
    digits
        .filter(|c| *c != ',')
        .collect::<String>()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_found_in_what_servers_write() {
        let cases = [
            (
                "This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens.",
                9001,
                8192,
            ),
            (
                "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens (4000 in the messages, 1000 in the completion).",
                5000,
                4096,
            ),
            (
                "request (1091 tokens) exceeds the available context size (1024 tokens), try increasing it",
                1091,
                1024,
            ),
            (
                "prompt is too long: 208,310 tokens > 200000 maximum",
                208_310,
                200_000,
            ),
            (
                "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000, decrease",
                190_000,
                200_000,
            ),
        ];
        for (text, tokens, context) in cases {
            let said = Said::read(text, None);
            assert!(said.too_long(), "{text}");
            assert_eq!(said.counts(), (Some(tokens), Some(context)), "{text}");
        }
        assert!(!Said::read("temperature must be at most 2", None).too_long());
    }
}
