//! Changes of a graph that runs.

use crate::kit::{
    Ledger, echo, engine, events, fail, note, seen, start, state, states, stores, wait,
};
use serde_json::{Value, json};
use smallhands_core::{
    Binding, Halt, MapOver, OnFailure, SubGraph, TaskContext, TaskSpec, Worker, worker,
};
use smallhands_graph::{Engine, Event, GraphPatch, Rewire, RunHandle, RunStatus, StateStore};
use std::sync::Arc;

fn t(id: &str, worker: &str) -> TaskSpec {
    TaskSpec::new(id, worker)
}
fn rewire(task: &str, needs: &[&str]) -> Rewire {
    Rewire {
        task: task.into(),
        needs: needs.iter().map(Into::into).collect(),
        bind: Vec::new(),
    }
}

/// Runs until the ledger says `go`.
fn gate(l: &Ledger) -> Arc<dyn Worker> {
    let l = l.clone();
    worker("gate", move |v: Value, cx: TaskContext| {
        let l = l.clone();
        async move {
            l.add(format!("{} began", cx.key().task));
            tokio::select! {
                () = seen(&l, "go") => Ok(v),
                () = cx.cancel().cancelled() => Err(Halt::Cancelled),
            }
        }
    })
}

/// A run that waits at `gate`, with all kinds of tasks behind and before it.
async fn waiting(store: &Arc<dyn StateStore>, l: &Ledger) -> (Engine, RunHandle) {
    let e = engine(store, [echo(), note(l), gate(l), fail()]);
    let inner = SubGraph {
        tasks: vec![Arc::new(t("x", "gate"))],
        output: None,
    };
    let mut map = t("m", "gate").needs("early");
    map.map = Some(Box::new(MapOver {
        from: "early".into(),
        pointer: String::new(),
        field: String::new(),
        key: None,
        max_parallel: None,
    }));
    let tasks = [
        t("early", "echo").input(json!([1, 2])),
        t("gate", "gate"),
        t("a", "note").input(1).needs("gate"),
        t("b", "note").needs("a"),
        t("c", "note").needs("gate"),
        TaskSpec::sub_graph("h", inner),
        map,
    ];
    let h = start(&e, tasks).await;
    for id in ["gate", "h/x", "m[1]", "m[2]"] {
        seen(l, &format!("{id} began")).await;
    }
    (e, h)
}

#[tokio::test]
async fn each_kind_of_change_is_made_in_one_patch() {
    let (stores, _dir) = stores();
    for store in stores {
        let l = Ledger::default();
        let (e, h) = waiting(&store, &l).await;
        let patch = GraphPatch {
            expected_revision: Some(1),
            add: vec![Arc::new(t("new", "note").bind("a", "a", "").needs("early"))],
            replace: vec![Arc::new(t("a", "note").input(2).needs("gate"))],
            rewire: vec![Rewire {
                bind: vec![Binding {
                    field: "got".into(),
                    from: "new".into(),
                    pointer: "/a".into(),
                }],
                ..rewire("c", &["new"])
            }],
            cancel: vec!["h".into(), "m[2]".into()],
            remove: vec!["b".into()],
        };
        assert_eq!(h.patch(patch).await.unwrap(), 2);
        l.add("go");
        let r = h.wait().await.unwrap();
        assert_eq!(r.status, RunStatus::Succeeded);
        assert_eq!((r.state.value("a"), r.state.revision), (Some(&json!(2)), 2));
        assert_eq!(r.state.value("c"), Some(&json!({"got": 2})));
        assert_eq!(r.state.value("m"), Some(&json!([1, null])));
        let ends = states(&r.state, ["b", "h", "h/x", "m[1]", "m[2]"]);
        assert_eq!(
            ends,
            ["none", "cancelled", "cancelled", "done", "cancelled"]
        );
        assert_eq!(e.load(&"r".into()).await.unwrap().nodes, r.state.nodes);
    }
}

