use crate::{Sandbox, SandboxBackend, SandboxSpec};
use serde::{Serialize, de::DeserializeOwned};
use smallhands_core::{
    BlobRef, BlobStore, CallCx, Checkpoint, Failure, Halt, Step, TaskContext, async_trait,
};
use std::{future::Future, sync::Arc};

/// The one owner of a task's files: opened at the task's last checkpoint, changed only by
/// [`step`](Self::step), which takes `&mut` so that two mutations never overlap.
#[derive(Debug)]
pub struct Workspace {
    sandbox: Box<dyn Sandbox>,
}

struct Files<'a>(&'a dyn Sandbox);

#[async_trait]
impl Checkpoint for Files<'_> {
    async fn save(&self, blobs: &dyn BlobStore) -> Result<BlobRef, Failure> {
        Ok(self.0.snapshot(blobs).await?)
    }
    async fn restore(&self, to: Option<&BlobRef>, blobs: &dyn BlobStore) -> Result<(), Failure> {
        Ok(self.0.restore(to, blobs).await?)
    }
}

impl Workspace {
    /// Opens at the last checkpoint of the task, or else as the spec says.
    ///
    /// # Errors
    /// Those of the backend.
    pub async fn open(
        backend: &Arc<dyn SandboxBackend>,
        mut spec: SandboxSpec,
        cx: &TaskContext,
    ) -> Result<Self, Halt> {
        if let Some(last) = cx.last_checkpoint() {
            spec.from = Some(last);
        }
        let sandbox = backend
            .open(&spec, &cx.local())
            .await
            .map_err(Failure::from)?;
        Ok(Self { sandbox })
    }

    /// The files, for reading and for commands whose changes do not matter.
    pub fn files(&self) -> &dyn Sandbox {
        &*self.sandbox
    }

    /// A step that changes files: the workspace is saved before the record that names it, and put
    /// back if the step fails or was left in doubt.
    ///
    /// # Errors
    /// As [`TaskContext::step`].
    pub async fn step<'w, T, F, Fut>(
        &'w mut self,
        cx: &TaskContext,
        step: Step<'_>,
        act: F,
    ) -> Result<T, Halt>
    where
        T: Serialize + DeserializeOwned + Send,
        F: FnOnce(&'w dyn Sandbox, CallCx) -> Fut + Send,
        Fut: Future<Output = Result<T, Failure>> + Send,
    {
        let sandbox: &'w dyn Sandbox = &*self.sandbox;
        cx.step(step.in_workspace(&Files(sandbox)), |call| {
            act(sandbox, call)
        })
        .await
    }

    /// Ends the sandbox.
    ///
    /// # Errors
    /// Those of the backend.
    pub async fn close(self) -> Result<(), Failure> {
        Ok(self.sandbox.close().await?)
    }
}
