use crate::{
    kit::{engine, graph, memory, sqlite},
    run,
};
use serde_json::{Value, json};
use smallhands_core::{
    Budget, Condition, Effect, Failure, FailureClass, Halt, OnFailure, Question, Retry, Step,
    TaskContext, TaskOutput, TaskSpec, Usage, Worker, WorkerName, async_trait, worker,
};
use smallhands_graph::{
    Conditions, Event, GraphPatch, NewRun, NodeState, ResumeFailed, RunState, RunStatus, mermaid,
};
use std::{
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

fn sum() -> Arc<dyn Worker> {
    worker("sum", |v: Value, _| async move {
        let n: u64 = v
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(_, x)| x.as_u64())
            .sum();
        Ok(json!({ "n": n }))
    })
}
fn echo() -> Arc<dyn Worker> {
    worker("echo", |v: Value, _| async move { Ok(v) })
}
fn fail(retryable: bool) -> Arc<dyn Worker> {
    worker("fail", move |_: Value, _| async move {
        let f = Failure::new("test.fail", FailureClass::Task, "no");
        Err::<(), _>(Halt::Failed(if retryable { f.retryable() } else { f }))
    })
}
fn state<'a>(s: &'a RunState, id: &str) -> &'a NodeState {
    &s.nodes[&id.into()].state
}

#[tokio::test]
async fn a_diamond_binds_outputs() {
    let dir = tempfile::tempdir().unwrap();
    for store in [memory(), sqlite(dir.path())] {
        let r = run(
            &engine(&store, [sum()]),
            [
                TaskSpec::new("a", "sum").input(json!({"x": 1})),
                TaskSpec::new("b", "sum")
                    .bind("x", "a", "/n")
                    .input(json!({"y": 10})),
                TaskSpec::new("c", "sum")
                    .bind("x", "a", "/n")
                    .input(json!({"y": 100})),
                TaskSpec::new("d", "sum")
                    .bind("b", "b", "/n")
                    .bind("c", "c", "/n"),
            ],
        )
        .await;
        assert_eq!(r.status, RunStatus::Succeeded);
        assert_eq!(r.state.value("d"), Some(&json!({"n": 112})));
        // A reader folds the same state from the journal.
        let read = RunState::load(&*store, &"r".into()).await.unwrap();
        assert_eq!(read.nodes, r.state.nodes);
        let heads = store.runs(None, 10).await.unwrap();
        assert_eq!(
            (
                heads.len(),
                heads[0].head.status.as_str(),
                heads[0].head.settled
            ),
            (1, "succeeded", 4)
        );
        let drawn = mermaid(&read);
        assert!(
            drawn.contains("n3[\"d<br/>done\"]:::done") && drawn.contains("n1 --> n3"),
            "{drawn}"
        );
    }
}

#[tokio::test]
async fn a_missing_pointer_fails_the_task_by_name() {
    let r = run(
        &engine(&memory(), [sum()]),
        [
            TaskSpec::new("a", "sum").input(json!({})),
            TaskSpec::new("b", "sum").bind("x", "a", "/m"),
        ],
    )
    .await;
    assert!(
        matches!(state(&r.state, "b"), NodeState::Failed(f) if f.message == "the output of `a` has no `/m`")
    );
}

#[tokio::test]
async fn retries_wait_longer_each_time_and_end() {
    let tries = Arc::new(AtomicUsize::new(0));
    let t = tries.clone();
    let flaky = worker("flaky", move |(): (), _| {
        let n = t.fetch_add(1, SeqCst) + 1;
        async move {
            let f = Failure::new("test.flaky", FailureClass::Task, "again").retryable();
            if n < 3 { Err(Halt::Failed(f)) } else { Ok(n) }
        }
    });
    let retry = Retry {
        max_attempts: 3,
        first_delay_ms: 20,
        ..Retry::default()
    };
    let store = memory();
    let start = Instant::now();
    let r = run(
        &engine(&store, [flaky]),
        [TaskSpec::new("a", "flaky").retry(retry)],
    )
    .await;
    assert_eq!(r.state.value("a"), Some(&json!(3)));
    assert!(start.elapsed() >= Duration::from_millis(60));
    let waits: Vec<_> = store
        .read(&"r".into(), 0, 99)
        .await
        .unwrap()
        .into_iter()
        .filter_map(|s| match Event::from_record(&s.record).unwrap() {
            Event::Ended { retry_after_ms, .. } => Some(retry_after_ms),
            _ => None,
        })
        .collect();
    assert!(
        matches!(waits[..], [Some(20..=24), Some(40..=48), None]),
        "{waits:?}"
    );

    let r = run(
        &engine(&memory(), [fail(true)]),
        [TaskSpec::new("a", "fail").retry(Retry {
            first_delay_ms: 1,
            ..Retry::attempts(2)
        })],
    )
    .await;
    assert_eq!(
        (r.status, r.state.nodes[&"a".into()].attempt),
        (RunStatus::Failed, 2)
    );
}

