//! What may be done again when a task is retried or revived, and what may not.

use crate::{
    kit::{engine, memory},
    run,
};
use serde_json::{Value, json};
use smallhands_core::{
    Effect, Failure, FailureClass, Halt, OnFailure, Question, Retry, Step, TaskContext, TaskOutput,
    TaskSpec, Worker, WorkerName, async_trait, worker,
};
use smallhands_graph::{Event, NodeState, ResumeFailed, RunStatus};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

fn failure() -> Failure {
    Failure::new("test.fail", FailureClass::Task, "no")
}

/// Fails its first attempt.
fn once_bad() -> Arc<dyn Worker> {
    worker("once_bad", |_: Value, cx: TaskContext| async move {
        tokio::time::sleep(Duration::from_millis(20)).await;
        match cx.key().attempt {
            1 => Err(failure().into()),
            n => Ok(n),
        }
    })
}

#[tokio::test]
async fn a_retry_does_not_repeat_what_nobody_may_repeat() {
    for (effect, times) in [
        (Effect::AtMostOnce, 1),
        (Effect::Verifiable, 1),
        (Effect::Idempotent, 3),
        (Effect::Pure, 3),
    ] {
        let acts = Arc::new(AtomicUsize::new(0));
        let a = acts.clone();
        let pay = worker("pay", move |(): (), cx: TaskContext| {
            let a = a.clone();
            async move {
                let act = |_| async { Ok(a.fetch_add(1, SeqCst)) };
                cx.step(Step::new("pay").effect(effect), act).await?;
                match cx.key().attempt {
                    1 | 2 => Err::<(), _>(Halt::Failed(failure().retryable())),
                    _ => Ok(()),
                }
            }
        });
        let retry = Retry {
            first_delay_ms: 1,
            ..Retry::attempts(3)
        };
        let task = TaskSpec::new("a", "pay").retry(retry);
        let r = run(&engine(&memory(), [pay]), [task]).await;
        let ran = (r.status, acts.load(SeqCst));
        assert_eq!(ran, (RunStatus::Succeeded, times), "{effect:?}");
    }
}

#[tokio::test]
async fn a_step_that_failed_is_tried_again_whatever_its_effect() {
    let acts = Arc::new(AtomicUsize::new(0));
    let a = acts.clone();
    let pay = worker("pay", move |(): (), cx: TaskContext| {
        let a = a.clone();
        async move {
            let act = |_| async move {
                match a.fetch_add(1, SeqCst) {
                    0 => Err(failure().retryable()),
                    n => Ok(n),
                }
            };
            cx.step(Step::new("pay").effect(Effect::AtMostOnce), act)
                .await
        }
    });
    let retry = Retry {
        first_delay_ms: 1,
        ..Retry::attempts(2)
    };
    let task = TaskSpec::new("a", "pay").retry(retry);
    let r = run(&engine(&memory(), [pay]), [task]).await;
    assert_eq!(r.state.value("a"), Some(&json!(1)));
}

#[tokio::test]
async fn a_timeout_leaves_such_a_step_in_doubt() {
    let acts = Arc::new(AtomicUsize::new(0));
    let a = acts.clone();
    let pay = worker("pay", move |(): (), cx: TaskContext| {
        let a = a.clone();
        async move {
            let act = |_| async move {
                a.fetch_add(1, SeqCst);
                tokio::time::sleep(Duration::from_secs(60)).await;
                Ok(())
            };
            cx.step(Step::new("pay").effect(Effect::AtMostOnce), act)
                .await
        }
    });
    let task = TaskSpec::new("a", "pay")
        .timeout(Duration::from_millis(20))
        .retry(Retry::attempts(3));
    let e = engine(&memory(), [pay]).grace(Duration::from_millis(20));
    let r = run(&e, [task]).await;
    let doubt = matches!(&r.state.nodes[&"a".into()].state, NodeState::Failed(f) if f.code == "outcome.unknown");
    assert!(doubt && acts.load(SeqCst) == 1, "{:?}", r.state.nodes);
}

