use crate::{
    Ambient, BoxFuture, Failure, FailureClass, Halt, TaskContext, TaskOutput, WorkerName,
    async_trait,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fmt::{self, Debug},
    future::Future,
    sync::Arc,
};

/// Does tasks of one kind.
#[async_trait]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a Worker",
    note = "a closure becomes one through `worker(\"name\", |input, cx| async move {{ .. }})`"
)]
pub trait Worker: Debug + Send + Sync + 'static {
    /// Stable: graphs and journals refer to it.
    fn name(&self) -> &WorkerName;
    /// Does one task.
    ///
    /// # Behavior
    /// - Every effect is a [step](TaskContext::step), or of the spec's
    ///   [`effect`](crate::TaskSpec::effect).
    /// - Returns soon after [`TaskContext::cancel`] fires.
    async fn run(&self, input: Value, cx: &TaskContext) -> Result<TaskOutput, Halt>;
    /// Asked when a [`Effect::Verifiable`](crate::Effect::Verifiable) task was begun and not
    /// finished: the output, if the world shows that it was done.
    async fn verify(&self, _input: &Value, _cx: &TaskContext) -> Result<Option<TaskOutput>, Halt> {
        Ok(None)
    }
}

/// How a process that has only an envelope gets its workers: from the run's configuration. The
/// same composition root in the engine's process and in every worker process.
#[async_trait]
pub trait WorkerSource: Debug + Send + Sync + 'static {
    /// Builds the workers.
    ///
    /// # Behavior
    /// - The same configuration gives the same workers in every process.
    /// - Takes secret values from [`Ambient::secrets`], never from the configuration.
    async fn open(
        &self,
        config: &Value,
        ambient: &Ambient,
    ) -> Result<BTreeMap<WorkerName, Arc<dyn Worker>>, Failure>;
}

/// A worker from an async function with typed input and output.
pub fn worker<I, O, F, Fut>(name: &str, f: F) -> Arc<dyn Worker>
where
    I: DeserializeOwned + Send + 'static,
    O: Serialize + Send + 'static,
    F: Fn(I, TaskContext) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<O, Halt>> + Send + 'static,
{
    let run = move |v: Value, cx: TaskContext| -> BoxFuture<'static, Result<TaskOutput, Halt>> {
        let fut = serde_json::from_value(v).map(|i| f(i, cx));
        Box::pin(async move {
            let fut = fut.map_err(|e| bad_json("worker.input", &e))?;
            let out = fut.await?;
            let value = serde_json::to_value(out).map_err(|e| bad_json("worker.output", &e))?;
            Ok(value.into())
        })
    };
    Arc::new(FnWorker {
        name: name.into(),
        run,
    })
}

fn bad_json(code: &'static str, e: &serde_json::Error) -> Failure {
    Failure::new(code, FailureClass::Input, e.to_string())
}

struct FnWorker<F> {
    name: WorkerName,
    run: F,
}

impl<F> Debug for FnWorker<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker({})", self.name)
    }
}

#[async_trait]
impl<F> Worker for FnWorker<F>
where
    F: Fn(Value, TaskContext) -> BoxFuture<'static, Result<TaskOutput, Halt>>
        + Send
        + Sync
        + 'static,
{
    fn name(&self) -> &WorkerName {
        &self.name
    }
    async fn run(&self, input: Value, cx: &TaskContext) -> Result<TaskOutput, Halt> {
        (self.run)(input, cx.clone()).await
    }
}
