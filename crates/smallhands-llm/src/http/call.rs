//! One request in flight: as many calls as it takes, read as they come.

use super::{
    Api,
    ends::Ends,
    part::{Ask, Bad, Draft, Part},
    refusal,
};
use crate::{
    ChatRequest, ChatResponse, ChatStream, Choice, Delta, Finish, LlmError,
    sse::{Sse, TooLong},
};
use futures_util::stream;
use reqwest::{Response, StatusCode, header::CONTENT_TYPE};
use serde_json::Value;
use smallhands_core::CallCx;
use std::{collections::VecDeque, mem};

/// More than any answer, less than what hurts.
const LARGEST: usize = 64 << 20;
/// Of what a server says when it refuses.
const LARGEST_REFUSAL: usize = 64 << 10;

struct Open {
    response: Response,
    sse: Sse,
    /// The body, of a server that does not stream.
    body: Option<Vec<u8>>,
    part: Part,
    bytes: usize,
}

/// A request until all its samples are there. Dropping it drops the connection.
pub(crate) struct Run<'a> {
    api: &'a Api,
    request: &'a ChatRequest,
    cx: &'a CallCx,
    ends: Ends,
    open: Option<Open>,
    choices: Vec<Choice>,
    /// Tokens read and written, calls.
    used: (u64, u64, u64),
    model: Option<String>,
    ready: VecDeque<Delta>,
    /// Told once what came before it is.
    failed: Option<LlmError>,
    over: bool,
}

impl<'a> Run<'a> {
    pub(crate) fn new(api: &'a Api, request: &'a ChatRequest, cx: &'a CallCx) -> Self {
        Self {
            api,
            request,
            cx,
            ends: Ends::new(cx, api.endpoint.total_timeout),
            open: None,
            choices: Vec::new(),
            used: (0, 0, 0),
            model: None,
            ready: VecDeque::new(),
            failed: None,
            over: false,
        }
    }

    /// The end, with all that came before it.
    pub(crate) async fn whole(mut self) -> Result<ChatResponse, LlmError> {
        loop {
            if let Some(Delta::End(r)) = self.next().await? {
                return Ok(*r);
            }
        }
    }