#[tokio::test]
async fn failure_policies() {
    let tasks = |p| {
        [
            TaskSpec::new("bad", "fail").on_failure(p),
            TaskSpec::new("next", "echo").bind("got", "bad", ""),
            TaskSpec::new("after", "echo").needs("next"),
            TaskSpec::new("other", "echo"),
        ]
    };
    let go = async |p| {
        run(
            &engine(&memory(), [fail(false), echo()]).max_parallel(1),
            tasks(p),
        )
        .await
    };
    let r = go(OnFailure::FailRun).await;
    assert_eq!(r.status, RunStatus::Failed);
    assert_eq!(
        state(&r.state, "other"),
        &NodeState::Ready,
        "nothing new starts"
    );
    let r = go(OnFailure::SkipDependents).await;
    assert_eq!(r.status, RunStatus::Succeeded);
    assert_eq!(
        [
            state(&r.state, "next"),
            state(&r.state, "after"),
            state(&r.state, "other")
        ],
        [&NodeState::Skipped, &NodeState::Skipped, &NodeState::Done]
    );
    let r = go(OnFailure::Continue).await;
    assert_eq!(
        (r.status, r.state.value("next")),
        (RunStatus::Succeeded, Some(&json!({"got": null})))
    );
}

#[tokio::test]
async fn conditions_decide_and_their_verdict_is_journaled() {
    let store = memory();
    let e =
        engine(&store, [sum(), echo()]).conditions(Conditions::default().with("never", |_| false));
    let r = run(
        &e,
        [
            TaskSpec::new("a", "sum").input(json!({"x": 5})),
            TaskSpec::new("big", "echo")
                .needs("a")
                .when(Condition::Expr("a.n > 3".into())),
            TaskSpec::new("small", "echo")
                .needs("a")
                .when(Condition::Expr("a.n <= 3".into())),
            TaskSpec::new("then", "echo").needs("small"),
            TaskSpec::new("no", "echo").when(Condition::Named("never".into())),
            TaskSpec::new("odd", "echo")
                .when(Condition::Named("unheard of".into()))
                .on_failure(OnFailure::SkipDependents),
        ],
    )
    .await;
    let s = |id| state(&r.state, id).as_str();
    assert_eq!(
        [s("big"), s("small"), s("then"), s("no"), s("odd")],
        ["done", "skipped", "skipped", "skipped", "failed"]
    );
}

#[tokio::test]
async fn a_timeout_stops_the_attempt() {
    let slow = worker("slow", |(): (), cx: TaskContext| async move {
        cx.cancel().cancelled().await;
        Err::<(), _>(Halt::Cancelled)
    });
    let stuck = worker("stuck", |(): (), _| async move {
        std::future::pending::<Result<(), Halt>>().await
    });
    let e = engine(&memory(), [slow, stuck]).grace(Duration::from_millis(30));
    let t = |id: &str| {
        TaskSpec::new(id, id)
            .timeout(Duration::from_millis(50))
            .on_failure(OnFailure::SkipDependents)
    };
    let r = run(&e, [t("slow"), t("stuck")]).await;
    for id in ["slow", "stuck"] {
        assert!(matches!(state(&r.state, id), NodeState::Failed(f) if f.code == "task.timeout"));
    }
}

#[tokio::test]
async fn cancelling_ends_a_run_for_good() {
    let slow = worker("slow", |(): (), cx: TaskContext| async move {
        cx.cancel().cancelled().await;
        Err::<(), _>(Halt::Cancelled)
    });
    let store = memory();
    let e = engine(&store, [slow]);
    let tasks = [
        TaskSpec::new("a", "slow"),
        TaskSpec::new("b", "slow").needs("a"),
    ];
    let h = e.start(NewRun::new("r", graph(tasks))).await.unwrap();
    h.cancel();
    let r = h.wait().await.unwrap();
    assert_eq!(
        (r.status, state(&r.state, "a").as_str()),
        (RunStatus::Cancelled, "cancelled")
    );
    let e = e.resume(&"r".into(), ResumeFailed::No).await.unwrap_err();
    assert_eq!(e.to_string(), "run `r` has cancelled already");
}

#[derive(Debug)]
struct Planner(WorkerName);
#[async_trait]
impl Worker for Planner {
    fn name(&self) -> &WorkerName {
        &self.0
    }
    async fn run(&self, input: Value, cx: &TaskContext) -> Result<TaskOutput, Halt> {
        let revision = cx.view().unwrap()["revision"].as_u64();
        let mut patch = GraphPatch::adding(
            (0..3).map(|i| TaskSpec::new(format!("t{i}"), "echo").needs("plan")),
        );
        patch.expected_revision = revision.map(|r| r + input["stale"].as_u64().unwrap_or(0));
        Ok(TaskOutput {
            expansion: serde_json::to_value(patch).ok(),
            ..Value::Null.into()
        })
    }
}

