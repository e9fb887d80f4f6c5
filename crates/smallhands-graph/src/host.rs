use crate::{GraphError, Update};
use serde_json::Value;
use smallhands_core::AskId;
use smallhands_core::{
    AttemptReport, DispatchKey, Halt, HostCall, HostReply, Notice, TaskHandle, TaskHost, TaskId,
    async_trait,
};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::{broadcast, mpsc, oneshot};

/// What reaches the driver of a run.
pub(crate) enum Msg {
    Call {
        from: DispatchKey,
        call: HostCall,
        reply: oneshot::Sender<Result<HostReply, Halt>>,
    },
    Placed(DispatchKey, Arc<dyn TaskHandle>),
    Report(DispatchKey, AttemptReport),
    /// The wait before a retry is over.
    Wake(TaskId),
    Answer {
        task: TaskId,
        ask: AskId,
        value: Value,
        reply: oneshot::Sender<Result<(), GraphError>>,
    },
    Cancel,
    Stop,
    /// What was asked to stop has had its time.
    GraceOver,
    LeaseLost(GraphError),
}

/// The driver as tasks see it. The queue is bounded: a busy journal slows workers down.
pub(crate) struct Host {
    pub(crate) to: mpsc::Sender<Msg>,
    pub(crate) updates: broadcast::Sender<Update>,
    pub(crate) unseen: AtomicU64,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Host")
    }
}

#[async_trait]
impl TaskHost for Host {
    async fn call(&self, from: &DispatchKey, call: HostCall) -> Result<HostReply, Halt> {
        let (reply, answer) = oneshot::channel();
        let msg = Msg::Call {
            from: from.clone(),
            call,
            reply,
        };
        // A driver that is gone no longer owns the run, so neither does the caller.
        self.to.send(msg).await.map_err(|_| Halt::Fenced)?;
        answer.await.unwrap_or(Err(Halt::Fenced))
    }
    fn notice(&self, from: &DispatchKey, notice: Notice) {
        let update = Update::Notice {
            from: from.clone(),
            notice,
        };
        if self.updates.send(update).is_err() {
            self.unseen.fetch_add(1, Ordering::Relaxed);
        }
    }
}
