//! The engine's thread: prompt cache, batched sampling, token choice.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::{LlamaChatMessage, LlamaChatTemplate, LlamaModel};
use llama_cpp_2::sampling::LlamaSampler;
use llama_cpp_2::token::LlamaToken;
use llama_cpp_2::token::data::LlamaTokenData;
use llama_cpp_2::token::data_array::LlamaTokenDataArray;

use super::engine::{Choice, Completion, EngineError, Finish, Grammar, Request, Result};
use super::text::TextBuffer;

/// Prompt tokens per decode call; a cached prompt is reused up to a multiple of it. A cancel waits
/// for at most one such chunk, about a second on two cores; larger ones are no faster.
pub(super) const PROMPT_CHUNK: usize = 64;
/// Candidates that survive before nucleus sampling (it need not sort the whole vocabulary then).
const TOP_K: i32 = 64;

/// What lives on the engine's thread.
pub(super) struct Worker<'m> {
    model: &'m LlamaModel,
    context: LlamaContext<'m>,
    template: LlamaChatTemplate,
    parallel: u32,
    closing: &'m AtomicBool,
    batch: LlamaBatch<'static>,
    /// Tokens in sequence 0.
    cached: Vec<LlamaToken>,
    /// Logits after the last of `cached`; empty if they were not asked for.
    logits: Vec<f32>,
}

/// A sample that is being generated.
struct Live {
    index: usize,
    sequence: i32,
    position: i32,
    next: LlamaToken,
    tokens: u32,
    picker: Picker,
    text: TextBuffer,
}

impl<'m> Worker<'m> {
    pub(super) fn new(
        model: &'m LlamaModel,
        context: LlamaContext<'m>,
        template: LlamaChatTemplate,
        parallel: u32,
        closing: &'m AtomicBool,
    ) -> Self {
        let batch = LlamaBatch::new(PROMPT_CHUNK.max(parallel as usize), 1);
        Self {
            model,
            context,
            template,
            parallel,
            closing,
            batch,
            cached: Vec::new(),
            logits: Vec::new(),
        }
    }

    pub(super) fn forget(&mut self) {
        self.context.clear_kv_cache();
        self.cached.clear();
        self.logits.clear();
    }

    fn stopped(&self, request: &Request) -> bool {
        request.cancel.load(Ordering::Relaxed) || self.closing.load(Ordering::Relaxed)
    }

    pub(super) fn generate(
        &mut self,
        request: &Request,
        on_delta: &mut dyn FnMut(usize, &str),
    ) -> Result<Completion> {
        if request.samples == 0 || request.max_tokens == 0 {
            return Err(EngineError::Invalid(
                "samples and max_tokens must be at least 1".into(),
            ));
        }
        let grammar = request
            .grammar
            .as_ref()
            .map(|g| self.compile(g))
            .transpose()?;
        let prompt = self.prompt(request)?;
        let prompt_tokens = u32::try_from(prompt.len()).unwrap_or(u32::MAX);
        let context_tokens = self.context.n_ctx();
        let free = context_tokens.saturating_sub(prompt_tokens);
        if free < request.max_tokens {
            let max_tokens = request.max_tokens;
            return Err(EngineError::PromptTooLong {
                prompt_tokens,
                max_tokens,
                context_tokens,
            });
        }
        let started = Instant::now();
        let cached_prompt_tokens = self.evaluate(&prompt, request)?;
        let prompt_time = started.elapsed();
        let width = request
            .samples
            .min(self.parallel)
            .min(free / request.max_tokens);
        let choices = self.sample(request, grammar.as_ref(), width, on_delta)?;
        let generate_time = started.elapsed().saturating_sub(prompt_time);
        Ok(Completion {
            choices,
            prompt_tokens,
            cached_prompt_tokens,
            prompt_time,
            generate_time,
        })
    }

    /// Applies the chat template and tokenises. The template sees placeholders instead of the
    /// texts, so that what it adds may hold control tokens and what the caller wrote may not.
    fn prompt(&self, request: &Request) -> Result<Vec<LlamaToken>> {
        let invalid = |e: &dyn std::fmt::Display| EngineError::Invalid(e.to_string());
        let hole = |i: usize| format!("<<<{i}>>>");
        let chat: Vec<_> = (request.messages.iter().enumerate())
            .map(|(i, (role, _))| LlamaChatMessage::new(role.name().into(), hole(i)))
            .collect::<Result<_, _>>()
            .map_err(|e| invalid(&e))?;
        let frame = self
            .model
            .apply_chat_template(&self.template, &chat, true)
            .map_err(|e| invalid(&e))?;
        let vocab = self.model.vocab();
        let mut tokens = Vec::new();
        let mut rest = frame.as_str();
        for (i, (_, text)) in request.messages.iter().enumerate() {
            let (before, after) = rest
                .split_once(&hole(i))
                .ok_or_else(|| invalid(&"the chat template drops or reorders messages"))?;
            tokens.extend(vocab.tokenize(before.as_bytes(), i == 0, true));
            tokens.extend(vocab.tokenize(text.as_bytes(), false, false));
            rest = after;
        }
        tokens.extend(vocab.tokenize(rest.as_bytes(), false, true));
        if let Some(prefix) = &request.assistant_prefix {
            tokens.extend(vocab.tokenize(prefix.as_bytes(), false, false));
        }
        Ok(tokens)
    }

