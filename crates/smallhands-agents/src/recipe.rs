//! The shapes of the repair graph: data, so that a plan can be stored, drawn and resumed.

use crate::Candidate;
use serde::{Deserialize, Serialize};
use serde_json::json;
use smallhands_core::{OnFailure, Retry, TaskSpec};

/// The first tasks of a repair: `plan`, which grows the rest.
pub fn start() -> Vec<TaskSpec> {
    vec![
        TaskSpec::new("plan", "planner")
            .expands()
            .retry(Retry::attempts(2)),
    ]
}

/// What the planner adds: reproduce, then the first round.
pub(crate) fn repair(goals: Vec<String>) -> Vec<TaskSpec> {
    let mut tasks = vec![TaskSpec::new("reproduce", "reproduce").needs("plan")];
    let first = Round {
        goals,
        ..Round::default()
    };
    tasks.extend(first.tasks());
    tasks
}

/// Where a repair stands when a round begins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// Counted from 1.
    pub round: u32,
    /// What is still to be repaired, in the planner's order; without any, the run's goal.
    pub goals: Vec<String>,
    /// What it goes on from.
    pub base: Candidate,
    /// The round whose candidate that is, 0 for none: there its test report lies.
    pub from: u32,
    /// The round that located the code for this base.
    pub located: u32,
    /// Which attempt of this model, from 0.
    pub turn: usize,
    /// Which model.
    pub tier: usize,
    /// The keys of what was tested before.
    pub seen: Vec<String>,
}

impl Default for Round {
    fn default() -> Self {
        Self {
            round: 1,
            goals: Vec::new(),
            base: Candidate::default(),
            from: 0,
            located: 1,
            turn: 0,
            tier: 0,
            seen: Vec::new(),
        }
    }
}

impl Round {
    /// Its tasks: locate, if the base is new; propose; validate.
    pub fn tasks(&self) -> Vec<TaskSpec> {
        let n = self.round;
        let (after, report) = match self.from {
            0 => ("reproduce".to_owned(), "/report"),
            n => (format!("validate/{n}"), "/report"),
        };
        let (locate, propose) = (format!("locate/{}", self.located), format!("propose/{n}"));
        let mut tasks = Vec::new();
        if self.located == n {
            tasks.push(
                TaskSpec::new(locate.as_str(), "locate")
                    .input(json!({ "base": self.base, "goal": self.goals.first() }))
                    .bind("report", after.as_str(), report),
            );
        }
        let propose_task = TaskSpec::new(propose.as_str(), "propose")
            .input(json!({ "round": self }))
            .bind("located", locate.as_str(), "");
        let validate = TaskSpec::new(format!("validate/{n}"), "validate")
            .input(json!({ "round": self }))
            .bind("report", after.as_str(), report)
            .bind("proposed", propose.as_str(), "")
            .expands();
        tasks.extend([propose_task, validate]);
        tasks
    }
}

/// The end: the best candidate is tested once more on a clean copy and delivered.
pub(crate) fn finish(n: u32) -> TaskSpec {
    TaskSpec::new("finish", "finish")
        .bind("candidate", format!("validate/{n}"), "/best")
        .bind("before", "reproduce", "/report")
        .on_failure(OnFailure::FailRun)
}
