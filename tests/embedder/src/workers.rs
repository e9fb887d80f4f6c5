use crate::Uses;
use serde_json::{Value, json};
use smallhands::{
    agents::Round,
    core::{
        Effect, Failure, FailureClass, Halt, Notice, Step, Subject, TaskContext, TaskOutput,
        TaskSpec, Worker, WorkerName, async_trait, worker,
    },
    graph::GraphPatch,
};
use std::sync::Arc;

#[derive(Debug)]
struct Plan(WorkerName, Uses);

/// A planner that knows one graph: an audit, then the standard repair.
pub fn planner(uses: Uses) -> Arc<dyn Worker> {
    Arc::new(Plan("planner".into(), uses))
}

#[async_trait]
impl Worker for Plan {
    fn name(&self) -> &WorkerName {
        &self.0
    }
    async fn run(&self, _: Value, _: &TaskContext) -> Result<TaskOutput, Halt> {
        self.1.add("planner");
        let mut tasks = vec![
            TaskSpec::new("audit", "audit").needs("plan"),
            TaskSpec::new("reproduce", "reproduce").needs("audit"),
        ];
        tasks.extend(Round::default().tasks());
        let expansion = serde_json::to_value(GraphPatch::adding(tasks))
            .map_err(|e| Failure::new("plan.json", FailureClass::Task, e.to_string()))?;
        Ok(TaskOutput {
            value: json!({"by": "embedder"}),
            expansion: Some(expansion),
            ..TaskOutput::default()
        })
    }
}

/// A worker that tries what the policy forbids, and tells whether it was stopped.
pub fn audit(uses: Uses) -> Arc<dyn Worker> {
    worker("audit", move |_: Value, cx: TaskContext| {
        let uses = uses.clone();
        async move {
            uses.add("worker");
            cx.notice(Notice::Progress {
                text: "looking around".into(),
                done: None,
            });
            let push = Subject::ToolCall {
                tool: "push".into(),
                args: json!({}),
            };
            let step = Step::new("push").effect(Effect::AtMostOnce).guarded(push);
            let pushed: Result<Value, Halt> =
                cx.step(step, |_| async { Ok(json!("pushed")) }).await;
            let denied = matches!(pushed, Err(Halt::Failed(f)) if f.code == "guard.denied");
            let secret = cx.ambient().secrets.get(&"kit".into()).is_some();
            Ok(json!({ "denied": denied, "secret": secret }))
        }
    })
}