    /// Brings `prompt` into sequence 0 and returns how many of its tokens were there already.
    /// When cancelled it stops early, with `logits` empty.
    ///
    /// The kernels round differently for different batch shapes. So that an answer depends on its
    /// request and not on the one before, batches end at fixed positions and reuse begins at one.
    fn evaluate(&mut self, prompt: &[LlamaToken], request: &Request) -> Result<u32> {
        if self.cached == prompt && !self.logits.is_empty() {
            return Ok(as_u32(prompt.len()));
        }
        let common = self
            .cached
            .iter()
            .zip(prompt)
            .take_while(|(a, b)| a == b)
            .count();
        let mut reused = common.min(prompt.len().saturating_sub(1)) / PROMPT_CHUNK * PROMPT_CHUNK;
        if self
            .context
            .kv_cache_seq_rm(0, Some(as_u32(reused)), None)
            .is_err()
        {
            self.forget(); // this kind of cache cannot be cut: start over
            reused = 0;
        }
        self.cached.truncate(reused);
        self.logits.clear();
        while self.cached.len() < prompt.len() && !self.stopped(request) {
            let start = self.cached.len();
            let end = prompt.len().min((start / PROMPT_CHUNK + 1) * PROMPT_CHUNK);
            self.batch.clear();
            for (position, token) in (start..end).zip(&prompt[start..end]) {
                let wanted = position + 1 == prompt.len();
                self.batch
                    .add(*token, as_i32(position), &[0], wanted)
                    .map_err(decode_error)?;
            }
            self.context.decode(&mut self.batch).map_err(decode_error)?;
            self.cached.extend_from_slice(&prompt[start..end]);
            if end == prompt.len() {
                self.logits = self
                    .context
                    .get_logits_ith(as_i32(end - start - 1))
                    .to_vec();
            }
        }
        Ok(as_u32(reused))
    }

    /// Generates all samples, at most `width` at a time, from the prompt in sequence 0.
    fn sample(
        &mut self,
        request: &Request,
        grammar: Option<&LlamaSampler>,
        width: u32,
        on_delta: &mut dyn FnMut(usize, &str),
    ) -> Result<Vec<Choice>> {
        let cancelled = Choice {
            text: String::new(),
            finish: Finish::Cancelled,
            tokens: 0,
        };
        let mut choices = vec![cancelled; request.samples as usize];
        let mut waiting = 0..choices.len();
        let mut free: Vec<i32> = (1..=as_i32(width as usize)).rev().collect();
        let mut live: Vec<Live> = Vec::new();
        let mut scratch = LlamaTokenDataArray::new(Vec::new(), false);
        loop {
            let stopped = self.stopped(request) || self.logits.is_empty();
            while !stopped && !free.is_empty() {
                let Some(index) = waiting.next() else { break };
                let Some(sequence) = free.pop() else { break };
                self.context
                    .kv_cache_seq_cp(0, sequence, None, None)
                    .map_err(decode_error)?;
                let mut picker = Picker::new(request, grammar, index);
                let next = picker.pick(&self.logits, &mut scratch)?;
                let (text, position) = (TextBuffer::default(), as_i32(self.cached.len()));
                live.push(Live {
                    index,
                    sequence,
                    position,
                    next,
                    tokens: 0,
                    picker,
                    text,
                });
            }
            let mut kept = Vec::with_capacity(live.len());
            for mut sample in live {
                let finish = if stopped {
                    Some(Finish::Cancelled)
                } else {
                    self.take(&mut sample, request)
                };
                sample.text.flush(finish.is_some(), &request.stop, |delta| {
                    on_delta(sample.index, delta)
                });
                let Some(finish) = finish else {
                    kept.push(sample);
                    continue;
                };
                drop(self.context.kv_cache_seq_rm(sample.sequence, None, None));
                free.push(sample.sequence);
                choices[sample.index] = Choice {
                    text: sample.text.text,
                    finish,
                    tokens: sample.tokens,
                };
            }
            live = kept;
            if stopped || (live.is_empty() && waiting.is_empty()) {
                return Ok(choices);
            }
            if live.is_empty() {
                continue;
            }
            self.batch.clear();
            for sample in &live {
                let at = [sample.sequence];
                self.batch
                    .add(sample.next, sample.position, &at, true)
                    .map_err(decode_error)?;
            }
            self.context.decode(&mut self.batch).map_err(decode_error)?;
            for (row, sample) in live.iter_mut().enumerate() {
                let logits = self.context.get_logits_ith(as_i32(row));
                sample.next = sample.picker.pick(logits, &mut scratch)?;
                sample.position += 1;
            }
        }
    }

