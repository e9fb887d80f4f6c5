//! Indexes the Python, Rust and text files below a directory and answers a question:
//! `cargo run --release --example search -- DIRECTORY "what to find"`.
#![allow(clippy::print_stdout)] // A program for the terminal.

use smallhands_memory::{CodeIndex, CodeQuery, SourceFile, chunk_file};
use std::{path::Path, time::Instant};

fn walk(root: &Path, dir: &Path, out: &mut Vec<SourceFile>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let (path, kind) = entry.and_then(|e| Ok((e.path(), e.file_type()?)))?;
        let wanted = |e: &std::ffi::OsStr| ["py", "rs", "md", "toml"].iter().any(|w| e == *w);
        if kind.is_dir() {
            walk(root, &path, out)?;
        } else if kind.is_file() && path.extension().is_some_and(wanted) {
            let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy();
            out.push(SourceFile::new(name, std::fs::read(&path)?));
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(dir), Some(text)) = (args.next(), args.next()) else {
        return Err("usage: search DIRECTORY QUESTION".into());
    };
    let mut files = Vec::new();
    walk(Path::new(&dir), Path::new(&dir), &mut files)?;

    let start = Instant::now();
    let chunks: usize = files
        .iter()
        .map(|f| chunk_file(&f.path, &f.bytes).len())
        .sum();
    println!("{chunks} chunks on one thread in {:.2?}", start.elapsed());

    let start = Instant::now();
    let index = CodeIndex::build(files.clone())?;
    println!(
        "index built in {:.2?}: {:?}",
        start.elapsed(),
        index.coverage()
    );

    let start = Instant::now();
    let index = CodeIndex::build_from(&index, files)?;
    let reused = index.coverage().reused;
    println!(
        "built again in {:.2?}, {reused} files reused",
        start.elapsed()
    );

    let start = Instant::now();
    let hits = index.search(&CodeQuery::new(text))?;
    println!("{} hits in {:.2?}", hits.len(), start.elapsed());
    for h in hits {
        let symbol = h.symbol.as_deref().unwrap_or("-");
        println!(
            "{:7.2} {}:{}-{} {symbol} {:?}",
            h.score, h.path, h.lines.0, h.lines.1, h.evidence
        );
    }
    Ok(())
}
