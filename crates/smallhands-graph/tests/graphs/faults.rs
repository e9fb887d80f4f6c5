//! Every field of a task that can be wrong is refused by name.

use serde_json::json;
use smallhands_core::{
    Binding, Condition, Join, MapOver, OnFailure, Repeat, Retry, SubGraph, TaskSpec,
};
use smallhands_graph::{GraphError, TaskFault, TaskGraph};
use std::sync::Arc;

fn t(id: &str) -> TaskSpec {
    TaskSpec::new(id, "w")
}

fn build(tasks: impl IntoIterator<Item = TaskSpec>) -> Result<TaskGraph, GraphError> {
    TaskGraph::from_tasks(tasks.into_iter().map(Arc::new))
}

/// The fault of `spec` in a graph that has a task `a` too.
fn fault(spec: TaskSpec) -> TaskFault {
    match build([t("a"), spec]) {
        Err(GraphError::Invalid { fault, .. }) => fault,
        other => panic!("{other:?}"),
    }
}

fn sub(tasks: impl IntoIterator<Item = TaskSpec>) -> SubGraph {
    SubGraph {
        tasks: tasks.into_iter().map(Arc::new).collect(),
        output: None,
    }
}

fn holder(tasks: impl IntoIterator<Item = TaskSpec>) -> TaskSpec {
    TaskSpec::sub_graph("h", sub(tasks))
}

fn until(e: &str, max: u32) -> Repeat {
    Repeat {
        until: Condition::Expr(e.into()),
        max,
        feed: None,
    }
}

fn binding(field: &str, from: &str, pointer: &str) -> Binding {
    Binding {
        field: field.into(),
        from: from.into(),
        pointer: pointer.into(),
    }
}

#[test]
fn names() {
    assert_eq!(fault(t("")), TaskFault::EmptyId);
    for c in ['[', ']', '~'] {
        assert_eq!(fault(t(&format!("b{c}"))), TaskFault::IdCharacter(c));
    }
    assert!(build([t("a/b.c-d:e")]).is_ok());
    assert_eq!(fault(TaskSpec::new("b", "")), TaskFault::NoWorker);
    let mut both = holder([t("x")]);
    both.worker = "w".into();
    assert_eq!(fault(both), TaskFault::WorkerAndGraph);
    let mut b = t("b");
    b.group = Some("".into());
    assert_eq!(fault(b), TaskFault::EmptyGroup);
    let undo = OnFailure::Compensate("".into());
    assert_eq!(fault(t("b").on_failure(undo)), TaskFault::NoCompensator);
}

#[test]
fn joins() {
    assert_eq!(fault(t("b").join(Join::Any)), TaskFault::JoinNothing);
    let count = |asked, needs| TaskFault::JoinCount { asked, needs };
    let b = t("b").needs("a");
    assert_eq!(fault(b.clone().join(Join::AtLeast(0))), count(0, 1));
    assert_eq!(fault(b.clone().join(Join::AtLeast(2))), count(2, 1));
    // A need that is written twice is one.
    let mut twice = b.clone().join(Join::AtLeast(2));
    twice.needs.push("a".into());
    assert_eq!(fault(twice), count(2, 1));
    assert!(build([t("a"), b.clone().join(Join::AtLeast(1))]).is_ok());
    assert!(build([t("a"), b.join(Join::Any)]).is_ok());
}

#[test]
fn bindings_and_their_pointers() {
    let mut b = t("b");
    b.bind.push(binding("x", "a", ""));
    let (field, from) = ("x".to_owned(), "a".into());
    assert_eq!(fault(b), TaskFault::BindNotNeeded { field, from });
    for p in ["body", "/a~2", "/a~", "#/a"] {
        assert_eq!(
            fault(t("b").bind("x", "a", p)),
            TaskFault::Pointer(p.into())
        );
    }
    assert!(build([t("a"), t("b").bind("x", "a", "/a~0~1/0/")]).is_ok());
    let mut b = t("b");
    b.bind.push(binding("x", "", "/y"));
    assert_eq!(fault(b), TaskFault::NoHolder("x".into()));
    let b = t("b").bind("", "a", "").bind("", "a", "/x");
    assert_eq!(fault(b), TaskFault::WholeNotFirst);
    assert!(build([t("a"), t("b").bind("", "a", "").bind("y", "a", "/x")]).is_ok());
}

#[test]
fn maps() {
    let map = |change: fn(&mut MapOver)| {
        let mut b = t("b").map("x", "a", "/items");
        change(b.map.as_mut().unwrap());
        b
    };
    assert!(build([t("a"), map(|m| m.key = Some("/id".into()))]).is_ok());
    let stranger = map(|m| m.from = "c".into());
    assert_eq!(fault(stranger), TaskFault::MapNotNeeded("c".into()));
    let bad = map(|m| m.pointer = "items".into());
    assert_eq!(fault(bad), TaskFault::Pointer("items".into()));
    let bad = map(|m| m.key = Some("id".into()));
    assert_eq!(fault(bad), TaskFault::Pointer("id".into()));
    assert_eq!(
        fault(map(|m| m.max_parallel = Some(0))),
        TaskFault::MapParallel
    );
    let whole = t("b").map("", "a", "").bind("", "a", "");
    assert_eq!(fault(whole), TaskFault::MapWhole);
    let both = holder([t("x")]).map("x", "a", "");
    assert_eq!(fault(both), TaskFault::MapAndGraph);
}

