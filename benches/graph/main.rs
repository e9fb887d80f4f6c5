//! The engine through its public API, beside what its journal alone would cost, in the same run.
//!
//! `cargo xtask bench graph`, or
//! `cargo bench -p smallhands-bench-graph -- [--json] [--quick] [--full] [--only NAME]`

mod bed;
mod floor;
mod layered;
mod reading;
mod size;
mod stores;

use bed::{Bed, Result};
use smallhands_benchmarks::{Record, lines, table};
use std::env;
use tokio::runtime::Runtime;

type Bench = fn(&Bed) -> Result<Record>;

/// The figures, and whether each is taken only with `--full`.
const FIGURES: &[(&str, Bench, bool)] = &[
    ("layered_2000_power_loss", layered::small_power_loss, false),
    ("layered_2000_no_store", layered::small_no_store, false),
    (
        "layered_100k_process_crash",
        layered::large_process_crash,
        false,
    ),
    ("layered_100k_peak_mb", layered::large_peak, false),
    ("chain_1000_db_mb", size::chain, false),
    ("messages_1000_written_mb", size::messages, false),
    ("resume_100k_events_ms", reading::resume, false),
    ("list_10k_runs_ms", reading::list, false),
    ("layered_1m_cost_ratio", layered::cost_ratio, true),
];

fn main() -> Result {
    let args: Vec<String> = env::args().skip(1).collect();
    let has = |flag: &str| args.iter().any(|a| a == flag);
    let only = args.iter().position(|a| a == "--only");
    let only = only.and_then(|at| args.get(at + 1));
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let quick = has("--quick");
    let bed = Bed {
        rt: Runtime::new()?,
        dir: dir.path(),
        rounds: if quick { 1 } else { 5 },
        // Enough to see that it works.
        shrink: if quick { 50 } else { 1 },
        next: 0.into(),
    };
    if has(layered::PEAK) {
        return layered::peak_child(&bed);
    }
    let mut all = Vec::new();
    for (name, bench, slow) in FIGURES {
        let wanted = only.is_none_or(|o| name.contains(o.as_str()));
        if wanted && (!slow || has("--full")) {
            all.push(bench(&bed)?);
        }
    }
    let text = if has("--json") { lines } else { table }(&all);
    print!("{text}");
    Ok(())
}