#[tokio::test]
async fn what_needs_a_revived_task_still_waits_for_the_rest() {
    let asks = worker("asks", |(): (), cx: TaskContext| async move {
        cx.ask("go", Question::new("go?")).await
    });
    let echo = worker("echo", |v: Value, _| async move { Ok(v) });
    let store = memory();
    let e = engine(&store, [once_bad(), asks, echo]);
    let tasks = [
        TaskSpec::new("lenient", "once_bad").on_failure(OnFailure::Continue),
        TaskSpec::new("slow", "asks"),
        TaskSpec::new("strict", "once_bad").needs("lenient"),
        TaskSpec::new("both", "echo")
            .bind("a", "lenient", "")
            .bind("b", "slow", ""),
    ];
    assert_eq!(run(&e, tasks).await.status, RunStatus::Failed);
    let id = "r".into();
    let again = e.resume(&id, ResumeFailed::Retry).await.unwrap();
    assert_eq!(again.wait().await.unwrap().status, RunStatus::Waiting);
    e.answer(&id, &"slow".into(), &"go".into(), json!(7))
        .await
        .unwrap();
    let h = e.resume(&id, ResumeFailed::No).await.unwrap();
    let r = h.wait().await.unwrap();
    assert_eq!(r.state.value("both"), Some(&json!({"a": 2, "b": 7})));
}

#[derive(Debug)]
struct Planner(WorkerName);

#[async_trait]
impl Worker for Planner {
    fn name(&self) -> &WorkerName {
        &self.0
    }
    async fn run(&self, _: Value, _: &TaskContext) -> Result<TaskOutput, Halt> {
        Ok(TaskOutput {
            expansion: Some(json!({"cancel": ["not wanted"]})),
            ..TaskOutput::default()
        })
    }
}

#[tokio::test]
async fn what_a_patch_cancelled_is_not_revived() {
    let ran = Arc::new(Mutex::new(Vec::new()));
    let seen = ran.clone();
    let note = worker("note", move |_: Value, cx: TaskContext| {
        seen.lock().unwrap().push(cx.key().task.to_string());
        async { Ok(()) }
    });
    let store = memory();
    let planner: Arc<dyn Worker> = Arc::new(Planner("plan".into()));
    let e = engine(&store, [once_bad(), note, planner]);
    let tasks = [
        TaskSpec::new("plan", "plan").expands(),
        TaskSpec::new("bad", "once_bad").needs("plan"),
        TaskSpec::new("not wanted", "note").needs("bad"),
        TaskSpec::new("wanted", "note").needs("bad"),
    ];
    assert_eq!(run(&e, tasks).await.status, RunStatus::Failed);
    let again = e.resume(&"r".into(), ResumeFailed::Retry).await.unwrap();
    let r = again.wait().await.unwrap();
    assert_eq!(r.status, RunStatus::Succeeded);
    assert_eq!(*ran.lock().unwrap(), ["wanted"]);
    let placed = store.read(&"r".into(), 0, 99).await.unwrap();
    let of =
        |e: Event| matches!(e, Event::Dispatched { task, .. } if task.as_str() == "not wanted");
    assert!(
        !placed
            .into_iter()
            .any(|s| of(Event::from_record(&s.record).unwrap()))
    );
}

/// Publishes outside any step, and can look whether it did.
#[derive(Debug)]
struct Publisher {
    name: WorkerName,
    published: Arc<AtomicUsize>,
    asked: Arc<AtomicUsize>,
}

#[async_trait]
impl Worker for Publisher {
    fn name(&self) -> &WorkerName {
        &self.name
    }
    async fn run(&self, _: Value, _: &TaskContext) -> Result<TaskOutput, Halt> {
        self.published.fetch_add(1, SeqCst);
        Err(failure().retryable().into())
    }
    async fn verify(&self, _: &Value, _: &TaskContext) -> Result<Option<TaskOutput>, Halt> {
        self.asked.fetch_add(1, SeqCst);
        Ok((self.published.load(SeqCst) > 0).then(|| json!("was there").into()))
    }
}

#[tokio::test]
async fn a_verifiable_task_looks_at_the_world_before_it_is_done_again() {
    let (published, asked) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let worker = Arc::new(Publisher {
        name: "publish".into(),
        published: published.clone(),
        asked: asked.clone(),
    });
    let retry = Retry {
        first_delay_ms: 1,
        ..Retry::attempts(3)
    };
    let task = TaskSpec::new("a", "publish")
        .effect(Effect::Verifiable)
        .retry(retry);
    let r = run(&engine(&memory(), [worker as Arc<dyn Worker>]), [task]).await;
    assert_eq!(r.state.value("a"), Some(&json!("was there")));
    let counts = (published.load(SeqCst), asked.load(SeqCst));
    assert_eq!(
        counts,
        (1, 1),
        "published once, asked before the second time only"
    );
}
