//! The engine through its public API, beside what its journal alone would cost, in the same run.
//!
//! `cargo xtask bench graph`, or
//! `cargo bench -p smallhands-bench-graph -- [--json] [--quick] [--full] [--only NAME]
//! [--anchors PYTHON]`, a Python that has LangGraph: xtask's `--anchors` makes one.

mod anchors;
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

/// When a figure is taken.
enum When {
    Always,
    /// With `--full`: it takes minutes.
    Full,
    /// With `--anchors`: it needs Python and what it got from the network.
    Anchors,
}
use When::{Always, Anchors, Full};

const FIGURES: &[(&str, Bench, When)] = &[
    ("layered_2000_power_loss", layered::small_power_loss, Always),
    ("layered_2000_no_store", layered::small_no_store, Always),
    (
        "layered_100k_process_crash",
        layered::large_process_crash,
        Always,
    ),
    ("layered_100k_peak_mb", layered::large_peak, Always),
    ("chain_1000_db_mb", size::chain, Always),
    ("messages_1000_written_mb", size::messages, Always),
    ("resume_100k_events_ms", reading::resume, Always),
    ("resume_100k_again_ms", reading::resume_again, Always),
    ("fork_100k_ms", reading::fork, Always),
    ("list_10k_runs_ms", reading::list, Always),
    ("layered_2000_langgraph", anchors::layered, Anchors),
    ("chain_1000_db_mb_langgraph", anchors::chain, Anchors),
    ("layered_1m_cost_ratio", layered::cost_ratio, Full),
];

fn main() -> Result {
    let args: Vec<String> = env::args().skip(1).collect();
    let has = |flag: &str| args.iter().any(|a| a == flag);
    let value = |flag: &str| {
        let at = args.iter().position(|a| a == flag)?;
        args.get(at + 1).filter(|v| !v.starts_with("--"))
    };
    let (only, langgraph) = (value("--only"), value("--anchors"));
    if has("--anchors") && langgraph.is_none() {
        return Err("`--anchors` needs a Python that has LangGraph; \
                    `cargo xtask bench graph --anchors` makes one"
            .into());
    }
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let quick = has("--quick");
    let bed = Bed {
        rt: Runtime::new()?,
        dir: dir.path(),
        rounds: if quick { 1 } else { 5 },
        // Enough to see that it works.
        shrink: if quick { 50 } else { 1 },
        next: 0.into(),
        langgraph: langgraph.map(Into::into),
    };
    if has(layered::PEAK) {
        return layered::peak_child(&bed);
    }
    let mut all = Vec::new();
    for (name, bench, when) in FIGURES {
        let wanted = only.is_none_or(|o| name.contains(o.as_str()));
        let now = match when {
            Always => true,
            Full => has("--full"),
            Anchors => bed.langgraph.is_some(),
        };
        if wanted && now {
            all.push(bench(&bed)?);
        }
    }
    let text = if has("--json") { lines } else { table }(&all);
    print!("{text}");
    Ok(())
}
