//! The shapes of the repair graph: data, so that a plan can be stored, drawn and resumed.

use crate::Candidate;
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
pub(crate) fn repair() -> Vec<TaskSpec> {
    let mut tasks = vec![TaskSpec::new("reproduce", "reproduce").needs("plan")];
    tasks.extend(round(
        1,
        &Candidate::default(),
        "reproduce",
        "/report",
        0,
        0,
    ));
    tasks
}

/// One round: locate, propose, validate. It goes on from `base`, whose test report lies in the
/// output of `after` at `report`; `target` is which of the located places is tried, `tier` which
/// model.
pub fn round(
    n: u32,
    base: &Candidate,
    after: &str,
    report: &str,
    target: usize,
    tier: usize,
) -> Vec<TaskSpec> {
    let (locate, propose, validate) = (
        format!("locate/{n}"),
        format!("propose/{n}"),
        format!("validate/{n}"),
    );
    let base = json!({ "base": base, "round": n, "target": target, "tier": tier });
    vec![
        TaskSpec::new(locate.as_str(), "locate")
            .input(base.clone())
            .bind("report", after, report),
        TaskSpec::new(propose.as_str(), "propose")
            .input(base.clone())
            .bind("report", after, report)
            .bind("hits", locate.as_str(), "/hits"),
        TaskSpec::new(validate.as_str(), "validate")
            .input(base)
            .bind("report", after, report)
            .bind("places", propose.as_str(), "/places")
            .bind("candidates", propose.as_str(), "/candidates")
            .expands(),
    ]
}

/// The end: the best candidate is tested once more on a clean copy and delivered.
pub(crate) fn finish(n: u32) -> TaskSpec {
    TaskSpec::new("finish", "finish")
        .bind("candidate", format!("validate/{n}"), "/best")
        .bind("before", "reproduce", "/report")
        .on_failure(OnFailure::FailRun)
}