    /// Adds the picked token to the sample's text; says whether that ended it.
    fn take(&self, sample: &mut Live, request: &Request) -> Option<Finish> {
        let vocab = self.model.vocab();
        if vocab.is_eog(sample.next) {
            return Some(Finish::Stop);
        }
        sample.tokens += 1;
        if sample.text.push(
            &vocab.token_to_piece(sample.next, false, None),
            &request.stop,
        ) {
            return Some(Finish::Stop);
        }
        (sample.tokens >= request.max_tokens).then_some(Finish::Length)
    }

    fn compile(&self, grammar: &Grammar) -> Result<LlamaSampler> {
        let refused = |e: &dyn std::fmt::Display| EngineError::Grammar(e.to_string());
        let Grammar::JsonSchema(schema) = grammar;
        let gbnf = &llama_cpp_2::json_schema_to_grammar(schema).map_err(|e| refused(&e))?;
        LlamaSampler::grammar(self.model, gbnf, "root").map_err(|e| refused(&e))
    }
}

/// Chooses tokens for one sample.
struct Picker {
    chain: LlamaSampler,
    grammar: Option<LlamaSampler>,
}

impl Picker {
    fn new(request: &Request, grammar: Option<&LlamaSampler>, index: usize) -> Self {
        let greedy = request.temperature <= 0.0 || (request.greedy_first && index == 0);
        let chain = if greedy {
            vec![LlamaSampler::greedy()]
        } else {
            vec![
                LlamaSampler::top_k(TOP_K),
                LlamaSampler::top_p(request.top_p, 1),
                LlamaSampler::temp(request.temperature),
                LlamaSampler::dist(sample_seed(request.seed, index)),
            ]
        };
        Self {
            chain: LlamaSampler::chain(chain, true),
            grammar: grammar.cloned(),
        }
    }

    /// Draws freely first and applies the grammar to the whole vocabulary only if it objects:
    /// the check of one token is cheap, that of 150,000 is not.
    fn pick(&mut self, logits: &[f32], scratch: &mut LlamaTokenDataArray) -> Result<LlamaToken> {
        let none = || EngineError::Decode("no token could be chosen".into());
        fill(scratch, logits);
        scratch.apply_sampler(&mut self.chain);
        let mut token = scratch.selected_token().ok_or_else(none)?;
        if let Some(grammar) = &mut self.grammar {
            let mut one =
                LlamaTokenDataArray::new(vec![LlamaTokenData::new(token, 1.0, 0.0)], false);
            one.apply_sampler(grammar);
            if one
                .data
                .iter()
                .all(|candidate| candidate.logit() == f32::NEG_INFINITY)
            {
                fill(scratch, logits);
                scratch.apply_sampler(grammar);
                scratch.apply_sampler(&mut self.chain);
                token = scratch.selected_token().ok_or_else(none)?;
            }
            grammar.try_accept(token).map_err(decode_error)?;
        }
        Ok(token)
    }
}

fn fill(scratch: &mut LlamaTokenDataArray, logits: &[f32]) {
    scratch.data.clear();
    let candidate = |(id, logit): (i32, &f32)| LlamaTokenData::new(LlamaToken(id), *logit, 0.0);
    scratch.data.extend((0..).zip(logits).map(candidate));
    (scratch.selected, scratch.sorted) = (None, false);
}

/// One `SplitMix64` step over both, so that neighbouring seeds share nothing. `u32::MAX` would ask
/// llama.cpp for a random seed.
fn sample_seed(seed: u64, index: usize) -> u32 {
    let mut z = seed.wrapping_add((index as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    u32::try_from((z ^ (z >> 31)) >> 32)
        .unwrap_or(0)
        .min(u32::MAX - 1)
}

fn decode_error(error: impl std::fmt::Display) -> EngineError {
    EngineError::Decode(error.to_string())
}

fn as_u32(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn as_i32(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}
