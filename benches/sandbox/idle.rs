use crate::bed::{Bed, Result};
use smallhands_benchmarks::Record;
use smallhands_sandbox::SandboxSpec;
use std::{collections::BTreeSet, fs, process, thread, time::Duration};

const AT_ONCE: usize = 20;

/// What is resident of an idle sandbox, its share of the host's growth too; pages that several
/// processes share are counted for each. The aim is 2 MB.
pub(crate) fn resident_memory(bed: &Bed) -> Result<Record> {
    memory(bed, "sandbox/idle_rss_mb", &["Rss:"])
}

/// As above, but what is shared is divided by those who share it.
pub(crate) fn proportional_memory(bed: &Bed) -> Result<Record> {
    memory(bed, "sandbox/idle_pss_mb", &["Pss:"])
}

/// As above, without what is shared: what one more costs.
pub(crate) fn unique_memory(bed: &Bed) -> Result<Record> {
    let unique = &["Private_Clean:", "Private_Dirty:"];
    memory(bed, "sandbox/idle_uss_mb", unique)
}

/// What all sandboxes of a backend are forks of: once for each backend.
pub(crate) fn zygote(bed: &Bed) -> Result<Record> {
    bed.whole(&SandboxSpec::default())?;
    let all: Result<Vec<f64>> = children_of(process::id())?
        .into_iter()
        .map(|pid| counted(pid, &["Rss:"]))
        .collect();
    let name = "sandbox/zygote_rss_mb";
    Ok(Record::new(name, "MB", &all?, "an idle sandbox, aim", 2.0))
}

fn memory(bed: &Bed, name: &str, lines: &[&str]) -> Result<Record> {
    let spec = SandboxSpec::default();
    // What only the first of all costs.
    bed.whole(&spec)?;
    let before = (below(process::id())?, counted(process::id(), lines)?);
    let mut open = Vec::new();
    for _ in 0..AT_ONCE {
        open.push(bed.open(&spec)?);
    }
    // Idle, not just opened.
    thread::sleep(Duration::from_millis(500));
    let after = below(process::id())?;
    let grown = (counted(process::id(), lines)? - before.1).max(0.0) / AT_ONCE as f64;
    let new: Vec<u32> = after.difference(&before.0).copied().collect();
    if new.len() != AT_ONCE {
        return Err(format!("{} processes for {AT_ONCE} sandboxes", new.len()).into());
    }
    let each: Result<Vec<f64>> = new
        .iter()
        .map(|pid| Ok(counted(*pid, lines)? + grown))
        .collect();
    for sandbox in open {
        bed.close(sandbox)?;
    }
    Ok(Record::new(name, "MB", &each?, "the aim, in MB", 2.0))
}

/// Everything that a process has started, and what that has.
fn below(pid: u32) -> Result<BTreeSet<u32>> {
    let mut all = BTreeSet::new();
    for child in children_of(pid)? {
        all.insert(child);
        all.extend(below(child)?);
    }
    Ok(all)
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

/// In MB. Of others than oneself only for root, and for who may look into them.
fn counted(pid: u32, lines: &[&str]) -> Result<f64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let mut kb = 0.0;
    for name in lines {
        let line = rollup.lines().find_map(|l| l.strip_prefix(name));
        let number = line.and_then(|l| l.split_whitespace().next());
        kb += number
            .ok_or("no such line in smaps_rollup")?
            .parse::<f64>()?;
    }
    Ok(kb / 1024.0)
}
