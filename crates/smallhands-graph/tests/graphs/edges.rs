//! Edges against declared schemas: refused only if they can certainly not work.

use serde_json::{Value, json};
use smallhands_core::{Binding, Condition, Join, OnFailure, Repeat, SubGraph, TaskSpec};
use smallhands_graph::{GraphError, TaskGraph};
use std::sync::Arc;

fn t(id: &str) -> TaskSpec {
    TaskSpec::new(id, "w")
}

/// Builds `a` with that output, and `b` whose `x` takes a part of it.
fn edge(output: Value, pointer: &str, x: Value) -> Result<TaskGraph, GraphError> {
    let a = t("a").output_schema(output);
    let input = json!({"type": "object", "properties": {"x": x}, "additionalProperties": false});
    let b = t("b").bind("x", "a", pointer).input_schema(input);
    TaskGraph::from_tasks([a, b])
}

fn refused(output: Value, pointer: &str, x: Value) -> (String, String) {
    match edge(output, pointer, x) {
        Err(GraphError::EdgeType(e)) => (e.expected, e.found),
        other => panic!("{other:?}"),
    }
}

fn accepted(output: Value, pointer: &str, x: Value) {
    if let Err(e) = edge(output.clone(), pointer, x.clone()) {
        panic!("{output} {pointer} {x}: {e}");
    }
}

fn pair(expected: &str, found: &str) -> (String, String) {
    (expected.into(), found.into())
}

fn page() -> Value {
    json!({
        "type": "object",
        "properties": {
            "status": {"type": "integer"},
            "body": {"$ref": "#/$defs/Text"},
            "links": {"type": "array", "items": {"$ref": "#/$defs/Link"}},
            "pair": {"type": "array", "prefixItems": [{"type": "string"}, {"type": "number"}], "items": false},
            "extra": {"type": "object", "additionalProperties": {"type": "boolean"}},
            "maybe": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/Link"}]},
            "open": {},
        },
        "additionalProperties": false,
        "$defs": {
            "Text": {"type": "string"},
            "Link": {"allOf": [{"type": "object", "properties": {"url": {"type": "string"}}, "additionalProperties": false}]},
        },
    })
}

#[test]
fn the_error_names_both_tasks_the_field_the_pointer_and_both_types() {
    let e = edge(page(), "/status", json!({"type": "string"})).unwrap_err();
    assert_eq!(
        e.to_string(),
        "task `b`: its field `x` takes `/status` of `a`: expected a string, found an integer"
    );
    assert_eq!(e.code(), "graph.edge_type");
}

#[test]
fn pointers_are_followed_through_every_form() {
    let s = || json!({"type": "string"});
    for p in [
        "/body",
        "/links/0/url",
        "/pair/0",
        "/maybe/url",
        "/open",
        "/open/any/3",
    ] {
        accepted(page(), p, s());
    }
    accepted(page(), "/pair/1", json!({"type": "integer"}));
    accepted(page(), "/extra/whatever", json!({"type": "boolean"}));
    let number = || pair("a string", "a number");
    assert_eq!(refused(page(), "/pair/1", s()), number());
    assert_eq!(
        refused(page(), "/extra/z", s()),
        pair("a string", "a boolean")
    );
    assert_eq!(
        refused(page(), "/links/0", s()),
        pair("a string", "an object")
    );
    assert_eq!(
        refused(page(), "/maybe", s()),
        pair("a string", "an object or null")
    );
}

#[test]
fn pointers_to_what_cannot_exist_are_refused() {
    let any = || json!(true);
    assert_eq!(
        refused(page(), "/bdy", any()),
        pair(
            "any value",
            "an object with only `body`, `extra`, `links`, `maybe`, `open`, `pair`, `status`"
        )
    );
    assert_eq!(
        refused(page(), "/body/x", json!({"type": "string"})),
        pair("a string", "a string, which has no `x`")
    );
    assert_eq!(
        refused(page(), "/links/first", any()).1,
        "a list, which has no `first`"
    );
    assert_eq!(
        refused(page(), "/links/01", any()).1,
        "a list, which has no `01`"
    );
    assert_eq!(
        refused(page(), "/pair/2", any()).1,
        "a list, which has no `2`"
    );
    assert_eq!(
        refused(page(), "/maybe/ulr", any()).1,
        "an object or null with only `url`"
    );
    assert_eq!(
        refused(json!({"maxItems": 1, "type": "array"}), "/1", any()).0,
        "any value"
    );
    assert_eq!(
        refused(json!({"const": {"a": 1}}), "/b", any()).1,
        "`{\"a\":1}`, which has no `b`"
    );
}

#[test]
fn fields_that_the_input_does_not_have_are_refused() {
    let a = t("a").output_schema(json!({"type": "string"}));
    let closed = json!({"properties": {"text": {}}, "additionalProperties": false});
    let b = t("b").bind("txt", "a", "").input_schema(closed);
    let e = TaskGraph::from_tasks([a, b]).unwrap_err();
    assert_eq!(
        e.to_string(),
        "task `b`: its field `txt` takes the output of `a`: expected an input with only `text`, found a string"
    );
}

