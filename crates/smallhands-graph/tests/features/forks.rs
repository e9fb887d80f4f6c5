//! Forks and reruns.

use crate::kit::{Ledger, engine, events, run, states, stores};
use serde_json::{Value, json};
use smallhands_core::{
    Condition, Halt, MapOver, Question, Repeat, Step, TaskContext, TaskOutput, TaskSpec, Worker,
    WorkerName, async_trait, worker,
};
use smallhands_graph::{Engine, Event, GraphPatch, ResumeFailed, RunResult, RunStatus};
use std::{collections::BTreeSet, sync::Arc};

fn t(id: &str, worker: &str) -> TaskSpec {
    TaskSpec::new(id, worker)
}

/// Two steps; each act, and the task itself, is in the ledger.
fn steps(l: &Ledger) -> Arc<dyn Worker> {
    let l = l.clone();
    worker("steps", move |v: Value, cx: TaskContext| {
        let l = l.clone();
        async move {
            let task = cx.key().task.clone();
            let mut sum = v["last"].as_u64().unwrap_or(0) + v["n"].as_u64().unwrap_or(0);
            for i in 1..=2_u64 {
                let act = |_| async {
                    l.add(format!("{task} step {i}"));
                    Ok(i)
                };
                sum += cx.step(Step::new(format!("s{i}")), act).await?;
            }
            l.add(format!("{task} ran"));
            Ok(sum)
        }
    })
}
fn list(l: &Ledger) -> Arc<dyn Worker> {
    let l = l.clone();
    worker("list", move |_: Value, _| {
        l.add("list ran");
        async { Ok(json!([{"n": 1}, {"n": 2}])) }
    })
}
fn asks(l: &Ledger) -> Arc<dyn Worker> {
    let l = l.clone();
    worker("asks", move |_: Value, cx: TaskContext| {
        let l = l.clone();
        async move {
            let a = cx.ask("q", Question::new("?")).await?;
            l.add("ask ran");
            Ok::<_, Halt>(a)
        }
    })
}

#[derive(Debug)]
struct Planner(WorkerName, Ledger);
#[async_trait]
impl Worker for Planner {
    fn name(&self) -> &WorkerName {
        &self.0
    }
    async fn run(&self, _: Value, _: &TaskContext) -> Result<TaskOutput, Halt> {
        self.1.add("plan ran");
        let patch = GraphPatch::adding([t("grown", "steps").needs("plan")]);
        Ok(TaskOutput {
            expansion: serde_json::to_value(patch).ok(),
            ..TaskOutput::default()
        })
    }
}

fn tasks() -> Vec<TaskSpec> {
    let mut map = t("m", "steps").needs("list");
    map.map = Some(Box::new(MapOver {
        from: "list".into(),
        pointer: String::new(),
        field: String::new(),
        key: Some("/n".into()),
        max_parallel: None,
    }));
    vec![
        t("list", "list"),
        map,
        t("loop", "steps").repeat(Repeat {
            until: Condition::Expr("output >= 6".into()),
            max: 5,
            feed: Some("last".into()),
        }),
        t("ask", "asks").needs("loop"),
        t("plan", "plan").needs("list").expands(),
        t("end", "steps")
            .bind("n", "ask", "")
            .needs("m")
            .when(Condition::Expr("ask > 1".into())),
    ]
}

fn workers(l: &Ledger) -> [Arc<dyn Worker>; 4] {
    let planner = Planner("plan".into(), l.clone());
    [steps(l), list(l), asks(l), Arc::new(planner)]
}

/// Goes on until it is over, answering what is asked.
async fn finish(e: &Engine, run: &str) -> RunResult {
    loop {
        let run = run.into();
        let h = e.resume(&run, ResumeFailed::No).await.unwrap();
        let r = h.wait().await.unwrap();
        if r.status != RunStatus::Waiting {
            return r;
        }
        e.answer(&run, &"ask".into(), &"q".into(), json!(5))
            .await
            .unwrap();
    }
}

