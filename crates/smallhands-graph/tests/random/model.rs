//! The fold against a model that was written apart from it: a map from tasks to states that is
//! recomputed from scratch until nothing changes. It knows plain tasks, and what is done to them.

use proptest::prelude::*;
use serde_json::json;
use smallhands_core::{
    AttemptReport, Condition, Failure, FailureClass, Halt, Join, OnFailure, Outcome, Question, Ran,
    Retry, TaskId, TaskSpec, Timestamp,
};
use smallhands_graph::{Event, GraphPatch, RunState};
use smallhands_testkit::SimRng;
use std::{collections::BTreeMap, sync::Arc};

/// How a task stands, as the model sees it.
#[derive(Clone, Debug, PartialEq)]
enum Is {
    /// Waiting, undecided or ready: which of these follows from the rest.
    Open,
    Running(u64),
    Asleep,
    Done,
    Failed,
    Skipped,
    Cancelled,
}

#[derive(Clone, Debug)]
struct Task {
    spec: TaskSpec,
    is: Is,
    attempt: u32,
    losses: u32,
    judged: Option<bool>,
    asked: bool,
    answered: bool,
    /// Placed before, and not revived since.
    started: bool,
    withdrawn: bool,
}

#[derive(Clone, Debug, Default)]
struct Model {
    tasks: BTreeMap<TaskId, Task>,
    failing: bool,
}

