//! A fork against the run whose past it shares.

use super::{Journal, Verdict};
use smallhands_core::TaskId;
use smallhands_graph::{Node, NodeState, RunState};
use std::{collections::BTreeMap, mem::discriminant};

/// A run that shares the past of another.
#[derive(Clone, Debug)]
pub struct Fork {
    /// Its id.
    pub run: String,
    /// Up to this record.
    pub at: u64,
}

/// What went the same way has come to the same values: tasks that are the same, in the same state,
/// after the same needs.
pub(super) fn unlike(f: &Fork, before: &Journal, fork: &Journal, v: &mut Verdict) {
    let mut both = Both {
        a: &before.state,
        b: &fork.state,
        // Whether what needs such a task ran before or after it was revived is chance.
        known: (before.revived.iter().chain(&fork.revived))
            .map(|id| (id.clone(), false))
            .collect(),
    };
    for (id, n) in before.state.nodes.iter() {
        let Some(m) = fork.state.nodes.get(id) else {
            continue;
        };
        if both.went_alike(id) && n.value() != m.value() {
            let note = format!("`{id}` left {:?}, in {f:?} {:?}", n.value(), m.value());
            v.found(|v| &mut v.wrong, note);
        }
    }
    for (id, fence) in before.done.iter().filter(|(_, fence)| **fence <= f.at) {
        // It finished before the fork, unless the placement ended after it.
        let placed = |(at, p): (&u64, &super::journal::Placed)| *at > f.at && p.task == *id;
        let finished = fork.done.get(id) == Some(fence);
        if finished && fork.placed.iter().any(placed) {
            let note = format!("`{id}` ran again in {f:?}");
            v.found(|v| &mut v.finished_rerun, note);
        }
    }
}

struct Both<'a> {
    a: &'a RunState,
    b: &'a RunState,
    known: BTreeMap<TaskId, bool>,
}

impl Both<'_> {
    fn went_alike(&mut self, id: &TaskId) -> bool {
        if let Some(known) = self.known.get(id) {
            return *known;
        }
        let alike = self.look(id);
        self.known.insert(id.clone(), alike);
        alike
    }

    fn look(&mut self, id: &TaskId) -> bool {
        let (Some(n), Some(m)) = (self.a.nodes.get(id), self.b.nodes.get(id)) else {
            return false;
        };
        let same = n.spec == m.spec && discriminant(&n.state) == discriminant(&m.state);
        if !same || !matches!(n.state, NodeState::Done) {
            return same;
        }
        let inside = |s: &RunState, id: &TaskId| -> Vec<TaskId> {
            let of = |n: &&Node| s.parent(&n.spec.id) == Some(id);
            s.nodes
                .values()
                .filter(of)
                .map(|n| n.spec.id.clone())
                .collect()
        };
        let (x, y) = (inside(self.a, id), inside(self.b, id));
        // What stands inside another may take from its input.
        let around = self.a.parent(id).and_then(|p| self.a.nodes.get(p));
        let around = around.into_iter().flat_map(|p| p.spec.needs.iter());
        let all = n.spec.needs.iter().chain(around).chain(&x);
        let all: Vec<_> = all.cloned().collect();
        x == y && all.iter().all(|id| self.went_alike(id))
    }
}
