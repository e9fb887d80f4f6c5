use crate::bed::{Bed, Result, ms, path_of};
use smallhands_benchmarks::{Record, median};
use smallhands_sandbox::SandboxSpec;
use std::{fs, iter::repeat_n};

pub(crate) fn small(bed: &Bed) -> Result<Record> {
    clean(bed, "sandbox/clean_copy_1000_ms", 1000)
}

pub(crate) fn middle(bed: &Bed) -> Result<Record> {
    clean(bed, "sandbox/clean_copy_6700_ms", 6700)
}

pub(crate) fn large(bed: &Bed) -> Result<Record> {
    clean(bed, "sandbox/clean_copy_100k_ms", 100_000)
}

/// What a clean copy adds to a sandbox, start to finish; the aim is 10 ms, whatever its size.
fn clean(bed: &Bed, name: &str, files: usize) -> Result<Record> {
    let (with, without) = (
        bed.repository(&files.to_string(), files / bed.shrink)?,
        SandboxSpec::default(),
    );
    let (mut over, mut anchor) = (Vec::new(), Vec::new());
    for round in 0..=bed.rounds {
        let copy = ms(|| bed.whole(&with))?;
        let empty = ms(|| bed.whole(&without))?;
        if round > 0 {
            over.push(copy - empty);
            anchor.push(empty);
        }
    }
    let empty = median(&anchor).unwrap_or(0.0);
    Ok(Record::new(name, "ms", &over, "a sandbox without", empty))
}

const CHANGED: usize = 200;
const BYTES: usize = 100 << 10;

/// A second sandbox with the 200 files of 20 MB that were changed in the first; the aim is 15 ms.
pub(crate) fn fork_dirty(bed: &Bed) -> Result<Record> {
    let parent = bed.open(&bed.repository("dirty", 6700 / bed.shrink)?)?;
    let from = bed.dir.join("changed");
    fs::create_dir(&from)?;
    for n in 0..CHANGED / bed.shrink {
        // Apart, and not alike.
        let bytes: Vec<u8> = repeat_n(n as u8, BYTES).collect();
        bed.rt
            .block_on(parent.write(&path_of(n * 30 % (6700 / bed.shrink)), &bytes))?;
        fs::write(from.join(n.to_string()), &bytes)?;
    }
    // None is removed before the last is made, as above.
    let mut children = Vec::new();
    let (mut ours, mut plain) = (Vec::new(), Vec::new());
    for round in 0..=bed.rounds {
        let forked = ms(|| {
            children.push(bed.rt.block_on(parent.fork())?);
            Ok(())
        })?;
        let to = bed.dir.join(format!("copied-{round}"));
        let copied = ms(|| {
            fs::create_dir(&to)?;
            for entry in fs::read_dir(&from)? {
                let entry = entry?;
                fs::copy(entry.path(), to.join(entry.file_name()))?;
            }
            Ok(())
        })?;
        if round > 0 {
            ours.push(forked);
            plain.push(copied);
        }
    }
    for sandbox in children.into_iter().chain([parent]) {
        bed.close(sandbox)?;
    }
    let (name, copied) = ("sandbox/fork_dirty_ms", median(&plain).unwrap_or(0.0));
    Ok(Record::new(
        name,
        "ms",
        &ours,
        "a plain copy of what changed",
        copied,
    ))
}
