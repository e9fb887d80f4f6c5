//! Graphs from text: what is wrong, and on which line.

use smallhands_core::{Binding, Condition, Effect, Join, OnFailure, Repeat, TaskSpec};
use smallhands_graph::{GraphError, TaskGraph};

fn json(text: &str) -> String {
    let e = TaskGraph::from_json(text).unwrap_err();
    e.to_string()
}
fn yaml(text: &str) -> String {
    let e = TaskGraph::from_yaml(text).unwrap_err();
    e.to_string()
}

#[test]
fn json_says_what_is_wrong_and_where() {
    let golden = [
        (
            "{\"tasks\": [\n  {\"id\": \"a\", \"worker\": \"w\"},\n  {\"id\": \"b\", \"worker\": \"w\",\n   \"needs\": [\n    \"a\",\n    \"aa\"]}\n]}",
            "line 6, column 5, tasks[1].needs[1]: task `b` needs `aa`, which does not exist; did you mean `a`?",
        ),
        (
            "[\n{\"id\": \"a\", \"worker\": \"w\"},\n{\"id\": \"a\", \"worker\": \"w\"}]",
            "line 3, column 8, [1].id: two tasks have the id `a`; ids are unique in a run",
        ),
        (
            "{\"tasks\": [{\"id\": \"a\",\n\"wroker\": \"w\"}]}",
            "line 2, column 11, tasks[0].wroker: a task has no field `wroker`; did you mean `worker`?",
        ),
        (
            "{\"task\": []}",
            "line 1, column 10, task: a graph has no field `task`; did you mean `tasks`?",
        ),
        (
            "{\"tasks\": [{\"id\": \"a\", \"worker\": \"w\", \"retry\": {\n\"max_atempts\": 3}}]}",
            "line 2, column 16, tasks[0].retry.max_atempts: a retry policy has no field `max_atempts`; did you mean `max_attempts`?",
        ),
        (
            "[\n{\"id\": \"a\", \"worker\": \"w\",\n\"needs\": [\"b\"]},\n{\"id\": \"b\", \"worker\": \"w\",\n\"needs\": [\"a\"]}]",
            "line 3, column 11, [0].needs[0]: the tasks form a cycle: a -> b -> a",
        ),
        (
            "[{\"id\": \"a\"}]",
            "line 1, column 2, [0].worker: task `a`: it names no worker; only a task with a `graph` has none",
        ),
        (
            "[{\"id\": \"a\", \"graph\": {\"tasks\": [\n{\"id\": \"x\", \"worker\": \"w\"},\n{\"id\": \"y\", \"worker\": \"w\", \"bind\": [{\"field\": \"f\",\n\"from\": \"x\"}]}]}}]",
            "line 4, column 9, [0].graph.tasks[1].bind[0].from: task `a/y`: it binds `f` from `x`, which is not among its needs",
        ),
        (
            "[{\"id\": \"a\", \"worker\": \"w\",\n\"priority\": \"high\"}]",
            "line 2, column 13, [0].priority: the graph cannot be read: invalid type: string \"high\", expected i32",
        ),
        (
            "{\"tasks\": [\n{\"worker\": \"w\"}]}",
            "line 2, column 1, tasks[0]: the graph cannot be read: missing field `id`",
        ),
        (
            "[{\"id\": \"é\", \"worker\": \"w\", \"retry\": {\"max_attempts\": -1}, \"needs\": []}]",
            "line 1, column 55, [0].retry.max_attempts: the graph cannot be read: invalid value: integer `-1`, expected u32",
        ),
        (
            "{\"tasks\": [\n",
            "the graph cannot be read: EOF while parsing a list at line 2 column 0",
        ),
        (
            "7",
            "the graph cannot be read: invalid type: integer `7`, expected a list of tasks, or an object with `tasks` at line 1 column 1",
        ),
        ("{\"tasks\": []}", "the graph has no tasks"),
    ];
    for (text, want) in golden {
        assert_eq!(json(text), want, "{text}");
    }
}

