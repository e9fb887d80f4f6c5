//! Typed building gives the same data as any other.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use smallhands_core::{Retry, TaskSpec};
use smallhands_graph::{GraphError, RunState, TaskFault, TaskGraph, TypedGraph, TypedNode};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
struct Url {
    url: String,
}
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
struct Page {
    status: u16,
    body: Option<String>,
    links: Vec<Url>,
}
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Text {
    text: String,
    strict: Option<bool>,
}

#[test]
fn a_typed_graph_is_a_graph() {
    let mut g = TypedGraph::new();
    let fetch = g.node::<Url, Page>("fetch", "http");
    let keep = g.node::<Page, ()>("keep", "disk");
    let parse = g.node::<Text, u64>("parse", "words");
    let each = g.node::<Url, Page>("each", "http");
    g.input(&fetch, &Url { url: "u".into() });
    g.connect(&fetch, &keep);
    g.field(&parse, "text", &fetch, "/body");
    g.after(&keep, &parse);
    g.spec(&parse, |t| t.retry(Retry::attempts(3)));
    let each = g.map_at(&fetch, "/links", each, "");
    let all = g.node::<Vec<Page>, Vec<Url>>("all", "merge");
    g.connect(&each, &all);
    let again = g.node::<Url, Page>("again", "http");
    let again = g.map(&all, again);
    assert_eq!(again.id().as_str(), "again");
    let graph = g.build().unwrap();

    let spec = |i: usize| {
        let mut t = TaskSpec::clone(&graph.tasks()[i]);
        assert!(t.input_schema.take().is_some() && t.output_schema.take().is_some());
        t
    };
    assert_eq!(
        spec(0),
        TaskSpec::new("fetch", "http").input(json!({"url": "u"}))
    );
    assert_eq!(spec(1), TaskSpec::new("keep", "disk").bind("", "fetch", ""));
    assert_eq!(
        spec(2),
        TaskSpec::new("parse", "words")
            .bind("text", "fetch", "/body")
            .needs("keep")
            .retry(Retry::attempts(3))
    );
    assert_eq!(
        spec(3),
        TaskSpec::new("each", "http").map("", "fetch", "/links")
    );
    assert_eq!(spec(5), TaskSpec::new("again", "http").map("", "all", ""));
    let text = serde_json::to_string_pretty(&graph).unwrap();
    assert_eq!(TaskGraph::from_json(&text).unwrap(), graph);
    assert_eq!(TaskGraph::from_yaml(&text).unwrap(), graph);
}

#[test]
fn parts_are_checked_when_the_graph_is_built() {
    let built = |wire: fn(&mut TypedGraph, &TypedNode<Url, Page>, &TypedNode<Text, u64>)| {
        let mut g = TypedGraph::new();
        let fetch = g.node::<Url, Page>("fetch", "http");
        let parse = g.node::<Text, u64>("parse", "words");
        g.input(&fetch, &Url { url: "u".into() });
        wire(&mut g, &fetch, &parse);
        g.build().map(drop).map_err(|e| e.to_string())
    };
    assert_eq!(built(|g, f, p| g.field(p, "text", f, "/body")), Ok(()));
    assert_eq!(
        built(|g, f, p| g.field(p, "text", f, "/status")).unwrap_err(),
        "task `parse`: its field `text` takes `/status` of `fetch`: expected a string, found an integer"
    );
    assert_eq!(
        built(|g, f, p| g.field(p, "txet", f, "/body")).unwrap_err(),
        "task `parse`: its field `txet` takes `/body` of `fetch`: expected an input with only `strict`, `text`, found a string or null"
    );
    assert_eq!(
        built(|g, f, p| g.field(p, "strict", f, "/status")).unwrap_err(),
        "task `parse`: its field `strict` takes `/status` of `fetch`: expected a boolean or null, found an integer"
    );
    assert_eq!(
        built(|g, f, p| g.after(f, p)).unwrap_err(),
        "task `parse`: its input does not fit its input_schema: null is not of type \"object\""
    );
}

#[test]
fn nodes_of_another_graph_are_refused() {
    let mut g = TypedGraph::new();
    let a = g.node::<(), String>("a", "w");
    let mut other = TypedGraph::new();
    let b = other.node::<String, ()>("b", "w");
    g.connect(&a, &b);
    let e = g.build().unwrap_err();
    assert!(
        matches!(
            e,
            GraphError::Invalid {
                fault: TaskFault::Stranger,
                ..
            }
        ),
        "{e}"
    );
}

#[test]
fn a_graph_in_a_graph_gives_what_one_of_its_own_tasks_gives() {
    let mut g = TypedGraph::new();
    let outer = g.node::<Url, Page>("outer", "http");
    g.input(&outer, &Url { url: "u".into() });
    let stranger = outer.clone();
    let inner = g.sub_graph::<Page, Page, _>("inner", |_, _| stranger);
    g.connect(&outer, &inner);
    let e = g.build().unwrap_err().to_string();
    assert_eq!(e, "task `inner/outer`: it is not a task of this graph");

    let mut g = TypedGraph::new();
    let inner = g.sub_graph::<Url, u64, _>("inner", |g, url| {
        let parse = g.node::<Text, u64>("parse", "words");
        g.field(&parse, "strict", url, "/url");
        g.spec(&parse, |t| t.input(json!({"text": "t"})));
        parse
    });
    g.input(&inner, &Url { url: "u".into() });
    let e = g.build().unwrap_err().to_string();
    assert!(
        e.starts_with("task `inner/parse`: its field `strict` takes `/url` of `inner`"),
        "{e}"
    );
}

#[test]
fn outputs_are_read_as_their_type() {
    let mut g = TypedGraph::new();
    let a = g.node::<(), Vec<Url>>("a", "w");
    assert_eq!(
        a.read(&json!([{"url": "u"}])).unwrap(),
        [Url { url: "u".into() }]
    );
    assert!(a.read(&json!({})).is_err());
    assert!(a.out(&RunState::default()).is_none());
}
