//! Building an index: which files, which chunks are taken over, which are cut anew.

use super::{Bm25, CodeIndex, FileEntry};
use crate::{
    Coverage, Result, SkipReason, SourceFile,
    chunk::{Language, Piece, is_test_path, pieces},
};
use smallhands_core::Digest;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// Larger files are left out.
const LARGEST: usize = 1 << 20;
/// A file is cut by a person up to this many bytes a line on average.
const LINE_BYTES: usize = 400;
/// Shorter files are never taken for minified.
const MINIFIED_FROM: usize = 4096;
/// So many files are cut at once; bounds what is in memory.
const BATCH: usize = 256;

type Cut = (Arc<Vec<Piece>>, bool);
type Cache<'a> = HashMap<(&'a Digest, Language), Cut>;

impl CodeIndex {
    pub(super) fn assemble(
        previous: Option<&Self>,
        files: impl IntoIterator<Item = SourceFile>,
    ) -> Result<Self> {
        let cache: Cache<'_> = previous
            .into_iter()
            .flat_map(|p| &p.files)
            .map(|f| ((&f.digest, f.language), (f.pieces.clone(), f.unparsed)))
            .collect();
        let mut coverage = Coverage::default();
        let mut seen = HashSet::new();
        let mut entries = Vec::new();
        let mut wanted = files.into_iter().filter_map(|f| {
            let skip = if seen.contains(&f.path) {
                Some(SkipReason::Duplicate)
            } else {
                seen.insert(f.path.clone());
                skip(&f.bytes)
            };
            match skip {
                Some(reason) => *coverage.skipped.entry(reason).or_default() += 1,
                None => coverage.bytes += f.bytes.len() as u64,
            }
            skip.is_none().then_some(f)
        });
        let (mut parsed, mut reused) = (0, 0);
        loop {
            let batch: Vec<SourceFile> = wanted.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                break;
            }
            for (entry, is_new) in cut_all(&batch, &cache) {
                *(if is_new { &mut parsed } else { &mut reused }) += 1;
                entries.push(entry);
            }
        }
        drop(wanted);
        coverage.parsed = parsed;
        coverage.reused = reused;
        Self::of_entries(entries, coverage)
    }

    fn of_entries(mut files: Vec<FileEntry>, mut coverage: Coverage) -> Result<Self> {
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let mut owner = Vec::new();
        let mut by_name: HashMap<String, Vec<u32>> = HashMap::new();
        for (n, f) in (0..).zip(&mut files) {
            f.first = u32::try_from(owner.len()).unwrap_or(u32::MAX);
            owner.extend(std::iter::repeat_n(n, f.pieces.len()));
            let name = f.path.rsplit('/').next().unwrap_or_default();
            by_name.entry(name.into()).or_default().push(n);
        }
        coverage.files = files.len();
        coverage.chunks = owner.len();
        coverage.unparsed = files.iter().filter(|f| f.unparsed).count();
        let mut index = Self {
            files,
            owner,
            by_name,
            by_symbol: HashMap::new(),
            engine: None,
            coverage,
        };
        index.name_symbols();
        index.engine = index.engine()?;
        tracing::debug!(coverage = ?index.coverage, "code index built");
        Ok(index)
    }

    fn engine(&self) -> Result<Option<Bm25>> {
        let documents = self.files.iter().flat_map(|f| {
            let numbered = (f.first..).zip(f.pieces.iter());
            let searched = numbered.filter(|(_, p)| !p.bare);
            searched.map(|(c, p)| {
                let symbol = p.symbol.as_deref().unwrap_or_default();
                (c, symbol, f.path.as_str(), p.text.as_str())
            })
        });
        if self.owner.is_empty() {
            return Ok(None);
        }
        Bm25::build(documents).map(Some)
    }
}

/// Why a file is left out, if it is.
fn skip(bytes: &[u8]) -> Option<SkipReason> {
    if bytes.len() > LARGEST {
        return Some(SkipReason::TooLarge);
    }
    if bytes.contains(&0) {
        return Some(SkipReason::Binary);
    }
    let lines = bytes.iter().filter(|b| **b == b'\n').count() + 1;
    let minified = bytes.len() >= MINIFIED_FROM && bytes.len() / lines > LINE_BYTES;
    minified.then_some(SkipReason::Minified)
}

/// Cuts a batch on as many threads as there are cores; the answer is in the order of the batch.
fn cut_all(batch: &[SourceFile], cache: &Cache<'_>) -> Vec<(FileEntry, bool)> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = batch.len().div_ceil(threads).max(1);
    let cut_share = |files: &[SourceFile]| files.iter().map(|f| cut(f, cache)).collect::<Vec<_>>();
    if threads == 1 || batch.len() < 8 {
        return cut_share(batch);
    }
    let cut_share = &cut_share;
    std::thread::scope(|s| {
        let running: Vec<_> = batch
            .chunks(share)
            .map(|files| (files, s.spawn(move || cut_share(files))))
            .collect();
        let join = |(files, t): (&[SourceFile], std::thread::ScopedJoinHandle<'_, _>)| {
            t.join().unwrap_or_else(|_| cut_share(files))
        };
        running.into_iter().flat_map(join).collect()
    })
}

fn cut(file: &SourceFile, cache: &Cache<'_>) -> (FileEntry, bool) {
    let language = Language::of(&file.path);
    let digest = Digest::of_bytes(&file.bytes);
    let known = cache.get(&(&digest, language)).cloned();
    let is_new = known.is_none();
    let (pieces, unparsed) = known.unwrap_or_else(|| {
        let (pieces, unparsed) = pieces(language, &file.bytes);
        (Arc::new(pieces), unparsed)
    });
    let entry = FileEntry {
        path: file.path.clone(),
        test_path: is_test_path(&file.path),
        language,
        digest,
        pieces,
        unparsed,
        first: 0,
    };
    (entry, is_new)
}