#[test]
fn yaml_says_what_is_wrong_and_where() {
    let golden = [
        (
            "tasks:\n  - id: a\n    worker: w\n  - id: b\n    worker: w\n    needs:\n      - a\n      - aa\n",
            "line 8, column 9, tasks[1].needs[1]: task `b` needs `aa`, which does not exist; did you mean `a`?",
        ),
        (
            "# the first\n- id: a\n  worker: w\n- worker: w\n  id: a\n",
            "line 5, column 3, [1].id: two tasks have the id `a`; ids are unique in a run",
        ),
        (
            "tasks:\n- id: a\n  worker: w\n  need: [b]\n",
            "line 4, column 3, tasks[0].need: a task has no field `need`; did you mean `needs`?",
        ),
        (
            "tasks:\n- id: a\n  worker: w\n  repeat:\n    max: 2\n    until: {expr: output.ok}\n    feeds: x\n",
            "line 7, column 5, tasks[0].repeat.feeds: a loop has no field `feeds`; did you mean `feed`?",
        ),
        (
            "tasks:\n- id: a\n  worker: w\n  when:\n    expr: 1 +\n",
            "line 4, column 3, tasks[0].when: task `a`: the condition `1 +` is not an expression: syntax error: unexpected end of input, expected expression (in <expression>:1)",
        ),
        (
            "tasks:\n- id: a\n  worker: w\n  output_schema: {type: integer}\n- id: b\n  worker: w\n  needs: [a]\n  input_schema:\n    properties:\n      n: {type: string}\n  bind:\n  - field: n\n    from: a\n",
            "line 12, column 5, tasks[1].bind[0]: task `b`: its field `n` takes the output of `a`: expected a string, found an integer",
        ),
        (
            "tasks:\n- {id: a, worker: w, join: any}\n",
            "line 2, column 22, tasks[0].join: task `a`: it waits for any of its needs and has none",
        ),
        (
            "tasks:\n- {id: a, worker: w}\n- id: b\n  worker: w\n  needs: [a]\n  map:\n    from: a\n    field: x\n    pointer: items\n",
            "line 9, column 5, tasks[1].map.pointer: task `b`: `items` is not a JSON pointer; it begins with `/`, and `~` is written `~0`",
        ),
        (
            "x: &w {id: a}\ntasks: [*w]\n",
            "line 1, column 1, x: a graph has no field `x`",
        ),
        (
            "tasks:\n- id: a\n  worker: w\n  priority: high\n",
            "line 4, column 3, tasks[0].priority: the graph cannot be read: invalid i32",
        ),
        (
            "- id: a\n  worker: w\n- id: b\n  worker: w\n  needs:\n  - a\n  - [a]\n  priority: 1\n",
            "line 7, column 5, [1].needs[1]: the graph cannot be read: expected string scalar",
        ),
        (
            "tasks:\n- worker: w\n",
            "line 2, column 3, tasks[0]: the graph cannot be read: missing field `id`",
        ),
    ];
    for (text, want) in golden {
        assert_eq!(yaml(text), want, "{text}");
    }
    let e = yaml("tasks:\n- id: a\n  worker: [\n");
    assert!(e.contains("line 3 column 11: unclosed bracket"), "{e}");
}

#[test]
fn the_code_is_that_of_what_is_wrong() {
    let e = TaskGraph::from_json("[{\"id\": \"a\", \"worker\": \"w\", \"needs\": [\"b\"]}]")
        .unwrap_err();
    assert_eq!(e.code(), "graph.unknown_need");
    let GraphError::At {
        line,
        column,
        path,
        error,
    } = e
    else {
        panic!("{e}")
    };
    assert_eq!((line, column, path.as_str()), (1, 39, "[0].needs[0]"));
    assert!(matches!(*error, GraphError::UnknownNeed { .. }));
}

#[test]
fn every_form_of_a_task_loads_from_both() {
    let text = "
tasks:
- id: a
  worker: w
  input: {any: {thing: [1]}}
  effect: at_most_once
- id: b
  worker: w
  needs: [a]
  join: {at_least: 1}
  on_failure: {compensate: undo}
  map: {from: a, pointer: /items, field: x, key: /id, max_parallel: 2}
- id: c
  worker: w
  needs: [b]
  when: {expr: b.n > 1}
  repeat: {until: {named: good}, max: 3, feed: draft}
- id: h
  graph:
    output: x
    tasks:
    - {id: x, worker: w, bind: [{field: y, from: '', pointer: /y}]}
";
    let g = TaskGraph::from_yaml(text).unwrap();
    let [a, b, c, h] = g.tasks() else {
        panic!("{g:?}")
    };
    assert_eq!(a.effect, Effect::AtMostOnce);
    assert_eq!(b.join, Join::AtLeast(1));
    assert_eq!(b.on_failure, OnFailure::Compensate("undo".into()));
    assert_eq!(b.map.as_ref().unwrap().max_parallel, Some(2));
    assert_eq!(
        **c,
        TaskSpec::new("c", "w")
            .needs("b")
            .when(Condition::Expr("b.n > 1".into()))
            .repeat(Repeat {
                until: Condition::Named("good".into()),
                max: 3,
                feed: Some("draft".into()),
            })
    );
    let x = &h.graph.as_ref().unwrap().tasks[0];
    assert_eq!(
        x.bind,
        [Binding {
            field: "y".into(),
            from: "".into(),
            pointer: "/y".into()
        }]
    );
    let again = serde_json::to_string_pretty(&g).unwrap();
    assert_eq!(TaskGraph::from_json(&again).unwrap(), g);
    let file = format!("{{\"tasks\": {again}}}");
    assert_eq!(TaskGraph::from_json(&file).unwrap(), g);
}
