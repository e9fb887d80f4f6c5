use crate::{Candidate, RepairParts, RepairSpec};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use smallhands_core::{Failure, FailureClass, Notice, Step, TaskContext, Worker, worker as make};
use smallhands_tools::TestReport;
use std::sync::Arc;

/// What the tests said of the clean copy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reproduced {
    /// At least one test failed.
    pub report: TestReport,
}

pub(crate) fn worker(parts: Arc<RepairParts>, spec: Arc<RepairSpec>) -> Arc<dyn Worker> {
    make("reproduce", move |_: Value, cx: TaskContext| {
        let (parts, spec) = (parts.clone(), spec.clone());
        async move {
            cx.notice(Notice::Progress {
                text: "running the tests on a clean copy".into(),
                done: None,
            });
            let report: TestReport = cx
                .step(Step::new("tests").input(&spec.tests), |call| async move {
                    let sandbox = parts.trial(&spec, &Candidate::default(), &call).await?;
                    let report = parts.test(&*sandbox, &call).await?;
                    sandbox.close().await?;
                    Ok(report)
                })
                .await?;
            judge(&report)?;
            Ok(Reproduced { report })
        }
    })
}

/// A repair needs tests that run and fail.
fn judge(r: &TestReport) -> Result<(), Failure> {
    let input = |code, why: String, hint: &str| {
        Err(Failure::new(code, FailureClass::Input, why).hint(hint))
    };
    if r.not_started {
        return input(
            "tests.not_started",
            format!(
                "the test command cannot be started in the sandbox: {}",
                r.ended
            ),
            "install it, or name the program with its full path in --test",
        );
    }
    if !r.any() && !r.timed_out {
        return input(
            "tests.none",
            format!(
                "the test command found no tests ({}): {}",
                r.ended,
                last_line(&r.tail)
            ),
            "check --test, and that the tests are committed or included",
        );
    }
    if r.ok {
        return input(
            "tests.green",
            format!("the tests are green already: {}", r.summary()),
            "nothing to repair; name a test that fails",
        );
    }
    Ok(())
}

fn last_line(s: &str) -> &str {
    s.lines()
        .rev()
        .find(|l| !l.trim().is_empty())
        .unwrap_or("it printed nothing")
}
