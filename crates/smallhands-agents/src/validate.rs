use crate::{Candidate, Proposed, RepairParts, RepairSpec, Round, apply, recipe};
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use smallhands_core::{
    CallCx, Failure, FailureClass, Halt, Notice, Step, TaskContext, TaskOutput, TaskSpec, Worker,
    WorkerName, async_trait,
};
use smallhands_graph::GraphPatch;
use smallhands_sandbox::Sandbox;
use smallhands_tools::TestReport;
use std::{cmp::Reverse, sync::Arc};

#[derive(Deserialize)]
struct Input {
    round: Round,
    report: TestReport,
    proposed: Proposed,
}

/// What the tests said of the candidates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Validated {
    /// The candidate that the tests prefer; the base, if none is better.
    pub best: Candidate,
    /// What they say of it.
    pub report: TestReport,
    /// How many were tried; the first that is green ends it.
    pub tried: usize,
    /// Whether the best is better than the base.
    pub progress: bool,
}

/// Tests each candidate in its own fork and decides how it goes on.
#[derive(Debug)]
pub(crate) struct Validate {
    name: WorkerName,
    parts: Arc<RepairParts>,
    spec: Arc<RepairSpec>,
}

impl Validate {
    pub(crate) fn new(parts: Arc<RepairParts>, spec: Arc<RepairSpec>) -> Self {
        Self {
            name: "validate".into(),
            parts,
            spec,
        }
    }

    /// The reports of the first candidates, up to one that is green.
    async fn candidates(
        &self,
        candidates: &[Candidate],
        cx: &TaskContext,
    ) -> Result<Vec<TestReport>, Halt> {
        let mut reports: Vec<TestReport> = Vec::new();
        if candidates.is_empty() {
            return Ok(reports);
        }
        let base = self
            .parts
            .sandboxes
            .open(&self.spec.sandbox, &cx.local())
            .await
            .map_err(Failure::from)?;
        let files = &*base;
        for some in candidates.chunks(self.spec.parallel.max(1)) {
            let from = reports.len();
            cx.notice(Notice::Progress {
                text: "testing candidates".into(),
                done: Some(((from + some.len()) as u64, candidates.len() as u64)),
            });
            let tests = some.iter().enumerate().map(|(n, c)| {
                let step = Step::new(format!("candidate/{}", from + n + 1)).input(c);
                cx.step(
                    step,
                    move |call| async move { self.test(files, c, &call).await },
                )
            });
            for report in join_all(tests).await {
                reports.push(report?);
            }
            if let Some(green) = reports.iter().position(|r| r.ok) {
                // As if they had been tested one after the other.
                reports.truncate(green + 1);
                break;
            }
        }
        base.close().await.map_err(Failure::from)?;
        Ok(reports)
    }

    async fn test(
        &self,
        base: &dyn Sandbox,
        c: &Candidate,
        call: &CallCx,
    ) -> Result<TestReport, Failure> {
        let fork = base.fork().await?;
        apply(&*fork, c).await?;
        let report = self.parts.test(&*fork, call).await?;
        fork.close().await?;
        Ok(report)
    }

    /// How it goes on: to the end, from a better base, or with the next attempt; when a model has
    /// had all of its turns, with the next model.
    fn next(&self, i: &Input, out: &Validated) -> Result<Vec<TaskSpec>, Failure> {
        let n = i.round.round;
        if out.report.ok {
            return Ok(vec![recipe::finish(n)]);
        }
        if n >= self.spec.rounds {
            let why = format!(
                "no change made the tests pass in {n} rounds: {}",
                out.report.summary()
            );
            return Err(Failure::new("repair.unsolved", FailureClass::Task, why)
                .hint("raise --rounds or --candidates, or choose a stronger --model"));
        }
        let mut round = i.round.clone();
        round.round += 1;
        round.turn += 1;
        let done = round.turn >= i.proposed.turns;
        if out.progress || (done && !round.goals.is_empty()) {
            // On to the next goal; the code may lie elsewhere now.
            let goals = round.goals.into_iter().skip(1).collect();
            (round.goals, round.base, round.located) = (goals, out.best.clone(), n + 1);
            (round.turn, round.tier) = (0, 0);
            if out.progress {
                (round.from, round.seen) = (n, Vec::new());
            }
            return Ok(round.tasks());
        }
        if done {
            (round.turn, round.tier) = (0, round.tier + 1);
        }
        round
            .seen
            .extend(i.proposed.candidates.iter().map(Candidate::key));
        Ok(round.tasks())
    }
}

/// Greater is better: green, then fewer failures, then more passes, then less change.
fn merit(r: &TestReport, c: &Candidate) -> (bool, Reverse<usize>, usize, Reverse<usize>) {
    let broken = usize::from(r.timed_out) + r.failed.len();
    (r.ok, Reverse(broken), r.passed.len(), Reverse(c.size()))
}

/// Better in what the tests say, and nothing that passed fails now.
fn better(new: &TestReport, old: &TestReport) -> bool {
    let kept = old.passed.iter().all(|t| new.passed.contains(t));
    new.ok || (kept && new.passed.len() > old.passed.len())
}

#[async_trait]
impl Worker for Validate {
    fn name(&self) -> &WorkerName {
        &self.name
    }
    async fn run(&self, input: Value, cx: &TaskContext) -> Result<TaskOutput, Halt> {
        let bad = |e: serde_json::Error| {
            Failure::new("validate.json", FailureClass::Input, e.to_string())
        };
        let i: Input = serde_json::from_value(input).map_err(bad)?;
        let reports = self.candidates(&i.proposed.candidates, cx).await?;
        let best = i
            .proposed
            .candidates
            .iter()
            .zip(&reports)
            .max_by_key(|(c, r)| merit(r, c))
            .filter(|(_, r)| better(r, &i.report));
        let out = Validated {
            best: best.map_or(&i.round.base, |(c, _)| c).clone(),
            report: best.map_or(&i.report, |(_, r)| r).clone(),
            tried: reports.len(),
            progress: best.is_some(),
        };
        let next = self.next(&i, &out)?;
        let mut patch = GraphPatch::adding(next);
        patch.expected_revision = cx.view().and_then(|v| v["revision"].as_u64());
        Ok(TaskOutput {
            value: serde_json::to_value(out).map_err(bad)?,
            expansion: Some(serde_json::to_value(patch).map_err(bad)?),
            ..TaskOutput::default()
        })
    }
}
