//! Compensation, retries, and what stops when a run fails.

use crate::kit::{
    Ledger, again, code, echo, engine, engine_on, events, fail, failure, note, picky, run, seen,
    simulated, start, state, states, stores, until, wait,
};
use serde_json::{Value, json};
use smallhands_core::{
    Clock, Condition, FailureClass, Halt, MapOver, OnFailure, Question, Retry, SubGraph,
    TaskContext, TaskSpec, Timestamp, Worker, worker,
};
use smallhands_graph::{Event, ResumeFailed, RunStatus};
use std::{sync::Arc, time::Duration};

fn t(id: &str, worker: &str) -> TaskSpec {
    TaskSpec::new(id, worker)
}
fn undo(by: &str) -> OnFailure {
    OnFailure::Compensate(by.into())
}

#[tokio::test]
async fn a_compensation_runs_while_the_run_fails() {
    let (stores, _dir) = stores();
    for store in stores {
        let l = Ledger::default();
        let e = engine(&store, [fail(), note(&l), wait(&l)]);
        let tasks = [
            t("w", "wait"),
            t("a", "fail")
                .input(json!({"n": 1}))
                .on_failure(undo("note")),
            t("next", "note").needs("a"),
        ];
        let r = run(&e, tasks).await;
        assert_eq!(r.status, RunStatus::Failed);
        let ends = states(&r.state, ["a", "a~undo", "next", "w"]);
        assert_eq!(ends, ["failed", "done", "skipped", "cancelled"]);
        let got = r.state.value("a~undo").unwrap();
        assert_eq!(
            (&got["task"], &got["input"]),
            (&json!("a"), &json!({"n": 1}))
        );
        assert_eq!(got["failure"]["code"], "test.fail");
        assert_eq!(l.count("a~undo"), 1);
    }
}

#[tokio::test]
async fn a_compensation_that_a_crash_kept_from_running_runs_on_resume() {
    let (stores, _dir) = stores();
    for store in stores {
        let l = Ledger::default();
        let tasks = [t("a", "fail").on_failure(undo("note"))];
        run(&engine(&store, [fail(), note(&l)]), tasks).await;
        // Forks at every record from the failure on are runs that died there.
        let e = engine(&store, [fail(), note(&l)]);
        let all = events(&store, "r").await;
        let failed = all.iter().position(|e| matches!(e, Event::Ended { .. }));
        let ended = |e: &Event| matches!(e, Event::Ended { task, .. } if task.as_str() == "a~undo");
        let undone = all.iter().position(ended).unwrap();
        for at in failed.unwrap()..all.len() - 1 {
            l.clear();
            let to = format!("f{at}").into();
            e.fork(&"r".into(), at as u64 + 1, &to).await.unwrap();
            let h = e.resume(&to, ResumeFailed::No).await.unwrap();
            let r = h.wait().await.unwrap();
            let ends = states(&r.state, ["a", "a~undo"]);
            assert_eq!((r.status, ends), (RunStatus::Failed, ["failed", "done"]));
            assert_eq!(l.count("a~undo"), usize::from(at < undone), "fork at {at}");
        }
    }
}

#[tokio::test]
async fn a_compensation_that_fails_can_be_tried_again_with_its_task() {
    let (stores, _dir) = stores();
    for store in stores {
        let l = Ledger::default();
        let e = engine(&store, [fail(), echo()]);
        let tasks = [
            t("a", "fail").on_failure(undo("fail")),
            t("b", "echo").needs("a"),
        ];
        let r = run(&e, tasks).await;
        assert_eq!(states(&r.state, ["a", "a~undo"]), ["failed", "failed"]);
        // Compensated anew, because it failed anew.
        let r = again(&e, ResumeFailed::Retry).await;
        assert_eq!(r.status, RunStatus::Failed);
        assert_eq!(states(&r.state, ["a", "a~undo"]), ["failed", "failed"]);
        let mended = worker("fail", |v: Value, _| async move { Ok(v) });
        let r = again(
            &engine(&store, [mended, note(&l), echo()]),
            ResumeFailed::Retry,
        )
        .await;
        assert_eq!(r.status, RunStatus::Succeeded);
        assert_eq!(
            states(&r.state, ["a", "a~undo", "b"]),
            ["done", "none", "done"]
        );
    }
}

