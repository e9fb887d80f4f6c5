//! `smallhands runs`.
use crate::{
    args_runs::RunsArgs,
    control::engine,
    error::CliError,
    progress::{Out, plain},
    show::{colour, cost, date},
    state::Dirs,
    units::bytes,
};
use serde_json::{Value, json};
use smallhands::{
    core::Clock,
    graph::{RunInfo, SystemClock},
    standard,
};

pub(crate) async fn runs(dirs: &Dirs, out: Out, a: &RunsArgs) -> Result<u8, CliError> {
    let e = engine(&standard::store(&dirs.state)?);
    let now = SystemClock.now().0;
    let mut all = e.runs(|r| wanted(a, now, r)).await?;
    all.sort_by(|x, y| (y.head.created, &y.id).cmp(&(x.head.created, &x.id)));
    all.truncate(a.limit);
    if out.json {
        let rows: Vec<_> = all.iter().map(json).collect();
        out.print(&format!("{}\n", json!({ "runs": rows })));
        return Ok(0);
    }
    if all.is_empty() {
        out.print(match filtered(a) {
            true => "no run is like that; smallhands runs lists all\n",
            false => "there are no runs yet; smallhands run --repo PATH --test 'pytest -q'\n",
        });
    }
    out.print(&table(out, &all));
    Ok(0)
}

fn filtered(a: &RunsArgs) -> bool {
    !a.status.is_empty() || a.since.is_some() || a.until.is_some() || a.goal.is_some()
}

fn wanted(a: &RunsArgs, now: u64, r: &RunInfo) -> bool {
    let at = r.head.created.0;
    let has = |g: &String| r.head.goal.to_lowercase().contains(&g.to_lowercase());
    (a.status.is_empty() || a.status.contains(&r.head.status))
        && a.since.is_none_or(|s| s.from(now, at))
        && a.until.is_none_or(|u| u.until(now, at))
        && a.goal.as_ref().is_none_or(has)
}

/// A run for machines, without its tasks.
pub(crate) fn json(r: &RunInfo) -> Value {
    let forked = r.forked.as_ref();
    let forked = forked.map(|(run, at)| json!({ "run": run, "at": at }));
    json!({ "run": r.id, "head": r.head, "records": r.last, "bytes": r.bytes, "forked": forked })
}

/// One line a run.
pub(crate) fn table(out: Out, all: &[RunInfo]) -> String {
    let width = |f: fn(&RunInfo) -> usize| all.iter().map(f).max().unwrap_or_default();
    let ids = width(|r| r.id.as_str().chars().count());
    let sizes = width(|r| bytes(r.bytes).len());
    let mut text = String::new();
    for r in all {
        let h = &r.head;
        let (day, time) = date(h.created.0);
        let status = out.paint(&format!("{:<9}", h.status), colour(&h.status));
        text += &format!(
            "{:<ids$}  {day} {time}  {status}  {:>3}/{:<3} tasks  {:>12}  {:>sizes$}  {}",
            r.id.as_str(),
            h.settled,
            h.tasks,
            cost(&h.spent),
            bytes(r.bytes),
            plain(h.goal.lines().next().unwrap_or_default()),
        );
        if let Some((from, at)) = &r.forked {
            text += &format!("  (fork of {from} at {at})");
        }
        text.push('\n');
    }
    text
}
