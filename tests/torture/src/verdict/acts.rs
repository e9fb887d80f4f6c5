//! What was asked from outside: what was acknowledged counts, and nothing counts by half.

use super::{Journal, Verdict};
use crate::{
    ledger::{Act, Came, What},
    work::answer_to,
};
use smallhands_core::TaskId;
use smallhands_graph::GraphPatch;
use std::collections::BTreeMap;

/// How what was asked from outside was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Acts {
    /// Patches that were acknowledged.
    pub patches: usize,
    /// Patches that were refused, because the graph had moved on.
    pub refused: usize,
    /// Patches that a kill left without an answer.
    pub unknown: usize,
    /// Of these, those that are in the journal, whole.
    pub unknown_there: usize,
    /// Answers that were acknowledged.
    pub answers: usize,
    /// Pauses.
    pub pauses: usize,
}

impl Acts {
    pub(super) fn add(&mut self, o: &Self) {
        self.patches += o.patches;
        self.refused += o.refused;
        self.unknown += o.unknown;
        self.unknown_there += o.unknown_there;
        self.answers += o.answers;
        self.pauses += o.pauses;
    }
}

pub(super) fn judge(acts: &[Act], run: &str, j: &Journal, v: &mut Verdict) {
    // How far each came at last: what came of an answer may have been asked in several lives.
    let mut last = BTreeMap::new();
    for a in acts.iter().filter(|a| a.run == run) {
        let task = match &a.what {
            What::Answer(task) => task.as_str(),
            _ => "",
        };
        let came = last.entry((a.id.as_str(), task)).or_insert((a, a.came));
        if a.came != Came::Asked && came.1 != Came::Yes {
            came.1 = a.came;
        }
    }
    for ((id, task), (act, came)) in last {
        match &act.what {
            What::Patch(p) => patch(id, p, came, j, v),
            What::Answer(_) if came == Came::Yes => answer(id, task, j, v),
            What::Answer(_) => {}
            What::Pause => v.acts.pauses += 1,
        }
    }
}

fn patch(id: &str, p: &GraphPatch, came: Came, j: &Journal, v: &mut Verdict) {
    let own = TaskId::from(id);
    let is_it = |p: &&GraphPatch| p.add.iter().any(|t| t.id == own);
    let there: Vec<_> = j.patches.iter().filter(is_it).collect();
    match came {
        Came::Yes => v.acts.patches += 1,
        Came::No => v.acts.refused += 1,
        Came::Asked => v.acts.unknown += 1,
    }
    let wrong = match (came, there.as_slice()) {
        (Came::Yes, []) => "was acknowledged and is lost",
        (Came::No, [_, ..]) => "was refused and is there",
        (_, [_, _, ..]) => "is there twice",
        (_, [found]) if *found != p => "is there in part",
        (_, [_]) if !j.state.nodes.contains_key(&own) && !j.removed.contains(&own) => {
            "is there, its task is not"
        }
        (came, there) => {
            v.acts.unknown_there += usize::from(came == Came::Asked && !there.is_empty());
            return;
        }
    };
    v.found(|v| &mut v.lost, format!("the patch `{id}` {wrong}"));
}

/// That it is not asked again is seen where the journal is read.
fn answer(ask: &str, task: &str, j: &Journal, v: &mut Verdict) {
    v.acts.answers += 1;
    let id = (TaskId::from(task), ask.to_owned());
    if j.answered.get(&id) != Some(&answer_to(task)) {
        let note = format!("the answer to `{ask}` of `{task}` was acknowledged and is lost");
        v.found(|v| &mut v.lost, note);
    }
}