fn map(worker: &str) -> TaskSpec {
    let mut m = t("m", worker).needs("list");
    m.map = Some(Box::new(MapOver {
        from: "list".into(),
        pointer: String::new(),
        field: String::new(),
        key: None,
        max_parallel: None,
    }));
    m
}

#[tokio::test]
async fn a_map_that_failed_is_compensated_again_when_it_fails_again() {
    let (stores, _dir) = stores();
    for store in stores {
        let l = Ledger::default();
        let e = engine(&store, [echo(), picky(&l), note(&l)]);
        let tasks = [t("list", "echo").input(json!(["ok", "bad"])), {
            map("picky").on_failure(undo("note"))
        }];
        let r = run(&e, tasks).await;
        assert_eq!((r.status, l.count("m~undo")), (RunStatus::Failed, 1));
        let r = again(&e, ResumeFailed::Retry).await;
        assert_eq!((r.status, l.count("m~undo")), (RunStatus::Failed, 2));
        let ends = states(&r.state, ["m", "m[bad]", "m~undo"]);
        assert_eq!(ends, ["failed", "failed", "done"]);
        assert_eq!(l.count("m[ok]"), 1, "a finished instance is not run again");
    }
}

#[tokio::test]
async fn only_the_failed_instance_of_a_map_is_tried_again() {
    let (stores, _dir) = stores();
    for store in stores {
        let l = Ledger::default();
        let ledger = l.clone();
        let flaky = worker("flaky", move |v: Value, cx: TaskContext| {
            ledger.add(cx.key().task.as_str());
            let bad = v == "bad" && cx.key().attempt == 1;
            async move {
                match bad {
                    true => Err(Halt::from(failure())),
                    false => Ok(v),
                }
            }
        });
        for (n, policy) in [OnFailure::FailRun, OnFailure::SkipDependents]
            .into_iter()
            .enumerate()
        {
            l.clear();
            let e = engine(&store, [echo(), flaky.clone()]);
            let tasks = [
                t("list", "echo").input(json!(["a", "bad", "c"])),
                map("flaky").on_failure(policy),
                t("after", "echo").bind("all", "m", ""),
                // A run that put up with all its failures has succeeded, and is not tried again.
                t("last", "flaky").input("bad").needs("list").priority(-1),
            ];
            let run = format!("r{n}").as_str().into();
            let new = smallhands_graph::NewRun::new(format!("r{n}"), crate::kit::graph(tasks));
            let r = e.start(new).await.unwrap().wait().await.unwrap();
            assert_eq!(states(&r.state, ["m", "after"]), ["failed", "skipped"]);
            let h = e.resume(&run, ResumeFailed::Retry).await.unwrap();
            let r = h.wait().await.unwrap();
            assert_eq!(r.status, RunStatus::Succeeded);
            assert_eq!(
                r.state.value("after"),
                Some(&json!({"all": ["a", "bad", "c"]}))
            );
            assert_eq!([l.count("m[bad]"), l.count("m[a]")], [2, 1]);
        }
    }
}

#[tokio::test]
async fn what_was_tolerated_inside_a_finished_task_is_not_opened_again() {
    let (stores, _dir) = stores();
    for store in stores {
        let l = Ledger::default();
        let e = engine(&store, [echo(), picky(&l), fail()]);
        let tasks = [
            t("list", "echo").input(json!(["a", "bad"])),
            map("picky").on_failure(OnFailure::Continue),
            t("after", "echo").bind("all", "m", ""),
            t("bad", "fail").needs("after"),
        ];
        assert_eq!(run(&e, tasks).await.status, RunStatus::Failed);
        let r = again(&e, ResumeFailed::Retry).await;
        assert_eq!(r.status, RunStatus::Failed);
        assert_eq!(
            l.count("m[bad]"),
            1,
            "the map is done, and so is what used it"
        );
        assert_eq!(state(&r.state, "m"), "done");
    }
}

/// One that fails before it is placed: its binding does not hold.
fn unbound(id: &str) -> TaskSpec {
    t(id, "echo").bind("x", "src", "/nothing")
}

