//! The fold against a model that was written apart from it: a map from tasks to what was done to
//! them, from which all else is derived anew each time. It knows plain tasks.

use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
    strategy::Union,
};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};
use serde_json::json;
use smallhands_core::{
    AttemptReport, Condition, Failure, FailureClass, Halt, Join, OnFailure, Outcome, Question, Ran,
    Retry, TaskId, TaskSpec, Timestamp,
};
use smallhands_graph::{Event, GraphPatch, RunState, RunStatus};
use std::collections::BTreeMap;

/// What is done to a run, without numbers of records, so that it shrinks.
#[derive(Clone, Debug)]
enum Act {
    Add(Vec<TaskSpec>),
    Withdraw(TaskId),
    Judge(TaskId, bool),
    Place(TaskId),
    /// With a default, or without.
    Ask(TaskId, bool),
    Answer(TaskId),
    Expire(TaskId),
    End {
        task: TaskId,
        how: How,
        /// By a placement that was set aside.
        stale: bool,
        /// The next attempt has to wait.
        delay: bool,
    },
    /// All that have failed.
    Revive,
    Cancel,
    Stop,
    Open,
}

#[derive(Clone, Copy, Debug)]
enum How {
    Done,
    /// What a retry may mend, or not.
    Failed(bool),
    Lost,
    Asleep,
    Cancelled,
}

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
    /// Whether it has a default.
    asked: Option<bool>,
    answered: bool,
    /// Placed before, and not revived since.
    started: bool,
    delayed: bool,
    withdrawn: bool,
}

#[derive(Clone, Debug, Default)]
struct Model {
    tasks: BTreeMap<TaskId, Task>,
    cancelling: bool,
    status: RunStatus,
    seq: u64,
    /// What the last act was as a record.
    event: Option<Event>,
}

