//! What holds after every record of any run.

use crate::runs::records;
use proptest::prelude::*;
use smallhands_core::{Join, OnFailure, TaskId};
use smallhands_graph::{Event, NodeState, RunState, Stored};
use std::collections::BTreeSet;

fn given(s: &RunState, need: &TaskId) -> bool {
    s.nodes.get(need).is_some_and(|n| match &n.state {
        NodeState::Done => true,
        NodeState::Failed(_) => n.spec.on_failure == OnFailure::Continue,
        _ => false,
    })
}

/// Whether what a task needs allowed it to be placed.
fn may_start(s: &RunState, task: &TaskId) -> bool {
    let n = &s.nodes[task];
    let good = n.spec.needs.iter().filter(|d| given(s, d)).count();
    match n.spec.join {
        Join::Any => good >= 1,
        Join::AtLeast(k) => good >= k as usize,
        _ => good == n.spec.needs.len(),
    }
}

fn done(s: &RunState) -> BTreeSet<TaskId> {
    let done = s.nodes.iter().filter(|(_, n)| n.state == NodeState::Done);
    done.map(|(id, _)| id.clone()).collect()
}

fn step(state: &mut RunState, s: &Stored) -> Result<(), String> {
    let event = Event::from_record(&s.record)?;
    let at = |e: String| format!("at {} ({event:?}): {e}", s.seq);
    if let Event::Dispatched { task, .. } = &event
        && !may_start(state, task)
    {
        return Err(at("its needs do not allow it".into()));
    }
    let before = done(state);
    state.apply(s.seq, s.record.at, &event).map_err(at)?;
    state.check_invariants().map_err(at)?;
    // What compensated goes with the failure, when that is tried again.
    let stays = |id: &&TaskId| !id.as_str().ends_with("~undo");
    match before.difference(&done(state)).find(stays) {
        Some(id) if !matches!(event, Event::Reset { .. }) => {
            Err(at(format!("`{id}` was done and is not any more")))
        }
        _ => Ok(()),
    }
}

fn shown(s: &RunState) -> String {
    serde_json::to_string(s).unwrap()
}

fn holds(seed: u64) -> Result<(), String> {
    let all = records(seed);
    let mut state = RunState::default();
    let cut = usize::try_from(seed).unwrap_or(0) % all.len();
    let mut kept = RunState::default();
    for (i, s) in all.iter().enumerate() {
        if i == cut {
            kept = state.clone();
        }
        step(&mut state, s)?;
    }
    for s in &all[cut..] {
        step(&mut kept, s)?;
    }
    match shown(&kept) == shown(&state) {
        true => Ok(()),
        false => Err(format!("folded from {cut} on it is another state")),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens_the_state_is_sound(seed in 0_u64..1_000_000) {
        if let Err(e) = holds(seed) {
            prop_assert!(false, "seed {seed}: {e}");
        }
    }
}

#[test]
#[ignore = "for a long night"]
fn many() {
    let (mut bad, mut kinds) = (Vec::new(), std::collections::BTreeMap::<_, usize>::new());
    for seed in 1_000_000..1_001_000 {
        if let Err(e) = holds(seed) {
            bad.push(format!("seed {seed}: {e}"));
        }
        for s in records(seed) {
            *kinds.entry(s.record.kind).or_default() += 1;
        }
    }
    assert!(bad.is_empty(), "{bad:#?}");
    println!("{kinds:?}");
}
