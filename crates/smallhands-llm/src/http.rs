//! What both wires share: where a server is, what it is like, and a client for it.

mod call;
mod ends;
mod part;
mod refusal;

pub(crate) use call::Run;
pub(crate) use part::{Ask, Bad, Part};

use crate::{ChatRequest, LlmError, ModelInfo, Price};
use reqwest::{
    Client, Proxy, Url,
    header::{HeaderMap, HeaderName, HeaderValue},
};
use serde_json::Value;
use smallhands_core::{Failure, FailureClass, Usage};
use std::{fmt, net::IpAddr, time::Duration};

/// A secret that no `Debug` shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(String);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}
impl From<&str> for Key {
    /// Without the line end that a file or a prompt may leave.
    fn from(s: &str) -> Self {
        Self(s.trim().to_owned())
    }
}
impl From<String> for Key {
    fn from(s: String) -> Self {
        s.as_str().into()
    }
}

/// In what a server differs from the documented API. All false is the documented API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quirks {
    /// May answer with fewer samples than asked for: the missing ones are asked for again.
    pub ignores_n: bool,
    /// Refuses more than one sample: each is a call of its own.
    pub one_sample_per_call: bool,
    /// Knows `max_tokens` but not `max_completion_tokens` (OpenAI's wire only).
    pub legacy_max_tokens: bool,
    /// Does not know `stream_options` (OpenAI's wire only); the use of tokens is then charged at
    /// its upper bound, unless the server reports it anyway.
    pub no_stream_options: bool,
    /// Refuses `temperature`, as some reasoning models do.
    pub no_temperature: bool,
    /// Cannot continue an answer that was begun for it.
    pub no_prefill: bool,
    /// Cannot constrain an answer by a schema: it is told the schema in words.
    pub schema_in_words: bool,
    /// The key may travel unencrypted to another machine.
    pub key_over_http: bool,
}

/// Where a model is served and what is known of it.
///
/// ```
/// use smallhands_llm::{Endpoint, OpenAi, Price};
///
/// let mut local = Endpoint::compatible("http://127.0.0.1:8080/v1", "qwen", None);
/// local.price = Some(Price::FREE);
/// local.context = 16_384;
/// let model = OpenAi::new(local)?;
/// # Ok::<(), smallhands_llm::LlmError>(())
/// ```
#[derive(Clone)]
pub struct Endpoint {
    /// The first part of [`ModelInfo::id`]: `openai`, `anthropic`, `compatible`.
    pub provider: String,
    /// With the version, without the method: `https://api.openai.com/v1`.
    pub base_url: String,
    /// As the server names it.
    pub model: String,
    /// What the server knows the user by.
    pub api_key: Option<Key>,
    /// `None` is unknown, which a budget in money refuses.
    pub price: Option<Price>,
    /// Tokens of prompt and answer together.
    pub context: u64,
    /// The longest wait for a connection.
    pub connect_timeout: Duration,
    /// The longest wait for the first byte of an answer.
    pub first_byte_timeout: Duration,
    /// The longest silence after it.
    pub idle_timeout: Duration,
    /// The longest time for all samples of a request. The deadline of the call also holds.
    pub total_timeout: Duration,
    /// An HTTP proxy. The environment is not read.
    pub proxy: Option<String>,
    /// In what the server differs from the documented API.
    pub quirks: Quirks,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("at", &self.at())
            .field("model", &self.model)
            .field("api_key", &self.api_key)
            .field("price", &self.price)
            .field("context", &self.context)
            .field("quirks", &self.quirks)
            .finish_non_exhaustive()
    }
}

impl Endpoint {
    /// A model of OpenAI.
    pub fn openai(model: &str, key: impl Into<Key>) -> Self {
        let key = Some(key.into());
        Self::at_url("openai", "https://api.openai.com/v1", model, key, 128_000)
    }
    /// A model of Anthropic.
    pub fn anthropic(model: &str, key: impl Into<Key>) -> Self {
        let url = "https://api.anthropic.com/v1";
        Self::at_url("anthropic", url, model, Some(key.into()), 200_000)
    }
    /// Any server that speaks one of the wires, as llama-server, vLLM and Ollama do. Nothing is
    /// assumed of it: the context is taken to be 32,768 tokens, `n` to be ignored, the price to be
    /// unknown unless the model is on the list.
    pub fn compatible(base_url: &str, model: &str, key: Option<Key>) -> Self {
        let mut e = Self::at_url("compatible", base_url, model, key, 32_768);
        e.quirks.ignores_n = true;
        e.quirks.legacy_max_tokens = true;
        e
    }

    fn at_url(provider: &str, url: &str, model: &str, key: Option<Key>, context: u64) -> Self {
        Self {
            provider: provider.to_owned(),
            base_url: url.to_owned(),
            model: model.to_owned(),
            api_key: key,
            price: Price::of(model),
            context,
            connect_timeout: Duration::from_secs(10),
            first_byte_timeout: Duration::from_secs(180),
            idle_timeout: Duration::from_secs(60),
            total_timeout: Duration::from_secs(900),
            proxy: None,
            quirks: Quirks::default(),
        }
    }

    /// Scheme, host and port: what may be shown of an address, whatever else is in it.
    fn at(&self) -> String {
        Url::parse(&self.base_url).map_or_else(
            |_| "an address that is none".into(),
            |u| u.origin().ascii_serialization(),
        )
    }
}

