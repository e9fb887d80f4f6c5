//! What tasks and people ask of the driver.

use super::{After, Driver, Tick};
use crate::{
    Event, GraphError, GraphPatch,
    control::is_new_answer,
    host::Reply,
    state::{Ix, NodeState},
};
use serde_json::Value;
use smallhands_core::{
    AskId, DispatchKey, Failure, FailureClass, Halt, HostCall, HostReply, PriorStep, Question,
    TaskId, Usage,
};
use std::time::Duration;

impl Driver {
    pub(super) fn call(&mut self, from: &DispatchKey, call: HostCall) -> Result<HostReply, Halt> {
        let (task, fence) = (from.task.clone(), from.fence);
        let placed = self.plan.state.nodes.ix(&task);
        let Some(ix) = placed.filter(|ix| self.plan.state.is_placed(*ix, fence)) else {
            return Err(Halt::Fenced);
        };
        let node = self.plan.state.nodes.at(ix);
        match call {
            HostCall::BeginStep(intent) => {
                let done = node.steps.iter().find_map(|s| match s {
                    PriorStep::Done(r) if r.intent.key == intent.key => Some(r.clone()),
                    _ => None,
                });
                if let Some(r) = done {
                    return Ok(HostReply::Recorded(r));
                }
                if let Some(most) = intent.reserve {
                    self.afford(ix, most)?;
                }
                self.log(Event::StepBegan {
                    task,
                    fence,
                    intent,
                });
            }
            HostCall::EndStep(record) => {
                let same = |s: &PriorStep| matches!(s, PriorStep::Done(r) if *r == record);
                if !node.steps.iter().rev().any(same) {
                    self.log(Event::StepEnded {
                        task,
                        fence,
                        record,
                    });
                }
            }
            HostCall::Reserve { id, most } => {
                self.afford(ix, most)?;
                self.log(Event::Reserved {
                    task,
                    fence,
                    id,
                    most,
                });
            }
            HostCall::Settle { id, actual } => drop(self.log(Event::Settled {
                task,
                fence,
                id,
                actual,
            })),
            HostCall::Ask { id, question } => {
                if let Some(a) = node.answers.get(&id) {
                    return Ok(HostReply::Answer(a.clone()));
                }
                if !node.questions.contains_key(&id) {
                    self.log(Event::Asked { task, id, question });
                }
                return Ok(HostReply::NotYet);
            }
            _ => {}
        }
        Ok(HostReply::Proceed)
    }

    fn afford(&self, ix: Ix, most: Usage) -> Result<(), Halt> {
        self.plan.state.fits(ix, most).map_err(|(whose, e)| {
            let why = format!("the budget of the {whose} is exhausted: {e}");
            Failure::new("budget.exhausted", FailureClass::Budget, why)
                .hint("raise the budget and resume with --retry-failed")
                .into()
        })
    }

    pub(super) fn answer(&mut self, task: TaskId, ask: AskId, value: Value, reply: Reply<()>) {
        let run = &self.plan.lease.run;
        match is_new_answer(&self.plan.state, run, &task, &ask, &value) {
            // Whoever asked may be gone.
            Err(e) => drop(reply.send(Err(e))),
            Ok(new) => {
                if new {
                    self.log(Event::Answered {
                        task,
                        id: ask,
                        answer: value,
                    });
                }
                self.after.push(After::Answered(reply));
            }
        }
    }

    pub(super) fn patch(&mut self, patch: GraphPatch, reply: Reply<u64>) {
        if let Err(why) = self.plan.state.check_patch(&patch) {
            // Whoever asked may be gone.
            drop(reply.send(Err(GraphError::Patch(why))));
            return;
        }
        self.log(Event::Patched { patch, by: None });
        let revision = self.plan.state.revision;
        self.after.push(After::Patched(reply, revision));
    }

    // ---- what time brings

    /// After a restart: waits that had begun go on, for as long as they still would. A clock that
    /// was set back makes none longer than it was to be.
    pub(super) fn set_clocks(&mut self) {
        let waits: Vec<_> = self.plan.state.delayed().collect();
        for (ix, until, ms) in waits {
            let left = until.0.saturating_sub(self.at.0).min(ms);
            self.later(Duration::from_millis(left), Tick::Wake(ix));
        }
        let asked: Vec<_> = self.plan.state.deadlines().map(|(ix, ..)| ix).collect();
        asked.into_iter().for_each(|ix| self.watch_deadlines(ix));
    }

    /// A task has gone to sleep: its questions end with their time.
    pub(super) fn watch_deadlines(&mut self, ix: Ix) {
        let Some(n) = self.plan.state.nodes.find(ix) else {
            return;
        };
        if n.state != NodeState::Suspended {
            return;
        }
        let left = |q: &Question| Some(q.deadline?.0.saturating_sub(self.at.0));
        let with_end = n
            .questions
            .iter()
            .filter_map(|(id, q)| Some((id.clone(), left(q)?)));
        let (task, with_end): (_, Vec<_>) = (n.spec.id.clone(), with_end.collect());
        for (id, ms) in with_end {
            if ms > 0 {
                self.later(Duration::from_millis(ms), Tick::Deadline(ix, id));
            } else {
                // At once: a run that seems to wait for an answer only would rest before the tick.
                let task = task.clone();
                self.log(Event::Expired { task, id });
            }
        }
    }

    pub(super) async fn tick(&mut self, t: Tick) {
        match t {
            Tick::Wake(ix) => self.plan.state.wake(ix),
            Tick::Rate => self.rate_tick = false,
            Tick::Aside(fence) => self.aside_over(fence).await,
            Tick::GraceOver => self.grace_over().await,
            Tick::Deadline(ix, id) => {
                let n = self.plan.state.nodes.find(ix);
                let asleep = n.filter(|n| n.state == NodeState::Suspended);
                if let Some(n) = asleep.filter(|n| n.questions.contains_key(&id)) {
                    let task = n.spec.id.clone();
                    self.log(Event::Expired { task, id });
                }
            }
            Tick::Nothing => {}
        }
    }
}
