//! What is known of a placement without the state of its run.

use crate::Engine;
use smallhands_core::{AttemptReport, CancelMode, Failure, FailureClass, Outcome, Ran, TaskHandle};
use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

/// The report, or a timeout: first asked to stop, then killed.
pub(crate) async fn within(
    engine: &Engine,
    handle: &dyn TaskHandle,
    limit: Duration,
) -> AttemptReport {
    tokio::select! {
        r = handle.report() => return r,
        () = engine.clock.sleep(limit) => {}
    }
    handle.cancel(CancelMode::Soft).await;
    tokio::select! {
        _ = handle.report() => {}
        () = engine.clock.sleep(engine.grace) => handle.cancel(CancelMode::Hard).await,
    }
    let why = format!("the attempt took longer than {} ms", limit.as_millis());
    let f = Failure::new("task.timeout", FailureClass::Timeout, why).retryable();
    AttemptReport {
        outcome: Outcome::Halted(f.into()),
        ran: Ran::Yes,
    }
}

pub(crate) fn never_ran(f: Failure) -> AttemptReport {
    AttemptReport {
        outcome: Outcome::Halted(f.into()),
        ran: Ran::No,
    }
}

pub(crate) fn restarted() -> AttemptReport {
    let why = "the engine was restarted while it ran";
    let f = Failure::new("engine.restarted", FailureClass::WorkerLost, why);
    AttemptReport {
        outcome: Outcome::Halted(f.into()),
        ran: Ran::Maybe,
    }
}

/// What a future gives if it ends at once; it may be polled on.
pub(crate) fn at_once<F: Future + Unpin>(f: &mut F) -> Option<F::Output> {
    let mut cx = Context::from_waker(Waker::noop());
    match Pin::new(f).poll(&mut cx) {
        Poll::Ready(t) => Some(t),
        Poll::Pending => None,
    }
}