#[tokio::test]
async fn whatever_fails_the_run_stops_what_runs() {
    let deadline = || {
        worker("asks", |_: Value, cx: TaskContext| async move {
            let now = cx.ambient().clock.now();
            let q = Question::new("?").deadline(Timestamp(now.0 + 5));
            cx.ask("q", q).await
        })
    };
    let (stores, _dir) = stores();
    for store in stores {
        let bad = [
            unbound("bad"),
            t("bad", "echo")
                .needs("src")
                .when(Condition::Named("unheard of".into())),
            t("bad", "asks").needs("src"),
        ];
        for (n, bad) in bad.into_iter().enumerate() {
            let l = Ledger::default();
            let begun = l.clone();
            let src = worker("src", move |_: Value, _| {
                let l = begun.clone();
                async move {
                    seen(&l, "w began").await;
                    Ok(())
                }
            });
            let e = engine(&store, [echo(), src, wait(&l), deadline()]);
            let tasks = [t("w", "wait"), t("src", "src"), bad];
            let new = smallhands_graph::NewRun::new(format!("r{n}"), crate::kit::graph(tasks));
            let h = e.start(new).await.unwrap();
            let r = tokio::time::timeout(Duration::from_secs(300), h.wait()).await;
            let r = r.expect("what runs was not stopped").unwrap();
            assert_eq!(r.status, RunStatus::Failed, "{n}");
            assert_eq!(
                states(&r.state, ["w", "bad"]),
                ["cancelled", "failed"],
                "{n}"
            );
        }
    }
}

/// Fails until that attempt, with such a failure.
fn flaky(l: &Ledger, good: u32, class: FailureClass) -> Arc<dyn Worker> {
    let l = l.clone();
    worker("flaky", move |_: Value, cx: TaskContext| {
        let n = cx.key().attempt;
        l.add(format!("{n}"));
        async move {
            let f = smallhands_core::Failure::new("test.flaky", class, "again").retryable();
            if n < good {
                Err(Halt::Failed(f))
            } else {
                Ok(n)
            }
        }
    })
}

#[tokio::test]
async fn only_failures_of_the_named_classes_are_tried_again() {
    let (stores, _dir) = stores();
    for store in stores {
        for (n, (class, tries)) in [(FailureClass::Unavailable, 3), (FailureClass::Task, 1)]
            .into_iter()
            .enumerate()
        {
            let l = Ledger::default();
            let retry = Retry {
                first_delay_ms: 1,
                ..Retry::attempts(5)
            };
            let task = t("a", "flaky").retry(retry.only([FailureClass::Unavailable]));
            let e = engine(&store, [flaky(&l, 3, class)]);
            let new = smallhands_graph::NewRun::new(format!("r{n}"), crate::kit::graph([task]));
            e.start(new).await.unwrap().wait().await.unwrap();
            assert_eq!(l.all().len(), tries, "{class:?}");
        }
    }
}

fn slow_retry(ms: u64) -> Retry {
    Retry {
        first_delay_ms: ms,
        jitter: 0.0,
        ..Retry::attempts(2)
    }
}

#[test]
fn backoff_survives_a_crash_and_a_clock_that_was_set_back() {
    let (clock, store) = simulated();
    clock.runtime().unwrap().block_on(async {
        let l = Ledger::default();
        let e = engine_on(
            &store,
            Arc::new(clock.clone()),
            [flaky(&l, 2, FailureClass::Task)],
        );
        let began = clock.now();
        let h = start(&e, [t("a", "flaky").retry(slow_retry(10_000))]).await;
        until(&e, "r", |e| matches!(e, Event::Ended { .. })).await;
        drop(h);
        clock.advance(Duration::from_secs(4));
        let r = again(&e, ResumeFailed::No).await;
        assert_eq!(r.status, RunStatus::Succeeded);
        assert_eq!(
            clock.now().0 - began.0,
            10_000,
            "no longer than it was to be"
        );
    });
    let (clock, store) = simulated();
    clock.runtime().unwrap().block_on(async {
        let l = Ledger::default();
        let e = engine_on(
            &store,
            Arc::new(clock.clone()),
            [flaky(&l, 2, FailureClass::Task)],
        );
        let h = start(&e, [t("a", "flaky").retry(slow_retry(10_000))]).await;
        until(&e, "r", |e| matches!(e, Event::Ended { .. })).await;
        drop(h);
        clock.set_wall(Timestamp(5));
        let began = clock.monotonic();
        let r = again(&e, ResumeFailed::No).await;
        assert_eq!(r.status, RunStatus::Succeeded);
        assert_eq!(clock.monotonic() - began, Duration::from_secs(10));
    });
}

