use crate::{Check, RecordingHost, expect, host::MOST_TOKENS};
use serde_json::{Value, json};
use smallhands_core::{
    AttemptReport, BlobStore, CancelMode, Digest, DispatchKey, Effect, Executor, FailureClass,
    Halt, HostCall, Outcome, PriorStep, Ran, StepIntent, StepRecord, TaskEnvelope, TaskHandle,
    TaskSpec,
};
use std::{sync::Arc, time::Duration};

type Make = Arc<dyn Fn() -> Arc<dyn Executor> + Send + Sync>;

/// What every executor promises. `make` gives a new one that runs [`kit_workers`]; `blobs` is where
/// it looks for configurations.
///
/// [`kit_workers`]: crate::kit_workers
pub fn executor(
    blobs: Arc<dyn BlobStore>,
    make: impl Fn() -> Arc<dyn Executor> + Send + Sync + 'static,
) -> Vec<Check> {
    let make: Make = Arc::new(make);
    let can = make().capabilities();
    let bed = move || Bed {
        exec: make(),
        host: Arc::default(),
        blobs: blobs.clone(),
    };
    let mut checks = Vec::new();
    macro_rules! check {
        ($name:literal, $f:path) => {{
            let bed = bed.clone();
            checks.push(Check::new($name, move || $f(bed())));
        }};
    }
    check!("a task ends with its output, always the same", output);
    check!("calls reach the host in order", order);
    check!("recorded steps are not done again", replay);
    check!("a failure keeps its code and class", failure);
    check!("a panic is a failure", panic);
    check!("an unknown worker is named and nothing ran", unknown);
    check!("a duplicate submit runs once", duplicate);
    check!("soft cancel ends a task soon", soft_cancel);
    check!("cancel after the end is harmless", late_cancel);
    check!("a question suspends the task", question);
    check!("a refused reservation is a budget failure", budget);
    check!("blobs come back whole", blob);
    check!("many tasks each run once", many);
    if can.hard_cancel {
        check!("hard cancel ends a stuck task", hard_cancel);
    }
    if can.crosses_processes {
        check!(
            "a process that dies is a lost worker, and the slot recovers",
            death
        );
    }
    checks
}

struct Bed {
    exec: Arc<dyn Executor>,
    host: Arc<RecordingHost>,
    blobs: Arc<dyn BlobStore>,
}

