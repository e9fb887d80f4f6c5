//! Questions to people.

use crate::kit::{
    Ledger, again, code, echo, engine, engine_on, run, simulated, start, state, states, stores,
};
use serde_json::{Value, json};
use smallhands_core::{
    Clock, Condition, Halt, OnFailure, Question, Repeat, TaskContext, TaskSpec, Timestamp, Worker,
    worker,
};
use smallhands_graph::{Engine, ResumeFailed, RunStatus};
use std::{sync::Arc, time::Duration};

fn t(id: &str, worker: &str) -> TaskSpec {
    TaskSpec::new(id, worker)
}
async fn answer(e: &Engine, task: &str, ask: &str, v: Value) -> Result<(), String> {
    let r = e.answer(&"r".into(), &task.into(), &ask.into(), v).await;
    r.map_err(|e| e.code().into())
}

/// Asks two questions at once and returns both answers.
fn two() -> Arc<dyn Worker> {
    worker("two", |(): (), cx: TaskContext| async move {
        let q = |s: &str| Question::new(s).schema(json!({"type": s}));
        let (a, b) = tokio::join!(cx.ask("a", q("integer")), cx.ask("b", q("string")));
        Ok((a?, b?))
    })
}

#[tokio::test]
async fn several_questions_of_several_tasks_do_not_mix() {
    let (stores, _dir) = stores();
    for store in stores {
        let e = engine(&store, [two()]);
        let r = run(&e, [t("x", "two"), t("y", "two")]).await;
        assert_eq!(r.status, RunStatus::Waiting);
        assert_eq!(states(&r.state, ["x", "y"]), ["suspended", "suspended"]);
        assert_eq!(r.state.nodes[&"x".into()].questions.len(), 2);
        answer(&e, "x", "a", json!(1)).await.unwrap();
        answer(&e, "y", "b", json!("why")).await.unwrap();
        let r = again(&e, ResumeFailed::No).await;
        assert_eq!(states(&r.state, ["x", "y"]), ["suspended", "suspended"]);
        answer(&e, "y", "a", json!(2)).await.unwrap();
        let r = again(&e, ResumeFailed::No).await;
        assert_eq!(r.state.value("y"), Some(&json!([2, "why"])));
        assert_eq!(state(&r.state, "x"), "suspended");
        answer(&e, "x", "b", json!("ex")).await.unwrap();
        let r = again(&e, ResumeFailed::No).await;
        assert_eq!(r.status, RunStatus::Succeeded);
        assert_eq!(r.state.value("x"), Some(&json!([1, "ex"])));
    }
}

#[tokio::test]
async fn an_answer_must_be_of_the_form_that_was_asked_for() {
    let (stores, _dir) = stores();
    for store in stores {
        let l = Ledger::default();
        let e = engine(&store, [two(), crate::kit::wait(&l)]);
        run(&e, [t("x", "two")]).await;
        let of = async |ask, v| answer(&e, "x", ask, v).await.unwrap_err();
        assert_eq!(of("a", json!("one")).await, "run.answer");
        assert_eq!(of("c", json!(1)).await, "run.unknown_question");
        answer(&e, "x", "a", json!(1)).await.unwrap();
        answer(&e, "x", "a", json!(1)).await.unwrap();
        assert_eq!(of("a", json!(2)).await, "run.unknown_question");
        // The same while it is driven.
        let patch = smallhands_graph::GraphPatch::adding([t("w", "wait")]);
        let h = e.resume(&"r".into(), ResumeFailed::No).await.unwrap();
        h.patch(patch).await.unwrap();
        let live = async |ask: &str, v| {
            let r = h.answer(&"x".into(), &ask.into(), v).await;
            r.map_err(|e| e.code())
        };
        assert_eq!(live("b", json!(7)).await, Err("run.answer"));
        assert_eq!(live("c", json!(7)).await, Err("run.unknown_question"));
        assert_eq!(live("b", json!("s")).await, Ok(()));
        assert_eq!(live("b", json!("s")).await, Ok(()));
        assert_eq!(live("b", json!("u")).await, Err("run.unknown_question"));
        h.cancel();
        h.wait().await.unwrap();
    }
}

/// Asks with a deadline in ten seconds.
fn asks() -> Arc<dyn Worker> {
    worker("asks", |default: Value, cx: TaskContext| async move {
        let now = cx.ambient().clock.now();
        let mut q = Question::new("?").deadline(Timestamp(now.0 + 10_000));
        q.default = Some(default).filter(|d| !d.is_null());
        cx.ask("q", q).await
    })
}

