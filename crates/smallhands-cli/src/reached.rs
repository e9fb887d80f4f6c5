//! What the tests of a run reached over the network, and what was refused: its journal knows.
use crate::{
    progress::plain,
    units::{bytes, count},
};
use serde_json::Value;
use smallhands::{
    core::{PriorStep, TaskId},
    graph::RunState,
    sandbox::{EgressRecord, EgressVerdict},
};
use std::collections::BTreeMap;

/// The connections in the result of a step.
pub(crate) fn by_step(result: &Value) -> Vec<EgressRecord> {
    serde_json::from_value(result["egress"].clone()).unwrap_or_default()
}

/// All of a run, in the order of its graph.
pub(crate) fn by_run(state: &RunState) -> Vec<(TaskId, EgressRecord)> {
    let mut all = Vec::new();
    for (task, n) in state.in_order() {
        for step in &n.steps {
            let PriorStep::Done(done) = step else {
                continue;
            };
            let found = done.result.as_ref().map(by_step).unwrap_or_default();
            all.extend(found.into_iter().map(|r| (task.clone(), r)));
        }
    }
    all
}

/// How a connection ended, for eyes; `None`: it went well.
pub(crate) fn trouble(r: &EgressRecord) -> Option<String> {
    let (what, why) = match &r.verdict {
        EgressVerdict::Allowed => return None,
        EgressVerdict::Refused { detail, .. } => ("refused", detail.clone()),
        EgressVerdict::Failed(why) => ("failed", why.clone()),
        EgressVerdict::Stopped(why) => ("stopped", why.clone()),
        other => ("ended", format!("{other:?}")),
    };
    // The command chose the name.
    Some(plain(&format!("{what}: {why}")))
}

/// A line for each host with each outcome.
pub(crate) fn table(state: &RunState) -> String {
    let mut lines = BTreeMap::<(String, Option<String>), (usize, u64, u64)>::new();
    for (_, r) in by_run(state) {
        let host = plain(&format!("{}:{}", r.host, r.port));
        let (n, sent, received) = lines.entry((host, trouble(&r))).or_default();
        (*n, *sent, *received) = (*n + 1, *sent + r.sent, *received + r.received);
    }
    let mut text = String::new();
    for ((host, trouble), (n, sent, received)) in lines {
        let how = trouble.unwrap_or_else(|| "reached".into());
        let n = count(n, "connection");
        let (sent, received) = (bytes(sent), bytes(received));
        text += &format!("network       {host}  {n}, {sent} sent, {received} received, {how}\n");
    }
    text
}
