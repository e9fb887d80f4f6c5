use crate::{
    args_runs::ShowArgs, error::CliError, progress::Out, reached, run::config_of, state::Dirs,
};
use serde_json::{Value, json};
use smallhands::{
    agents::Finished,
    core::{Failure, PriorStep, RunId, Usage},
    graph::{Node, NodeState, RunState, StateStore},
    obs::CostSummary,
    standard,
};
use std::sync::Arc;

pub(crate) fn colour(status: &str) -> &'static str {
    match status {
        "succeeded" | "done" => "32",
        "failed" => "31",
        "running" => "36",
        _ => "33",
    }
}

pub(crate) fn cost(u: &Usage) -> String {
    match u.micro_usd {
        Some(m) => format!("${}.{:06}", m / 1_000_000, m % 1_000_000),
        None => "cost unknown".into(),
    }
}

pub(crate) async fn load(
    dirs: &Dirs,
    run: &str,
) -> Result<(Arc<dyn StateStore>, RunId, RunState), CliError> {
    let store = standard::store(&dirs.state)?;
    let id = RunId::from(run);
    let state = RunState::load(&*store, &id).await?;
    Ok((store, id, state))
}

/// `smallhands show`.
pub(crate) async fn show(dirs: &Dirs, out: Out, a: &ShowArgs) -> Result<u8, CliError> {
    let (store, id, state) = load(dirs, &a.run).await?;
    if a.state {
        let report = serde_json::json!(state.report().of(&id));
        out.print(&match out.json {
            true => format!("{report}\n"),
            false => format!("{report:#}\n"),
        });
        return Ok(0);
    }
    if out.json {
        let mut v = json(&id, &state);
        v["config"] = match config_of(&*store.blobs(), &state).await {
            Ok(c) => json!(c),
            Err(_) => Value::Null,
        };
        out.print(&format!("{v}\n"));
        return Ok(0);
    }
    let mut text = format!("run {id}: {}\n", state.goal);
    text += &format!("{}, {} records\n\n", state.status, state.seq);
    for (task, n) in state.in_order() {
        let state = out.paint(
            &format!("{:<9}", n.state.as_str()),
            colour(n.state.as_str()),
        );
        text += &format!(
            "  {state}  {task:<14} {:>9}  {} steps",
            seconds(n),
            n.steps.len()
        );
        if n.attempt > 1 {
            text += &format!(", attempt {}", n.attempt);
        }
        if let NodeState::Failed(f) = &n.state {
            text += &format!("  {f}");
        }
        text.push('\n');
    }
    for (task, n) in state.in_order() {
        for (ask, q) in &n.questions {
            text += &format!("\n  {task} asks ({ask}): {}\n", q.text);
        }
    }
    text.push('\n');
    if finished(&state).is_some() {
        text += &report(out, &id, &state);
    } else {
        text += &reached::table(&state);
        text += &costs(&state).to_string();
    }
    out.print(&text);
    Ok(0)
}

fn seconds(n: &Node) -> String {
    match (n.started, n.ended) {
        (Some(a), Some(b)) => format!("{:.1} s", b.0.saturating_sub(a.0) as f64 / 1000.0),
        _ => "-".into(),
    }
}

pub(crate) fn finished(state: &RunState) -> Option<Finished> {
    serde_json::from_value(state.value("finish")?.clone()).ok()
}

/// The failure that ended the run: the first in the order of the graph.
pub(crate) fn first_failure(state: &RunState) -> Option<Failure> {
    state
        .in_order()
        .into_iter()
        .find_map(|(_, n)| match &n.state {
            NodeState::Failed(f) => Some((**f).clone()),
            _ => None,
        })
}

fn costs(state: &RunState) -> CostSummary {
    let mut sum = CostSummary::default();
    for (task, n) in state.in_order() {
        if n.spent.calls > 0 {
            sum.add(task.as_str(), n.spent);
        }
    }
    sum
}

/// The report of a run that made the tests pass.
pub(crate) fn report(out: Out, id: &RunId, state: &RunState) -> String {
    let Some(f) = finished(state) else {
        return String::new();
    };
    let mut text = format!("{}\n", out.patch(&f.patch));
    text += &format!("tests before  {}\n", f.before.summary());
    text += &format!("tests after   {}\n", f.after.summary());
    text += &format!("models        {}\n", state.spent);
    let took = state.updated.0.saturating_sub(state.created.0) as f64 / 1000.0;
    text += &format!("time          {took:.1} s\n");
    text += &reached::table(state);
    if let Some(b) = &f.delivered.branch {
        text += &format!("branch        {b}\n");
    }
    if let Some(p) = &f.delivered.file {
        text += &format!("patch         {p}\n");
    }
    text += &format!("look at it    smallhands show {id}, smallhands graph {id}\n");
    text
}

/// A run for machines.
pub(crate) fn json(id: &RunId, state: &RunState) -> Value {
    let tasks: Vec<_> = state
        .in_order()
        .into_iter()
        .map(|(task, n)| {
            let failure = match &n.state {
                NodeState::Failed(f) => Some(f),
                _ => None,
            };
            let done = n.steps.iter().filter(|s| matches!(s, PriorStep::Done(_))).count();
            json!({
                "id": task, "worker": n.spec.worker, "state": n.state.as_str(), "attempt": n.attempt,
                "needs": n.spec.needs, "started": n.started, "ended": n.ended, "steps": done,
                "spent": n.spent, "failure": failure, "questions": n.questions,
            })
        })
        .collect();
    let egress: Vec<_> = reached::by_run(state)
        .into_iter()
        .map(|(task, r)| {
            let mut v = json!(r);
            v["task"] = json!(task);
            v
        })
        .collect();
    json!({
        "ok": state.status == smallhands::graph::RunStatus::Succeeded,
        "run": id, "goal": state.goal, "status": state.status, "records": state.seq,
        "created": state.created, "updated": state.updated, "spent": state.spent,
        "tasks": tasks, "egress": egress, "result": finished(state),
    })
}

/// Day and time of a moment in UTC, from milliseconds since the epoch.
pub(crate) fn date(ms: u64) -> (String, String) {
    let (days, seconds) = (ms / 86_400_000, ms / 1000 % 86_400);
    // Civil from days (H. Hinnant, chrono-compatible low-level date algorithms).
    let z = days + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + u64::from(month <= 2);
    (
        format!("{year:04}-{month:02}-{day:02}"),
        format!(
            "{:02}:{:02}:{:02}",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::date;

    #[test]
    fn dates() {
        assert_eq!(date(0).0, "1970-01-01");
        assert_eq!(date(951_782_400_000).0, "2000-02-29");
        assert_eq!(
            date(1_795_384_520_715),
            ("2026-11-22".into(), "21:55:20".into())
        );
    }
}
