use crate::{Candidate, Delivery, Memory, PlanMode, RepairSpec, apply};
use smallhands_core::{CallCx, Failure, FailureClass, Halt, TaskContext};
use smallhands_llm::ModelManager;
use smallhands_sandbox::{Sandbox, SandboxBackend, Workspace};
use smallhands_tools::{Registry, TestReport, ToolCx};
use std::sync::Arc;

/// What the workers are built from: each a trait object that an embedder can replace.
#[derive(Clone, Debug)]
pub struct RepairParts {
    /// The models, the smallest first.
    pub models: ModelManager,
    /// Where code runs.
    pub sandboxes: Arc<dyn SandboxBackend>,
    /// What finds the code.
    pub memory: Arc<dyn Memory>,
    /// What agents work with; `run_tests` judges.
    pub tools: Registry,
    /// Where the result goes.
    pub delivery: Arc<dyn Delivery>,
    /// How the graph is made.
    pub plan: PlanMode,
}

impl RepairParts {
    /// A workspace on the clean copy, or where the task's last checkpoint left it.
    pub(crate) async fn workspace(
        &self,
        spec: &RepairSpec,
        cx: &TaskContext,
    ) -> Result<Workspace, Halt> {
        Workspace::open(&self.sandboxes, spec.sandbox.clone(), cx).await
    }

    /// Runs the tests by the tool of that name.
    pub(crate) async fn test(
        &self,
        files: &dyn Sandbox,
        call: &CallCx,
    ) -> Result<TestReport, Failure> {
        let tool = self.tools.get("run_tests")?;
        let done = tool
            .call(serde_json::json!({}), ToolCx::new(call, Some(files)))
            .await?;
        serde_json::from_value(done.value).map_err(|e| {
            let why = format!("`run_tests` did not give a test report: {e}");
            Failure::new("tests.report", FailureClass::Protocol, why)
        })
    }

    /// A sandbox on the clean copy with a candidate's edits; for looking and testing only.
    pub(crate) async fn trial(
        &self,
        spec: &RepairSpec,
        candidate: &Candidate,
        call: &CallCx,
    ) -> Result<Box<dyn Sandbox>, Failure> {
        let sandbox = self.sandboxes.open(&spec.sandbox, call).await?;
        apply(&*sandbox, candidate).await?;
        Ok(sandbox)
    }
}
