//! A local chat model in this process: llama.cpp behind one thread and a channel.
//!
//! [`Engine::load`] starts a thread that owns the llama.cpp context. Requests queue on a channel
//! and run one after another; *within* a request the samples run together: the prompt is evaluated
//! once, its cache cells are shared with every sample (`seq_cp` in a unified KV cache), and each
//! step decodes one token of all live samples in a single batch. On a CPU that step is bound by
//! reading the weights, so four samples cost little more than one.
//!
//! Sequence 0 keeps the tokens of the last prompt. A request that begins with the same tokens
//! evaluates only what differs, and the very same prompt costs nothing. An answer depends only on
//! its request, the model, the `Options` and the kernels of this CPU: not on earlier requests.
//!
//! # Invariants
//!
//! - `Worker::cached` names exactly the tokens that sequence 0 holds, in order, from position 0.
//! - Between requests no other sequence holds a cell.
//! - `prompt + live samples * max_tokens` never exceeds the context, so a decode cannot run out of
//!   cells half way.
//! - Message text is tokenised apart from the template's text: it cannot forge a control token.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use llama_cpp_2::context::params::LlamaContextParams;
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::model::params::LlamaModelParams;

use super::worker::{PROMPT_CHUNK, Worker};

/// Most samples that can be decoded together, whatever [`Options::parallel`] says.
const MAX_PARALLEL: u32 = 64;

/// The llama.cpp backend, once per process; it is never torn down.
static BACKEND: LazyLock<Result<LlamaBackend, String>> = LazyLock::new(|| {
    let mut backend = LlamaBackend::init().map_err(|e| e.to_string())?;
    backend.void_logs();
    Ok(backend)
});

/// How to run a model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    /// Tokens that a prompt and the samples running with it may use together. Capped at what the
    /// model was trained for; llama.cpp rounds up.
    pub(crate) context_tokens: u32,
    /// Threads that compute. More than there are free cores is far slower, not faster: they meet
    /// at a spinning barrier several hundred times a token.
    pub(crate) threads: u32,
    /// Samples decoded together; a request for more starts the next as soon as one ends. The K-quant
    /// kernels work on four rows at a time: 4 is best by far below 16.
    pub(crate) parallel: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            context_tokens: 8192,
            threads: 2,
            parallel: 4,
        }
    }
}

/// Who speaks in a chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Standing instructions. Built-in templates add none of their own.
    System,
    /// The caller.
    User,
    /// An earlier answer of the model.
    Assistant,
}

impl Role {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// What an answer must look like.
#[derive(Debug, Clone)]
pub(crate) enum Grammar {
    /// A JSON schema as text. Properties are generated in the order written here, which a
    /// `serde_json::Value` without `preserve_order` would have sorted by name.
    JsonSchema(String),
}

/// One question, answered `samples` times.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// The conversation, oldest first.
    pub(crate) messages: Vec<(Role, String)>,
    /// The first words of the answer; the model continues them. Not part of [`Choice::text`].
    pub(crate) assistant_prefix: Option<String>,
    /// How many answers.
    pub(crate) samples: u32,
    /// The first answer takes the likeliest token at each step, whatever `temperature` says.
    pub(crate) greedy_first: bool,
    /// Cap on each answer.
    pub(crate) max_tokens: u32,
    /// 0 or less: always the likeliest token (then all samples are alike).
    pub(crate) temperature: f32,
    /// Nucleus: the smallest set of tokens with this probability. 1 keeps all.
    pub(crate) top_p: f32,
    /// Sample `i` draws from a generator seeded by this and `i`.
    pub(crate) seed: u64,
    /// An answer ends before the first of these.
    pub(crate) stop: Vec<String>,
    /// Constrains the answer, from its first token after the prefix.
    pub(crate) grammar: Option<Grammar>,
    /// Set to end the request early; what is there is returned.
    pub(crate) cancel: Arc<AtomicBool>,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            messages: Vec::new(),
            assistant_prefix: None,
            samples: 1,
            greedy_first: false,
            max_tokens: 512,
            temperature: 0.0,
            top_p: 0.95,
            seed: 0,
            stop: Vec::new(),
            grammar: None,
            cancel: Arc::default(),
        }
    }
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finish {
    /// The model ended its turn, or a stop string came.
    Stop,
    /// `max_tokens` was reached. JSON may be cut: never parse and act on it.
    Length,
    /// The request was cancelled, or the engine dropped.
    Cancelled,
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    /// The text after the assistant prefix, without the stop string.
    pub(crate) text: String,
    /// Why it ended.
    pub(crate) finish: Finish,
    /// Tokens generated for it, the end marker not counted.
    pub(crate) tokens: u32,
}