    /// Bit by bit; what a server refuses at once is an error at once.
    pub(crate) async fn stream(mut self) -> Result<ChatStream<'a>, LlmError> {
        self.connect().await?;
        let rest = stream::unfold(Some(self), |run| async move {
            let mut run = run?;
            match run.next().await {
                Ok(Some(delta)) => Some((Ok(delta), Some(run))),
                Ok(None) => None,
                Err(e) => Some((Err(e), None)),
            }
        });
        Ok(Box::pin(rest))
    }

    async fn next(&mut self) -> Result<Option<Delta>, LlmError> {
        loop {
            if let Some(delta) = self.ready.pop_front() {
                return Ok(Some(delta));
            }
            if let Some(e) = self.failed.take() {
                return Err(e);
            }
            if self.over {
                return Ok(None);
            }
            let step = match self.open.take() {
                Some(open) => self.read(open).await,
                None if self.choices.len() < self.samples() => self.connect().await,
                None => {
                    self.end();
                    Ok(())
                }
            };
            self.failed = step.err();
        }
    }

    fn samples(&self) -> usize {
        self.request.samples.max(1) as usize
    }

    async fn connect(&mut self) -> Result<(), LlmError> {
        let (api, have) = (self.api, self.choices.len());
        let left = if api.endpoint.quirks.one_sample_per_call {
            1
        } else {
            self.samples() - have
        };
        let ask = Ask {
            samples: u32::try_from(left).unwrap_or(u32::MAX),
            temperature: if self.request.greedy_first && left == 1 && have == 0 {
                0.0
            } else {
                self.request.temperature
            },
            // The same seed again would draw the same sample again.
            seed: self.request.seed.map(|s| s.wrapping_add(have as u64)),
        };
        let body = (api.wire.body)(&api.endpoint, self.request, ask);
        let call = api
            .client
            .post(api.url.clone())
            .headers(api.headers.clone())
            .json(&body);
        let (wait, at) = (api.endpoint.first_byte_timeout, &api.at);
        let sent = self.ends.within(self.cx, at, wait, call.send()).await?;
        let response = sent.map_err(|e| {
            let gone = LlmError::Unreachable {
                endpoint: at.clone(),
                reason: api.masked(&refusal::reason(&e)),
            };
            // What was sent may have been worked on.
            self.first(if e.is_connect() { gone } else { gone.paid() })
        })?;
        self.used.2 += 1;
        if response.status() != StatusCode::OK {
            return Err(self.refused(response).await);
        }
        let kind = response.headers().get(CONTENT_TYPE);
        let kind = kind.and_then(|v| v.to_str().ok()).unwrap_or_default();
        if kind.starts_with("text/html") {
            return Err(self.malformed("a web page, no answer: check the address"));
        }
        let prefill = self.request.prefill.clone().filter(|_| api.info.prefill);
        self.open = Some(Open {
            body: kind.contains("json").then(Vec::new),
            response,
            sse: Sse::default(),
            part: Part::new(left, prefill.unwrap_or_default()),
            bytes: 0,
        });
        Ok(())
    }

    async fn refused(&self, mut response: Response) -> LlmError {
        let (status, wait) = (response.status(), self.api.endpoint.idle_timeout);
        let after = refusal::retry_after(response.headers());
        let mut body = Vec::new();
        while body.len() < LARGEST_REFUSAL {
            let chunk = response.chunk();
            match self.ends.within(self.cx, &self.api.at, wait, chunk).await {
                Ok(Ok(Some(bytes))) => body.extend_from_slice(&bytes),
                Err(LlmError::Cancelled) => return LlmError::Cancelled,
                // The status says enough.
                _ => break,
            }
        }
        let said = String::from_utf8_lossy(&body);
        let e = refusal::error(self.api, Some(status), after, &said);
        self.first(e)
    }

    /// One chunk of the network.
    async fn read(&mut self, mut open: Open) -> Result<(), LlmError> {
        let e = &self.api.endpoint;
        let wait = if open.bytes == 0 {
            e.first_byte_timeout
        } else {
            e.idle_timeout
        };
        let chunk = open.response.chunk();
        let chunk = self.ends.within(self.cx, &self.api.at, wait, chunk).await?;
        let mut events = VecDeque::new();
        let last = match &chunk {
            Ok(Some(bytes)) => {
                open.bytes += bytes.len();
                let too_long = match &mut open.body {
                    Some(body) => {
                        body.extend_from_slice(bytes);
                        false
                    }
                    None => open.sse.push(bytes, &mut events) == Err(TooLong),
                };
                if too_long || open.bytes > LARGEST {
                    return Err(self.malformed("it does not end"));
                }
                false
            }
            Ok(None) => true,
            Err(_) => return Err(self.truncated(open.bytes)),
        };
        for event in events {
            self.event(&mut open, &event)?;
        }
        if last {
            self.last(&mut open)?;
        }
        if last || open.part.done {
            return self.close(open);
        }
        self.open = Some(open);
        Ok(())
    }

    fn event(&mut self, open: &mut Open, data: &[u8]) -> Result<(), LlmError> {
        if open.part.done || data.is_empty() {
            return Ok(());
        }
        if data == b"[DONE]" {
            open.part.done = true;
            return Ok(());
        }
        let value = serde_json::from_slice(data).map_err(|e| self.malformed(&e.to_string()))?;
        (self.api.wire.read)(&value, &mut open.part).map_err(|bad| match bad {
            Bad::Read(why) => self.malformed(&why),
            Bad::Said(v) => {
                let said = Value::from_iter([("error", v)]).to_string();
                refusal::error(self.api, None, None, &said).paid()
            }
        })?;
        let base = self.choices.len();
        let held = self.request.schema.is_some();
        let fresh = open
            .part
            .fresh
            .drain(..)
            .filter(|(_, t)| !held && !t.is_empty());
        self.ready
            .extend(fresh.map(|(i, text)| delta(base + i, text)));
        Ok(())
    }

    /// The connection ended in order.
    fn last(&mut self, open: &mut Open) -> Result<(), LlmError> {
        if let Some(body) = open.body.take() {
            self.event(open, &body)?;
            open.part.done = true;
        } else if let Some(rest) = open.sse.end() {
            // Half an event is a stream that was cut, not one that is wrong.
            if rest == b"[DONE]" || serde_json::from_slice::<Value>(&rest).is_ok() {
                self.event(open, &rest)?;
            }
        }
        Ok(())
    }

    fn close(&mut self, open: Open) -> Result<(), LlmError> {
        let Open {
            mut part, bytes, ..
        } = open;
        let api = self.api;
        if !part.finished() || (api.wire.always_says_done && !part.done) {
            return Err(self.truncated(bytes));
        }
        let (drafts, quirks) = (mem::take(&mut part.drafts), api.endpoint.quirks);
        let (got, wanted) = (drafts.len(), part.wanted);
        if got < wanted && !quirks.ignores_n {
            let why = format!("{got} of {wanted} samples came (set the quirk `ignores_n`)");
            return Err(self.malformed(&why));
        }
        // Silence about the cost is charged at its bound, never as nothing.
        let (input, output) = part.usage.unwrap_or_else(|| {
            let bound = u64::from(self.request.max_tokens) * got as u64;
            (api.prompt_bound(self.request), bound)
        });
        self.used.0 = self.used.0.saturating_add(input);
        self.used.1 = self.used.1.saturating_add(output);
        self.model = part.model.or(self.model.take());
        for Draft { text, finish, .. } in drafts {
            let finish = finish.unwrap_or(Finish::Stop);
            let text = self.checked(text, finish)?;
            if self.request.schema.is_some() && !text.is_empty() {
                self.ready
                    .push_back(delta(self.choices.len(), text.clone()));
            }
            self.choices.push(Choice { text, finish });
        }
        Ok(())
    }

    /// Servers have answered prose where a schema was asked for, and have said that all was well.
    fn checked(&self, text: String, finish: Finish) -> Result<String, LlmError> {
        if self.request.schema.is_none() || finish != Finish::Stop {
            return Ok(text);
        }
        let bare = unfenced(&text);
        serde_json::from_str::<serde::de::IgnoredAny>(bare)
            .map_err(|e| self.malformed(&format!("not the JSON that was asked for: {e}")))?;
        Ok(match self.request.prefill {
            Some(_) => text,
            None => bare.to_owned(),
        })
    }

    fn end(&mut self) {
        let (input, output, calls) = self.used;
        self.over = true;
        self.ready.push_back(Delta::End(Box::new(ChatResponse {
            choices: mem::take(&mut self.choices),
            usage: self.api.usage(input, output, calls),
            model: self
                .model
                .take()
                .unwrap_or_else(|| self.api.endpoint.model.clone()),
        })));
    }

    /// What costs nothing as the first call's failure does as that of a later one.
    fn first(&self, e: LlmError) -> LlmError {
        match self.choices.is_empty() {
            true => e,
            false => e.paid(),
        }
    }
    fn truncated(&self, bytes: usize) -> LlmError {
        let model = self.api.endpoint.model.clone();
        LlmError::Truncated { model, bytes }
    }
    fn malformed(&self, why: &str) -> LlmError {
        LlmError::Malformed {
            model: self.api.endpoint.model.clone(),
            reason: self.api.masked(why),
        }
    }
}

fn delta(choice: usize, text: String) -> Delta {
    let choice = u32::try_from(choice).unwrap_or(u32::MAX);
    Delta::Text { choice, text }
}

/// Without the code fence that models put around JSON, whatever they are told.
fn unfenced(text: &str) -> &str {
    let text = text.trim();
    let inner = text
        .strip_prefix("```json")
        .or_else(|| text.strip_prefix("```"));
    inner
        .and_then(|t| t.strip_suffix("```"))
        .map_or(text, str::trim)
}
