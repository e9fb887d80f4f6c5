use crate::{Candidate, RepairParts, RepairSpec, apply};
use serde::{Deserialize, Serialize};
use smallhands_core::{
    BlobRef, CallCx, Effect, Failure, FailureClass, Halt, Step, Subject, TaskContext, Worker,
    async_trait, worker as make,
};
use smallhands_tools::TestReport;
use std::{fmt::Debug, sync::Arc};

/// Where a result is put: a branch, a patch file, a pull request.
#[async_trait]
pub trait Delivery: Debug + Send + Sync + 'static {
    /// What was delivered for this run before, if it was.
    ///
    /// # Behavior
    /// - Looks at the world, changes nothing.
    async fn find(&self, run: &str, cx: &CallCx) -> Result<Option<Delivered>, Failure>;
    /// Delivers a workspace snapshot and its patch.
    ///
    /// # Behavior
    /// - Never touches the user's working tree.
    async fn deliver(
        &self,
        run: &str,
        snapshot: &BlobRef,
        patch: &str,
        cx: &CallCx,
    ) -> Result<Delivered, Failure>;
}

/// Where a result is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivered {
    /// The branch, if it is one.
    pub branch: Option<String>,
    /// The commit, if it is one.
    pub commit: Option<String>,
    /// The file, if it is one.
    pub file: Option<String>,
}

/// The report of a repair.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    /// The change.
    pub patch: String,
    /// The tests on the clean copy.
    pub before: TestReport,
    /// The tests with the change.
    pub after: TestReport,
    /// Where it is.
    pub delivered: Delivered,
}

#[derive(Deserialize)]
struct Input {
    candidate: Candidate,
    before: TestReport,
}

pub(crate) fn worker(parts: Arc<RepairParts>, spec: Arc<RepairSpec>) -> Arc<dyn Worker> {
    make("finish", move |i: Input, cx: TaskContext| {
        let (parts, spec) = (parts.clone(), spec.clone());
        async move {
            let mut ws = parts.workspace(&spec, &cx).await?;
            let edit = Step::new("edit").input(&i.candidate);
            let patch: String = ws
                .step(&cx, edit, |files, _| {
                    let c = &i.candidate;
                    async move {
                        apply(files, c).await?;
                        Ok(files.diff().await?)
                    }
                })
                .await?;
            let snapshot = cx.last_checkpoint();
            // In a fork: what the tests write is no part of the result.
            let files = ws.files();
            let parts = &*parts;
            let after: TestReport = cx
                .step(Step::new("tests").input(&spec.tests), |call| async move {
                    let fork = files.fork().await?;
                    let report = parts.test(&*fork, &call).await?;
                    fork.close().await?;
                    Ok(report)
                })
                .await?;
            ws.close().await?;
            if !after.ok {
                let why = format!("the final test run is not green: {}", after.summary());
                return Err(Failure::new("finish.red", FailureClass::Task, why).into());
            }
            let Some(snapshot) = snapshot else {
                let why = "the workspace has no checkpoint";
                return Err(Failure::new("finish.snapshot", FailureClass::Store, why).into());
            };
            let delivered = deliver(parts, &cx, &snapshot, &patch).await?;
            Ok(Finished {
                patch,
                before: i.before,
                after,
                delivered,
            })
        }
    })
}

/// An effect outside: after a crash in the middle, the world is looked at first.
async fn deliver(
    parts: &RepairParts,
    cx: &TaskContext,
    snapshot: &BlobRef,
    patch: &str,
) -> Result<Delivered, Halt> {
    let run = cx.key().run.to_string();
    let run = run.as_str();
    let step = Step::new("deliver")
        .effect(Effect::Verifiable)
        .input(&(snapshot, patch))
        .guarded(Subject::Patch(patch.into()));
    let (look, act) = (&parts.delivery, &parts.delivery);
    cx.step_or_verify(
        step,
        |call| async move { look.find(run, &call).await },
        |call| async move { act.deliver(run, snapshot, patch, &call).await },
    )
    .await
}
