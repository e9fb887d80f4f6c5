//! Joins, maps, sub-graphs and loops.

use crate::kit::{
    Ledger, code, echo, engine, fail, note, picky, run, seen, start, state, states, stores, wait,
};
use serde_json::{Value, json};
use smallhands_core::{
    Binding, Condition, Join, MapOver, OnFailure, Repeat, SubGraph, TaskSpec, Worker, worker,
};
use smallhands_graph::RunStatus;
use std::sync::Arc;

fn t(id: &str, worker: &str) -> TaskSpec {
    TaskSpec::new(id, worker)
}
fn holder(id: &str, tasks: impl IntoIterator<Item = TaskSpec>, output: Option<&str>) -> TaskSpec {
    let tasks = tasks.into_iter().map(Arc::new).collect();
    let output = output.map(Into::into);
    TaskSpec::sub_graph(id, SubGraph { tasks, output })
}
fn from_holder(mut t: TaskSpec, field: &str, pointer: &str) -> TaskSpec {
    t.bind.push(Binding {
        field: field.into(),
        from: "".into(),
        pointer: pointer.into(),
    });
    t
}

#[tokio::test]
async fn any_takes_the_first_that_succeeds_and_a_late_failure_changes_nothing() {
    let (stores, _dir) = stores();
    for store in stores {
        let l = Ledger::default();
        let late = l.clone();
        let late = worker("late", move |_: Value, _| {
            let l = late.clone();
            async move {
                seen(&l, "any").await;
                Err::<(), _>(crate::kit::failure().into())
            }
        });
        let e = engine(&store, [echo(), late, note(&l), fail()]);
        let r = run(
            &e,
            [
                t("bad", "fail").on_failure(OnFailure::SkipDependents),
                t("late", "late").on_failure(OnFailure::SkipDependents),
                t("good", "echo").input(7),
                t("any", "note")
                    .bind("bad", "bad", "")
                    .bind("late", "late", "")
                    .bind("good", "good", "")
                    .join(Join::Any),
                t("none", "echo").needs("bad").needs("late").join(Join::Any),
            ],
        )
        .await;
        assert_eq!(r.status, RunStatus::Succeeded);
        let bound = json!({"bad": null, "late": null, "good": 7});
        assert_eq!(r.state.value("any"), Some(&bound));
        let ends = states(&r.state, ["bad", "late", "none"]);
        assert_eq!(ends, ["failed", "failed", "skipped"]);
        assert_eq!(l.all(), ["any"]);
    }
}

#[tokio::test]
async fn at_least_waits_for_so_many_and_is_skipped_when_there_cannot_be_so_many() {
    let (stores, _dir) = stores();
    for store in stores {
        let e = engine(&store, [echo(), fail()]);
        let bad = |id| t(id, "fail").on_failure(OnFailure::SkipDependents);
        let of = |id, n| {
            ["a", "b", "x", "y"]
                .iter()
                .fold(t(id, "echo"), |t, n| t.needs(*n))
                .join(Join::AtLeast(n))
        };
        let r = run(
            &e,
            [
                t("a", "echo"),
                t("b", "echo"),
                bad("x"),
                bad("y"),
                of("two", 2),
                of("three", 3),
                t("after", "echo").needs("three"),
            ],
        )
        .await;
        let ends = states(&r.state, ["two", "three", "after"]);
        assert_eq!(ends, ["done", "skipped", "skipped"]);
        assert_eq!(r.status, RunStatus::Succeeded);
    }
}

fn keyed(key: Option<&str>) -> MapOver {
    MapOver {
        from: "list".into(),
        pointer: String::new(),
        field: "item".into(),
        key: key.map(Into::into),
        max_parallel: None,
    }
}
fn mapped(over: MapOver) -> TaskSpec {
    let mut m = t("m", "echo").needs("list");
    m.map = Some(Box::new(over));
    m
}

