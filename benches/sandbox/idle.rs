use crate::bed::{Bed, Result};
use smallhands_benchmarks::Record;
use smallhands_sandbox::SandboxSpec;
use std::{collections::BTreeSet, fs, process};

const AT_ONCE: usize = 20;

/// What is resident of an idle sandbox, its share of the host's growth too; pages of programs are
/// counted for each process that has them. The aim is 2 MB.
pub(crate) fn resident_memory(bed: &Bed) -> Result<Record> {
    memory(bed, "sandbox/idle_rss_mb", &["VmRSS:"])
}

/// As above, without pages of programs, which all sandboxes and the host share.
pub(crate) fn own_memory(bed: &Bed) -> Result<Record> {
    memory(bed, "sandbox/idle_own_mb", &["RssAnon:", "RssShmem:"])
}

fn memory(bed: &Bed, name: &str, lines: &[&str]) -> Result<Record> {
    let resident = |pid| resident(pid, lines);
    let spec = SandboxSpec::default();
    // What only the first of all costs.
    bed.whole(&spec)?;
    let before = (children()?, resident(process::id())?);
    let mut open = Vec::new();
    for _ in 0..AT_ONCE {
        open.push(bed.open(&spec)?);
    }
    let after = children()?;
    let grown = (resident(process::id())? - before.1).max(0.0) / AT_ONCE as f64;
    let mut each = Vec::new();
    for helper in after.difference(&before.0) {
        let below = children_of(*helper)?;
        let inside: Result<f64> = below.iter().map(|&pid| resident(pid)).sum();
        each.push(resident(*helper)? + inside? + grown);
    }
    for sandbox in open {
        bed.close(sandbox)?;
    }
    Ok(Record::new(name, "MB", &each, "the aim, in MB", 2.0))
}

fn children() -> Result<BTreeSet<u32>> {
    children_of(process::id())
}

/// Of every thread of a process.
fn children_of(pid: u32) -> Result<BTreeSet<u32>> {
    let mut all = BTreeSet::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // One that ended meanwhile has none.
        let Ok(list) = fs::read_to_string(thread?.path().join("children")) else {
            continue;
        };
        for pid in list.split_whitespace() {
            all.insert(pid.parse()?);
        }
    }
    Ok(all)
}

/// In MB.
fn resident(pid: u32, lines: &[&str]) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let mut kb = 0.0;
    for name in lines {
        let line = status.lines().find_map(|l| l.strip_prefix(name));
        let number = line.and_then(|l| l.split_whitespace().next());
        kb += number.ok_or("no such line in status")?.parse::<f64>()?;
    }
    Ok(kb / 1024.0)
}
