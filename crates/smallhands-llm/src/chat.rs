use serde::{Deserialize, Serialize};
use serde_json::Value;
use smallhands_core::Usage;

/// Who says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The frame of the conversation.
    System,
    /// The one who asks.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// As every wire writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who.
    pub role: Role,
    /// What.
    pub text: String,
}

/// What a model is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChatRequest {
    /// The conversation so far.
    pub messages: Vec<Message>,
    /// How the answer begins; the model goes on from there, and the answer includes it. Wires that
    /// cannot do that leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefill: Option<String>,
    /// JSON schema of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Value>,
    /// The longest answer, in tokens.
    pub max_tokens: u32,
    /// Answers to draw, at least 1; the prompt is paid once where the wire allows it.
    pub samples: u32,
    /// 0 takes the likeliest token each time.
    pub temperature: f32,
    /// The first sample takes the likeliest tokens, whatever the temperature; a wish, that wires
    /// which cannot do so leave out.
    #[serde(default)]
    pub greedy_first: bool,
    /// The answer ends before any of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
    /// Makes sampling repeatable where the wire allows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

impl ChatRequest {
    /// One question, one answer of up to 1,024 tokens, greedily.
    pub fn new(question: impl Into<String>) -> Self {
        Self {
            messages: vec![Message {
                role: Role::User,
                text: question.into(),
            }],
            prefill: None,
            schema: None,
            max_tokens: 1024,
            samples: 1,
            temperature: 0.0,
            greedy_first: false,
            stop: Vec::new(),
            seed: None,
        }
    }
    /// Puts a system message first.
    #[must_use]
    pub fn system(mut self, text: impl Into<String>) -> Self {
        let message = Message {
            role: Role::System,
            text: text.into(),
        };
        self.messages.insert(0, message);
        self
    }
    /// Adds a message.
    #[must_use]
    pub fn message(mut self, role: Role, text: impl Into<String>) -> Self {
        self.messages.push(Message {
            role,
            text: text.into(),
        });
        self
    }
    /// Draws several answers.
    #[must_use]
    pub fn samples(mut self, n: u32, temperature: f32) -> Self {
        self.samples = n.max(1);
        self.temperature = temperature;
        self
    }
    /// Makes the first of them the likeliest.
    #[must_use]
    pub fn greedy_first(mut self) -> Self {
        self.greedy_first = true;
        self
    }
    /// Limits the answer.
    #[must_use]
    pub fn max_tokens(mut self, n: u32) -> Self {
        self.max_tokens = n;
        self
    }
    /// Constrains the answer.
    #[must_use]
    pub fn schema(mut self, schema: Value) -> Self {
        self.schema = Some(schema);
        self
    }
    /// Begins the answer.
    #[must_use]
    pub fn prefill(mut self, text: impl Into<String>) -> Self {
        self.prefill = Some(text.into());
        self
    }
    /// Ends the answer before this.
    #[must_use]
    pub fn stop(mut self, text: impl Into<String>) -> Self {
        self.stop.push(text.into());
        self
    }
    /// Seeds sampling.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }
    /// An upper bound of the prompt's tokens for any tokenizer in use: one for each byte.
    pub fn prompt_bound(&self) -> u64 {
        let bytes: usize = self.messages.iter().map(|m| m.text.len() + 16).sum();
        let schema = self.schema.as_ref().map_or(0, |s| s.to_string().len());
        (bytes + schema + self.prefill.as_ref().map_or(0, String::len)) as u64
    }
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Finish {
    /// By itself, or before a stop text.
    Stop,
    /// At the limit: what was said may be half of something.
    Length,
    /// The provider cut it off.
    Filtered,
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// What the model said, the prefill included.
    pub text: String,
    /// Why it ended.
    pub finish: Finish,
}

/// What a model answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChatResponse {
    /// One for each sample.
    pub choices: Vec<Choice>,
    /// What it used.
    pub usage: Usage,
    /// The model that answered, as its server names it.
    pub model: String,
}

impl ChatResponse {
    /// The first answer.
    pub fn text(&self) -> &str {
        self.choices.first().map_or("", |c| &c.text)
    }
}