#[tokio::test]
async fn a_map_has_one_instance_for_each_element_named_by_it() {
    let (stores, _dir) = stores();
    for store in stores {
        let e = engine(&store, [echo()]);
        let go = async |n: u32, list: Value, key: Option<&str>| {
            let tasks = [t("list", "echo").input(list), mapped(keyed(key)), {
                t("after", "echo").bind("all", "m", "")
            }];
            let new = smallhands_graph::NewRun::new(format!("r{n}"), crate::kit::graph(tasks));
            let r = e.start(new).await.unwrap().wait().await.unwrap();
            assert_eq!(r.status, RunStatus::Succeeded, "{:?}", r.state.nodes);
            let all = r.state.value("m").unwrap().clone();
            assert_eq!(r.state.value("after"), Some(&json!({"all": all})));
            let mut ids: Vec<_> = r.state.nodes.keys().map(ToString::to_string).collect();
            ids.retain(|id| id.starts_with("m["));
            ids.sort();
            (all, ids)
        };
        assert_eq!(go(1, json!([]), None).await, (json!([]), vec![]));
        let item = |v: Value| json!({"item": v});
        let (all, ids) = go(2, json!(["b", "a", 3, "a"]), None).await;
        let in_order = json!([
            item(json!("b")),
            item(json!("a")),
            item(json!(3)),
            item(json!("a"))
        ]);
        assert_eq!(all, in_order);
        assert_eq!(ids, ["m[3]", "m[a#2]", "m[a]", "m[b]"]);
        // Another order: the same names. Objects are named by what they hold.
        let objects = [json!({"id": "x", "n": 1}), json!({"id": "y", "n": 2})];
        let (one, two) = (objects[0].clone(), objects[1].clone());
        let (_, ids) = go(3, json!([one, two]), None).await;
        assert_eq!(go(4, json!([two, one]), None).await.1, ids);
        let (_, ids) = go(5, json!([two, one]), Some("/id")).await;
        assert_eq!(ids, ["m[x]", "m[y]"]);
        // A name that an element has by itself and another would get as the second of its kind.
        let (all, ids) = go(6, json!(["a", "a", "a#2", "a"]), None).await;
        assert_eq!(
            (all.as_array().unwrap().len(), ids.len()),
            (4, 4),
            "{ids:?}"
        );
    }
}

#[tokio::test]
async fn a_list_that_is_none_and_an_element_without_its_key_fail_the_map() {
    let (stores, _dir) = stores();
    for store in stores {
        let e = engine(&store, [echo()]);
        for (n, (list, key)) in [(json!(5), None), (json!([{"id": []}]), Some("/id"))]
            .into_iter()
            .enumerate()
        {
            let tasks = [t("list", "echo").input(list), mapped(keyed(key))];
            let id = format!("r{n}");
            let new = smallhands_graph::NewRun::new(id, crate::kit::graph(tasks));
            let r = e.start(new).await.unwrap().wait().await.unwrap();
            assert_eq!(r.status, RunStatus::Failed);
            assert_eq!(code(&r.state, "m"), "map.list");
        }
    }
}

#[tokio::test]
async fn failure_inside_a_map_under_each_policy() {
    let (stores, _dir) = stores();
    for store in stores {
        let l = Ledger::default();
        let e = engine(&store, [echo(), picky(&l), note(&l)]).max_parallel(1);
        let go = async |n: u32, policy: OnFailure| {
            let m = TaskSpec {
                worker: "picky".into(),
                ..mapped(MapOver {
                    field: "fail".into(),
                    ..keyed(None)
                })
            };
            let tasks = [
                t("list", "echo").input(json!(["ok", "bad", "fine"])),
                m.on_failure(policy),
                t("after", "echo").bind("all", "m", ""),
                t("other", "echo").needs("list").priority(-1),
            ];
            l.clear();
            let id = format!("r{n}");
            let new = smallhands_graph::NewRun::new(id, crate::kit::graph(tasks));
            e.start(new).await.unwrap().wait().await.unwrap()
        };
        let ids = ["m", "m[ok]", "m[bad]", "m[fine]", "after"];
        let r = go(1, OnFailure::FailRun).await;
        assert_eq!(r.status, RunStatus::Failed);
        let ends = ["failed", "done", "failed", "cancelled", "skipped"];
        assert_eq!(states(&r.state, ids), ends);
        let r = go(2, OnFailure::SkipDependents).await;
        assert_eq!(r.status, RunStatus::Succeeded);
        let ends = ["failed", "done", "failed", "done", "skipped"];
        assert_eq!(states(&r.state, ids), ends);
        assert_eq!(state(&r.state, "other"), "done");
        let r = go(3, OnFailure::Continue).await;
        assert_eq!(r.status, RunStatus::Succeeded);
        let kept = json!({"all": [{"fail": "ok"}, null, {"fail": "fine"}]});
        assert_eq!(r.state.value("after"), Some(&kept));
        let r = go(4, OnFailure::Compensate("note".into())).await;
        assert_eq!(r.status, RunStatus::Failed);
        assert_eq!(l.all(), ["m[ok]", "m[bad]", "m~undo"]);
        let undo = r.state.value("m~undo").unwrap();
        assert_eq!(undo["task"], "m");
    }
}

