//! Placements: from the executor and back.

use super::{After, Driver, Placement, Tick};
use crate::{
    Event, GraphError, GraphPatch,
    placement::{at_once, never_ran, restarted, within},
    schema::output_fits,
    state::Ix,
};
use serde_json::json;
use smallhands_core::{
    AttemptReport, CancelMode, Digest, Failure, FailureClass, Halt, Outcome, Reattached,
    TaskEnvelope, TaskHandle, TaskHost,
};
use std::{sync::Arc, time::Duration};

impl Driver {
    pub(super) async fn place(&mut self, ix: Ix, env: Arc<TaskEnvelope>) {
        let placement = (ix, env.key.fence);
        let engine = self.plan.engine.clone();
        let host: Arc<dyn TaskHost> = self.host.clone();
        self.open += 1;
        let mut submit = Box::pin(async move { engine.executor.submit(env, host).await });
        // Most executors answer at once, and then nothing has to be woken.
        match at_once(&mut submit) {
            Some(placed) => self.placed(placement, placed).await,
            None => self
                .placing
                .push(Box::pin(async move { (placement, submit.await) })),
        }
    }

    pub(super) async fn placed(&mut self, p: Placement, placed: super::Placed) {
        let handle = match placed {
            Ok(handle) => handle,
            Err(f) => return self.reported(p, never_ran(f)),
        };
        let state = &self.plan.state;
        let over = state.cancelling || state.failing && !state.undoes(p.0);
        let wanted = state.is_placed(p.0, p.1) && !over;
        if self.stopping || !wanted {
            handle.cancel(CancelMode::Soft).await;
        }
        self.handles.insert(p.1, (p.0, handle.clone()));
        self.follow(p, handle);
    }

    fn follow(&mut self, p: Placement, handle: Arc<dyn TaskHandle>) {
        // Two futures: most attempts have no limit, and then need little room.
        let Some(limit) = self.limit(p.0) else {
            let reported = async move { (p, handle.report().await) };
            return self.live.push(Box::pin(reported));
        };
        let engine = self.plan.engine.clone();
        let within = async move { (p, within(&engine, &*handle, limit).await) };
        self.live.push(Box::pin(within));
    }

    /// The time of one attempt, or what is left of the time of all.
    fn limit(&self, ix: Ix) -> Option<Duration> {
        let state = &self.plan.state;
        let own = state.nodes.find(ix)?.spec.timeout_ms;
        let all = state.time_left(ix, self.at);
        own.into_iter().chain(all).min().map(Duration::from_millis)
    }

    /// After a restart: what was placed is found again, or is lost.
    pub(super) async fn find_running(&mut self) -> Result<(), GraphError> {
        let running = self.plan.state.placed();
        for (ix, fence) in running {
            let host: Arc<dyn TaskHost> = self.host.clone();
            let key = self.key(ix, fence);
            match self.plan.engine.executor.reattach(&key, host).await? {
                Reattached::Running(handle) => {
                    self.open += 1;
                    self.handles.insert(fence, (ix, handle.clone()));
                    self.follow((ix, fence), handle);
                }
                Reattached::Finished(report) => self.ended(ix, fence, report),
                _ => self.ended(ix, fence, restarted()),
            }
        }
        self.flush().await
    }

    pub(super) fn reported(&mut self, (ix, fence): Placement, report: AttemptReport) {
        self.open -= 1;
        self.aside.remove(&fence);
        if self.stopping && !matches!(report.outcome, Outcome::Done(_)) {
            // Left as running: whoever resumes the run finds it so.
            self.handles.remove(&fence);
            return;
        }
        self.ended(ix, fence, report);
    }

    /// Whatever made the run fail or set a placement aside: a report, a condition, an input, a
    /// deadline, a patch.
    pub(super) async fn stop_unwanted(&mut self) {
        if self.plan.state.failing && !self.failed {
            self.failed = true;
            self.stop_all().await;
        }
        self.stop_superseded().await;
    }

