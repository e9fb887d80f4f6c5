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

    async fn free(&self, cx: &TaskContext) -> Result<Option<Vec<String>>, Halt> {
        let request = ChatRequest::new(format!(
            "Goal: {}\nTests: {}\n\nPlan the work as a graph of tasks. Workers: `reproduce` runs the \
             tests on the clean copy, first and once; `repair` changes code towards its own `goal`, \
             judged by the tests. Answer with JSON: \
             {{\"tasks\":[{{\"id\":..,\"worker\":..,\"goal\":..,\"needs\":[..]}}]}}.",
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
            "type": "object", "required": ["id", "worker", "goal", "needs"],
            "additionalProperties": false,
            "properties": {
                "id": {"type": "string"},
                "worker": {"enum": ["reproduce", "repair"]},
                "goal": {"type": "string"},
                "needs": {"type": "array", "items": {"type": "string"}}
            }
        }}}
    })
}

/// The goals of a plan's repairs, in an order that its edges allow. A plan counts if it is a valid
/// graph that begins with the one `reproduce` and repairs after it; its repairs follow one another,
/// each on top of what the tests kept of those before.
fn read(text: &str) -> Option<Vec<String>> {
    #[derive(Deserialize)]
    struct Plan {
        tasks: Vec<Planned>,
    }
    #[derive(Deserialize)]
    struct Planned {
        id: String,
        worker: String,
        goal: String,
        needs: Vec<String>,
    }
    let plan: Plan = serde_json::from_str(text).ok()?;
    let spec = |t: &Planned| {
        let spec = TaskSpec::new(t.id.as_str(), t.worker.as_str());
        t.needs.iter().fold(spec, |s, n| s.needs(n.as_str()))
    };
    TaskGraph::from_tasks(plan.tasks.iter().map(spec).collect::<Vec<_>>()).ok()?;
    let mut done = Vec::new();
    let mut goals = Vec::new();
    while done.len() < plan.tasks.len() {
        let ready =
            |t: &&Planned| !done.contains(&&t.id) && t.needs.iter().all(|n| done.contains(&n));
        let next = plan.tasks.iter().find(ready)?;
        match (next.worker.as_str(), done.len()) {
            ("reproduce", 0) => {}
            ("repair", 1..) => goals.push(next.goal.clone()),
            _ => return None,
        }
        done.push(&next.id);
    }
    (!goals.is_empty()).then_some(goals)
}

#[async_trait]
impl Worker for Planner {
    fn name(&self) -> &WorkerName {
        &self.name
    }
    async fn run(&self, _: Value, cx: &TaskContext) -> Result<TaskOutput, Halt> {
        let (goals, by) = match self.parts.plan {
            PlanMode::Recipe => (Vec::new(), "recipe"),
            PlanMode::Free => match self.free(cx).await? {
                Some(goals) => (goals, "model"),
                None => (Vec::new(), "recipe, for the model's plan was not sound"),
            },
        };
        let plan = json!({ "plan": "repair", "by": by, "goals": goals });
        let tasks = recipe::repair(goals);
        let mut patch = GraphPatch::adding(tasks);
        patch.expected_revision = cx.view().and_then(|v| v["revision"].as_u64());
        let expansion = serde_json::to_value(patch)
            .map_err(|e| Failure::new("plan.encode", FailureClass::Task, e.to_string()))?;
        Ok(TaskOutput {
            value: plan,
            expansion: Some(expansion),
            ..TaskOutput::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::read;

    fn plan(tasks: &[(&str, &str, &[&str])]) -> Option<Vec<String>> {
        let task = |(id, worker, needs): &(&str, &str, &[&str])| serde_json::json!({ "id": id, "worker": worker, "goal": format!("fix {id}"), "needs": needs });
        let tasks: Vec<_> = tasks.iter().map(task).collect();
        read(&serde_json::json!({ "tasks": tasks }).to_string())
    }

    #[test]
    fn a_plan_gives_goals_in_the_order_of_its_edges() {
        let goals = plan(&[
            ("b", "repair", &["a"]),
            ("r", "reproduce", &[]),
            ("a", "repair", &["r"]),
        ]);
        assert_eq!(goals.unwrap(), ["fix a", "fix b"]);
        for unsound in [
            &[("r", "reproduce", &[][..])][..],
            &[("a", "repair", &[])],
            &[("r", "reproduce", &[]), ("a", "repair", &["x"])],
            &[("r", "reproduce", &["a"]), ("a", "repair", &["r"])],
            &[
                ("r", "reproduce", &[]),
                ("q", "reproduce", &[]),
                ("a", "repair", &["r"]),
            ],
        ] {
            assert_eq!(plan(unsound), None, "{unsound:?}");
        }
        assert_eq!(read("no json"), None);
    }
}