#[test]
fn at_the_deadline_the_default_is_taken_while_somebody_drives() {
    let (clock, store) = simulated();
    clock.runtime().unwrap().block_on(async {
        let c = clock.clone();
        let busy = worker("busy", move |_: Value, _| {
            let c = c.clone();
            async move {
                c.sleep(Duration::from_secs(60)).await;
                Ok(())
            }
        });
        let e = engine_on(&store, Arc::new(clock.clone()), [asks(), busy, echo()]);
        let tasks = [
            t("a", "asks").input(5),
            t("b", "asks").on_failure(OnFailure::SkipDependents),
            t("after", "echo").bind("got", "a", ""),
            t("busy", "busy"),
        ];
        let began = clock.now().0;
        let r = run(&e, tasks).await;
        assert_eq!(r.status, RunStatus::Succeeded);
        assert_eq!(r.state.value("after"), Some(&json!({"got": 5})));
        assert_eq!(code(&r.state, "b"), "question.expired");
        let ended = r.state.nodes[&"a".into()].ended.unwrap().0;
        assert_eq!(ended - began, 10_000);
    });
}

#[test]
fn a_deadline_that_passed_while_nobody_drove_holds_on_resume() {
    let (clock, store) = simulated();
    clock.runtime().unwrap().block_on(async {
        let e = engine_on(&store, Arc::new(clock.clone()), [asks(), echo()]);
        let tasks = [
            t("a", "asks").input(5),
            t("after", "echo").bind("got", "a", ""),
        ];
        let r = run(&e, tasks).await;
        assert_eq!(r.status, RunStatus::Waiting);
        let head = e.info(&"r".into()).await.unwrap().head;
        assert_eq!(head.wake_at, Some(Timestamp(clock.now().0 + 10_000)));
        clock.advance(Duration::from_secs(11));
        // Somebody who takes it up when it is time finds it so.
        let late = answer(&e, "a", "q", json!(9)).await;
        let want = if late.is_ok() { 9 } else { 5 };
        let mut r = again(&e, ResumeFailed::No).await;
        if r.status == RunStatus::Waiting {
            r = again(&e, ResumeFailed::No).await;
        }
        assert_eq!(r.state.value("after"), Some(&json!({"got": want})));
    });
    let (clock, store) = simulated();
    clock.runtime().unwrap().block_on(async {
        let e = engine_on(&store, Arc::new(clock.clone()), [asks()]);
        run(&e, [t("a", "asks").input(5)]).await;
        clock.advance(Duration::from_secs(11));
        let r = again(&e, ResumeFailed::No).await;
        assert_eq!(r.state.value("a"), Some(&json!(5)), "{:?}", r.status);
    });
}

#[tokio::test]
async fn an_answer_that_comes_while_its_task_goes_to_sleep_wakes_it() {
    let (stores, _dir) = stores();
    for store in stores {
        // Either answer is enough; the other question stays open.
        let either = worker("either", |(): (), cx: TaskContext| async move {
            let a = cx.ask("a", Question::new("a?")).await;
            let b = cx.ask("b", Question::new("b?")).await;
            match (a, b) {
                (Ok(v), _) | (_, Ok(v)) => Ok(v),
                (Err(h), _) => {
                    while !cx.cancel().is_cancelled() {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                        if cx.ask("a", Question::new("a?")).await.is_ok() {
                            break;
                        }
                    }
                    Err(h)
                }
            }
        });
        let e = engine(&store, [either]);
        let h = start(&e, [t("x", "either")]).await;
        crate::kit::until(
            &e,
            "r",
            |e| matches!(e, smallhands_graph::Event::Asked { id, .. } if id.as_str() == "b"),
        )
        .await;
        h.answer(&"x".into(), &"a".into(), json!(3)).await.unwrap();
        let r = h.wait().await.unwrap();
        assert_eq!(
            (r.status, r.state.value("x")),
            (RunStatus::Succeeded, Some(&json!(3)))
        );
    }
}

#[tokio::test]
async fn a_task_that_waits_for_what_it_never_asked_fails() {
    let (stores, _dir) = stores();
    for store in stores {
        let odd = worker("odd", |(): (), _| async {
            Err::<(), _>(Halt::Suspended("never".into()))
        });
        let e = engine(&store, [odd]);
        let h = start(&e, [t("x", "odd")]).await;
        let r = tokio::time::timeout(Duration::from_secs(300), h.wait()).await;
        let r = r.expect("it is placed again and again").unwrap();
        assert_eq!(
            (r.status, state(&r.state, "x")),
            (RunStatus::Failed, "failed")
        );
    }
}

#[tokio::test]
async fn each_iteration_of_a_loop_asks_for_itself() {
    let (stores, _dir) = stores();
    for store in stores {
        let more = worker("more", |_: Value, cx: TaskContext| async move {
            cx.ask("more", Question::new("enough?")).await
        });
        let e = engine(&store, [more]);
        let repeat = Repeat {
            until: Condition::Expr("output".into()),
            max: 3,
            feed: None,
        };
        let r = run(&e, [t("x", "more").repeat(repeat)]).await;
        assert_eq!(r.status, RunStatus::Waiting);
        answer(&e, "x", "more", json!(false)).await.unwrap();
        let r = again(&e, ResumeFailed::No).await;
        assert_eq!(
            (r.status, r.state.nodes[&"x".into()].iteration),
            (RunStatus::Waiting, 2)
        );
        answer(&e, "x", "more", json!(true)).await.unwrap();
        assert_eq!(
            again(&e, ResumeFailed::No).await.status,
            RunStatus::Succeeded
        );
    }
}
