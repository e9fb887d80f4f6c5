use crate::ToolError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use smallhands_core::{BlobRef, CallCx, Effect, async_trait};
use smallhands_sandbox::Sandbox;
use std::{collections::BTreeMap, fmt::Debug, sync::Arc};
use tracing::Instrument;

/// What a tool is, as models and selectors see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolCard {
    /// Its name.
    pub name: String,
    /// What it does and when to use it.
    pub about: String,
    /// What it changes.
    pub effect: Effect,
    /// JSON schema of its arguments.
    pub input: Value,
    /// JSON schema of its value.
    pub output: Value,
}

/// What a tool call may use.
#[derive(Clone, Copy, Debug)]
pub struct ToolCx<'a> {
    /// Cancellation, budget, clock.
    pub call: &'a CallCx,
    files: Option<&'a dyn Sandbox>,
}

impl<'a> ToolCx<'a> {
    /// With or without files.
    pub fn new(call: &'a CallCx, files: Option<&'a dyn Sandbox>) -> Self {
        Self { call, files }
    }
    /// The workspace.
    ///
    /// # Errors
    /// None was granted to this call.
    pub fn files(&self) -> Result<&'a dyn Sandbox, ToolError> {
        self.files
            .ok_or_else(|| ToolError::broken("the tool needs a workspace and was given none"))
    }
}

/// What a tool call gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolOutcome {
    /// Whether it is good news.
    pub ok: bool,
    /// The typed output as JSON.
    pub value: Value,
    /// Named blobs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<(String, BlobRef)>,
    /// What the model is shown: compact, and it says what was cut.
    pub model_view: String,
}

/// A tool with typed input and output.
#[async_trait]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a Tool",
    note = "a tool with a schema known only at run time implements `DynTool`"
)]
pub trait Tool: Debug + Send + Sync + 'static {
    /// Its arguments; the doc comments of the fields are their descriptions.
    type Input: JsonSchema + DeserializeOwned + Send;
    /// What it gives.
    type Output: JsonSchema + Serialize + Send + Sync;
    /// Its name; a value, because two instances may differ.
    fn name(&self) -> &str;
    /// What it does and when to use it.
    fn about(&self) -> &str;
    /// What it changes.
    fn effect(&self) -> Effect;
    /// Does it.
    ///
    /// # Behavior
    /// - Bad news is an output; an error is a call that gave none.
    /// - Touches files only through [`ToolCx::files`].
    async fn call(&self, input: Self::Input, cx: ToolCx<'_>) -> Result<Self::Output, ToolError>;
    /// Whether an output is good news.
    fn is_ok(&self, _out: &Self::Output) -> bool {
        true
    }
    /// What the model is shown of an output.
    fn model_view(&self, out: &Self::Output) -> String {
        serde_json::to_string(out).unwrap_or_default()
    }
}

/// The erased twin: what registries, selectors and layers hold.
#[async_trait]
pub trait DynTool: Debug + Send + Sync + 'static {
    /// What it is.
    fn card(&self) -> ToolCard;
    /// Does it.
    ///
    /// # Behavior
    /// - Arguments that do not fit the schema are an error that tells the model what is wrong.
    async fn call(&self, args: Value, cx: ToolCx<'_>) -> Result<ToolOutcome, ToolError>;
}

/// A [`Tool`] as a [`DynTool`]. An adapter rather than a blanket implementation, so that wrappers
/// and imported tools stay free to implement [`DynTool`] themselves.
#[derive(Debug)]
pub struct Typed<T>(pub T);

#[async_trait]
impl<T: Tool> DynTool for Typed<T> {
    fn card(&self) -> ToolCard {
        ToolCard {
            name: self.0.name().into(),
            about: self.0.about().into(),
            effect: self.0.effect(),
            input: schemars::schema_for!(T::Input).to_value(),
            output: schemars::schema_for!(T::Output).to_value(),
        }
    }
    async fn call(&self, args: Value, cx: ToolCx<'_>) -> Result<ToolOutcome, ToolError> {
        let input = serde_json::from_value(args).map_err(|e| {
            ToolError::input(format!(
                "the arguments of {} do not fit: {e}",
                self.0.name()
            ))
        })?;
        let span = tracing::info_span!(
            "tool",
            gen_ai.operation.name = "execute_tool",
            gen_ai.tool.name = self.0.name()
        );
        let out = self.0.call(input, cx).instrument(span).await?;
        let value = serde_json::to_value(&out)
            .map_err(|e| ToolError::broken(format!("{}: {e}", self.0.name())))?;
        Ok(ToolOutcome {
            ok: self.0.is_ok(&out),
            model_view: self.0.model_view(&out),
            value,
            artifacts: Vec::new(),
        })
    }
}

/// Tools by name.
#[derive(Clone, Debug, Default)]
pub struct Registry(BTreeMap<String, Arc<dyn DynTool>>);

impl Registry {
    /// Adds a typed tool; one of the same name is replaced.
    #[must_use]
    pub fn with<T: Tool>(self, t: T) -> Self {
        self.with_dyn(Arc::new(Typed(t)))
    }
    /// Adds an erased one.
    #[must_use]
    pub fn with_dyn(mut self, t: Arc<dyn DynTool>) -> Self {
        self.0.insert(t.card().name, t);
        self
    }
    /// The tool of that name.
    ///
    /// # Errors
    /// There is none; the model is told which there are.
    pub fn get(&self, name: &str) -> Result<&Arc<dyn DynTool>, ToolError> {
        self.0.get(name).ok_or_else(|| {
            let known: Vec<_> = self.0.keys().map(String::as_str).collect();
            ToolError::input(format!(
                "there is no tool `{name}`; there are: {}",
                known.join(", ")
            ))
        })
    }
    /// What they are.
    pub fn cards(&self) -> Vec<ToolCard> {
        self.0.values().map(|t| t.card()).collect()
    }
}