impl Model {
    fn gives(&self, id: &TaskId) -> Option<bool> {
        let t = &self.tasks[id];
        match t.is {
            Is::Done => Some(true),
            Is::Failed => Some(t.spec.on_failure == OnFailure::Continue),
            Is::Skipped | Is::Cancelled => Some(false),
            _ => None,
        }
    }
    /// How many of its needs gave something, how many still may, how many are to.
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
            let found = self.tasks.values().find(hopeless);
            let Some(id) = found.map(|t| t.spec.id.clone()) else {
                break;
            };
            self.at(&id).is = Is::Skipped;
        }
        for t in self.tasks.values_mut() {
            if t.settled() {
                (t.asked, t.delayed) = (None, false);
            }
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
    fn those(&self, is: impl Fn(&Task) -> bool) -> Vec<TaskId> {
        let those = self.tasks.values().filter(|t| is(t));
        those.map(|t| t.spec.id.clone()).collect()
    }
    fn failing(&self) -> bool {
        let fails = |t: &Task| t.is == Is::Failed && t.spec.on_failure == OnFailure::FailRun;
        self.tasks.values().any(fails)
    }
    /// How it ends if nothing more happens.
    fn rest(&self) -> RunStatus {
        match self.tasks.values().all(Task::settled) {
            _ if self.cancelling => RunStatus::Cancelled,
            _ if self.failing() => RunStatus::Failed,
            true => RunStatus::Succeeded,
            false => RunStatus::Waiting,
        }
    }
    fn at(&mut self, id: &TaskId) -> &mut Task {
        self.tasks.get_mut(id).unwrap()
    }

    // ---- what an act does

    fn act(&mut self, a: &Act) {
        match a {
            Act::Add(specs) => self.add(specs),
            Act::Withdraw(id) => {
                let t = self.at(id);
                (t.is, t.withdrawn) = (Is::Cancelled, true);
            }
            Act::Judge(id, holds) => self.at(id).judged = Some(*holds),
            Act::Place(id) => {
                let is = Is::Running(self.seq);
                let t = self.at(id);
                (t.is, t.started, t.delayed) = (is, true, false);
            }
            Act::Ask(id, default) => self.at(id).asked = Some(*default),
            Act::Expire(id) if self.at(id).asked == Some(false) => self.at(id).is = Is::Failed,
            Act::Answer(id) | Act::Expire(id) => {
                let t = self.at(id);
                (t.asked, t.answered) = (None, true);
                if t.is == Is::Asleep {
                    t.is = Is::Open;
                }
            }
            Act::End { stale: true, .. } => {}
            Act::End {
                task, how, delay, ..
            } => self.at(task).end(*how, *delay),
            Act::Revive => self.revive(),
            Act::Cancel => self.cancelling = true,
            Act::Stop => self.status = self.rest(),
            Act::Open => self.status = RunStatus::Running,
        }
        self.settle();
    }
    fn add(&mut self, specs: &[TaskSpec]) {
        for spec in specs {
            let t = Task {
                spec: spec.clone(),
                is: Is::Open,
                attempt: 1,
                losses: 0,
                judged: None,
                asked: None,
                answered: false,
                started: false,
                delayed: false,
                withdrawn: false,
            };
            self.tasks.insert(spec.id.clone(), t);
        }
    }
    fn revive(&mut self) {
        self.cancelling = false;
        for t in self.tasks.values_mut() {
            let skipped = t.is == Is::Skipped && t.judged != Some(false);
            let cancelled = t.is == Is::Cancelled && !t.withdrawn;
            if t.is == Is::Failed {
                (t.attempt, t.losses) = (t.attempt + 1, 0);
            } else if !(skipped || cancelled) {
                continue;
            }
            (t.is, t.started) = (Is::Open, false);
        }
    }

    // ---- what may be done

    fn allows(&self, a: &Act) -> bool {
        let at = |id| self.tasks.get(id);
        let word = |id| at(id).map_or("", |t| self.word(t));
        let alive = |id| matches!(word(id), "running" | "suspended");
        match a {
            Act::Add(specs) => specs.iter().enumerate().all(|(n, t)| {
                let known = |id| at(id).is_some() || specs[..n].iter().any(|s| s.id == *id);
                !known(&t.id) && t.needs.iter().all(known)
            }),
            Act::Withdraw(id) => at(id).is_some_and(|t| !t.settled()),
            Act::Judge(id, _) => word(id) == "undecided",
            Act::Place(id) => word(id) == "ready",
            Act::Ask(id, _) => {
                let fresh = |t: &Task| t.asked.is_none() && !t.answered;
                word(id) == "running" && at(id).is_some_and(fresh)
            }
            Act::Answer(id) | Act::Expire(id) => {
                alive(id) && at(id).is_some_and(|t| t.asked.is_some())
            }
            Act::End { task, .. } => word(task) == "running",
            Act::Revive | Act::Cancel | Act::Stop | Act::Open => true,
        }
    }

    fn record(&self, a: &Act) -> Event {
        match a.clone() {
            Act::Add(specs) => patched(GraphPatch::adding(specs)),
            Act::Withdraw(id) => patched(GraphPatch {
                cancel: vec![id],
                ..GraphPatch::default()
            }),
            Act::Judge(task, holds) => Event::Judged { task, holds },
            Act::Place(task) => {
                let attempt = self.tasks[&task].attempt;
                Event::Dispatched { task, attempt }
            }
            Act::Ask(task, default) => {
                let mut question = Question::new("?");
                question.default = default.then(|| json!(2));
                let id = "q".into();
                Event::Asked { task, id, question }
            }
            Act::Answer(task) => Event::Answered {
                task,
                id: "q".into(),
                answer: json!(1),
            },
            Act::Expire(task) => Event::Expired {
                task,
                id: "q".into(),
            },
            Act::End {
                task,
                how,
                stale,
                delay,
            } => {
                let Is::Running(fence) = self.tasks[&task].is else {
                    unreachable!("only what runs ends")
                };
                Event::Ended {
                    fence: fence - u64::from(stale),
                    report: AttemptReport {
                        outcome: how.outcome(),
                        ran: Ran::Maybe,
                    },
                    retry_after_ms: delay.then_some(5),
                    repeat: false,
                    task,
                }
            }
            Act::Revive => Event::Revived {
                tasks: self.those(|t| t.is == Is::Failed),
            },
            Act::Cancel => Event::CancelRequested,
            Act::Stop => Event::Stopped {
                status: self.rest(),
            },
            Act::Open => Event::Opened {
                owner: "me".into(),
                epoch: self.seq,
            },
        }
    }
}

