//! The sandbox through its public API, beside bubblewrap and plain processes, in the same run, from
//! a large process with threads.
//!
//! `cargo xtask bench sandbox`, or
//! `cargo bench -p smallhands-bench-sandbox -- [--json] [--quick] [--only NAME] [--bwrap PROGRAM]`,
//! a bubblewrap: xtask gets one.

mod anchors;
mod bed;
mod copies;
mod idle;
mod speed;

use bed::{Bed, Result};
use smallhands_benchmarks::{Record, lines, table};
use std::{env, hint::black_box, thread};

type Bench = fn(&Bed) -> Result<Record>;

const FIGURES: &[(&str, Bench)] = &[
    ("fork_dirty_ms", copies::fork_dirty),
    ("true_ms", speed::start_to_finish),
    ("exec_overhead_ms", speed::exec),
    ("sandboxes_per_second", speed::sustained),
    ("clean_copy_1000_ms", copies::small),
    ("clean_copy_6700_ms", copies::middle),
    ("clean_copy_100k_ms", copies::large),
    ("idle_rss_mb", idle::resident_memory),
    ("idle_pss_mb", idle::proportional_memory),
    ("idle_uss_mb", idle::unique_memory),
    ("zygote_rss_mb", idle::zygote),
];

/// What the host holds: what it costs to copy a large parent is to be seen.
const RESIDENT: usize = 500 << 20;
const THREADS: usize = 8;

fn main() -> Result {
    // First in main: sandboxes start this program again.
    smallhands_sandbox::linux::init();
    let args: Vec<String> = env::args().skip(1).collect();
    let has = |flag: &str| args.iter().any(|a| a == flag);
    let value = |flag: &str| {
        let at = args.iter().position(|a| a == flag)?;
        args.get(at + 1).cloned()
    };
    // Written, so that it is not only promised.
    let resident = vec![1_u8; RESIDENT];
    for _ in 0..THREADS {
        thread::spawn(thread::park);
    }
    let quick = has("--quick");
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let bed = Bed::new(dir.path(), quick, value("--bwrap").map(Into::into))?;
    if bed.bwrap.is_none() {
        eprintln!("no bubblewrap (--bwrap PROGRAM): beside unshare and plain processes only");
    }
    let only = value("--only");
    let mut all = Vec::new();
    for (name, bench) in FIGURES {
        if only.as_ref().is_none_or(|o| name.contains(o.as_str())) {
            all.push(bench(&bed)?);
        }
    }
    black_box(&resident);
    let text = if has("--json") { lines } else { table }(&all);
    print!("{text}");
    Ok(())
}
