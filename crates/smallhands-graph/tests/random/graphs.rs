//! Graphs and patches from a seed: whatever a graph can hold, in any mixture that is accepted.

use smallhands_core::{
    Condition, Join, MapOver, OnFailure, Repeat, Resources, Retry, SubGraph, TaskId, TaskSpec,
};
use smallhands_graph::{GraphPatch, Rewire, RunState, TaskGraph};
use smallhands_testkit::SimRng;
use std::{sync::Arc, time::Duration};

pub(crate) fn graph(rng: &mut SimRng) -> TaskGraph {
    loop {
        let n = 2 + rng.below(9);
        let tasks = list(rng, "t", n, 2);
        if let Ok(g) = TaskGraph::from_tasks(tasks) {
            return g;
        }
    }
}

fn list(rng: &mut SimRng, prefix: &str, n: u64, depth: u32) -> Vec<TaskSpec> {
    let mut ids = Vec::new();
    let mut all = Vec::new();
    for i in 0..n {
        let id = format!("{prefix}{i}");
        all.push(task(rng, &id, &ids, depth));
        ids.push(TaskId::from(id));
    }
    all
}

fn pick<'a, T>(rng: &mut SimRng, of: &'a [T]) -> Option<&'a T> {
    of.get(usize::try_from(rng.below(of.len() as u64)).unwrap())
}

pub(crate) fn task(rng: &mut SimRng, id: &str, before: &[TaskId], depth: u32) -> TaskSpec {
    let mut t = TaskSpec::new(id, "any");
    for _ in 0..rng.below(4) {
        if let Some(need) = pick(rng, before) {
            t = t.needs(need.as_str());
        }
    }
    let needs = t.needs.len() as u64;
    if needs > 0 {
        t.join = match rng.below(6) {
            0 => Join::Any,
            1 => Join::AtLeast(u32::try_from(1 + rng.below(needs)).unwrap()),
            _ => Join::All,
        };
    }
    policies(rng, &mut t);
    if let Some(need) = pick(rng, &t.needs.clone()) {
        if rng.percent(25) {
            t = t.bind("x", need.as_str(), if rng.percent(70) { "/n" } else { "" });
        }
        if rng.percent(20) {
            t.when = Some(Condition::Expr(format!("out[\"{need}\"].n != 7")));
        }
    }
    forms(rng, t, depth)
}

fn policies(rng: &mut SimRng, t: &mut TaskSpec) {
    t.on_failure = match rng.below(10) {
        0 => OnFailure::FailRun,
        1..4 => OnFailure::Continue,
        4 => OnFailure::Compensate("undo".into()),
        _ => OnFailure::SkipDependents,
    };
    t.retry = Retry {
        first_delay_ms: rng.below(60),
        ..Retry::attempts(u32::try_from(1 + rng.below(3)).unwrap())
    };
    t.priority = i32::try_from(rng.below(3)).unwrap();
    if rng.percent(30) {
        t.group = Some(["few", "slow"][usize::try_from(rng.below(2)).unwrap()].into());
    }
    if rng.percent(20) {
        t.resources = Resources {
            cpu_milli: u32::try_from(rng.below(900)).unwrap(),
            ..Resources::default()
        };
    }
    if rng.percent(10) {
        t.timeout_ms = Some(5 + rng.below(60));
    }
    if rng.percent(10) {
        t.total_timeout_ms = Some(5 + rng.below(200));
    }
}

fn forms(rng: &mut SimRng, mut t: TaskSpec, depth: u32) -> TaskSpec {
    match rng.below(10) {
        0 | 1 if !t.needs.is_empty() => {
            let from = pick(rng, &t.needs).unwrap().clone();
            t.map = Some(Box::new(MapOver {
                from,
                pointer: "/list".into(),
                field: "item".into(),
                key: None,
                max_parallel: rng.percent(50).then_some(2),
            }));
            t
        }
        2 => t.repeat(Repeat {
            until: Condition::Expr("output.n > 50".into()),
            max: 4,
            feed: rng.percent(50).then(|| "last".into()),
        }),
        3 if depth > 0 => {
            let n = 1 + rng.below(4);
            let tasks = list(rng, "s", n, depth - 1);
            t.worker = "".into();
            t.graph = Some(Box::new(SubGraph {
                tasks: tasks.into_iter().map(Arc::new).collect(),
                output: rng.percent(40).then(|| "s0".into()),
            }));
            t
        }
        4 => t.total_timeout(Duration::from_millis(300)),
        _ => t,
    }
}

/// A patch of any kind, which may well not fit.
pub(crate) fn patch(rng: &mut SimRng, s: &RunState, n: u64) -> GraphPatch {
    let ids: Vec<TaskId> = s.nodes.keys().cloned().collect();
    let mut p = GraphPatch::default();
    if rng.percent(70) {
        p.expected_revision = Some(s.revision);
    }
    let Some(id) = pick(rng, &ids).cloned() else {
        return p;
    };
    match rng.below(5) {
        0 => p.add = vec![Arc::new(task(rng, &format!("p{n}"), &ids, 1))],
        1 => p.replace = vec![Arc::new(task(rng, id.as_str(), &ids[..1], 0))],
        2 => {
            let needs = pick(rng, &ids).cloned().into_iter().collect();
            p.rewire = vec![Rewire {
                task: id,
                needs,
                bind: Vec::new(),
            }];
        }
        3 => p.cancel = vec![id],
        _ => p.remove = vec![id],
    }
    p
}
