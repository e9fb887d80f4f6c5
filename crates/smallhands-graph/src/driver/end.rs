//! How driving ends.

use super::{Driver, Tick, snapshot::saved};
use crate::{
    Event, GraphError, RunResult, RunStatus, engine::give_back, host::Msg, placement::at_once,
};
use smallhands_core::CancelMode;

impl Driver {
    /// Asks all that runs to stop, but for what compensates.
    pub(super) async fn stop_all(&mut self) {
        for (ix, h) in self.handles.values() {
            if self.stopping || !self.plan.state.undoes(*ix) {
                h.cancel(CancelMode::Soft).await;
            }
        }
        if self.plan.state.running() > 0 {
            self.later(self.plan.engine.grace, Tick::GraceOver);
        }
    }

    pub(super) async fn grace_over(&mut self) {
        self.grace_over = true;
        for (ix, h) in self.handles.values() {
            if self.stopping || !self.plan.state.undoes(*ix) {
                h.cancel(CancelMode::Hard).await;
            }
        }
    }

    /// How the run stands if nothing more will happen here.
    pub(super) fn rest(&self) -> Option<RunStatus> {
        let state = &self.plan.state;
        if self.stopping {
            let over = self.open == 0 || self.grace_over;
            let status =
                if state.running() == 0 && !state.can_start() && state.delayed().next().is_none() {
                    state.resting_status()
                } else {
                    RunStatus::Paused
                };
            return over.then_some(status);
        }
        if state.running() > 0 || !self.aside.is_empty() {
            return None;
        }
        if state.cancelling {
            return Some(RunStatus::Cancelled);
        }
        if self.pausing {
            let more = state.can_start() || state.undoing() || state.delayed().next().is_some();
            let status = if more {
                RunStatus::Paused
            } else {
                state.resting_status()
            };
            return Some(status);
        }
        if state.failing {
            return (!state.undoing()).then(|| state.resting_status());
        }
        let waits = state.can_start() || state.delayed().next().is_some();
        (!waits).then(|| state.resting_status())
    }

    pub(super) async fn finish(mut self, status: RunStatus) -> Result<RunResult, GraphError> {
        if self.snapshots.saving.is_some() {
            let put = saved(&mut self.snapshots.saving).await;
            self.saved(put);
        }
        self.log(Event::Stopped { status });
        self.flush().await?;
        self.lease_held = false;
        self.plan.engine.store.release(&self.plan.lease).await?;
        Ok(RunResult {
            run: self.plan.lease.run.clone(),
            status,
            state: std::mem::take(&mut self.plan.state),
        })
    }

    pub(super) fn keep_lease(&mut self) {
        let engine = self.plan.engine.clone();
        let lease = self.plan.lease.clone();
        let to = self.host.to.clone();
        self.ticks.push(Box::pin(async move {
            loop {
                engine.clock.sleep(engine.lease_ttl / 3).await;
                if let Err(e) = engine.store.renew(&lease, engine.lease_ttl).await {
                    // A driver that is gone has no lease to lose.
                    drop(to.send(Msg::LeaseLost(e.into())).await);
                    return Tick::Nothing;
                }
            }
        }));
    }
}

impl Drop for Driver {
    /// Dropped while it drives: what runs is killed as far as that can be done at once, and the
    /// run may be taken over at once.
    fn drop(&mut self) {
        for (_, h) in self.handles.values() {
            // One that cannot be killed at once ends when it next speaks to the engine.
            let _ = at_once(&mut h.cancel(CancelMode::Hard));
        }
        if !self.lease_held {
            return;
        }
        let (store, lease) = (self.plan.engine.store.clone(), self.plan.lease.clone());
        give_back(store, lease);
    }
}
