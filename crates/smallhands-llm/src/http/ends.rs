//! How long to wait, and for what.

use crate::LlmError;
use futures_util::future::{Either, select};
use smallhands_core::{CallCx, Failure, FailureClass};
use std::{future::Future, pin::pin, time::Duration};

/// When the request must be over, on the monotonic clock.
#[derive(Clone, Copy)]
pub(super) struct Ends {
    at: Duration,
    by_caller: bool,
}

impl Ends {
    pub(super) fn new(cx: &CallCx, total: Duration) -> Self {
        let own = cx.ambient().clock.monotonic().saturating_add(total);
        match cx.deadline() {
            Some(at) if at <= own => Self {
                at,
                by_caller: true,
            },
            _ => Self {
                at: own,
                by_caller: false,
            },
        }
    }

    /// Waits, but not for long, and not once it is cancelled.
    pub(super) async fn within<T>(
        self,
        cx: &CallCx,
        at: &str,
        wait: Duration,
        f: impl Future<Output = T>,
    ) -> Result<T, LlmError> {
        let clock = &cx.ambient().clock;
        let left = self.at.saturating_sub(clock.monotonic());
        let stop = select(cx.cancel().cancelled(), clock.sleep(wait.min(left)));
        match select(stop, pin!(f)).await {
            Either::Right((done, _)) => Ok(done),
            Either::Left((Either::Left(_), _)) => Err(LlmError::Cancelled),
            Either::Left((Either::Right(_), _)) if left <= wait && self.by_caller => {
                let why = format!("{at} did not answer before the deadline of the call");
                Err(Failure::new("llm.deadline", FailureClass::Timeout, why).into())
            }
            Either::Left((Either::Right(_), _)) => Err(LlmError::Timeout {
                endpoint: at.to_owned(),
                reason: if left <= wait {
                    "did not end its answer in time".into()
                } else {
                    format!("sent nothing for {} s", wait.as_secs_f64())
                },
            }),
        }
    }
}