#[tokio::test]
async fn a_planner_grows_the_graph_in_the_append_of_its_result() {
    let workers = || [Arc::new(Planner("plan".into())) as Arc<dyn Worker>, echo()];
    let store = memory();
    let r = run(
        &engine(&store, workers()),
        [TaskSpec::new("plan", "plan").expands().input(json!({}))],
    )
    .await;
    assert_eq!(
        (r.status, r.state.nodes.len(), r.state.revision),
        (RunStatus::Succeeded, 4, 2)
    );
    let kinds: Vec<_> = store
        .read(&"r".into(), 0, 99)
        .await
        .unwrap()
        .into_iter()
        .map(|s| s.record.kind)
        .collect();
    assert_eq!(kinds[3..6], ["dispatched", "ended", "patched"]);

    let stale = TaskSpec::new("plan", "plan")
        .expands()
        .input(json!({"stale": 1}));
    let r = run(&engine(&memory(), workers()), [stale]).await;
    assert!(matches!(state(&r.state, "plan"), NodeState::Failed(f) if f.code == "patch.rejected"));
}

#[tokio::test]
async fn an_output_must_fit_its_schema() {
    let t = TaskSpec::new("a", "echo")
        .input(json!(7))
        .output_schema(json!({"type": "string"}));
    let r = run(&engine(&memory(), [echo()]), [t]).await;
    assert!(matches!(state(&r.state, "a"), NodeState::Failed(f) if f.code == "output.schema"));
}

fn spender() -> Arc<dyn Worker> {
    worker("spend", |tokens: u64, cx: TaskContext| async move {
        let most = Usage {
            input_tokens: tokens,
            calls: 1,
            ..Usage::default()
        };
        let step = Step::new("call").effect(Effect::Idempotent).reserving(most);
        cx.step(step, |call| async move {
            let held = call.reserve(most).await?;
            held.settle(Usage {
                input_tokens: tokens / 2,
                calls: 1,
                ..Usage::default()
            })
            .await
        })
        .await
    })
}

#[tokio::test]
async fn budgets_hold_before_and_charge_what_was_spent() {
    let store = memory();
    let mut new = NewRun::new(
        "r",
        graph([
            TaskSpec::new("a", "spend").input(json!(60)),
            TaskSpec::new("b", "spend").input(json!(60)).needs("a"),
            TaskSpec::new("c", "spend")
                .input(json!(60))
                .needs("b")
                .on_failure(OnFailure::SkipDependents),
            TaskSpec::new("own", "spend")
                .input(json!(8))
                .needs("b")
                .budget(Budget {
                    tokens: Some(7),
                    ..Budget::default()
                })
                .on_failure(OnFailure::SkipDependents),
        ]),
    );
    new.budget.tokens = Some(100);
    let r = engine(&store, [spender()])
        .start(new)
        .await
        .unwrap()
        .wait()
        .await
        .unwrap();
    // 30 + 30 spent; 60 more does not fit into 100.
    assert_eq!((r.state.spent.input_tokens, r.state.spent.calls), (60, 2));
    for (id, whose) in [("c", "the run"), ("own", "task `own`")] {
        assert!(
            matches!(state(&r.state, id), NodeState::Failed(f) if f.code == "budget.exhausted" && f.message.contains(whose)),
            "{id}"
        );
    }
}

#[tokio::test]
async fn a_question_outlives_the_engine() {
    let dir = tempfile::tempdir().unwrap();
    let asker = || {
        worker("ask", |(): (), cx: TaskContext| async move {
            let before = cx.step(Step::new("once"), |_| async { Ok(7) }).await?;
            let q = Question::new("go?").schema(json!({"type": "boolean"}));
            let a = cx.ask("go", q).await?;
            Ok(json!([before, a]))
        })
    };
    {
        let r = run(
            &engine(&sqlite(dir.path()), [asker()]),
            [TaskSpec::new("a", "ask")],
        )
        .await;
        assert_eq!(
            (r.status, state(&r.state, "a")),
            (RunStatus::Waiting, &NodeState::Suspended)
        );
    }
    let store = sqlite(dir.path());
    let e = engine(&store, [asker()]);
    let (run, task) = ("r".into(), "a".into());
    assert!(
        e.answer(&run, &task, &"other".into(), json!(1))
            .await
            .unwrap_err()
            .to_string()
            .contains("no open question")
    );
    e.answer(&run, &task, &"go".into(), json!(true))
        .await
        .unwrap();
    let r = e
        .resume(&run, ResumeFailed::No)
        .await
        .unwrap()
        .wait()
        .await
        .unwrap();
    assert_eq!(r.state.value("a"), Some(&json!([7, true])));
    let begun = store
        .read(&run, 0, 99)
        .await
        .unwrap()
        .iter()
        .filter(|s| s.record.kind == "step_began")
        .count();
    assert_eq!(begun, 1, "the step before the question is not repeated");
}

