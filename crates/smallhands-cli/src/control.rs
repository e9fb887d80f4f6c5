//! What can be done to a run that nobody drives.
use crate::{
    args_runs::{AnswerArgs, ForkArgs, RerunArgs, SettleArgs},
    error::CliError,
    progress::Out,
    run::new_id,
    state::{Dirs, Environment, secrets},
};
use serde_json::{Value, json};
use smallhands::{
    core::{Ambient, Failure, FailureClass, RunId},
    exec::InProcess,
    graph::{Engine, GraphError, StateStore, SystemClock},
    obs::SecretGuard,
    standard,
};
use std::sync::Arc;

/// An engine that runs nothing.
pub(crate) fn engine(store: &Arc<dyn StateStore>) -> Engine {
    let ambient = Ambient {
        clock: Arc::new(SystemClock),
        blobs: store.blobs(),
        guard: Arc::new(SecretGuard::new(secrets())),
        secrets: Arc::new(Environment),
    };
    let executor = Arc::new(InProcess::new([], ambient));
    Engine::new(store.clone(), executor, Arc::new(SystemClock)).owner(owner())
}

fn owner() -> String {
    format!("process {}", std::process::id())
}

fn open(dirs: &Dirs) -> Result<Engine, CliError> {
    Ok(engine(&standard::store(&dirs.state)?))
}

/// Tells what was done: a sentence for people, an object for machines.
pub(crate) fn done(out: Out, said: &str, v: &Value) -> u8 {
    match out.json {
        true => {
            let mut all = json!({ "ok": true });
            if let (Some(all), Some(v)) = (all.as_object_mut(), v.as_object()) {
                all.extend(v.clone());
            }
            out.print(&format!("{all}\n"));
        }
        false => out.print(&format!("{said}\n")),
    }
    0
}

/// `smallhands answer`.
pub(crate) async fn answer(dirs: &Dirs, out: Out, a: &AnswerArgs) -> Result<u8, CliError> {
    let e = open(dirs)?;
    let (run, task, ask) = (
        RunId::from(&a.run),
        (&*a.task).into(),
        (&*a.question).into(),
    );
    let text = Value::String(a.value.clone());
    let value = match serde_json::from_str(&a.value) {
        Ok(v) if !a.text => v,
        _ => text.clone(),
    };
    let mut answered = e.answer(&run, &task, &ask, value.clone()).await;
    // What reads as JSON may be meant as text all the same.
    if matches!(answered, Err(GraphError::Answer { .. }))
        && value != text
        && e.answer(&run, &task, &ask, text).await.is_ok()
    {
        answered = Ok(());
    }
    answered.map_err(|f| match f {
        GraphError::UnknownQuestion { .. } => {
            CliError::from(f).hint(format!("smallhands show {run} lists the open questions"))
        }
        f => f.into(),
    })?;
    let said = format!("answered; smallhands resume {run}");
    Ok(done(
        out,
        &said,
        &json!({ "run": run, "task": a.task, "question": a.question }),
    ))
}

/// `smallhands settle`.
pub(crate) async fn settle(dirs: &Dirs, out: Out, a: &SettleArgs) -> Result<u8, CliError> {
    let e = open(dirs)?;
    let (run, task, step) = (RunId::from(&a.run), (&*a.task).into(), (&*a.step).into());
    let result = match (&a.outcome.done, &a.outcome.failed) {
        (Some(text), _) => Ok(serde_json::from_str(text).map_err(|e| {
            CliError::new(2, "usage", format!("`{text}` is not JSON: {e}"))
                .hint("text is written '\"so\"', nothing is null")
        })?),
        (None, why) => {
            let why = why.clone().unwrap_or_default();
            Err(Failure::new("step.settled", FailureClass::Task, why))
        }
    };
    e.settle(&run, &task, &step, result).await?;
    let said = format!("settled; smallhands resume {run}");
    Ok(done(
        out,
        &said,
        &json!({ "run": run, "task": a.task, "step": a.step }),
    ))
}

fn name(given: Option<&String>) -> RunId {
    given.map_or_else(new_id, RunId::from)
}

/// The store would only speak of its records.
async fn must_be_new(e: &Engine, id: &RunId) -> Result<(), CliError> {
    match e.info(id).await {
        Ok(_) => Err(GraphError::RunExists(id.clone()).into()),
        Err(GraphError::UnknownRun(_)) => Ok(()),
        Err(f) => Err(f.into()),
    }
}

/// `smallhands fork`.
pub(crate) async fn fork(dirs: &Dirs, out: Out, a: &ForkArgs) -> Result<u8, CliError> {
    let e = open(dirs)?;
    let (from, to) = (RunId::from(&a.run), name(a.as_id.as_ref()));
    let last = e.info(&from).await?.last;
    let at = a.at.unwrap_or(last);
    if at == 0 || at > last {
        let why = format!("run {from} has the records 1 to {last}, and no {at}");
        return Err(
            CliError::new(2, "usage", why).hint(format!("smallhands events {from} lists them"))
        );
    }
    must_be_new(&e, &to).await?;
    e.fork(&from, at, &to).await?;
    let said = format!("{to} is {from} as it was at {at}; smallhands resume {to}");
    Ok(done(
        out,
        &said,
        &json!({ "run": to, "from": from, "at": at }),
    ))
}

/// `smallhands rerun`.
pub(crate) async fn rerun(dirs: &Dirs, out: Out, a: &RerunArgs) -> Result<u8, CliError> {
    let e = open(dirs)?;
    let (from, to) = (RunId::from(&a.run), name(a.as_id.as_ref()));
    must_be_new(&e, &to).await?;
    e.rerun(&from, &(&*a.task).into(), &to).await?;
    let task = &a.task;
    let said = format!("{to} is {from} without {task} and what follows; smallhands resume {to}");
    Ok(done(
        out,
        &said,
        &json!({ "run": to, "from": from, "task": task }),
    ))
}

/// `smallhands cancel`.
pub(crate) async fn cancel(dirs: &Dirs, out: Out, run: &str) -> Result<u8, CliError> {
    let run = RunId::from(run);
    open(dirs)?.cancel(&run).await?;
    Ok(done(
        out,
        &format!("{run} is cancelled"),
        &json!({ "run": run }),
    ))
}
