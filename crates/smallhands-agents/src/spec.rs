use crate::{RepairParts, finish, locate, planner::Planner, propose, reproduce, validate};
use serde::{Deserialize, Serialize};
use smallhands_core::{Worker, WorkerName};
use smallhands_sandbox::SandboxSpec;
use smallhands_tools::TestCommand;
use std::{collections::BTreeMap, sync::Arc};

/// What a repair is to do. Part of the run's configuration, the same in every process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RepairSpec {
    /// In the user's words.
    pub goal: String,
    /// The clean copy, and what may be seen beside it.
    pub sandbox: SandboxSpec,
    /// How the tests are run.
    pub tests: TestCommand,
    /// Candidates in each round.
    pub candidates: u32,
    /// Rounds before it gives up.
    pub rounds: u32,
    /// Of all candidates but the first, which is greedy.
    pub temperature: f32,
    /// Makes sampling repeatable.
    pub seed: u64,
    /// Forks that are tested at once.
    pub parallel: usize,
    /// Longest answer, in tokens.
    pub max_tokens: u32,
}

impl RepairSpec {
    /// With four candidates a round and ten rounds.
    pub fn new(goal: impl Into<String>, sandbox: SandboxSpec, tests: TestCommand) -> Self {
        Self {
            goal: goal.into(),
            sandbox,
            tests,
            candidates: 4,
            rounds: 10,
            temperature: 0.8,
            seed: 1,
            parallel: 2,
            max_tokens: 640,
        }
    }
}

/// Workers by name.
pub type Workers = BTreeMap<WorkerName, Arc<dyn Worker>>;

impl RepairParts {
    /// The workers of the recipe, and the planner.
    pub fn workers(self, spec: RepairSpec) -> Workers {
        let (parts, spec) = (Arc::new(self), Arc::new(spec));
        let all: [Arc<dyn Worker>; 6] = [
            Arc::new(Planner::new(parts.clone(), spec.clone())),
            reproduce::worker(parts.clone(), spec.clone()),
            locate::worker(parts.clone(), spec.clone()),
            propose::worker(parts.clone(), spec.clone()),
            Arc::new(validate::Validate::new(parts.clone(), spec.clone())),
            finish::worker(parts, spec),
        ];
        all.into_iter().map(|w| (w.name().clone(), w)).collect()
    }
}
