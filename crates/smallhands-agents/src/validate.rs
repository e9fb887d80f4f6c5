use crate::{Candidate, RepairParts, RepairSpec, apply, recipe};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use smallhands_core::{
    CallCx, Failure, FailureClass, Halt, Notice, Step, TaskContext, TaskOutput, Worker, WorkerName,
    async_trait,
};
use smallhands_graph::GraphPatch;
use smallhands_sandbox::Sandbox;
use smallhands_tools::TestReport;
use std::{cmp::Reverse, sync::Arc};

#[derive(Deserialize)]
struct Input {
    base: Candidate,
    round: u32,
    target: usize,
    tier: usize,
    report: TestReport,
    places: usize,
    candidates: Vec<Candidate>,
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

    async fn candidates(&self, i: &Input, cx: &TaskContext) -> Result<Vec<TestReport>, Halt> {
        let mut reports = Vec::new();
        if i.candidates.is_empty() {
            return Ok(reports);
        }
        let base = self
            .parts
            .sandboxes
            .open(&self.spec.sandbox, &cx.local())
            .await
            .map_err(Failure::from)?;
        let files = &*base;
        for (n, c) in i.candidates.iter().enumerate() {
            cx.notice(Notice::Progress {
                text: "testing candidates".into(),
                done: Some((n as u64 + 1, i.candidates.len() as u64)),
            });
            let step = Step::new(format!("candidate/{}", n + 1)).input(c);
            let report: TestReport = cx
                .step(step, |call| async move { self.test(files, c, &call).await })
                .await?;
            let green = report.ok;
            reports.push(report);
            if green {
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
        let reports = self.candidates(&i, cx).await?;
        let best = i
            .candidates
            .iter()
            .zip(&reports)
            .max_by_key(|(c, r)| merit(r, c))
            .filter(|(_, r)| better(r, &i.report));
        let out = Validated {
            best: best.map_or(&i.base, |(c, _)| c).clone(),
            report: best.map_or(&i.report, |(_, r)| r).clone(),
            tried: reports.len(),
            progress: best.is_some(),
        };
        let next = if out.report.ok {
            vec![recipe::finish(i.round)]
        } else if i.round >= self.spec.rounds {
            let why = format!(
                "no change made the tests pass in {} rounds: {}",
                i.round,
                out.report.summary()
            );
            return Err(Failure::new("repair.unsolved", FailureClass::Task, why)
                .hint("raise --rounds or --candidates, or choose a stronger --model")
                .into());
        } else if out.progress {
            let this = format!("validate/{}", i.round);
            recipe::round(i.round + 1, &out.best, &this, "/report", 0, 0)
        } else {
            // No progress: the next place; when all were tried, the next model.
            let target = i.target + 1;
            let (target, tier) = match target < i.places.min(2) {
                true => (target, i.tier),
                false => (0, i.tier + 1),
            };
            let this = format!("validate/{}", i.round);
            recipe::round(i.round + 1, &out.best, &this, "/report", target, tier)
        };
        let mut patch = GraphPatch::adding(next);
        patch.expected_revision = cx.view().and_then(|v| v["revision"].as_u64());
        Ok(TaskOutput {
            value: serde_json::to_value(out).map_err(bad)?,
            expansion: Some(serde_json::to_value(patch).map_err(bad)?),
            ..TaskOutput::default()
        })
    }
}
