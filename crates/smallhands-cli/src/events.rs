//! `smallhands events`.
use crate::{
    args_runs::EventsArgs,
    control::engine,
    error::CliError,
    progress::{Out, plain},
    show::date,
    state::Dirs,
    units::count,
};
use serde_json::json;
use smallhands::{
    core::{Halt, Outcome, RunId},
    graph::{Event, GraphError, StateStore, Stored},
    standard,
};
use std::{sync::Arc, time::Duration};

pub(crate) async fn events(dirs: &Dirs, out: Out, a: &EventsArgs) -> Result<u8, CliError> {
    let store = standard::store(&dirs.state)?;
    let run = RunId::from(&a.run);
    if store.read(&run, 0, 1).await?.is_empty() {
        return Err(GraphError::UnknownRun(run).into());
    }
    let mut after = a.after;
    let mut over = false;
    loop {
        let page = store.read(&run, after, 256).await?;
        for s in &page {
            after = s.seq;
            let event = Event::from_record(&s.record).ok();
            over = matches!(&event, Some(Event::Stopped { status }) if status.is_final());
            let line = match out.json {
                true => machine(s),
                false => human(out, s, event.as_ref()),
            };
            if !out.try_print(&line) {
                return Ok(0);
            }
        }
        if !page.is_empty() {
            continue;
        }
        if !a.follow || over || (after == a.after && ended(&store, &run).await?) {
            return Ok(0);
        }
        store.changed(&run, after, Duration::from_secs(60)).await?;
    }
}

/// Whether the run was over before anything was read.
async fn ended(store: &Arc<dyn StateStore>, run: &RunId) -> Result<bool, CliError> {
    let info = engine(store).info(run).await?;
    let over = ["succeeded", "failed", "cancelled"];
    Ok(over.contains(&info.head.status.as_str()))
}

fn machine(s: &Stored) -> String {
    let mut v = json!(s.record);
    v["seq"] = json!(s.seq);
    format!("{v}\n")
}

fn human(out: Out, s: &Stored, event: Option<&Event>) -> String {
    let (day, time) = date(s.record.at.0);
    let kind = out.paint(&format!("{:<16}", s.record.kind), "36");
    let task = event.and_then(Event::task).map(ToString::to_string);
    let what = match event {
        Some(e) => detail(e),
        None => format!(
            "version {}, which this program does not know",
            s.record.version
        ),
    };
    let line = format!("{:>6}  {day} {time}  ", s.seq);
    let rest = format!("{:<14} {what}", task.unwrap_or_default());
    format!("{line}{kind} {}\n", plain(rest.trim_end()))
}

/// What is worth the rest of a line.
fn detail(e: &Event) -> String {
    match e {
        Event::Created { goal, .. } => goal.clone(),
        Event::Opened { owner, epoch } => format!("by {owner}, epoch {epoch}"),
        Event::Patched { patch, by } => {
            let by = by.as_ref().map(|t| format!(" by {t}")).unwrap_or_default();
            format!("{} added{by}", count(patch.add.len(), "task"))
        }
        Event::Expanded { children, .. } => count(children.len(), "task"),
        Event::Judged { holds, .. } => format!("holds: {holds}"),
        Event::Dispatched { attempt, .. } => format!("attempt {attempt}"),
        Event::StepBegan { intent, .. } => intent.key.to_string(),
        Event::StepEnded { record, .. } => match &record.result {
            Ok(_) => format!("{}: done", record.intent.key),
            Err(f) => format!("{}: {f}", record.intent.key),
        },
        Event::Reserved { id, .. } | Event::Settled { id, .. } => id.clone(),
        Event::Asked { id, question, .. } => format!("{id}: {}", question.text),
        Event::Answered { id, answer, .. } => format!("{id}: {answer}"),
        Event::Expired { id, .. } => id.to_string(),
        Event::Ended { report, .. } => match &report.outcome {
            Outcome::Done(_) => "done".into(),
            Outcome::Halted(Halt::Failed(f)) => format!("failed: {f}"),
            Outcome::Halted(Halt::Suspended(q)) => format!("asks {q}"),
            other => format!("{other:?}"),
        },
        Event::Revived { tasks } => count(tasks.len(), "task"),
        Event::Reset { .. } => "and what follows from it".into(),
        Event::Stopped { status } => status.to_string(),
        _ => String::new(),
    }
}