#[tokio::test]
async fn stopping_keeps_finished_work_and_resume_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let ran = Arc::new(AtomicUsize::new(0));
    let make = |ran: Arc<AtomicUsize>, block: bool| {
        worker("w", move |n: u64, cx: TaskContext| {
            let ran = ran.clone();
            async move {
                if block && n == 2 {
                    cx.cancel().cancelled().await;
                    return Err(Halt::Cancelled);
                }
                ran.fetch_add(1, SeqCst);
                Ok(n)
            }
        })
    };
    let t = |n: u64| TaskSpec::new(format!("t{n}"), "w").input(n);
    let tasks = [t(1), t(2).needs("t1"), t(3).needs("t2")];
    {
        let store = sqlite(dir.path());
        let mut h = engine(&store, [make(ran.clone(), true)])
            .start(NewRun::new("r", graph(tasks)))
            .await
            .unwrap();
        let mut updates = h.updates();
        while let Some(u) = updates.next().await {
            if let smallhands_graph::Update::Event { event, .. } = u
                && matches!(&*event, Event::Dispatched { task, .. } if task.as_str() == "t2")
            {
                break;
            }
        }
        h.stop();
        let r = h.wait().await.unwrap();
        assert_eq!((r.status, ran.load(SeqCst)), (RunStatus::Paused, 1));
    }
    let r = engine(&sqlite(dir.path()), [make(ran.clone(), false)])
        .resume(&"r".into(), ResumeFailed::No)
        .await
        .unwrap()
        .wait()
        .await
        .unwrap();
    assert_eq!((r.status, ran.load(SeqCst)), (RunStatus::Succeeded, 3));
}

#[tokio::test]
async fn failed_tasks_can_be_tried_again() {
    let ok = Arc::new(AtomicUsize::new(0));
    let o = ok.clone();
    let w = worker("w", move |_: Value, _| {
        let n = o.load(SeqCst);
        async move {
            if n == 0 {
                Err(Halt::Failed(Failure::new("x", FailureClass::Task, "no")))
            } else {
                Ok(n)
            }
        }
    });
    let store = memory();
    let e = engine(&store, [w]);
    let r = run(
        &e,
        [TaskSpec::new("a", "w"), TaskSpec::new("b", "w").needs("a")],
    )
    .await;
    assert_eq!(r.status, RunStatus::Failed);
    ok.store(1, SeqCst);
    let r = e
        .resume(&"r".into(), ResumeFailed::Retry)
        .await
        .unwrap()
        .wait()
        .await
        .unwrap();
    assert_eq!(
        (
            r.status,
            r.state.nodes[&"a".into()].attempt,
            r.state.value("b")
        ),
        (RunStatus::Succeeded, 2, Some(&json!(1)))
    );
}

#[tokio::test]
async fn a_wide_graph_settles() {
    let dir = tempfile::tempdir().unwrap();
    let mut tasks: Vec<_> = (0..300)
        .map(|i| TaskSpec::new(format!("m{i}"), "echo").input(i))
        .collect();
    let mut join = TaskSpec::new("join", "echo");
    for i in 0..300 {
        join = join.needs(format!("m{i}"));
    }
    tasks.push(join);
    let r = run(&engine(&sqlite(dir.path()), [echo()]), tasks).await;
    assert_eq!(
        (r.status, r.state.ready().count()),
        (RunStatus::Succeeded, 0)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_body_that_blocks_its_thread_holds_up_no_other() {
    let met = Arc::new((Mutex::new(0), Condvar::new()));
    let meet = worker("meet", move |_: Value, _| {
        let met = met.clone();
        async move {
            // Without an await: each holds a thread until the other is there as well.
            let (count, changed) = &*met;
            let mut n = count.lock().unwrap();
            *n += 1;
            changed.notify_all();
            let guard = Duration::from_secs(20);
            let (_n, late) = changed.wait_timeout_while(n, guard, |n| *n < 2).unwrap();
            Ok(!late.timed_out())
        }
    });
    let both = [TaskSpec::new("a", "meet"), TaskSpec::new("b", "meet")];
    let r = run(&engine(&memory(), [meet]), both).await;
    let met = |id| r.state.value(id) == Some(&json!(true));
    assert!(met("a") && met("b"), "one waited for the other to end");
}
