//! The same seed gives the same records, byte for byte.

use crate::runs::records;
use smallhands_graph::Stored;
use std::collections::HashSet;

fn text(all: &[Stored]) -> String {
    let line = |s: &Stored| serde_json::to_string(s).unwrap() + "\n";
    all.iter().map(line).collect()
}

#[test]
fn a_thousand_random_runs_repeat_themselves() {
    let mut seen = HashSet::new();
    for seed in 0..1000 {
        let (one, two) = (text(&records(seed)), text(&records(seed)));
        if one != two {
            let at = one.lines().zip(two.lines()).find(|(a, b)| a != b);
            panic!("seed {seed} differs: {at:#?}");
        }
        seen.insert(one);
    }
    assert_eq!(seen.len(), 1000, "each seed is another run");
}
