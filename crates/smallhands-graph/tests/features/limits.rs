//! Groups, rates and capacity.

use crate::kit::{code, echo, engine, engine_on, graph, run, simulated, states, stores};
use serde_json::{Value, json};
use smallhands_core::{
    Clock, GroupLimit, MapOver, OnFailure, Resources, TaskSpec, Timestamp, Worker, worker,
};
use smallhands_graph::{NewRun, RunResult, RunStatus};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

/// How many ran at once.
#[derive(Clone, Debug, Default)]
struct Gauge(Arc<(AtomicUsize, AtomicUsize)>);

impl Gauge {
    fn worker(&self, name: &str) -> Arc<dyn Worker> {
        let g = self.clone();
        worker(name, move |v: Value, _| {
            let g = g.clone();
            async move {
                let now = g.0.0.fetch_add(1, SeqCst) + 1;
                g.0.1.fetch_max(now, SeqCst);
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
                g.0.0.fetch_sub(1, SeqCst);
                Ok(v)
            }
        })
    }
    fn most(&self) -> usize {
        self.0.1.load(SeqCst)
    }
}

async fn limited(
    e: &smallhands_graph::Engine,
    tasks: Vec<TaskSpec>,
    limit: GroupLimit,
) -> RunResult {
    let mut new = NewRun::new("r", graph(tasks));
    new.limits.insert("g".into(), limit);
    e.start(new).await.unwrap().wait().await.unwrap()
}

#[tokio::test]
async fn a_group_is_never_above_its_limit() {
    let (stores, _dir) = stores();
    for store in stores {
        let (inside, outside) = (Gauge::default(), Gauge::default());
        let e = engine(&store, [inside.worker("in"), outside.worker("out")]);
        let tasks = (0..40).map(|i| match i % 2 {
            0 => TaskSpec::new(format!("t{i}"), "in").group("g").priority(i),
            _ => TaskSpec::new(format!("t{i}"), "out"),
        });
        let r = limited(&e, tasks.collect(), GroupLimit::parallel(3)).await;
        assert_eq!(r.status, RunStatus::Succeeded);
        assert!(
            inside.most() <= 3 && outside.most() > 3,
            "{inside:?} {outside:?}"
        );
    }
}

#[tokio::test]
async fn a_limit_of_nothing_is_refused() {
    let (stores, _dir) = stores();
    for store in stores {
        let e = engine(&store, [echo()]);
        let of = async |limit| {
            let mut new = NewRun::new("r", graph([TaskSpec::new("a", "echo").group("g")]));
            new.limits.insert("g".into(), limit);
            e.start(new).await.unwrap_err()
        };
        let second = Duration::from_secs(1);
        for (limit, which) in [
            (GroupLimit::parallel(0), "max_parallel"),
            (GroupLimit::rate(0, second), "starts"),
        ] {
            let e = of(limit).await;
            assert_eq!(e.code(), "run.limit");
            let want = format!("{which} of the group `g` is 0");
            assert!(e.to_string().starts_with(&want), "{e}");
        }
        // Nothing is left of it.
        assert_eq!(e.runs(|_| true).await.unwrap(), []);
    }
}

fn map(n: u32, max: Option<u32>) -> Vec<TaskSpec> {
    let list: Vec<_> = (0..n).collect();
    let mut m = TaskSpec::new("m", "in").needs("list").group("g");
    m.map = Some(Box::new(MapOver {
        from: "list".into(),
        pointer: String::new(),
        field: String::new(),
        key: None,
        max_parallel: max,
    }));
    vec![TaskSpec::new("list", "echo").input(json!(list)), m]
}

#[tokio::test]
async fn a_map_keeps_its_own_limit_and_that_of_its_group() {
    let (stores, _dir) = stores();
    for store in stores {
        for (n, (own, group, most)) in [(None, 2, 2), (Some(3), 9, 3), (Some(5), 2, 2)]
            .into_iter()
            .enumerate()
        {
            let gauge = Gauge::default();
            let e = engine(&store, [gauge.worker("in"), echo()]);
            let mut new = NewRun::new(format!("r{n}"), graph(map(20, own)));
            new.limits.insert("g".into(), GroupLimit::parallel(group));
            let r = e.start(new).await.unwrap().wait().await.unwrap();
            assert_eq!(r.status, RunStatus::Succeeded);
            assert!(
                gauge.most() <= most,
                "own {own:?}, group {group}: {gauge:?}"
            );
        }
    }
}

