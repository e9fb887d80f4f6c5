//! A tool of one's own: typed input and output, its schema, and a call.
//!
//! `cargo run -p smallhands-examples --bin custom_tool`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use smallhands::{
    core::{Ambient, BlobStore, CallCx, CancelToken, Effect, NoGuard, NoSecrets, async_trait},
    graph::{MemoryBlobs, SystemClock},
    tools::{Registry, Tool, ToolCx, ToolError},
};
use std::{error::Error, sync::Arc};

/// Counts words.
#[derive(Debug)]
struct CountWords;

/// What it takes; doc comments become descriptions in the schema.
#[derive(Deserialize, JsonSchema)]
struct Input {
    /// The text whose words are counted.
    text: String,
}

#[derive(Serialize, JsonSchema)]
struct Output {
    words: usize,
}

#[async_trait]
impl Tool for CountWords {
    type Input = Input;
    type Output = Output;
    fn name(&self) -> &str {
        "count_words"
    }
    fn about(&self) -> &str {
        "Counts the words of a text."
    }
    fn effect(&self) -> Effect {
        Effect::Pure
    }
    async fn call(&self, input: Input, _: ToolCx<'_>) -> Result<Output, ToolError> {
        Ok(Output {
            words: input.text.split_whitespace().count(),
        })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let tools = Registry::default().with(CountWords);
    for card in tools.cards() {
        println!(
            "{}: {}\n{}",
            card.name,
            card.about,
            serde_json::to_string_pretty(&card.input)?
        );
    }
    let blobs: Arc<dyn BlobStore> = Arc::new(MemoryBlobs::default());
    let ambient = Ambient {
        clock: Arc::new(SystemClock),
        blobs,
        guard: Arc::new(NoGuard),
        secrets: Arc::new(NoSecrets),
    };
    let call = CallCx::detached(ambient, CancelToken::new());
    let tool = tools.get("count_words")?;
    let good = tool
        .call(
            json!({ "text": "small hands, big house" }),
            ToolCx::new(&call, None),
        )
        .await?;
    println!("{}", good.model_view);
    // What the model is told when its arguments do not fit.
    let bad = tool
        .call(json!({ "txt": 1 }), ToolCx::new(&call, None))
        .await
        .unwrap_err();
    println!("{}", bad.model);
    Ok(())
}