impl Model {
    fn gives(&self, id: &TaskId) -> Option<bool> {
        let t = self.tasks.get(id)?;
        match t.is {
            Is::Done => Some(true),
            Is::Failed => Some(t.spec.on_failure == OnFailure::Continue),
            Is::Skipped | Is::Cancelled => Some(false),
            _ => None,
        }
    }
    /// How many of its needs gave something, and how many still may.
    fn needs(&self, t: &Task) -> (usize, usize, usize) {
        let given: Vec<_> = t.spec.needs.iter().map(|n| self.gives(n)).collect();
        let of = |w| given.iter().filter(|g| **g == w).count();
        let wanted = match t.spec.join {
            Join::Any => 1.min(given.len()),
            Join::AtLeast(n) => n as usize,
            _ => given.len(),
        };
        (of(Some(true)), of(None), wanted)
    }
    /// What follows by itself, until nothing more does.
    fn settle(&mut self) {
        loop {
            let hopeless = |t: &&Task| {
                let (good, open, wanted) = self.needs(t);
                let never = !t.started && good + open < wanted;
                t.is == Is::Open && (t.judged == Some(false) || never)
            };
            let Some(id) = self
                .tasks
                .values()
                .find(hopeless)
                .map(|t| t.spec.id.clone())
            else {
                break;
            };
            self.tasks.get_mut(&id).unwrap().is = Is::Skipped;
        }
        for t in self.tasks.values_mut() {
            t.asked &= matches!(t.is, Is::Open | Is::Running(_) | Is::Asleep);
            self.failing |= t.is == Is::Failed && t.spec.on_failure == OnFailure::FailRun;
        }
    }
    fn word(&self, t: &Task) -> &'static str {
        let (good, _, wanted) = self.needs(t);
        match t.is {
            Is::Open if t.started => "ready",
            Is::Open if good < wanted => "waiting",
            Is::Open if t.spec.when.is_some() && t.judged.is_none() => "undecided",
            Is::Open => "ready",
            Is::Running(_) => "running",
            Is::Asleep => "suspended",
            Is::Done => "done",
            Is::Failed => "failed",
            Is::Skipped => "skipped",
            Is::Cancelled => "cancelled",
        }
    }

    fn apply(&mut self, seq: u64, e: &Event) {
        match e {
            Event::Patched { patch, .. } => self.patch(patch),
            Event::Judged { task, holds } => self.at(task).judged = Some(*holds),
            Event::Dispatched { task, attempt } => {
                let t = self.at(task);
                (t.is, t.attempt, t.started) = (Is::Running(seq), *attempt, true);
            }
            Event::Asked { task, .. } => self.at(task).asked = true,
            Event::Answered { task, .. } => {
                let t = self.at(task);
                (t.asked, t.answered) = (false, true);
                if t.is == Is::Asleep {
                    t.is = Is::Open;
                }
            }
            Event::Ended {
                task,
                fence,
                report,
                ..
            } => self.ended(task, *fence, report),
            Event::Revived { tasks } => self.revive(tasks),
            _ => {}
        }
        self.settle();
    }
    fn at(&mut self, id: &TaskId) -> &mut Task {
        self.tasks.get_mut(id).unwrap()
    }
    fn patch(&mut self, p: &GraphPatch) {
        for spec in &p.add {
            let t = Task {
                spec: (**spec).clone(),
                is: Is::Open,
                attempt: 1,
                losses: 0,
                judged: None,
                asked: false,
                answered: false,
                started: false,
                withdrawn: false,
            };
            self.tasks.insert(spec.id.clone(), t);
        }
        self.settle();
        for id in &p.cancel {
            let t = self.at(id);
            t.withdrawn = true;
            if !matches!(t.is, Is::Done | Is::Failed | Is::Skipped | Is::Cancelled) {
                t.is = Is::Cancelled;
            }
        }
    }
    fn ended(&mut self, task: &TaskId, fence: u64, report: &AttemptReport) {
        let t = self.at(task);
        if t.is != Is::Running(fence) {
            return;
        }
        t.is = match &report.outcome {
            Outcome::Done(_) => Is::Done,
            Outcome::Halted(Halt::Suspended(_)) if t.answered => Is::Open,
            Outcome::Halted(Halt::Suspended(_)) if t.asked => Is::Asleep,
            Outcome::Halted(Halt::Suspended(_)) => Is::Failed,
            Outcome::Halted(Halt::Failed(f)) if f.class == FailureClass::WorkerLost => {
                t.losses += 1;
                if t.losses > 3 { Is::Failed } else { Is::Open }
            }
            Outcome::Halted(Halt::Failed(f))
                if f.retryable && t.attempt < t.spec.retry.max_attempts =>
            {
                (t.attempt, t.losses) = (t.attempt + 1, 0);
                Is::Open
            }
            Outcome::Halted(Halt::Failed(_)) => Is::Failed,
            _ => Is::Cancelled,
        };
    }
    fn revive(&mut self, tasks: &[TaskId]) {
        self.failing = false;
        for t in self.tasks.values_mut() {
            let named = tasks.contains(&t.spec.id);
            let skipped = t.is == Is::Skipped && t.judged != Some(false);
            if named || skipped || t.is == Is::Cancelled && !t.withdrawn {
                (t.is, t.started) = (Is::Open, false);
            }
            if named {
                (t.attempt, t.losses) = (t.attempt + 1, 0);
            }
        }
    }
}

// ---- what may happen next

fn pick<T: Clone>(rng: &mut SimRng, of: &[T]) -> Option<T> {
    of.get(usize::try_from(rng.below(of.len() as u64)).unwrap())
        .cloned()
}

fn spec(rng: &mut SimRng, id: String, before: &[TaskId]) -> TaskSpec {
    let mut t = TaskSpec::new(id, "w");
    for _ in 0..rng.below(4) {
        if let Some(need) = pick(rng, before) {
            t = t.needs(need.as_str());
        }
    }
    let n = t.needs.len() as u64;
    if n > 0 {
        t.join = match rng.below(4) {
            0 => Join::Any,
            1 => Join::AtLeast(u32::try_from(1 + rng.below(n)).unwrap()),
            _ => Join::All,
        };
    }
    t.when = rng.percent(25).then(|| Condition::Named("c".into()));
    t.on_failure = match rng.below(4) {
        0 => OnFailure::FailRun,
        1 => OnFailure::Continue,
        _ => OnFailure::SkipDependents,
    };
    t.group = rng.percent(30).then(|| "g".into());
    t.resources.cpu_milli = u32::try_from(rng.below(3)).unwrap();
    t.retry(Retry::attempts(u32::try_from(1 + rng.below(3)).unwrap()))
}

