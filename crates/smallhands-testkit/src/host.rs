use smallhands_core::{
    DispatchKey, Halt, HostCall, HostReply, Notice, TaskHost, Usage, async_trait,
};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// An engine that agrees to everything and remembers what it was told.
#[derive(Debug, Default)]
pub struct RecordingHost {
    calls: Mutex<Vec<(DispatchKey, HostCall)>>,
}

impl RecordingHost {
    fn lock(&self) -> MutexGuard<'_, Vec<(DispatchKey, HostCall)>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// What was called, in order.
    pub fn calls(&self) -> Vec<HostCall> {
        self.lock().iter().map(|(_, c)| c.clone()).collect()
    }
    /// The steps that began, in order.
    pub fn begun(&self) -> Vec<String> {
        let begun = |c: HostCall| match c {
            HostCall::BeginStep(i) => Some(i.key.to_string()),
            _ => None,
        };
        self.calls().into_iter().filter_map(begun).collect()
    }
}

/// More than so many tokens are refused.
pub(crate) const MOST_TOKENS: u64 = 1_000;

#[async_trait]
impl TaskHost for RecordingHost {
    async fn call(&self, from: &DispatchKey, call: HostCall) -> Result<HostReply, Halt> {
        self.lock().push((from.clone(), call.clone()));
        let too_much = |u: &Usage| u.tokens() > MOST_TOKENS;
        match call {
            HostCall::Reserve { most, .. } if too_much(&most) => {
                Err(smallhands_core::Failure::new(
                    "budget.exhausted",
                    smallhands_core::FailureClass::Budget,
                    "the kit's budget",
                )
                .into())
            }
            HostCall::Ask { .. } => Ok(HostReply::NotYet),
            _ => Ok(HostReply::Proceed),
        }
    }
    fn notice(&self, _: &DispatchKey, _: Notice) {}
}