#[test]
fn loops() {
    let b = || t("b").repeat(until("output.ok", 3));
    assert!(build([b()]).is_ok());
    assert_eq!(fault(t("b").repeat(until("true", 0))), TaskFault::RepeatMax);
    let f = fault(t("b").repeat(until("output.ok and", 3)));
    assert!(matches!(f, TaskFault::Condition(_)), "{f:?}");
    assert!(
        f.to_string()
            .contains("`output.ok and` is not an expression"),
        "{f}"
    );
    assert_eq!(fault(b().expands()), TaskFault::RepeatWith("expands"));
    assert_eq!(fault(b().map("x", "a", "")), TaskFault::RepeatWith("map"));
    let g = holder([t("x")]).repeat(until("true", 1));
    assert_eq!(fault(g), TaskFault::RepeatWith("graph"));
}

#[test]
fn retries() {
    let retry = |factor, jitter| {
        t("b").retry(Retry {
            factor,
            jitter,
            ..Retry::attempts(2)
        })
    };
    assert_eq!(
        fault(t("b").retry(Retry::attempts(0))),
        TaskFault::NoAttempts
    );
    assert_eq!(fault(retry(f64::NAN, 0.0)), TaskFault::NotFinite("factor"));
    assert_eq!(
        fault(retry(f64::INFINITY, 0.0)),
        TaskFault::NotFinite("factor")
    );
    assert_eq!(fault(retry(2.0, f64::NAN)), TaskFault::NotFinite("jitter"));
}

#[test]
fn schemas_and_constant_inputs() {
    let bad = json!({"type": 7});
    for spec in [t("b").input_schema(bad.clone()), t("b").output_schema(bad)] {
        let f = fault(spec);
        assert!(matches!(f, TaskFault::Schema { .. }), "{f:?}");
    }
    let b =
        t("b").input_schema(json!({"required": ["x"], "properties": {"x": {"type": "string"}}}));
    assert!(build([b.clone().input(json!({"x": "y"}))]).is_ok());
    let f = fault(b.clone().input(json!({"x": 1})));
    assert!(matches!(f, TaskFault::Input(_)), "{f:?}");
    assert!(f.to_string().contains("at `/x`"), "{f}");
    // What is bound is not known yet, but what nobody sets is.
    assert_eq!(
        fault(b.clone().bind("z", "a", "")),
        TaskFault::InputMissing("x".into())
    );
    assert!(build([t("a"), b.clone().bind("x", "a", "")]).is_ok());
    assert!(build([t("a"), b.clone().map("x", "a", "")]).is_ok());
    assert!(build([t("a"), b.bind("", "a", "")]).is_ok());
}

#[test]
fn sub_graphs_are_checked_as_graphs() {
    let e = |h: TaskSpec| build([t("a"), h]).unwrap_err();
    assert_eq!(fault(holder([])), TaskFault::EmptyGraph);
    assert!(
        matches!(e(holder([t("x"), t("x")])), GraphError::Duplicate(id) if id.as_str() == "h/x")
    );
    assert_eq!(
        e(holder([t("fetch"), t("x").needs("fetsch")])).to_string(),
        "task `h/x` needs `fetsch`, which does not exist; did you mean `fetch`?"
    );
    // Needs are local.
    assert!(matches!(
        e(holder([t("x").needs("a")])),
        GraphError::UnknownNeed { .. }
    ));
    assert_eq!(
        e(holder([t("x").needs("y"), t("y").needs("x")])).to_string(),
        "the tasks form a cycle: h/x -> h/y -> h/x"
    );
    let inner = TaskSpec::sub_graph("i", sub([TaskSpec::new("x", "")]));
    assert_eq!(
        e(holder([inner])).to_string(),
        "task `h/i/x`: it names no worker; only a task with a `graph` has none"
    );
    let mut h = holder([t("fetch")]);
    h.graph.as_mut().unwrap().output = Some("fetsch".into());
    assert_eq!(
        e(h.clone()).to_string(),
        "task `h`: the output of its graph is that of `fetsch`, which does not exist; did you mean `fetch`?"
    );
    h.graph.as_mut().unwrap().output = Some("fetch".into());
    assert!(build([h]).is_ok());
    let mut x = t("x");
    x.bind.push(binding("y", "", "/y"));
    assert!(build([holder([x])]).is_ok());
    // Nor does a map over a list in the input of the holder need anything.
    let mut x = t("x").map("y", "", "/list");
    x.needs.clear();
    assert!(build([holder([x])]).is_ok());
}

#[test]
fn a_task_of_a_sub_graph_may_not_take_the_id_of_another_task() {
    let e = build([t("h/x"), holder([t("x")])]).unwrap_err();
    assert!(matches!(e, GraphError::Duplicate(id) if id.as_str() == "h/x"));
    let h = holder([TaskSpec::sub_graph("i", sub([t("x")])), t("i/x")]);
    let e = build([h]).unwrap_err();
    assert!(matches!(e, GraphError::Duplicate(id) if id.as_str() == "h/i/x"));
}
