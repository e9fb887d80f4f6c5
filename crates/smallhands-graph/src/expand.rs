//! What a task stands for: the instances of a map, the tasks of a sub-graph, a compensation.

use crate::state::{Ix, NodeState, RunState, inside, instances};
use serde_json::{Value, json};
use smallhands_core::{
    Digest, Failure, FailureClass, MapOver, OnFailure, SubGraph, TaskId, TaskSpec,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// The tasks that a map or a sub-graph becomes; `None` for any other task.
pub(crate) fn children(state: &RunState, ix: Ix) -> Option<Result<Vec<Arc<TaskSpec>>, Failure>> {
    let n = state.nodes.at(ix);
    if let Some(g) = &n.spec.graph {
        return Some(Ok(sub_graph(&n.spec.id, g)));
    }
    let map = n.spec.map.as_ref()?;
    let list = state.bound(n, &map.from, &map.pointer);
    let input = state.input_for(ix);
    Some(list.and_then(|list| of_map(&n.spec, map, &input?, list)))
}

fn sub_graph(holder: &TaskId, g: &SubGraph) -> Vec<Arc<TaskSpec>> {
    let full = |id: &TaskId| match id.as_str() {
        "" => holder.clone(),
        _ => inside(holder, id),
    };
    let child = |t: &Arc<TaskSpec>| {
        let mut c = (**t).clone();
        c.id = full(&c.id);
        c.needs = c.needs.iter().map(full).collect();
        for b in &mut c.bind {
            b.from = full(&b.from);
        }
        if let Some(m) = &mut c.map {
            m.from = full(&m.from);
        }
        Arc::new(c)
    };
    g.tasks.iter().map(child).collect()
}

fn of_map(
    spec: &TaskSpec,
    map: &MapOver,
    input: &Value,
    list: Value,
) -> Result<Vec<Arc<TaskSpec>>, Failure> {
    let bad = |why: String| Failure::new("map.list", FailureClass::Input, why);
    let Value::Array(list) = list else {
        return Err(bad(format!(
            "`{}` of `{}` is not a list to map over",
            map.pointer, map.from
        )));
    };
    let (mut same, mut used) = (BTreeMap::new(), BTreeSet::new());
    let mut instance = |item: Value| {
        let key = key_of(map, &item).ok_or_else(|| {
            let pointer = map.key.as_deref().unwrap_or_default();
            bad(format!("an element has no text or number at `{pointer}`"))
        })?;
        // Equal elements are told apart by how many there were before.
        let n = same.entry(key.clone()).or_insert(0_u32);
        let key = loop {
            *n += 1;
            let key = match *n {
                1 => key.clone(),
                n => format!("{key}#{n}"),
            };
            // Another element may have that name by itself.
            if used.insert(key.clone()) {
                break key;
            }
        };
        Ok(Arc::new(instance_of(spec, map, input, &key, item)?))
    };
    list.into_iter().map(&mut instance).collect()
}

fn key_of(map: &MapOver, item: &Value) -> Option<String> {
    let plain = |v: &Value| match v {
        Value::String(s) if !s.is_empty() && s.len() <= 120 => Some(s.clone()),
        Value::Number(n) => Some(n.to_string()),
        _ => None,
    };
    match &map.key {
        Some(pointer) => item.pointer(pointer).and_then(plain),
        None => plain(item).or_else(|| Some(Digest::of_json(item).hex()[..16].to_owned())),
    }
}

fn instance_of(
    spec: &TaskSpec,
    map: &MapOver,
    input: &Value,
    key: &str,
    item: Value,
) -> Result<TaskSpec, Failure> {
    let mut input = input.clone();
    crate::state::lay(&mut input, &map.field, item)?;
    Ok(TaskSpec {
        id: format!("{}[{key}]", spec.id).into(),
        input,
        bind: Vec::new(),
        needs: Vec::new(),
        join: smallhands_core::Join::All,
        map: None,
        when: None,
        on_failure: match spec.on_failure {
            OnFailure::FailRun | OnFailure::Compensate(_) => OnFailure::FailRun,
            _ => OnFailure::SkipDependents,
        },
        group: match (&spec.group, map.max_parallel) {
            (None, Some(_)) => Some(instances(&spec.id).into()),
            // The limit of the map is then looked at apart.
            (own, _) => own.clone(),
        },
        idempotency_key: (spec.idempotency_key.as_ref()).map(|k| format!("{k}/{key}").into()),
        ..spec.clone()
    })
}

/// The task that compensates for one that failed.
pub(crate) fn compensation(state: &RunState, ix: Ix) -> Vec<Arc<TaskSpec>> {
    let n = state.nodes.at(ix);
    let (OnFailure::Compensate(worker), NodeState::Failed(f)) = (&n.spec.on_failure, &n.state)
    else {
        return Vec::new();
    };
    let input = state.input_for(ix).unwrap_or_default();
    let id = format!("{}~undo", n.spec.id);
    let undo = TaskSpec::new(id, worker.clone())
        .input(json!({ "task": n.spec.id, "input": input, "failure": f }))
        .on_failure(OnFailure::SkipDependents);
    vec![Arc::new(undo)]
}
