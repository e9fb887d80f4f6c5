//! Typed graphs run as they are written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use smallhands_core::{Ambient, NoGuard, NoSecrets, Worker, worker};
use smallhands_exec::InProcess;
use smallhands_graph::{
    Engine, MemoryStore, NewRun, NodeState, RunResult, RunStatus, StateStore, SystemClock,
    TaskGraph, TypedGraph,
};
use std::sync::Arc;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
struct Page {
    body: String,
    links: Vec<u64>,
}
#[derive(Serialize, Deserialize, JsonSchema)]
struct Text {
    text: String,
    loud: bool,
}

async fn run(graph: TaskGraph) -> RunResult {
    let store: Arc<dyn StateStore> = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
    let ambient = Ambient {
        clock: Arc::new(SystemClock),
        blobs: store.blobs(),
        guard: Arc::new(NoGuard),
        secrets: Arc::new(NoSecrets),
    };
    let fetch = worker("fetch", |n: u64, _| async move {
        let links = (1..n).collect();
        let body = format!("page {n}");
        Ok(Page { body, links })
    });
    let shout = worker("shout", |t: Text, _| async move {
        Ok(match t.loud {
            true => t.text.to_uppercase(),
            false => t.text,
        })
    });
    let count = worker(
        "count",
        |all: Vec<Page>, _| async move { Ok(all.len() as u64) },
    );
    let length = worker(
        "length",
        |p: Page, _| async move { Ok(p.body.len() as u64) },
    );
    let workers: [Arc<dyn Worker>; 4] = [fetch, shout, count, length];
    let exec = Arc::new(InProcess::new(workers, ambient));
    let engine = Engine::new(store, exec, Arc::new(SystemClock));
    let handle = engine.start(NewRun::new("r", graph)).await.unwrap();
    handle.wait().await.unwrap()
}

#[tokio::test]
async fn outputs_come_back_as_their_types() {
    let mut g = TypedGraph::new();
    let fetch = g.node::<u64, Page>("fetch", "fetch");
    g.input(&fetch, &4);
    let shout = g.node::<Text, String>("shout", "shout");
    g.spec(&shout, |t| t.input(json!({"loud": true})));
    g.field(&shout, "text", &fetch, "/body");
    let length = g.node::<Page, u64>("length", "length");
    g.connect(&fetch, &length);
    let each = g.node::<u64, Page>("each", "fetch");
    let each = g.map_at(&fetch, "/links", each, "");
    let count = g.node::<Vec<Page>, u64>("count", "count");
    g.connect(&each, &count);
    let done = run(g.build().unwrap()).await;
    assert_eq!(done.status, RunStatus::Succeeded);
    assert_eq!(shout.out(&done.state).unwrap().unwrap(), "PAGE 4");
    assert_eq!(length.out(&done.state).unwrap().unwrap(), 6);
    assert_eq!(each.out(&done.state).unwrap().unwrap()[2].body, "page 3");
    assert_eq!(count.out(&done.state).unwrap().unwrap(), 3);
}

#[tokio::test]
async fn a_graph_in_a_graph_takes_and_gives_its_types() {
    let mut g = TypedGraph::new();
    let fetch = g.node::<u64, Page>("fetch", "fetch");
    g.input(&fetch, &3);
    let sum = g.sub_graph::<Page, u64, _>("sum", |g, page| {
        let each = g.sub_graph::<Vec<u64>, Page, _>("first", |g, links| {
            let one = g.node::<u64, Page>("one", "fetch");
            g.field(&one, "", links, "/1");
            one
        });
        g.field(&each, "", page, "/links");
        let length = g.node::<Page, u64>("length", "length");
        g.connect(&each, &length);
        length
    });
    g.connect(&fetch, &sum);
    let again = g.node::<u64, Page>("again", "fetch");
    g.connect(&sum, &again);
    let done = run(g.build().unwrap()).await;
    assert_eq!(done.status, RunStatus::Succeeded);
    assert_eq!(sum.out(&done.state).unwrap().unwrap(), 6);
    assert_eq!(again.out(&done.state).unwrap().unwrap().body, "page 6");
    assert_eq!(done.state.value("sum/first/one").unwrap()["body"], "page 2");
}

#[tokio::test]
async fn an_input_that_only_the_run_knows_is_checked_when_it_is_known() {
    let mut g = TypedGraph::new();
    let fetch = g.node::<u64, Page>("fetch", "fetch");
    g.input(&fetch, &1);
    let again = g.node::<u64, Page>("again", "fetch");
    // A list may have elements or not; this one has none.
    g.spec(&again, |t| t.bind("", "fetch", "/links/0"));
    let wrong = g.node::<u64, Page>("wrong", "fetch");
    g.spec(&wrong, |mut t| {
        t.input_schema = Some(Arc::new(json!({"minimum": 7, "type": "integer"})));
        t.bind("", "length", "")
    });
    let length = g.node::<Page, u64>("length", "length");
    g.connect(&fetch, &length);
    g.spec(&again, |t| t.needs("wrong"));
    let done = run(g.build().unwrap()).await;
    assert_eq!(done.status, RunStatus::Failed);
    let NodeState::Failed(f) = &done.state.nodes.get(wrong.id()).unwrap().state else {
        panic!("{:?}", done.state.nodes.get(wrong.id()))
    };
    assert_eq!(f.code, "input.schema");
    assert!(wrong.out(&done.state).is_none() && length.out(&done.state).is_some());
}