fn patched(patch: GraphPatch) -> Event {
    Event::Patched { patch, by: None }
}

impl Task {
    fn settled(&self) -> bool {
        !matches!(self.is, Is::Open | Is::Running(_) | Is::Asleep)
    }
    fn end(&mut self, how: How, delay: bool) {
        self.is = match how {
            How::Done => Is::Done,
            How::Asleep if self.answered => Is::Open,
            How::Asleep if self.asked.is_some() => Is::Asleep,
            How::Lost if self.losses < 3 => {
                self.losses += 1;
                Is::Open
            }
            How::Failed(true) if self.attempt < self.spec.retry.max_attempts => {
                (self.attempt, self.losses, self.delayed) = (self.attempt + 1, 0, delay);
                Is::Open
            }
            How::Asleep | How::Lost | How::Failed(_) => Is::Failed,
            How::Cancelled => Is::Cancelled,
        };
    }
}

impl How {
    fn outcome(self) -> Outcome {
        let failed = |class| Failure::new("test", class, "");
        Outcome::Halted(match self {
            Self::Done => return Outcome::Done(json!(1).into()),
            Self::Failed(true) => Halt::Failed(failed(FailureClass::Task).retryable()),
            Self::Failed(false) => Halt::Failed(failed(FailureClass::Task)),
            Self::Lost => Halt::Failed(failed(FailureClass::WorkerLost)),
            Self::Asleep => Halt::Suspended("q".into()),
            Self::Cancelled => Halt::Cancelled,
        })
    }
}

// ---- what may happen next

fn spec() -> impl Strategy<Value = (TaskSpec, Vec<Index>)> {
    let join = prop_oneof![
        2 => Just(Join::All),
        1 => Just(Join::Any),
        1 => (1..4_u32).prop_map(Join::AtLeast),
    ];
    let policy = prop_oneof![
        1 => Just(OnFailure::FailRun),
        1 => Just(OnFailure::Continue),
        2 => Just(OnFailure::SkipDependents),
    ];
    let (rare, half) = (prop::bool::weighted(0.25), any::<bool>());
    let parts = (join, policy, rare, half, 0..3_u32, 1..4_u32);
    (parts, vec(any::<Index>(), 0..4)).prop_map(|(parts, needs)| {
        let (join, on_failure, when, group, cpu, attempts) = parts;
        let mut t = TaskSpec::new("", "w").retry(Retry::attempts(attempts));
        (t.join, t.on_failure) = (join, on_failure);
        t.when = when.then(|| Condition::Named("c".into()));
        t.group = group.then(|| "g".into());
        t.resources.cpu_milli = cpu;
        (t, needs)
    })
}

fn add(m: &Model) -> impl Strategy<Value = Act> + use<> {
    let ids = m.those(|_| true);
    let first = m.seq;
    vec(spec(), 1..5).prop_map(move |specs| {
        let mut ids = ids.clone();
        let named = specs.into_iter().enumerate().map(|(n, (mut t, needs))| {
            t.id = format!("t{first}.{n}").into();
            if !ids.is_empty() {
                for need in needs {
                    t = t.needs(need.get(&ids).as_str());
                }
            }
            t.join = match t.join {
                Join::AtLeast(n) if !t.needs.is_empty() => {
                    Join::AtLeast(n.min(u32::try_from(t.needs.len()).unwrap()))
                }
                _ if t.needs.is_empty() => Join::All,
                other => other,
            };
            ids.push(t.id.clone());
            t
        });
        Act::Add(named.collect())
    })
}