fn values(r: &RunResult) -> Vec<(String, Option<Value>)> {
    let of = |(id, n): (&smallhands_core::TaskId, &smallhands_graph::Node)| {
        (id.to_string(), n.value().cloned())
    };
    let mut all: Vec<_> = r.state.nodes.iter().map(of).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

#[tokio::test]
async fn a_fork_at_every_record_ends_the_same_and_repeats_nothing_that_was_finished() {
    let (stores, _dir) = stores();
    for store in stores {
        let l = Ledger::default();
        let e = engine(&store, workers(&l));
        assert_eq!(run(&e, tasks()).await.status, RunStatus::Waiting);
        e.answer(&"r".into(), &"ask".into(), &"q".into(), json!(5))
            .await
            .unwrap();
        let r = finish(&e, "r").await;
        assert_eq!(r.status, RunStatus::Succeeded, "{:?}", r.state.nodes);
        let wanted = values(&r);
        let all = events(&store, "r").await;
        let (mut done, mut steps) = (BTreeSet::new(), BTreeSet::new());
        for (at, event) in (1_u64..).zip(&all) {
            match event {
                Event::Ended { task, repeat, .. } if !repeat => {
                    done.insert(format!("{task} ran"));
                }
                // The next iteration does such a step for itself.
                Event::StepEnded { task, record, .. } if task.as_str() != "loop" => {
                    steps.insert(format!("{task} step {}", &record.intent.key.as_str()[1..]));
                }
                _ => {}
            }
            // The ask of a suspended placement ends without being done.
            done.retain(|d| d != "ask ran" || matches!(event, Event::Ended { report, .. } if format!("{report:?}").contains("Done")) );
            if at == all.len() as u64 {
                continue;
            }
            let to = format!("f{at}");
            e.fork(&"r".into(), at, &to.as_str().into()).await.unwrap();
            l.clear();
            let state = e.load(&to.as_str().into()).await.unwrap();
            if state.status.is_final() {
                continue;
            }
            let r = finish(&e, &to).await;
            assert_eq!((at, values(&r)), (at, wanted.clone()));
            for once in done.iter().chain(&steps) {
                assert_eq!(l.count(once), 0, "{once} again after {at} ({event:?})");
            }
        }
    }
}

#[tokio::test]
async fn a_fork_needs_a_record_that_exists_and_a_new_id() {
    let (stores, _dir) = stores();
    for store in stores {
        let l = Ledger::default();
        let e = engine(&store, workers(&l));
        run(&e, tasks()).await;
        let fork = async |from: &str, at, to: &str| {
            let r = e.fork(&from.into(), at, &to.into()).await;
            r.map_err(|e| e.code())
        };
        assert_eq!(fork("zz", 1, "f").await, Err("run.unknown"));
        assert_eq!(fork("r", 0, "f").await, Err("store.conflict"));
        assert_eq!(fork("r", 10_000, "f").await, Err("store.conflict"));
        assert_eq!(fork("r", 3, "r").await, Err("store.conflict"));
        assert_eq!(fork("r", 3, "f").await, Ok(()));
        assert_eq!(
            e.info(&"f".into()).await.unwrap().forked,
            Some(("r".into(), 3))
        );
    }
}

#[tokio::test]
async fn a_rerun_does_again_exactly_what_follows() {
    let (stores, _dir) = stores();
    for store in stores {
        let l = Ledger::default();
        let e = engine(&store, workers(&l));
        run(&e, tasks()).await;
        finish(&e, "r").await;
        let go = async |task: &str, to: &str| {
            e.rerun(&"r".into(), &task.into(), &to.into())
                .await
                .unwrap();
            l.clear();
            let r = finish(&e, to).await;
            assert_eq!(r.status, RunStatus::Succeeded);
            let mut ran = l.all();
            ran.retain(|w| w.ends_with(" ran"));
            ran.sort();
            (ran, values(&r))
        };
        let before = e.load(&"r".into()).await.unwrap();
        let (ran, _) = go("end", "f1").await;
        assert_eq!(ran, ["end ran"]);
        let (ran, _) = go("loop", "f2").await;
        assert_eq!(ran, ["ask ran", "end ran", "loop ran", "loop ran"]);
        let (ran, _) = go("m[1]", "f3").await;
        assert_eq!(ran, ["end ran", "m[1] ran"]);
        let (ran, _) = go("m", "f4").await;
        assert_eq!(ran, ["end ran", "m[1] ran", "m[2] ran"]);
        // What the planner added goes, and comes again.
        let (ran, _) = go("plan", "f5").await;
        assert_eq!(ran, ["grown ran", "plan ran"]);
        let (ran, _) = go("list", "f6").await;
        let all = [
            "end ran",
            "grown ran",
            "list ran",
            "m[1] ran",
            "m[2] ran",
            "plan ran",
        ];
        assert_eq!(ran, all);
        let after = e.load(&"r".into()).await.unwrap();
        assert_eq!(after.nodes, before.nodes, "the first run is as it was");
        assert_eq!(states(&after, ["end"]), ["done"]);
        let missing = e.rerun(&"r".into(), &"zz".into(), &"f7".into()).await;
        assert_eq!(missing.unwrap_err().code(), "run.unknown_task");
    }
}

#[tokio::test]
async fn a_task_whose_condition_cannot_be_looked_at_runs_in_no_fork() {
    let (stores, _dir) = stores();
    for store in stores {
        let l = Ledger::default();
        let e = engine(&store, workers(&l));
        let bad = t("list", "list").when(Condition::Named("unheard of".into()));
        run(&e, [bad, t("loop", "steps").needs("list")]).await;
        for at in 1..=events(&store, "r").await.len() as u64 {
            let to = format!("f{at}").as_str().into();
            e.fork(&"r".into(), at, &to).await.unwrap();
            if let Ok(h) = e.resume(&to, ResumeFailed::No).await {
                assert_eq!(h.wait().await.unwrap().status, RunStatus::Failed);
            }
        }
        assert_eq!(l.all(), [""; 0]);
    }
}

#[tokio::test]
async fn a_rerun_does_not_forgive_what_failed_elsewhere() {
    let (stores, _dir) = stores();
    for store in stores {
        let l = Ledger::default();
        let e = engine(&store, [steps(&l), crate::kit::fail()]);
        let r = run(
            &e,
            [
                t("a", "steps"),
                t("b", "fail").needs("a"),
                t("c", "steps").needs("a"),
            ],
        );
        assert_eq!(r.await.status, RunStatus::Failed);
        e.rerun(&"r".into(), &"c".into(), &"f".into())
            .await
            .unwrap();
        l.clear();
        let r = finish(&e, "f").await;
        assert_eq!((r.status, l.count("c ran")), (RunStatus::Failed, 1));
    }
}