fn patch(rng: &mut SimRng, m: &Model, n: u64) -> Event {
    let ids: Vec<_> = m.tasks.keys().cloned().collect();
    let mut patch = GraphPatch::default();
    if rng.percent(60) || ids.is_empty() {
        let mut before = ids;
        for i in 0..1 + rng.below(4) {
            let t = spec(rng, format!("t{n}.{i}"), &before);
            before.push(t.id.clone());
            patch.add.push(Arc::new(t));
        }
    } else {
        patch.cancel.extend(pick(rng, &ids));
    }
    Event::Patched { patch, by: None }
}

fn outcome(rng: &mut SimRng) -> Outcome {
    let failed = |class| Failure::new("test", class, "");
    let halt = match rng.below(10) {
        0..4 => return Outcome::Done(json!(1).into()),
        4 | 5 => Halt::Failed(failed(FailureClass::Task).retryable()),
        6 => Halt::Failed(failed(FailureClass::Task)),
        7 => Halt::Failed(failed(FailureClass::WorkerLost)),
        8 => Halt::Suspended("q".into()),
        _ => Halt::Cancelled,
    };
    Outcome::Halted(halt)
}

fn next(rng: &mut SimRng, m: &Model, seq: u64) -> Event {
    let all: Vec<_> = m.tasks.values().cloned().collect();
    let Some(t) = pick(rng, &all).filter(|_| rng.percent(90)) else {
        return patch(rng, m, seq);
    };
    let task = t.spec.id.clone();
    match (m.word(&t), &t.is) {
        ("undecided", _) => Event::Judged {
            task,
            holds: rng.percent(70),
        },
        ("ready", _) => Event::Dispatched {
            task,
            attempt: t.attempt,
        },
        (_, Is::Running(_)) if !t.asked && !t.answered && rng.percent(30) => Event::Asked {
            task,
            id: "q".into(),
            question: Question::new("?"),
        },
        (_, Is::Running(_) | Is::Asleep) if t.asked && rng.percent(60) => Event::Answered {
            task,
            id: "q".into(),
            answer: json!(1),
        },
        (_, Is::Running(fence)) => Event::Ended {
            task,
            // Sometimes one that was set aside.
            fence: fence - u64::from(rng.percent(15)),
            report: AttemptReport {
                outcome: outcome(rng),
                ran: Ran::Maybe,
            },
            retry_after_ms: None,
            repeat: false,
        },
        _ if rng.percent(5) => {
            let failed = all.iter().filter(|t| t.is == Is::Failed);
            Event::Revived {
                tasks: failed.map(|t| t.spec.id.clone()).collect(),
            }
        }
        _ => patch(rng, m, seq),
    }
}

fn agree(s: &RunState, m: &Model) -> Result<(), String> {
    s.check_invariants()?;
    if (s.nodes.len(), s.failing) != (m.tasks.len(), m.failing) {
        return Err(format!("failing: {} and {}", s.failing, m.failing));
    }
    for t in m.tasks.values() {
        let n = &s.nodes[&t.spec.id];
        let (kept, model) = ((n.state.as_str(), n.attempt), (m.word(t), t.attempt));
        if kept != model {
            return Err(format!(
                "`{}` is {kept:?}, in the model {model:?}",
                t.spec.id
            ));
        }
    }
    Ok(())
}

fn walk(seed: u64) -> Result<(), String> {
    let mut rng = SimRng::new(seed);
    let (mut state, mut model) = (RunState::default(), Model::default());
    for seq in 1..=100 {
        let e = next(&mut rng, &model, seq);
        let at = |why: String| format!("at {seq} ({e:?}): {why}");
        state.apply(seq, Timestamp(seq), &e).map_err(at)?;
        model.apply(seq, &e);
        agree(&state, &model).map_err(at)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 250,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    #[test]
    fn the_fold_does_what_the_model_does(seed in any::<u64>()) {
        if let Err(e) = walk(seed) {
            prop_assert!(false, "seed {seed}: {e}");
        }
    }
}