#[tokio::test]
async fn failure_inside_nested_sub_graphs_under_each_policy() {
    let (stores, _dir) = stores();
    for store in stores {
        let l = Ledger::default();
        let e = engine(&store, [echo(), picky(&l), note(&l), fail()]).max_parallel(1);
        let go = async |n: u32, leaf: OnFailure, inner: OnFailure, outer: OnFailure| {
            let bad = t("bad", "fail").on_failure(leaf);
            let next = t("next", "echo").bind("got", "bad", "");
            let inner_graph = holder("in", [bad, next, t("free", "echo").input(1)], None);
            let tasks = [
                holder(
                    "out",
                    [
                        inner_graph.on_failure(inner),
                        t("beside", "echo").bind("got", "in", ""),
                    ],
                    Some("beside"),
                )
                .on_failure(outer),
                t("after", "echo").bind("got", "out", ""),
            ];
            l.clear();
            let id = format!("r{n}");
            let new = smallhands_graph::NewRun::new(id, crate::kit::graph(tasks));
            let r = e.start(new).await.unwrap().wait().await.unwrap();
            let read = e.load(&r.run).await.unwrap();
            assert_eq!(read.nodes, r.state.nodes);
            r
        };
        use OnFailure::{Continue, FailRun, SkipDependents};
        let ids = [
            "out/in/bad",
            "out/in/next",
            "out/in",
            "out/beside",
            "out",
            "after",
        ];
        let r = go(1, FailRun, FailRun, FailRun).await;
        assert_eq!(r.status, RunStatus::Failed);
        let ends = [
            "failed",
            "cancelled",
            "failed",
            "cancelled",
            "failed",
            "skipped",
        ];
        let seen = states(&r.state, ids);
        // What is inside may be called skipped or cancelled: it was given up either way.
        assert_eq!(
            (seen[0], seen[2], seen[4], seen[5]),
            (ends[0], ends[2], ends[4], ends[5])
        );
        let r = go(2, FailRun, FailRun, SkipDependents).await;
        assert_eq!(r.status, RunStatus::Succeeded);
        assert_eq!(
            states(&r.state, ["out/in", "out", "after"]),
            ["failed", "failed", "skipped"]
        );
        let r = go(3, FailRun, SkipDependents, FailRun).await;
        assert_eq!(
            (r.status, state(&r.state, "out")),
            (RunStatus::Failed, "failed")
        );
        let r = go(4, FailRun, Continue, FailRun).await;
        assert_eq!(r.status, RunStatus::Succeeded);
        assert_eq!(r.state.value("after"), Some(&json!({"got": {"got": null}})));
        let r = go(5, Continue, FailRun, FailRun).await;
        assert_eq!(r.status, RunStatus::Succeeded);
        let inner = json!({"bad": null, "free": 1, "next": {"got": null}});
        assert_eq!(
            r.state.value("after"),
            Some(&json!({"got": {"got": inner}}))
        );
        let r = go(6, SkipDependents, Continue, FailRun).await;
        assert_eq!(r.status, RunStatus::Succeeded);
        let inner = json!({"bad": null, "free": 1, "next": null});
        assert_eq!(
            r.state.value("after"),
            Some(&json!({"got": {"got": inner}}))
        );
        let r = go(
            7,
            OnFailure::Compensate("note".into()),
            SkipDependents,
            SkipDependents,
        )
        .await;
        assert_eq!(r.status, RunStatus::Succeeded);
        assert_eq!(l.all(), ["out/in/bad~undo"]);
    }
}

#[tokio::test]
async fn a_sub_graph_takes_from_the_input_of_its_holder_and_maps_inside() {
    let (stores, _dir) = stores();
    for store in stores {
        let e = engine(&store, [echo()]);
        let mut each = from_holder(t("each", "echo"), "base", "/base");
        each.map = Some(Box::new(MapOver {
            from: "".into(),
            pointer: "/items".into(),
            field: "item".into(),
            key: None,
            max_parallel: Some(1),
        }));
        let leaf = from_holder(t("leaf", "echo"), "", "/base");
        let inner = from_holder(holder("in", [leaf], Some("leaf")), "base", "/base");
        let tasks = [
            t("src", "echo").input(json!([1, 2])),
            holder("h", [each, inner], None)
                .input(json!({"base": 10}))
                .bind("items", "src", ""),
        ];
        let r = run(&e, tasks).await;
        assert_eq!(r.status, RunStatus::Succeeded, "{:?}", r.state.nodes);
        let each = json!([{"base": 10, "item": 1}, {"base": 10, "item": 2}]);
        assert_eq!(r.state.value("h"), Some(&json!({"each": each, "in": 10})));
        assert_eq!(
            states(&r.state, ["h/each[1]", "h/in/leaf"]),
            ["done", "done"]
        );
    }
}