#[tokio::test]
async fn each_patch_that_does_not_fit_is_rejected_with_its_reason() {
    let (stores, _dir) = stores();
    for store in stores {
        let l = Ledger::default();
        let (e, h) = waiting(&store, &l).await;
        let none = GraphPatch::default;
        let add = |t: TaskSpec| GraphPatch::adding([t]);
        let replace = |t: TaskSpec| GraphPatch {
            replace: vec![Arc::new(t)],
            ..none()
        };
        let rewired = |r| GraphPatch {
            rewire: vec![r],
            ..none()
        };
        let cancel = |ids: &[&str]| GraphPatch {
            cancel: ids.iter().map(Into::into).collect(),
            ..none()
        };
        let remove = |id: &str| GraphPatch {
            remove: vec![id.into()],
            ..none()
        };
        let stale = GraphPatch {
            expected_revision: Some(7),
            ..none()
        };
        let cases = [
            (
                stale,
                "patch.stale",
                "it expects revision 7, the graph is at 1",
            ),
            (
                add(t("a", "note")),
                "graph.duplicate",
                "two tasks have the id `a`",
            ),
            (
                add(t("h/x", "note")),
                "graph.duplicate",
                "two tasks have the id `h/x`",
            ),
            (
                add(t("n", "note").needs("zz")),
                "graph.unknown_need",
                "needs `zz`, which does not exist",
            ),
            (
                add(t("n[1]", "note")),
                "graph.invalid",
                "its id contains `[`",
            ),
            (add(t("n", "")), "graph.invalid", "names no worker"),
            (
                replace(t("zz", "note")),
                "patch.unknown_task",
                "it replaces `zz`, which does not exist",
            ),
            (
                replace(t("early", "note")),
                "patch.begun",
                "it replaces `early`, which is done",
            ),
            (
                replace(t("h", "note")),
                "patch.begun",
                "it replaces `h`, which is expanded",
            ),
            (
                replace(t("h/x", "note")),
                "patch.inside",
                "it replaces `h/x`, which stands inside another task",
            ),
            (
                replace(t("a", "note").needs("b")),
                "graph.cycle",
                "the tasks form a cycle",
            ),
            (
                rewired(rewire("gate", &["early"])),
                "patch.begun",
                "it rewires `gate`, which is running",
            ),
            (
                rewired(rewire("a", &["b"])),
                "graph.cycle",
                "the tasks form a cycle",
            ),
            (
                rewired(rewire("a", &["zz"])),
                "graph.unknown_need",
                "which does not exist",
            ),
            (
                cancel(&["early"]),
                "patch.begun",
                "it cancels `early`, which is done",
            ),
            (cancel(&["a", "a"]), "patch.twice", "it names `a` twice"),
            (
                cancel(&["zz"]),
                "patch.unknown_task",
                "it cancels `zz`, which does not exist",
            ),
            (
                remove("a"),
                "graph.unknown_need",
                "needs `a`, which does not exist",
            ),
            (
                remove("gate"),
                "patch.begun",
                "it removes `gate`, which is running",
            ),
            (remove("m[1]"), "patch.begun", "it removes `m[1]`"),
        ];
        for (patch, code, reason) in cases {
            let e = h.patch(patch).await.unwrap_err();
            assert_eq!(e.code(), code);
            assert!(e.to_string().contains(reason), "{e} / {reason}");
        }
        assert_eq!(e.load(&"r".into()).await.unwrap().revision, 1);
        l.add("go");
        assert_eq!(h.wait().await.unwrap().status, RunStatus::Succeeded);
    }
}

#[tokio::test]
async fn of_two_patches_against_one_revision_one_wins() {
    let (stores, _dir) = stores();
    for store in stores {
        let l = Ledger::default();
        let (_, h) = waiting(&store, &l).await;
        let adding = |id: &str| GraphPatch {
            expected_revision: Some(1),
            ..GraphPatch::adding([t(id, "echo")])
        };
        let both = tokio::join!(h.patch(adding("n1")), h.patch(adding("n2")));
        let oks = [both.0.is_ok(), both.1.is_ok()];
        assert_eq!(oks.iter().filter(|ok| **ok).count(), 1);
        l.add("go");
        let r = h.wait().await.unwrap();
        let there = states(&r.state, ["n1", "n2"]).map(|s| s == "done");
        assert_eq!(there, oks);
    }
}