/// What one wire does in its own way.
#[derive(Debug)]
pub(crate) struct Wire {
    /// Below the base URL.
    pub(crate) path: &'static [&'static str],
    /// The header that carries the key, and what stands before the key in it.
    pub(crate) key: (&'static str, &'static str),
    /// Further headers.
    pub(crate) headers: &'static [(&'static str, &'static str)],
    /// Whether a stream must say that it is done, not only why each answer ended.
    pub(crate) always_says_done: bool,
    /// The body of a request.
    pub(crate) body: fn(&Endpoint, &ChatRequest, Ask) -> Value,
    /// Reads one event, or a whole answer; an error is what the server said of it.
    pub(crate) read: fn(&Value, &mut Part) -> Result<(), Bad>,
}

/// A client for one endpoint.
pub(crate) struct Api {
    pub(crate) info: ModelInfo,
    endpoint: Endpoint,
    wire: &'static Wire,
    client: Client,
    url: Url,
    headers: HeaderMap,
    /// What may be shown of the address.
    at: String,
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.endpoint.fmt(f)
    }
}

/// Room for what chat templates add by themselves (a default system prompt, a date).
const TEMPLATE_TOKENS: u64 = 256;

impl Api {
    pub(crate) fn new(endpoint: Endpoint, wire: &'static Wire) -> Result<Self, LlmError> {
        let at = endpoint.at();
        let mut url = Url::parse(&endpoint.base_url)
            .ok()
            .filter(|u| matches!(u.scheme(), "http" | "https") && u.has_host())
            .ok_or_else(|| invalid(&at, "the base URL must be one of http or https"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(invalid(&at, "give the key as the key, not in the base URL"));
        }
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(wire.path);
        }
        let (e, q) = (&endpoint, endpoint.quirks);
        let open = url.scheme() == "http" && !is_loopback(&url);
        if open && e.api_key.is_some() && !q.key_over_http {
            let why = "the key would travel unencrypted; use https, or allow it (key_over_http)";
            return Err(invalid(&at, why));
        }
        let info = ModelInfo {
            id: format!("{}:{}", e.provider, e.model),
            context: e.context,
            prefill: !q.no_prefill,
            constrained: !q.schema_in_words,
            shared_prompt: !q.ignores_n && !q.one_sample_per_call,
        };
        Ok(Self {
            info,
            client: client(e, &url).map_err(|why| invalid(&at, &why))?,
            headers: headers(e, wire).map_err(|why| invalid(&at, why))?,
            endpoint,
            wire,
            url,
            at,
        })
    }

    pub(crate) fn worst_case(&self, r: &ChatRequest) -> Usage {
        let samples = u64::from(r.samples.max(1));
        let calls = if self.info.shared_prompt { 1 } else { samples };
        let input_tokens = self.prompt_bound(r).saturating_mul(calls);
        let output_tokens = u64::from(r.max_tokens).saturating_mul(samples);
        self.usage(input_tokens, output_tokens, calls)
    }

    /// Of one call.
    fn prompt_bound(&self, r: &ChatRequest) -> u64 {
        let words = r.schema.as_ref().map_or(0, |s| schema_words(s).len()) as u64;
        r.prompt_bound() + words + TEMPLATE_TOKENS
    }

    fn usage(&self, input_tokens: u64, output_tokens: u64, calls: u64) -> Usage {
        let price = self.endpoint.price;
        Usage {
            micro_usd: price.map(|p| p.micro_usd(input_tokens, output_tokens)),
            input_tokens,
            output_tokens,
            calls,
            millis: 0,
        }
    }

    /// The text without the key, should a server repeat it.
    fn masked(&self, text: &str) -> String {
        match &self.endpoint.api_key {
            Some(k) if !k.0.is_empty() => text.replace(&k.0, "[key]"),
            _ => text.to_owned(),
        }
    }
}

fn client(e: &Endpoint, url: &Url) -> Result<Client, String> {
    // A redirect would carry key and prompt to wherever it points.
    let mut b = Client::builder()
        .user_agent(concat!("smallhands/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(e.connect_timeout)
        .no_proxy();
    if let Some(p) = &e.proxy {
        b = b.proxy(Proxy::all(p).map_err(|_| "the proxy's address is none")?);
    } else if url.scheme() == "http" {
        // A machine without root certificates can still talk to a server of its own.
        b = b.tls_certs_only([]);
    }
    b.build().map_err(|e| refusal::reason(&e))
}

fn headers(e: &Endpoint, wire: &Wire) -> Result<HeaderMap, &'static str> {
    let mut all = HeaderMap::new();
    for (name, value) in wire.headers {
        all.insert(*name, HeaderValue::from_static(value));
    }
    if let Some(key) = &e.api_key {
        let (name, before) = wire.key;
        let mut value = HeaderValue::from_str(&format!("{before}{}", key.0))
            .map_err(|_| "the key holds characters that no key has")?;
        value.set_sensitive(true);
        all.insert(HeaderName::from_static(name), value);
    }
    Ok(all)
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let ip = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
}

fn invalid(at: &str, why: &str) -> LlmError {
    let why = format!("{at}: {why}");
    Failure::new("llm.endpoint", FailureClass::Input, why).into()
}

/// Asks for what a server cannot enforce.
pub(crate) fn schema_words(schema: &Value) -> String {
    format!(
        "Answer with one JSON value that is valid against this JSON schema, and with nothing \
         else: no explanation, no code fence.\n{schema}"
    )
}

/// As it was written, not as the nearest 64-bit number: 0.7, not 0.699999988079071.
pub(crate) fn number(n: f32) -> Value {
    n.to_string()
        .parse::<f64>()
        .map_or(Value::Null, Value::from)
}