fn until(e: &str, max: u32, feed: Option<&str>) -> Repeat {
    Repeat {
        until: Condition::Expr(e.into()),
        max,
        feed: feed.map(Into::into),
    }
}
fn add_one() -> Arc<dyn Worker> {
    worker("add", |v: Value, _| async move {
        Ok(v["last"].as_u64().unwrap_or(0) + v["by"].as_u64().unwrap_or(1))
    })
}

#[tokio::test]
async fn a_loop_feeds_its_output_back_until_its_condition_holds() {
    let (stores, _dir) = stores();
    for store in stores {
        let e = engine(&store, [add_one(), echo()]);
        let skip = OnFailure::SkipDependents;
        let r = run(
            &e,
            [
                t("sum", "add").input(json!({"by": 3})).repeat(until(
                    "output >= 10",
                    9,
                    Some("last"),
                )),
                t("after", "echo").bind("n", "sum", ""),
                t("short", "add")
                    .repeat(until("output > 5", 3, Some("last")))
                    .on_failure(skip.clone()),
                t("odd", "add")
                    .repeat(until("output + {}", 3, None))
                    .on_failure(skip),
            ],
        )
        .await;
        assert_eq!(r.status, RunStatus::Succeeded);
        assert_eq!(r.state.value("after"), Some(&json!({"n": 12})));
        assert_eq!(r.state.nodes[&"sum".into()].iteration, 4);
        assert_eq!(code(&r.state, "short"), "loop.exhausted");
        assert_eq!(code(&r.state, "odd"), "condition.failed");
    }
}

#[tokio::test]
async fn a_sibling_that_runs_is_stopped_when_what_holds_both_fails() {
    let (stores, _dir) = stores();
    for store in stores {
        let l = Ledger::default();
        let begun = l.clone();
        let late = worker("late", move |_: Value, _| {
            let l = begun.clone();
            async move {
                seen(&l, "h/w began").await;
                Err::<(), _>(crate::kit::failure().into())
            }
        });
        let e = engine(&store, [late, wait(&l)]);
        let h = holder("h", [t("w", "wait"), t("bad", "late")], None);
        let tasks = [h.on_failure(OnFailure::SkipDependents), t("other", "wait")];
        let h = start(&e, tasks).await;
        seen(&l, "h/w stopped").await;
        assert_eq!(l.count("other stopped"), 0);
        h.cancel();
        let r = h.wait().await.unwrap();
        assert_eq!(states(&r.state, ["h", "h/w"]), ["failed", "cancelled"]);
    }
}

#[tokio::test]
async fn what_any_saw_first_is_what_a_placement_after_a_crash_sees() {
    let (stores, _dir) = stores();
    for store in stores {
        let l = Ledger::default();
        let (begun, ended) = (l.clone(), l.clone());
        let late = worker("late", move |_: Value, _| {
            let l = begun.clone();
            async move {
                seen(&l, "any began").await;
                Ok("late")
            }
        });
        let any = worker("any", move |v: Value, cx: smallhands_core::TaskContext| {
            let l = ended.clone();
            async move {
                let step = smallhands_core::Step::new("s").input(&v);
                cx.step(step, |_| async { Ok(()) }).await?;
                l.add("any began");
                if l.count("any began") == 1 {
                    std::future::pending::<()>().await;
                }
                Ok(v)
            }
        });
        let e = engine(&store, [echo(), late, any]);
        let tasks = [
            t("late", "late"),
            t("good", "echo").input(7),
            t("any", "any")
                .bind("late", "late", "")
                .bind("good", "good", "")
                .join(Join::Any),
        ];
        let h = start(&e, tasks).await;
        crate::kit::until(
            &e,
            "r",
            |e| matches!(e, smallhands_graph::Event::Ended { task, .. } if task.as_str() == "late"),
        )
        .await;
        drop(h);
        let r = crate::kit::again(&e, smallhands_graph::ResumeFailed::No).await;
        let bound = json!({"late": null, "good": 7});
        assert_eq!(r.state.value("any"), Some(&bound));
    }
}