#[tokio::test]
async fn the_late_result_of_a_replaced_task_is_recorded_and_ignored() {
    let (stores, _dir) = stores();
    for store in stores {
        let l = Ledger::default();
        // Ends well although it was asked to stop.
        let (late, ledger) = (l.clone(), l.clone());
        let stubborn = worker("stubborn", move |_: Value, cx: TaskContext| {
            let l = late.clone();
            async move {
                l.add("began");
                cx.cancel().cancelled().await;
                Ok("late")
            }
        });
        let slow = worker("slow", move |v: Value, _| {
            let l = ledger.clone();
            async move {
                seen(&l, "go").await;
                Ok(v)
            }
        });
        let e = engine(&store, [stubborn, slow, echo()]);
        let h = start(
            &e,
            [t("a", "stubborn"), t("b", "echo").bind("got", "a", "")],
        )
        .await;
        seen(&l, "began").await;
        let patch = GraphPatch {
            replace: vec![Arc::new(t("a", "slow").input("new"))],
            ..GraphPatch::default()
        };
        h.patch(patch).await.unwrap();
        crate::kit::until(&e, "r", |e| matches!(e, Event::Ended { .. })).await;
        l.add("go");
        let r = h.wait().await.unwrap();
        assert_eq!(r.state.value("b"), Some(&json!({"got": "new"})));
        let fences: Vec<_> = events(&store, "r")
            .await
            .into_iter()
            .filter_map(|e| match e {
                Event::Ended { task, fence, .. } if task.as_str() == "a" => Some(fence),
                _ => None,
            })
            .collect();
        assert!(matches!(fences[..], [old, new] if old < new), "{fences:?}");
        assert_eq!(r.state.nodes[&"a".into()].attempt, 2);
    }
}

#[tokio::test]
async fn what_a_patch_cancels_is_stopped_and_what_needs_it_is_skipped() {
    let (stores, _dir) = stores();
    for store in stores {
        let l = Ledger::default();
        let e = engine(&store, [wait(&l), echo()]);
        let tasks = [
            t("w", "wait"),
            t("after", "echo").needs("w"),
            t("v", "wait"),
        ];
        let h = start(&e, tasks).await;
        seen(&l, "w began").await;
        let patch = GraphPatch {
            cancel: vec!["w".into()],
            ..GraphPatch::default()
        };
        h.patch(patch).await.unwrap();
        seen(&l, "w stopped").await;
        let read = e.load(&"r".into()).await.unwrap();
        assert_eq!(states(&read, ["w", "after"]), ["cancelled", "skipped"]);
        h.cancel();
        let r = h.wait().await.unwrap();
        assert_eq!(
            (r.status, state(&r.state, "v")),
            (RunStatus::Cancelled, "cancelled")
        );
        let e = e
            .resume(&"r".into(), smallhands_graph::ResumeFailed::No)
            .await;
        assert_eq!(e.unwrap_err().code(), "run.ended");
    }
}

#[tokio::test]
async fn a_task_that_was_removed_may_be_added_anew() {
    let (stores, _dir) = stores();
    for store in stores {
        let l = Ledger::default();
        let (_, h) = waiting(&store, &l).await;
        let patch = GraphPatch {
            remove: vec!["a".into()],
            add: vec![Arc::new(t("a", "fail").on_failure(OnFailure::Continue))],
            ..GraphPatch::default()
        };
        h.patch(patch).await.unwrap();
        l.add("go");
        let r = h.wait().await.unwrap();
        assert_eq!(
            (r.status, states(&r.state, ["a", "b"])),
            (RunStatus::Succeeded, ["failed", "done"])
        );
    }
}

#[tokio::test]
async fn what_a_cancelled_task_held_of_the_budget_is_charged() {
    let (stores, _dir) = stores();
    for store in stores {
        let l = Ledger::default();
        let ledger = l.clone();
        let spends = worker("spends", move |_: Value, cx: TaskContext| {
            let l = ledger.clone();
            async move {
                let most = smallhands_core::Usage {
                    input_tokens: 40,
                    ..Default::default()
                };
                let step = smallhands_core::Step::new("s").reserving(most);
                let act = |_| async {
                    l.add("began");
                    std::future::pending::<Result<(), _>>().await
                };
                cx.step(step, act).await
            }
        });
        let e = engine(&store, [spends]);
        let h = start(&e, [t("a", "spends")]).await;
        seen(&l, "began").await;
        let patch = GraphPatch {
            cancel: vec!["a".into()],
            ..GraphPatch::default()
        };
        h.patch(patch).await.unwrap();
        let r = h.wait().await.unwrap();
        assert_eq!(r.state.spent.tokens(), 40);
        assert_eq!(e.info(&"r".into()).await.unwrap().head.spent.tokens(), 40);
    }
}