#[test]
fn a_total_timeout_holds_over_all_attempts() {
    let (clock, store) = simulated();
    clock.runtime().unwrap().block_on(async {
        let c = clock.clone();
        let slow = worker("slow", move |_: Value, cx: TaskContext| {
            let c = c.clone();
            async move {
                tokio::select! {
                    () = c.sleep(Duration::from_millis(400)) => {}
                    () = cx.cancel().cancelled() => return Err(Halt::Cancelled),
                }
                Err::<(), _>(Halt::Failed(failure().retryable()))
            }
        });
        let e = engine_on(&store, Arc::new(clock.clone()), [slow]);
        let retry = Retry {
            factor: 1.0,
            max_attempts: 100,
            ..slow_retry(50)
        };
        let began = clock.now();
        let task = t("a", "slow")
            .retry(retry)
            .total_timeout(Duration::from_secs(1));
        let r = run(&e, [task]).await;
        assert_eq!(code(&r.state, "a"), "task.timeout");
        assert_eq!(r.state.nodes[&"a".into()].attempt, 3);
        let ended = r.state.nodes[&"a".into()].ended.unwrap();
        assert_eq!(ended.0 - began.0, 1_000);
    });
}

#[tokio::test]
async fn a_worker_that_this_binary_does_not_have_fails_its_task_by_name() {
    let (stores, _dir) = stores();
    for store in stores {
        let e = engine(&store, [echo()]);
        let r = run(&e, [t("a", "nobody"), t("b", "echo").bind("n", "a", "")]).await;
        assert_eq!(r.status, RunStatus::Failed);
        assert_eq!(code(&r.state, "a"), "worker.unknown");
        // One that has it takes the run up.
        let has = worker("nobody", |_: Value, _| async { Ok(1) });
        let r = again(&engine(&store, [echo(), has]), ResumeFailed::Retry).await;
        assert_eq!(r.state.value("b"), Some(&json!({"n": 1})));
    }
}

#[tokio::test]
async fn what_a_failure_cut_short_inside_another_task_is_done_on_revival() {
    let (stores, _dir) = stores();
    for store in stores {
        let l = Ledger::default();
        let (first, begun) = (l.clone(), l.clone());
        let slow = worker("slow", move |_: Value, cx: TaskContext| {
            let l = first.clone();
            async move {
                l.add("began");
                match l.count("began") {
                    1 => cx.cancel().cancelled().await,
                    _ => return Ok(7),
                }
                Err(Halt::Cancelled)
            }
        });
        let bad = worker("bad", move |_: Value, cx: TaskContext| {
            let l = begun.clone();
            async move {
                seen(&l, "began").await;
                match cx.key().attempt {
                    1 => Err(Halt::from(failure())),
                    _ => Ok(1),
                }
            }
        });
        let inner = SubGraph {
            tasks: vec![t("a", "slow").into()],
            output: None,
        };
        let outer = SubGraph {
            tasks: vec![TaskSpec::sub_graph("i", inner).into()],
            output: None,
        };
        let tasks = [
            TaskSpec::sub_graph("o", outer).on_failure(OnFailure::Continue),
            t("bad", "bad"),
            t("next", "echo").bind("n", "o", "/i/a"),
        ];
        let e = engine(&store, [slow, bad, echo()]);
        let r = run(&e, tasks).await;
        let ends = states(&r.state, ["bad", "o", "o/i", "o/i/a", "next"]);
        assert_eq!(
            ends,
            ["failed", "cancelled", "cancelled", "cancelled", "skipped"]
        );
        let r = again(&e, ResumeFailed::Retry).await;
        assert_eq!(r.status, RunStatus::Succeeded);
        assert_eq!(r.state.value("next"), Some(&json!({"n": 7})));
    }
}