/// The answers, in sample order, and what they cost.
#[derive(Debug, Clone)]
pub(crate) struct Completion {
    /// As many as samples were asked for.
    pub(crate) choices: Vec<Choice>,
    /// Length of the prompt, template included.
    pub(crate) prompt_tokens: u32,
    /// How many of those came from the last request's cache.
    pub(crate) cached_prompt_tokens: u32,
    /// Time to evaluate the rest of the prompt.
    pub(crate) prompt_time: Duration,
    /// Time to generate all samples.
    pub(crate) generate_time: Duration,
}

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum EngineError {
    /// The file is missing, no GGUF, or of an unknown architecture.
    #[error("cannot load the model {path}: {reason}")]
    Load {
        /// The file.
        path: PathBuf,
        /// What llama.cpp said (little: its log is silenced).
        reason: String,
    },
    /// Prompt and answer do not fit the context.
    #[error(
        "prompt of {prompt_tokens} + answer of {max_tokens} tokens exceed the context of {context_tokens}"
    )]
    PromptTooLong {
        /// Tokens of the templated prompt.
        prompt_tokens: u32,
        /// The requested cap on an answer.
        max_tokens: u32,
        /// Tokens the context holds.
        context_tokens: u32,
    },
    /// The request cannot be carried out as written.
    #[error("invalid request: {0}")]
    Invalid(String),
    /// The grammar or schema was refused. Nothing was generated.
    #[error("unusable grammar: {0}")]
    Grammar(String),
    /// llama.cpp failed while evaluating. The cache was cleared; the next request may succeed.
    #[error("evaluation failed: {0}")]
    Decode(String),
    /// The engine's thread has ended.
    #[error("the engine has stopped")]
    Stopped,
}

pub(crate) type Result<T, E = EngineError> = std::result::Result<T, E>;
/// Called on the engine's thread with the sample's index and the new piece of its text.
pub(crate) type OnDelta = Box<dyn FnMut(usize, &str) + Send>;
/// Called once on the engine's thread with the outcome.
pub(crate) type OnDone = Box<dyn FnOnce(Result<Completion>) + Send>;

struct Job {
    request: Request,
    on_delta: OnDelta,
    on_done: OnDone,
}

/// A loaded model. Dropping it cancels what runs and waits for the thread.
#[derive(Debug)]
pub(crate) struct Engine {
    jobs: Option<mpsc::Sender<Job>>,
    closing: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    /// Loads a GGUF file and starts the engine's thread. Blocks until the model is ready.
    ///
    /// # Errors
    ///
    /// [`EngineError::Load`] if the file cannot be used.
    pub(crate) fn load(path: impl AsRef<Path>, options: Options) -> Result<Self> {
        let path = path.as_ref();
        let failed = |reason: String| EngineError::Load {
            path: path.to_owned(),
            reason,
        };
        let backend = BACKEND.as_ref().map_err(|e| failed(e.clone()))?;
        if !path.is_file() {
            return Err(failed("no such file".into()));
        }
        let model = LlamaModel::load_from_file(backend, path, &LlamaModelParams::default())
            .map_err(|e| failed(e.to_string()))?;
        let model = Arc::new(model);
        let template = model
            .chat_template(None)
            .map_err(|e| failed(e.to_string()))?;
        let chunk = u32::try_from(PROMPT_CHUNK).unwrap_or(64);
        let threads = i32::try_from(options.threads.clamp(1, 512)).unwrap_or(1);
        let parallel = options.parallel.clamp(1, MAX_PARALLEL);
        let context_tokens = options.context_tokens.clamp(256, model.n_ctx_train());
        let parameters = LlamaContextParams::default()
            .with_n_ctx(NonZeroU32::new(context_tokens))
            .with_n_batch(chunk)
            .with_n_ubatch(chunk)
            .with_n_seq_max(parallel + 1)
            .with_kv_unified(true)
            .with_n_threads(threads)
            .with_n_threads_batch(threads)
            .with_no_perf(true);

        let closing = Arc::new(AtomicBool::new(false));
        let (jobs, queue) = mpsc::channel::<Job>();
        let (ready, loaded) = mpsc::sync_channel(1);
        let (owned, stop) = (Arc::clone(&model), Arc::clone(&closing));
        let run = move || {
            let context = match owned.new_context(backend, parameters) {
                Ok(context) => context,
                Err(e) => return drop(ready.send(Err(e.to_string()))),
            };
            drop(ready.send(Ok(())));
            let mut worker = Worker::new(&owned, context, template, parallel, &stop);
            for Job {
                request,
                mut on_delta,
                on_done,
            } in queue
            {
                let outcome = worker.generate(&request, &mut *on_delta);
                if matches!(outcome, Err(EngineError::Decode(_))) {
                    worker.forget();
                }
                on_done(outcome);
            }
        };
        let thread = std::thread::Builder::new()
            .name("llm-engine".into())
            .spawn(run)
            .map_err(|e| failed(e.to_string()))?;
        loaded
            .recv()
            .map_err(|_| EngineError::Stopped)?
            .map_err(failed)?;
        Ok(Self {
            jobs: Some(jobs),
            closing,
            thread: Some(thread),
        })
    }

    /// Queues a request. `on_done` comes exactly once, unless this returns an error or the thread
    /// dies.
    ///
    /// # Errors
    ///
    /// [`EngineError::Stopped`] if the thread has ended.
    pub(crate) fn submit(
        &self,
        request: Request,
        on_delta: OnDelta,
        on_done: OnDone,
    ) -> Result<()> {
        let jobs = self.jobs.as_ref().ok_or(EngineError::Stopped)?;
        jobs.send(Job {
            request,
            on_delta,
            on_done,
        })
        .map_err(|_| EngineError::Stopped)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Relaxed);
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