#[test]
fn types_overlap_or_do_not() {
    let ty = |s: &str| json!({"type": s});
    accepted(ty("integer"), "", ty("number"));
    accepted(ty("number"), "", ty("integer"));
    accepted(json!({"type": ["string", "null"]}), "", ty("string"));
    accepted(ty("string"), "", json!({"type": ["string", "null"]}));
    accepted(json!(true), "", ty("string"));
    accepted(ty("string"), "", json!({}));
    accepted(json!({"const": 1}), "", json!({"const": 1.0}));
    accepted(json!({"enum": [1, 2.5]}), "", json!({"enum": [2.5]}));
    accepted(json!({"const": 1.0}), "", ty("integer"));
    assert_eq!(
        refused(ty("null"), "", ty("string")),
        pair("a string", "null")
    );
    assert_eq!(
        refused(json!({"const": 1.5}), "", ty("integer")),
        pair("an integer", "`1.5`")
    );
    assert_eq!(
        refused(json!({"enum": ["a", "b"]}), "", json!({"enum": ["c", "d"]})),
        pair("`\"c\"` or `\"d\"`", "`\"a\"` or `\"b\"`")
    );
    assert_eq!(
        refused(json!({"const": "a"}), "", ty("integer")),
        pair("an integer", "`\"a\"`")
    );
    let both = json!({"anyOf": [ty("string"), ty("boolean")]});
    accepted(both.clone(), "", ty("boolean"));
    assert_eq!(
        refused(both, "", ty("integer")),
        pair("an integer", "a string or a boolean")
    );
}

#[test]
fn objects_and_lists_are_compared_inside() {
    let object = |name: &str, ty: &str| json!({"type": "object", "properties": {name: {"type": ty}}, "required": [name], "additionalProperties": false});
    accepted(object("n", "integer"), "", object("n", "number"));
    assert_eq!(
        refused(object("n", "integer"), "", object("n", "string")),
        pair("a string at `/n`", "an integer")
    );
    assert_eq!(
        refused(object("n", "integer"), "", object("m", "integer")),
        pair("an object with `m`", "an object with only `n`")
    );
    let open = json!({"type": "object", "properties": {"n": {"type": "integer"}}});
    accepted(open, "", object("m", "integer"));
    let list = |ty: &str| json!({"type": "array", "items": {"type": ty}});
    accepted(list("integer"), "", list("number"));
    assert_eq!(
        refused(list("integer"), "", list("string")),
        pair("a string at `/-`", "an integer")
    );
}

#[test]
fn only_what_every_alternative_requires_is_required() {
    let either = json!({"type": "object", "anyOf": [{"required": ["n"]}, {"required": ["m"]}]});
    let closed = json!({"type": "object", "properties": {"n": {}}, "additionalProperties": false});
    accepted(either.clone(), "", closed.clone());
    accepted(closed.clone(), "", either);
    let both = json!({"type": "object", "allOf": [{"required": ["n"]}, {"required": ["m"]}]});
    assert_eq!(
        refused(both, "", closed),
        pair("an object with only `n`", "an object with `m`")
    );
}

#[test]
fn what_is_not_understood_is_accepted() {
    let s = || json!({"type": "string"});
    accepted(
        json!({"$ref": "https://json-schema.org/draft/2020-12/schema"}),
        "/x",
        s(),
    );
    accepted(
        json!({"patternProperties": {"^b": {}}, "additionalProperties": false}),
        "/bdy",
        s(),
    );
    accepted(json!({"not": {"type": "string"}}), "", s());
    accepted(json!({"if": {}, "then": {"type": "integer"}}), "", s());
    accepted(
        json!({"allOf": [{"properties": {"x": true}}], "unevaluatedProperties": false}),
        "/x",
        s(),
    );
    let other_base =
        json!({"properties": {"x": {"$id": "https://example.org/x", "type": "integer"}}});
    accepted(other_base, "/x", s());
    // Before draft 2019-09 what stands beside a reference means nothing.
    let old = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "properties": {"x": {"$ref": "#/definitions/s", "type": "integer"}},
        "definitions": {"s": {"type": "string"}},
    });
    accepted(old, "/x", s());
}

#[test]
fn schemas_that_refer_to_themselves_end() {
    let tree = json!({"$ref": "#/$defs/t", "$defs": {"t": {
        "type": "object",
        "properties": {"left": {"$ref": "#/$defs/t"}, "n": {"type": "integer"}},
        "required": ["left"],
    }}});
    accepted(
        tree.clone(),
        "/left/left/left/n",
        json!({"type": "integer"}),
    );
    let b = t("b").bind("", "a", "").input_schema(tree.clone());
    assert!(TaskGraph::from_tasks([t("a").output_schema(tree.clone()), b]).is_ok());
    let e = refused(tree, "/left/left/left/n", json!({"type": "string"}));
    assert_eq!(e, pair("a string", "an integer"));
    let many: Vec<_> = (0..20).map(|_| json!({"$ref": "#/$defs/l"})).collect();
    let knot = json!({"$ref": "#/$defs/l", "$defs": {"l": {"anyOf": many}}});
    accepted(knot.clone(), "/a/b", json!({"type": "string"}));
    accepted(knot, "", json!({"type": "string"}));
}

