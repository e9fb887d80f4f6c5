//! What is to start.

use super::{After, Driver, Tick};
use crate::{
    Event, Node, expand,
    placement::never_ran,
    schema::input_fits,
    state::{Ix, Start},
};
use smallhands_core::{
    BlobRef, Digest, DispatchKey, Failure, FailureClass, Resources, TaskEnvelope,
};
use std::{sync::Arc, time::Duration};

impl Driver {
    pub(super) fn schedule(&mut self) {
        self.set_aside();
        if self.stopping || self.pausing || self.plan.state.cancelling {
            return;
        }
        loop {
            while let Some(ix) = self.plan.state.owed() {
                let task = self.plan.state.nodes.at(ix).spec.id.clone();
                let children = expand::compensation(&self.plan.state, ix);
                self.log(Event::Expanded { task, children });
            }
            if !self.plan.state.failing {
                self.judge();
            }
            if self.plan.state.running() >= self.plan.engine.max_parallel {
                return;
            }
            match self.next_start() {
                Start::Task(ix) => self.start(ix),
                Start::Later(ms) => {
                    if !self.rate_tick {
                        self.rate_tick = true;
                        self.later(Duration::from_millis(ms), Tick::Rate);
                    }
                    return;
                }
                Start::Nothing => return,
            }
        }
    }

    fn next_start(&self) -> Start {
        let (state, engine) = (&self.plan.state, &self.plan.engine);
        let waits = |ix: Ix| self.aside.values().any(|a| *a == ix);
        let Some(capacity) = engine.capacity else {
            return state.next_start(self.at, |ix, _| !waits(ix));
        };
        let used = state.in_use();
        // What never fits fails when it is started.
        let fits = |ix: Ix, n: &Node| {
            let need = n.spec.resources;
            let never = !within(Resources::default(), need, capacity);
            (never || within(used, need, capacity)) && !waits(ix)
        };
        state.next_start(self.at, fits)
    }

    fn start(&mut self, ix: Ix) {
        let state = &self.plan.state;
        let n = state.nodes.at(ix);
        let task = n.spec.id.clone();
        let unplaceable = (self.plan.engine.capacity)
            .filter(|c| !within(Resources::default(), n.spec.resources, *c));
        let input = match expand::children(state, ix) {
            Some(Ok(children)) => {
                self.log(Event::Expanded { task, children });
                return;
            }
            Some(Err(f)) => Err(f),
            None if unplaceable.is_some() => Err(too_big(&n.spec.resources)),
            None => state.input_for(ix),
        };
        let input = input.and_then(|v| input_fits(&n.spec, &v).map(|()| v));
        let (attempt, again) = (n.attempt, state.was_begun(ix));
        let fence = self.log_of(ix, Event::Dispatched { task, attempt });
        match input {
            Ok(input) => {
                let env = self.envelope(ix, fence, again, input);
                self.after.push(After::Place(ix, Arc::new(env)));
            }
            Err(f) => self.ended(ix, fence, never_ran(f)),
        }
    }

    fn judge(&mut self) {
        while let Some(ix) = self.plan.state.undecided() {
            let outputs = self.plan.state.outputs_for(ix);
            let n = self.plan.state.nodes.at(ix);
            let task = n.spec.id.clone();
            let holds = match &n.spec.when {
                Some(c) => self.plan.engine.conditions.holds(c, &outputs),
                None => Ok(true),
            };
            let failure = holds.as_ref().err().cloned();
            let holds = holds.unwrap_or(true);
            self.log(Event::Judged {
                task: task.clone(),
                holds,
            });
            if let Some(why) = failure {
                let f = Failure::new("condition.failed", FailureClass::Input, why);
                let fence = self.log(Event::Dispatched { task, attempt: 1 });
                self.ended(ix, fence, never_ran(f));
            }
        }
    }

    pub(super) fn key(&self, ix: Ix, fence: u64) -> DispatchKey {
        let n = self.plan.state.nodes.at(ix);
        DispatchKey {
            run: self.plan.lease.run.clone(),
            task: n.spec.id.clone(),
            attempt: n.attempt,
            fence,
        }
    }

    fn envelope(&self, ix: Ix, fence: u64, again: bool, input: serde_json::Value) -> TaskEnvelope {
        let state = &self.plan.state;
        let n = state.nodes.at(ix);
        let nothing = || BlobRef {
            digest: Digest::of_bytes(b""),
            len: 0,
        };
        TaskEnvelope {
            v: TaskEnvelope::VERSION,
            key: self.key(ix, fence),
            spec: n.spec.clone(),
            iteration: n.iteration,
            again,
            input,
            steps: n.steps.clone(),
            answers: n.answers.clone(),
            view: n.spec.view.then(|| state.view()),
            config: state.config.clone().unwrap_or_else(nothing),
            secrets: state.secrets.clone(),
            traceparent: None,
        }
    }
}

fn within(used: Resources, more: Resources, capacity: Resources) -> bool {
    let fits = |u: u32, m: u32, c: u32| c == 0 || m == 0 || u.saturating_add(m) <= c;
    fits(used.cpu_milli, more.cpu_milli, capacity.cpu_milli)
        && fits(used.memory_mb, more.memory_mb, capacity.memory_mb)
        && fits(used.gpus, more.gpus, capacity.gpus)
}

fn too_big(r: &Resources) -> Failure {
    let why = format!(
        "it asks for {} milli-CPU, {} MiB and {} accelerators, more than the engine has in all",
        r.cpu_milli, r.memory_mb, r.gpus
    );
    Failure::new("task.unschedulable", FailureClass::Unschedulable, why)
        .hint("ask for less, or give the engine a greater capacity")
}