fn end(of: Vec<TaskId>) -> impl Strategy<Value = Act> {
    let how = prop_oneof![
        4 => Just(How::Done),
        2 => Just(How::Failed(true)),
        1 => Just(How::Failed(false)),
        2 => Just(How::Lost),
        1 => Just(How::Asleep),
        1 => Just(How::Cancelled),
    ];
    let stale = prop::bool::weighted(0.15);
    (select(of), how, stale, any::<bool>()).prop_map(|(task, how, stale, delay)| Act::End {
        task,
        how,
        stale,
        delay,
    })
}

impl ReferenceStateMachine for Model {
    type State = Self;
    type Transition = Act;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self::default()).boxed()
    }
    fn transitions(m: &Self) -> BoxedStrategy<Act> {
        let mut all = vec![
            (3, add(m).boxed()),
            (
                1,
                select(vec![Act::Revive, Act::Cancel, Act::Stop, Act::Open]).boxed(),
            ),
        ];
        let mut some = |weight, of: Vec<TaskId>, act: fn(Vec<TaskId>) -> BoxedStrategy<Act>| {
            if !of.is_empty() {
                all.push((weight, act(of)));
            }
        };
        let word = |w: &'static str| m.those(|t| m.word(t) == w);
        let asking = m.those(|t| t.asked.is_some() && matches!(t.is, Is::Running(_) | Is::Asleep));
        some(1, m.those(|t| !t.settled()), |of| {
            select(of).prop_map(Act::Withdraw).boxed()
        });
        some(8, word("undecided"), |of| {
            let judge = (select(of), prop::bool::weighted(0.7));
            judge.prop_map(|(t, holds)| Act::Judge(t, holds)).boxed()
        });
        some(8, word("ready"), |of| {
            select(of).prop_map(Act::Place).boxed()
        });
        some(
            2,
            m.those(|t| m.allows(&Act::Ask(t.spec.id.clone(), true))),
            |of| {
                let ask = (select(of), any::<bool>());
                ask.prop_map(|(t, default)| Act::Ask(t, default)).boxed()
            },
        );
        some(3, asking.clone(), |of| {
            select(of).prop_map(Act::Answer).boxed()
        });
        some(1, asking, |of| select(of).prop_map(Act::Expire).boxed());
        some(10, word("running"), |of| end(of).boxed());
        Union::new_weighted(all).boxed()
    }
    fn apply(mut m: Self, a: &Act) -> Self {
        m.seq += 1;
        m.event = Some(m.record(a));
        m.act(a);
        m
    }
    fn preconditions(m: &Self, a: &Act) -> bool {
        m.allows(a)
    }
}

// ---- both

struct Fold;

impl StateMachineTest for Fold {
    type SystemUnderTest = RunState;
    type Reference = Model;

    fn init_test(_: &Model) -> RunState {
        RunState::default()
    }
    fn apply(mut s: RunState, m: &Model, _: Act) -> RunState {
        let event = m.event.as_ref().unwrap();
        s.apply(m.seq, Timestamp(m.seq), event).unwrap();
        s
    }
    fn check_invariants(s: &RunState, m: &Model) {
        s.check_invariants().unwrap();
        let told = (
            s.nodes.len(),
            s.failing,
            s.cancelling,
            s.status,
            s.resting_status(),
        );
        let modelled = (m.tasks.len(), m.failing(), m.cancelling, m.status, m.rest());
        assert_eq!(told, modelled, "after {:?}", m.event);
        for t in m.tasks.values() {
            let n = &s.nodes[&t.spec.id];
            let told = (n.state.as_str(), n.attempt, n.questions.len());
            let modelled = (m.word(t), t.attempt, usize::from(t.asked.is_some()));
            assert_eq!(told, modelled, "`{}` after {:?}", t.spec.id, m.event);
        }
        let mut ready: Vec<_> = s.ready().cloned().collect();
        ready.sort();
        let modelled = m.those(|t| m.word(t) == "ready" && !t.delayed);
        assert_eq!(ready, modelled, "ready after {:?}", m.event);
    }
}

prop_state_machine! {
    #![proptest_config(ProptestConfig {
        cases: 250,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    #[test]
    fn the_fold_does_what_the_model_does(sequential 1..100 => Fold);
}