fn times(clock: &smallhands_testkit::SimClock) -> (Arc<Mutex<Vec<u64>>>, Arc<dyn Worker>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (s, c) = (seen.clone(), clock.clone());
    let w = worker("w", move |_: Value, _| {
        s.lock().unwrap().push(c.now().0);
        async { Ok(()) }
    });
    (seen, w)
}

#[test]
fn a_rate_is_kept_over_every_window() {
    let (clock, store) = simulated();
    clock.runtime().unwrap().block_on(async {
        let (seen, w) = times(&clock);
        let e = engine_on(&store, Arc::new(clock.clone()), [w]);
        let tasks = (0..10).map(|i| TaskSpec::new(format!("t{i}"), "w").group("g"));
        let per = Duration::from_secs(10);
        let r = limited(&e, tasks.collect(), GroupLimit::rate(3, per)).await;
        assert_eq!(r.status, RunStatus::Succeeded);
        let seen = seen.lock().unwrap();
        assert!(seen.windows(4).all(|w| w[3] - w[0] >= 10_000), "{seen:?}");
        assert_eq!(seen[9] - seen[0], 30_000);
    });
}

#[test]
fn a_clock_that_jumps_back_stops_a_rate_for_no_longer_than_its_window() {
    let (clock, store) = simulated();
    clock.runtime().unwrap().block_on(async {
        let (seen, w) = times(&clock);
        let e = engine_on(&store, Arc::new(clock.clone()), [w]);
        let tasks = (0..4).map(|i| TaskSpec::new(format!("t{i}"), "w").group("g"));
        let per = Duration::from_secs(10);
        let mut new = NewRun::new("r", graph(tasks));
        new.limits.insert("g".into(), GroupLimit::rate(1, per));
        let h = e.start(new).await.unwrap();
        let began = clock.monotonic();
        clock.sleep(Duration::from_secs(1)).await;
        clock.set_wall(Timestamp(1_000));
        assert_eq!(h.wait().await.unwrap().status, RunStatus::Succeeded);
        assert!(clock.monotonic() - began <= Duration::from_secs(40));
        assert_eq!(seen.lock().unwrap().len(), 4);
    });
}

#[tokio::test]
async fn capacity_is_shared_and_what_never_fits_fails() {
    let (stores, _dir) = stores();
    for store in stores {
        let gauge = Gauge::default();
        let e = engine(&store, [gauge.worker("w"), echo()]).capacity(Resources {
            cpu_milli: 1000,
            memory_mb: 0,
            gpus: 1,
        });
        let of = |cpu_milli, gpus| Resources {
            cpu_milli,
            memory_mb: 1 << 30,
            gpus,
        };
        let small = (0..12).map(|i| TaskSpec::new(format!("t{i}"), "w").resources(of(400, 0)));
        let skip = OnFailure::SkipDependents;
        let mut tasks: Vec<_> = small.collect();
        tasks.push(TaskSpec::new("gpu", "echo").resources(of(0, 1)));
        tasks.push(
            TaskSpec::new("big", "w")
                .resources(of(1001, 0))
                .on_failure(skip.clone()),
        );
        tasks.push(
            TaskSpec::new("gpus", "w")
                .resources(of(1, 2))
                .on_failure(skip),
        );
        let r = run(&e, tasks).await;
        assert_eq!(r.status, RunStatus::Succeeded);
        assert_eq!(states(&r.state, ["t11", "gpu"]), ["done", "done"]);
        assert_eq!(
            [code(&r.state, "big"), code(&r.state, "gpus")],
            ["task.unschedulable"; 2]
        );
        assert!(gauge.most() <= 2, "{gauge:?}");
    }
}
