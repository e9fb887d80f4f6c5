//! A state that was put aside is the fold of what came before.

use crate::runs::{records, world};
use smallhands_graph::{Event, RunState, Stored};
use smallhands_testkit::SimRng;

fn folded(mut s: RunState, more: &[Stored]) -> Result<RunState, String> {
    for r in more {
        s.apply(r.seq, r.record.at, &Event::from_record(&r.record)?)?;
    }
    Ok(s)
}

/// The state of a run that was read, beside the fold of its records up to the same one.
pub(crate) fn is_the_fold(s: &RunState, all: &[Stored]) -> Result<(), String> {
    let end = usize::try_from(s.seq).unwrap();
    s.check_invariants()?;
    s.check_same(&folded(RunState::default(), &all[..end])?)
}

fn holds(seed: u64) -> Result<(), String> {
    let all = records(seed);
    let whole = folded(RunState::default(), &all)?;
    let mut rng = SimRng::of(seed, "cuts");
    for _ in 0..10 {
        let cut = usize::try_from(rng.below(all.len() as u64 + 1)).unwrap();
        let there = folded(RunState::default(), &all[..cut])?;
        let kept = there.through_snapshot()?;
        let at = |e| format!("put aside at {cut}: {e}");
        kept.check_invariants().map_err(at)?;
        kept.check_same(&there).map_err(at)?;
        let end = folded(kept, &all[cut..]).map_err(at)?;
        end.check_invariants().map_err(at)?;
        end.check_same(&whole).map_err(at)?;
    }
    Ok(())
}

#[test]
fn a_thousand_prefixes_go_on_as_if_nothing_was_put_aside() {
    for seed in 0..100 {
        holds(seed)
            .map_err(|e| format!("seed {seed}: {e}"))
            .unwrap();
    }
}

#[test]
fn whoever_reads_a_run_sees_the_fold() {
    for seed in 0..100 {
        for every in [1, 2, 7] {
            assert!(!world(seed, every).is_empty());
        }
    }
}
