use crate::{GraphError, GraphPatch, Update};
use serde_json::Value;
use smallhands_core::{
    AskId, DispatchKey, Halt, HostCall, HostReply, Notice, TaskHost, TaskId, async_trait,
};
use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};
use tokio::sync::{broadcast, mpsc, oneshot};

pub(crate) type Reply<T> = oneshot::Sender<Result<T, GraphError>>;

/// What reaches the driver of a run.
#[expect(
    clippy::large_enum_variant,
    reason = "short-lived, bounded by the queue"
)]
pub(crate) enum Msg {
    Call {
        from: DispatchKey,
        call: HostCall,
        reply: oneshot::Sender<Result<HostReply, Halt>>,
    },
    Answer {
        task: TaskId,
        ask: AskId,
        value: Value,
        reply: Reply<()>,
    },
    Patch {
        patch: Box<GraphPatch>,
        reply: Reply<u64>,
    },
    /// Nothing new is started; what runs may end.
    Pause,
    Cancel,
    Stop,
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
