use crate::kit::graph;
use smallhands_core::{Condition, TaskSpec};
use smallhands_graph::{GraphError, TaskGraph};

fn refused(tasks: Vec<TaskSpec>) -> String {
    TaskGraph::from_tasks(tasks).unwrap_err().to_string()
}

#[test]
fn what_is_wrong_is_named() {
    let t = |id: &str| TaskSpec::new(id, "w");
    assert_eq!(refused(vec![]), "the graph has no tasks");
    assert_eq!(
        refused(vec![t("a"), t("a")]),
        "two tasks have the id `a`; ids are unique in a run"
    );
    assert_eq!(
        refused(vec![t("reproduce"), t("b").needs("reproduse")]),
        "task `b` needs `reproduse`, which does not exist; did you mean `reproduce`?"
    );
    assert_eq!(
        refused(vec![
            t("x"),
            t("a").needs("c"),
            t("b").needs("a"),
            t("c").needs("b").needs("x")
        ]),
        "the tasks form a cycle: a -> c -> b -> a"
    );
    assert_eq!(
        refused(vec![t("a").needs("a")]),
        "the tasks form a cycle: a -> a"
    );
    let mut loose = t("b");
    loose.bind.push(smallhands_core::Binding {
        field: "x".into(),
        from: "a".into(),
        pointer: String::new(),
    });
    assert_eq!(
        refused(vec![t("a"), loose]),
        "task `b`: it binds `x` from `a`, which is not among its needs"
    );
    assert!(
        refused(vec![t("a").when(Condition::Expr("1 +".into()))]).contains("is not an expression")
    );
    assert!(
        refused(vec![t("a").output_schema(serde_json::json!({"type": 7}))])
            .contains("is not a JSON schema")
    );
}

#[test]
fn a_graph_reads_from_json_and_yaml_and_errors_name_the_place() {
    let json =
        r#"{"tasks":[{"id":"a","worker":"w"},{"id":"b","worker":"w","needs":["a"],"priority":3}]}"#;
    let yaml = "tasks:\n  - {id: a, worker: w}\n  - id: b\n    worker: w\n    needs: [a]\n    priority: 3\n";
    let g = TaskGraph::from_json(json).unwrap();
    assert_eq!(g, TaskGraph::from_yaml(yaml).unwrap());
    assert_eq!(
        g,
        graph([
            TaskSpec::new("a", "w"),
            TaskSpec::new("b", "w").needs("a").priority(3)
        ])
    );
    let Err(GraphError::Parse(e)) = TaskGraph::from_yaml("tasks:\n  - id: a\n    worker: [\n")
    else {
        panic!("accepted")
    };
    assert!(e.contains("line"), "{e}");
    let e = TaskGraph::from_json("{\"tasks\":[\n{\"id\":\"a\"}]}")
        .unwrap_err()
        .to_string();
    assert!(e.contains("worker") && e.contains("line 2"), "{e}");
}
