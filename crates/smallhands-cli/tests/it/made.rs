//! Runs of other workers than the standard ones, made in the state directory of a bed.
use crate::kit::Bed;
use serde_json::{Value, json};
use smallhands::{
    core::{Ambient, Effect, NoGuard, NoSecrets, Question, Step, TaskContext, TaskSpec, worker},
    exec::InProcess,
    graph::{Engine, NewRun, RunStatus, SystemClock, TaskGraph},
    standard,
};
use std::{sync::Arc, time::Duration};

/// `asks`: waits for a number and for a text. `doubt`: failed with a step in doubt.
pub(crate) fn runs(b: &Bed) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let e = engine(b);
        let asks = [
            TaskSpec::new("first", "echo"),
            TaskSpec::new("number", "number").needs("first"),
            TaskSpec::new("text", "text").needs("first"),
        ];
        let pay = TaskSpec::new("pay", "pay").timeout(Duration::from_millis(20));
        for (id, goal, tasks, status) in [
            ("asks", "Ask somebody", asks.to_vec(), RunStatus::Waiting),
            ("doubt", "pay once", vec![pay], RunStatus::Failed),
        ] {
            let mut new = NewRun::new(id, TaskGraph::from_tasks(tasks).unwrap());
            new.goal = goal.into();
            new.config = json!({ "run": id });
            let r = e.start(new).await.unwrap().wait().await.unwrap();
            assert_eq!(r.status, status);
        }
    });
}

fn engine(b: &Bed) -> Engine {
    let store = standard::store(&b.dir.path().join("state")).unwrap();
    let ambient = Ambient {
        clock: Arc::new(SystemClock),
        blobs: store.blobs(),
        guard: Arc::new(NoGuard),
        secrets: Arc::new(NoSecrets),
    };
    let ask = |name: &'static str, schema: Value| {
        worker(name, move |_: Value, cx: TaskContext| {
            let q = Question::new(format!("which {name}?")).schema(schema.clone());
            async move { cx.ask("q", q).await }
        })
    };
    let pay = worker("pay", |_: Value, cx: TaskContext| async move {
        let step = Step::new("charge").effect(Effect::AtMostOnce);
        let slow = |_| async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            Ok(())
        };
        cx.step(step, slow).await
    });
    let workers = [
        worker("echo", |v: Value, _| async move { Ok(v) }),
        ask("number", json!({"type": "integer"})),
        ask("text", json!({"type": "string"})),
        pay,
    ];
    let exec = Arc::new(InProcess::new(workers, ambient));
    Engine::new(store, exec, Arc::new(SystemClock)).grace(Duration::from_millis(20))
}
