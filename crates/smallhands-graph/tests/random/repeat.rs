//! The same seed gives the same records, byte for byte.

use crate::runs::records;
use smallhands_graph::Stored;
use std::collections::HashSet;

fn text(all: &[Stored]) -> String {
    let line = |s: &Stored| serde_json::to_string(s).unwrap() + "\n";
    all.iter().map(line).collect()
}

fn repeats(seed: u64) -> String {
    let (one, two) = (text(&records(seed)), text(&records(seed)));
    if one != two {
        let at = one.lines().zip(two.lines()).find(|(a, b)| a != b);
        panic!("seed {seed} differs: {at:#?}");
    }
    one
}

#[test]
fn a_thousand_random_runs_repeat_themselves() {
    let part = |n: u64| move || -> Vec<_> { (n * 250..(n + 1) * 250).map(repeats).collect() };
    let parts = [0, 1, 2, 3].map(|n| std::thread::spawn(part(n)));
    let all = parts.into_iter().flat_map(|p| p.join().unwrap());
    let different: HashSet<_> = all.collect();
    assert_eq!(different.len(), 1000, "each seed is another run");
}