#[test]
fn a_source_that_may_give_null_is_not_blamed() {
    let a = t("a")
        .output_schema(json!({"type": "string"}))
        .on_failure(OnFailure::Continue);
    let b = t("b")
        .bind("x", "a", "")
        .needs("c")
        .join(Join::Any)
        .input_schema(json!({"properties": {"x": {"type": "string"}}}));
    assert!(TaskGraph::from_tasks([a, t("c"), b]).is_ok());
}

#[test]
fn the_whole_input_may_be_bound() {
    let a = t("a").output_schema(page());
    let whole = |s: Value| t("b").bind("", "a", "/links/0").input_schema(s);
    let link =
        json!({"type": "object", "properties": {"url": {"type": "string"}}, "required": ["url"]});
    assert!(TaskGraph::from_tasks([a.clone(), whole(link)]).is_ok());
    let e = TaskGraph::from_tasks([a, whole(json!({"type": "string"}))]).unwrap_err();
    assert_eq!(
        e.to_string(),
        "task `b`: its input takes `/links/0` of `a`: expected a string, found an object"
    );
}

#[test]
fn maps_give_elements_and_what_they_give_is_a_list() {
    let a = t("a").output_schema(page());
    let b = |p: &str, ty: &str| {
        t("b")
            .map("x", "a", p)
            .input_schema(json!({"properties": {"x": {"type": ty}}}))
            .output_schema(json!({"type": "integer"}))
    };
    let e = |tasks: Vec<TaskSpec>| TaskGraph::from_tasks(tasks).unwrap_err().to_string();
    assert!(TaskGraph::from_tasks([a.clone(), b("/links", "object")]).is_ok());
    assert_eq!(
        e(vec![a.clone(), b("/links", "string")]),
        "task `b`: its field `x` takes `/links` of `a`: expected a string, found an object"
    );
    assert_eq!(
        e(vec![a.clone(), b("/body", "string")]),
        "task `b`: its field `x` takes `/body` of `a`: expected a list, found a string"
    );
    let c = |p: &str, s: Value| {
        t("c")
            .bind("n", "b", p)
            .input_schema(json!({"properties": {"n": s}}))
    };
    let b = b("/links", "object");
    let list = json!({"type": "array", "items": {"type": "number"}});
    assert!(TaskGraph::from_tasks([a.clone(), b.clone(), c("", list)]).is_ok());
    assert!(
        TaskGraph::from_tasks([a.clone(), b.clone(), c("/3", json!({"type": "integer"}))]).is_ok()
    );
    assert_eq!(
        e(vec![a, b, c("", json!({"type": "integer"}))]),
        "task `c`: its field `n` takes the output of `b`: expected an integer, found a list"
    );
}

#[test]
fn loops_are_fed_what_they_give() {
    let mut r = Repeat {
        until: Condition::Named("done".into()),
        max: 3,
        feed: Some("draft".into()),
    };
    let b = t("b")
        .input_schema(json!({"properties": {"draft": {"type": "string"}}}))
        .output_schema(json!({"type": "integer"}));
    let e = TaskGraph::from_tasks([b.clone().repeat(r.clone())]).unwrap_err();
    assert_eq!(
        e.to_string(),
        "task `b`: its field `draft` takes the output of `b`: expected a string, found an integer"
    );
    r.feed = None;
    assert!(TaskGraph::from_tasks([b.input(json!({})).repeat(r)]).is_ok());
}

#[test]
fn sub_graphs_take_from_their_holder_and_give_what_their_tasks_give() {
    let mut x = t("x").output_schema(json!({"type": "integer"}));
    x.bind.push(Binding {
        field: "n".into(),
        from: "".into(),
        pointer: "/n".into(),
    });
    let x = |ty: &str| {
        x.clone()
            .input_schema(json!({"properties": {"n": {"type": ty}}}))
    };
    let h = |x: TaskSpec, output: Option<&str>| {
        let tasks = vec![Arc::new(x)];
        let output = output.map(Into::into);
        TaskSpec::sub_graph("h", SubGraph { tasks, output })
            .input_schema(json!({"properties": {"n": {"type": "string"}}}))
            .input(json!({"n": "1"}))
    };
    let e = |tasks: Vec<TaskSpec>| TaskGraph::from_tasks(tasks).unwrap_err().to_string();
    assert_eq!(
        e(vec![h(x("boolean"), None)]),
        "task `h/x`: its field `n` takes `/n` of `h`: expected a boolean, found a string"
    );
    let after = |p: &str| {
        let s = json!({"properties": {"r": {"type": "integer"}}});
        t("c").bind("r", "h", p).input_schema(s)
    };
    assert!(TaskGraph::from_tasks([h(x("string"), None), after("/x")]).is_ok());
    assert!(TaskGraph::from_tasks([h(x("string"), Some("x")), after("")]).is_ok());
    assert_eq!(
        e(vec![h(x("string"), None), after("/y")]),
        "task `c`: its field `r` takes `/y` of `h`: expected an integer, found an object with only `x`"
    );
}