    pub(super) fn ended(&mut self, ix: Ix, fence: u64, mut report: AttemptReport) {
        if let Some((_, h)) = self.handles.remove(&fence) {
            self.after.push(After::Acknowledge(h));
        }
        let state = &self.plan.state;
        let Some(n) = state.nodes.find(ix) else {
            return; // taken out of the graph while it ran
        };
        let task = n.spec.id.clone();
        let current = state.is_placed(ix, fence);
        let (mut grown, mut repeat, mut wait) = (None, false, None);
        if current {
            grown = self.accept(ix, &mut report);
            repeat = self.again(ix, &mut report);
            let next = self.plan.state.retry_attempt(ix, &report, self.at);
            wait = next.map(|n| self.backoff(ix, n, &report));
        }
        let ended = Event::Ended {
            task: task.clone(),
            fence,
            report,
            retry_after_ms: wait.map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)),
            repeat,
        };
        self.log_of(ix, ended);
        // The result and the work that it adds are one append.
        if let Some(patch) = grown {
            let by = Some(task);
            self.log(Event::Patched { patch, by });
        }
        if let Some(d) = wait.filter(|d| d.as_millis() > 0) {
            self.later(d, Tick::Wake(ix));
        }
        self.watch_deadlines(ix);
    }

    /// An output counts only if it fits its schema and what it adds fits the graph.
    fn accept(&self, ix: Ix, report: &mut AttemptReport) -> Option<GraphPatch> {
        let Outcome::Done(out) = &report.outcome else {
            return None;
        };
        let spec = &self.plan.state.nodes.at(ix).spec;
        let expansion = out.expansion.clone().filter(|_| spec.expands);
        let verdict = output_fits(spec, &out.value).and_then(|()| match expansion {
            None => Ok(None),
            Some(v) => {
                let rejected = |why: String| {
                    Failure::new("patch.rejected", FailureClass::Task, why).retryable()
                };
                let p: GraphPatch =
                    serde_json::from_value(v).map_err(|e| rejected(e.to_string()))?;
                let fits = self.plan.state.check_patch(&p);
                fits.map_err(|why| rejected(why.to_string()))?;
                Ok(Some(p))
            }
        });
        verdict.unwrap_or_else(|f| {
            report.outcome = Outcome::Halted(f.into());
            None
        })
    }

    /// Whether a loop goes on; one that may not go on fails.
    fn again(&self, ix: Ix, report: &mut AttemptReport) -> bool {
        let n = self.plan.state.nodes.at(ix);
        let (Some(r), Outcome::Done(out)) = (&n.spec.repeat, &report.outcome) else {
            return false;
        };
        let mut scope = serde_json::Map::new();
        scope.insert("output".into(), out.value.clone());
        scope.insert("iteration".into(), json!(n.iteration));
        let failure = match self.plan.engine.conditions.holds(&r.until, &scope) {
            Ok(true) => return false,
            Ok(false) if n.iteration < r.max => return true,
            Ok(false) => {
                let why = format!("after {} iterations its condition does not hold", r.max);
                Failure::new("loop.exhausted", FailureClass::Task, why)
                    .hint("allow more iterations, or look at what the last one gave")
            }
            Err(why) => Failure::new("condition.failed", FailureClass::Input, why),
        };
        report.outcome = Outcome::Halted(failure.into());
        false
    }

    fn backoff(&self, ix: Ix, next: u32, report: &AttemptReport) -> Duration {
        let spec = &self.plan.state.nodes.at(ix).spec;
        // Jitter without a source of randomness: a hash of who waits, the same in every replay.
        let who = format!("{}/{}/{next}", self.plan.lease.run, spec.id);
        let seed = Digest::of_bytes(who.as_bytes());
        let random = u32::from_str_radix(&seed.hex()[..8], 16).unwrap_or(0);
        let random = f64::from(random) / (f64::from(u32::MAX) + 1.0);
        let asked = match &report.outcome {
            Outcome::Halted(Halt::Failed(f)) => f.retry_after_ms,
            _ => None,
        };
        let own = spec.retry.delay_before(next, random);
        own.max(Duration::from_millis(asked.unwrap_or(0)))
    }

    /// A task whose placement was set aside, and that is to run again, waits until that has ended:
    /// what it is doing must not happen beside, or after, what the new one finds or does.
    pub(super) fn set_aside(&mut self) {
        if !self.plan.state.has_displaced() {
            return;
        }
        let state = &self.plan.state;
        let again = |ix: Ix| state.nodes.find(ix).is_some_and(|n| !n.state.is_settled());
        let gone = self.handles.iter().map(|(f, (ix, _))| (*f, *ix));
        let gone = gone.filter(|(f, ix)| !state.is_placed(*ix, *f) && again(*ix));
        for (fence, ix) in gone.collect::<Vec<_>>() {
            if self.aside.insert(fence, ix).is_none() {
                self.later(self.plan.engine.grace, Tick::Aside(fence));
            }
        }
    }

    pub(super) async fn aside_over(&mut self, fence: u64) {
        let gone = self.aside.remove(&fence);
        if let Some((_, h)) = gone.and_then(|_| self.handles.get(&fence)) {
            h.cancel(CancelMode::Hard).await;
        }
    }

    /// Stops placements that no longer count: what they still say is recorded and ignored.
    async fn stop_superseded(&mut self) {
        if !self.plan.state.take_displaced() {
            return;
        }
        let state = &self.plan.state;
        let gone = self
            .handles
            .iter()
            .filter(|(f, (ix, _))| !state.is_placed(*ix, **f));
        let gone: Vec<_> = gone.map(|(_, (_, h))| h.clone()).collect();
        for h in gone {
            h.cancel(CancelMode::Soft).await;
        }
    }
}
