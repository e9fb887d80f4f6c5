use crate::{Bed, Result};
use smallhands::{
    core::Digest,
    memory::{CodeIndex, SourceFile},
};
use smallhands_benchmarks::{Record, beside};
use std::{fs, path::Path, process::Command};

/// An index over this repository's own sources, beside reading and hashing the same files.
pub(crate) fn bench(bed: &Bed) -> Result<Vec<Record>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut git = Command::new("git");
    git.current_dir(&root)
        .args(["ls-files", "*.rs", "*.py", "*.md", "*.toml"]);
    let names = String::from_utf8(git.output()?.stdout)?;
    if names.is_empty() {
        return Err("git lists no sources".into());
    }
    let timing = beside(
        bed.rounds,
        || {
            let read =
                |n: &str| Ok::<_, std::io::Error>(SourceFile::new(n, fs::read(root.join(n))?));
            let files = names
                .lines()
                .map(read)
                .collect::<std::result::Result<Vec<_>, _>>()?;
            drop(CodeIndex::build(files)?);
            Ok(())
        },
        || -> Result {
            for n in names.lines() {
                std::hint::black_box(Digest::of_bytes(&fs::read(root.join(n))?));
            }
            Ok(())
        },
    )?;
    let anchor = format!("read and hash the {} files", names.lines().count());
    Ok(vec![timing.record(
        "memory/index_own_sources",
        "ms",
        1e3,
        &anchor,
    )])
}
