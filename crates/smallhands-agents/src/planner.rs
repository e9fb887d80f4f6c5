use crate::{RepairParts, RepairSpec, recipe};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use smallhands_core::{
    Failure, FailureClass, Halt, TaskContext, TaskOutput, TaskSpec, Worker, WorkerName, async_trait,
};
use smallhands_graph::{GraphPatch, TaskGraph};
use smallhands_llm::ChatRequest;
use std::sync::Arc;

/// How much of the plan is the model's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PlanMode {
    /// A reviewed recipe; a small model only fills it in.
    #[default]
    Recipe,
    /// The strongest model writes the graph, out of the workers that there are; what does not
    /// validate is answered with the recipe.
    Free,
}

/// A worker whose output grows the graph: planned, budgeted, journaled and resumed like any other.
#[derive(Debug)]
pub struct Planner {
    name: WorkerName,
    parts: Arc<RepairParts>,
    spec: Arc<RepairSpec>,
}

impl Planner {
    /// For this repair.
    pub fn new(parts: Arc<RepairParts>, spec: Arc<RepairSpec>) -> Self {
        Self {
            name: "planner".into(),
            parts,
            spec,
        }
    }

    async fn free(&self, cx: &TaskContext) -> Result<Option<Vec<TaskSpec>>, Halt> {
        let request = ChatRequest::new(format!(
            "Goal: {}\nTests: {}\n\nPlan the work as a graph of tasks. Workers: `reproduce` runs the \
             tests on the clean copy, first and once; `repair` changes code until its tests pass. \
             Answer with JSON: {{\"tasks\":[{{\"id\":..,\"worker\":..,\"needs\":[..]}}]}}.",
            self.spec.goal,
            self.spec.tests.argv.join(" ")
        ))
        .schema(schema());
        let said = self
            .parts
            .models
            .chat(cx, "plan", usize::MAX, request)
            .await?;
        Ok(read(said.text()))
    }
}

fn schema() -> Value {
    json!({
        "type": "object", "required": ["tasks"], "additionalProperties": false,
        "properties": {"tasks": {"type": "array", "minItems": 2, "maxItems": 8, "items": {
            "type": "object", "required": ["id", "worker", "needs"], "additionalProperties": false,
            "properties": {
                "id": {"type": "string"},
                "worker": {"enum": ["reproduce", "repair"]},
                "needs": {"type": "array", "items": {"type": "string"}}
            }
        }}}
    })
}

/// A plan counts if it is a valid graph that begins with the one `reproduce` and repairs after it.
/// Its shape is then laid over the recipe, whose rounds are what `repair` means.
fn read(text: &str) -> Option<Vec<TaskSpec>> {
    #[derive(Deserialize)]
    struct Plan {
        tasks: Vec<TaskSpec>,
    }
    let plan: Plan = serde_json::from_str(text).ok()?;
    let graph = TaskGraph::from_tasks(plan.tasks).ok()?;
    let first = graph
        .tasks()
        .iter()
        .filter(|t| t.worker.as_str() == "reproduce");
    let [reproduce] = first.collect::<Vec<_>>()[..] else {
        return None;
    };
    let repairs = graph
        .tasks()
        .iter()
        .filter(|t| t.worker.as_str() == "repair");
    let sound = reproduce.needs.is_empty()
        && repairs.clone().count() > 0
        && repairs.clone().all(|t| !t.needs.is_empty());
    sound.then(recipe::repair)
}

#[async_trait]
impl Worker for Planner {
    fn name(&self) -> &WorkerName {
        &self.name
    }
    async fn run(&self, _: Value, cx: &TaskContext) -> Result<TaskOutput, Halt> {
        let (tasks, by) = match self.parts.plan {
            PlanMode::Recipe => (recipe::repair(), "recipe"),
            PlanMode::Free => match self.free(cx).await? {
                Some(tasks) => (tasks, "model"),
                None => (
                    recipe::repair(),
                    "recipe, for the model's plan was not sound",
                ),
            },
        };
        let mut patch = GraphPatch::adding(tasks);
        patch.expected_revision = cx.view().and_then(|v| v["revision"].as_u64());
        let expansion = serde_json::to_value(patch)
            .map_err(|e| Failure::new("plan.encode", FailureClass::Task, e.to_string()))?;
        Ok(TaskOutput {
            value: json!({ "plan": "repair", "by": by }),
            expansion: Some(expansion),
            ..TaskOutput::default()
        })
    }
}