impl Bed {
    async fn envelope(&self, id: &str, worker: &str, input: Value) -> Result<TaskEnvelope, String> {
        let config = self.blobs.put(b"{}".to_vec()).await;
        Ok(TaskEnvelope {
            v: TaskEnvelope::VERSION,
            key: DispatchKey {
                run: "kit".into(),
                task: id.into(),
                attempt: 1,
                fence: 7,
            },
            spec: TaskSpec::new(id, worker).into(),
            iteration: 0,
            again: false,
            input,
            steps: Vec::new(),
            answers: Default::default(),
            view: None,
            config: config.map_err(|e| e.to_string())?,
            secrets: Vec::new(),
            traceparent: None,
        })
    }
    async fn submit(&self, worker: &str, input: Value) -> Result<Arc<dyn TaskHandle>, String> {
        let e = self.envelope("t", worker, input).await?;
        self.place(e).await
    }
    async fn place(&self, e: TaskEnvelope) -> Result<Arc<dyn TaskHandle>, String> {
        let host = self.host.clone();
        self.exec
            .submit(e.into(), host)
            .await
            .map_err(|f| f.to_string())
    }
    async fn begun(&self) -> Result<(), String> {
        while self.host.begun().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}

fn value(r: &AttemptReport) -> Value {
    match &r.outcome {
        Outcome::Done(o) => o.value.clone(),
        other => json!({ "not done": format!("{other:?}") }),
    }
}

fn code(r: &AttemptReport) -> String {
    match &r.outcome {
        Outcome::Halted(Halt::Failed(f)) => f.code.to_string(),
        other => format!("{other:?}"),
    }
}

async fn output(b: Bed) -> Result<(), String> {
    let h = b.submit("kit/echo", json!({"a": [1, "ü\n"]})).await?;
    let (one, two) = tokio::join!(h.report(), h.report());
    expect("value", &value(&one), &json!({"a": [1, "ü\n"]}))?;
    expect("asked twice", &one, &two)?;
    expect("ran", &one.ran, &Ran::Yes)?;
    h.acknowledge().await;
    expect("after acknowledging", &h.report().await, &one)
}

async fn order(b: Bed) -> Result<(), String> {
    let h = b.submit("kit/steps", json!(5)).await?;
    expect("sum", &value(&h.report().await), &json!(15))?;
    let text = |c: HostCall| match c {
        HostCall::BeginStep(i) => format!("begin {}", i.key),
        HostCall::EndStep(r) => format!("end {}", r.intent.key),
        other => format!("{other:?}"),
    };
    let seen: Vec<_> = b.host.calls().into_iter().map(text).collect();
    let pair = |i| [format!("begin step/{i}"), format!("end step/{i}")];
    expect("calls", &seen, &(1..=5).flat_map(pair).collect())
}

async fn replay(b: Bed) -> Result<(), String> {
    let mut e = b.envelope("t", "kit/steps", json!(2)).await?;
    e.steps.push(PriorStep::Done(StepRecord {
        intent: StepIntent {
            key: "step/1".into(),
            effect: Effect::Pure,
            fingerprint: Digest::of_json(&json!(1)),
            reserve: None,
        },
        result: Ok(json!(40)),
        checkpoint: None,
        usage: None,
    }));
    let h = b.place(e).await?;
    expect(
        "the recorded result counts",
        &value(&h.report().await),
        &json!(42),
    )?;
    expect("steps begun", &b.host.begun(), &vec!["step/2".to_owned()])
}

async fn failure(b: Bed) -> Result<(), String> {
    let r = b.submit("kit/fail", Value::Null).await?.report().await;
    match &r.outcome {
        Outcome::Halted(Halt::Failed(f)) => {
            expect("code", &f.code.to_string(), &"kit.fail".to_owned())?;
            expect("class", &f.class, &FailureClass::Task)?;
            expect("retryable", &f.retryable, &true)
        }
        other => Err(format!("promised a failure, seen {other:?}")),
    }
}

async fn panic(b: Bed) -> Result<(), String> {
    let r = b.submit("kit/panic", Value::Null).await?.report().await;
    expect("code", &code(&r), &"worker.panic".to_owned())
}

async fn unknown(b: Bed) -> Result<(), String> {
    let r = b.submit("kit/nobody", Value::Null).await?.report().await;
    expect("code", &code(&r), &"worker.unknown".to_owned())?;
    expect("ran", &r.ran, &Ran::No)
}

async fn duplicate(b: Bed) -> Result<(), String> {
    let (one, two) = (
        b.submit("kit/steps", json!(1)).await?,
        b.submit("kit/steps", json!(1)).await?,
    );
    let (one, two) = tokio::join!(one.report(), two.report());
    expect("both say the same", &one, &two)?;
    expect("it ran", &b.host.begun().len(), &1)
}

async fn soft_cancel(b: Bed) -> Result<(), String> {
    let h = b.submit("kit/wait", Value::Null).await?;
    b.begun().await?;
    h.cancel(CancelMode::Soft).await;
    h.cancel(CancelMode::Soft).await;
    let cancelled = Outcome::Halted(Halt::Cancelled);
    expect("outcome", &h.report().await.outcome, &cancelled)
}

async fn late_cancel(b: Bed) -> Result<(), String> {
    let h = b.submit("kit/echo", json!(1)).await?;
    let before = h.report().await;
    h.cancel(CancelMode::Soft).await;
    h.cancel(CancelMode::Hard).await;
    expect("report", &h.report().await, &before)?;
    let other = b.envelope("other", "kit/echo", json!(2)).await?;
    let after = b.place(other).await?.report().await;
    expect("the next task", &value(&after), &json!(2))
}

async fn question(b: Bed) -> Result<(), String> {
    let r = b.submit("kit/ask", Value::Null).await?.report().await;
    let suspended = Outcome::Halted(Halt::Suspended("kit".into()));
    expect("without an answer", &r.outcome, &suspended)?;
    let mut e = b.envelope("u", "kit/ask", Value::Null).await?;
    e.answers.insert("kit".into(), json!("yes"));
    let r = b.place(e).await?.report().await;
    expect("with one", &value(&r), &json!("yes"))
}

async fn budget(b: Bed) -> Result<(), String> {
    let r = b
        .submit("kit/spend", json!(MOST_TOKENS))
        .await?
        .report()
        .await;
    expect("within", &value(&r), &Value::Null)?;
    let more = b.envelope("u", "kit/spend", json!(MOST_TOKENS + 1)).await?;
    let r = b.place(more).await?.report().await;
    expect("over", &code(&r), &"budget.exhausted".to_owned())
}

async fn blob(b: Bed) -> Result<(), String> {
    let r = b.submit("kit/blob", json!(3 << 20)).await?.report().await;
    expect("3 MiB", &value(&r), &json!(true))
}

async fn many(b: Bed) -> Result<(), String> {
    let mut handles = Vec::new();
    for i in 0..40 {
        let e = b.envelope(&format!("t{i}"), "kit/steps", json!(1)).await?;
        handles.push(b.place(e).await?);
    }
    for h in handles {
        expect("value", &value(&h.report().await), &json!(1))?;
    }
    expect("steps begun", &b.host.begun().len(), &40)
}

async fn hard_cancel(b: Bed) -> Result<(), String> {
    let h = b.submit("kit/stuck", Value::Null).await?;
    b.begun().await?;
    h.cancel(CancelMode::Hard).await;
    match h.report().await.outcome {
        Outcome::Done(_) => Err("a stuck task ended well".into()),
        _ => Ok(()),
    }
}

async fn death(b: Bed) -> Result<(), String> {
    let r = b.submit("kit/die", Value::Null).await?.report().await;
    match &r.outcome {
        Outcome::Halted(Halt::Failed(f)) => expect("class", &f.class, &FailureClass::WorkerLost)?,
        other => return Err(format!("promised a lost worker, seen {other:?}")),
    }
    expect("ran", &r.ran, &Ran::Maybe)?;
    let e = b.envelope("next", "kit/echo", json!(1)).await?;
    expect(
        "the next task",
        &value(&b.place(e).await?.report().await),
        &json!(1),
    )
}
