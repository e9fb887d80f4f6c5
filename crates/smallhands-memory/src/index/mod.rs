mod bm25;
mod build;
mod entities;
mod locate;
mod tokens;

use crate::{
    Chunk, CodeQuery, Coverage, Hit, MemoryError, Result, Retriever, SourceFile, Symbol,
    chunk::{Language, Piece},
};
use async_trait::async_trait;
use bm25::Bm25;
use locate::Located;
use smallhands_core::{CallCx, Digest};
use std::{collections::HashMap, fmt, sync::Arc};

/// A question with more terms (a long log) is cut here.
const TERMS: usize = 256;
/// What a test's score keeps when tests are not asked for.
const TEST_FACTOR: f32 = 0.4;

/// An in-memory index over the chunks of a set of files.
///
/// It does not change: a changed set of files is a new index, made from the previous one with
/// [`build_from`](Self::build_from), which cuts only the files whose content is new.
pub struct CodeIndex {
    /// By path.
    files: Vec<FileEntry>,
    /// Which file each chunk is of.
    owner: Vec<u32>,
    /// Files by the last component of their path.
    by_name: HashMap<String, Vec<u32>>,
    /// First chunks of definitions by the last segment of their name.
    by_symbol: HashMap<String, Vec<u32>>,
    /// `None` when there is nothing to search.
    engine: Option<Bm25>,
    coverage: Coverage,
}

struct FileEntry {
    path: String,
    language: Language,
    digest: Digest,
    pieces: Arc<Vec<Piece>>,
    unparsed: bool,
    test_path: bool,
    /// The number of its first chunk.
    first: u32,
}

impl FileEntry {
    fn len(&self) -> u32 {
        u32::try_from(self.pieces.len()).unwrap_or(u32::MAX)
    }
}

impl fmt::Debug for CodeIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CodeIndex")
            .field("coverage", &self.coverage)
            .finish_non_exhaustive()
    }
}

impl CodeIndex {
    /// Cuts the files into chunks and indexes them. The order of the files does not matter, unless
    /// two have the same path: then the first counts.
    ///
    /// # Errors
    /// [`MemoryError::Index`] if the index could not be written; no file is ever an error.
    pub fn build(files: impl IntoIterator<Item = SourceFile>) -> Result<Self> {
        Self::assemble(None, files)
    }

    /// The same, taking over the chunks of every file whose content `previous` has, under whatever
    /// path. Files that are not given are not in the new index.
    ///
    /// # Errors
    /// Those of [`build`](Self::build).
    pub fn build_from(
        previous: &Self,
        files: impl IntoIterator<Item = SourceFile>,
    ) -> Result<Self> {
        Self::assemble(Some(previous), files)
    }

    /// What is in the index and what was left out.
    pub fn coverage(&self) -> &Coverage {
        &self.coverage
    }

    /// The indexed paths, sorted.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(|f| f.path.as_str())
    }

    /// The chunk that holds a line, counted from 1; none for blank lines between chunks. Where
    /// chunks share a line, the one that begins last.
    pub fn chunk_at(&self, path: &str, line: u32) -> Option<Chunk> {
        let file = self.file_number(path)?;
        self.chunk_number(file, line).map(|c| self.chunk(c))
    }

    /// The chunks of a file in its order; empty for an unknown file.
    pub fn chunks_of(&self, path: &str) -> Vec<Chunk> {
        let Some(file) = self.file_number(path) else {
            return Vec::new();
        };
        let f = &self.files[file as usize];
        (f.first..f.first + f.len())
            .map(|c| self.chunk(c))
            .collect()
    }

    /// Every definition, sorted by path and place.
    pub fn symbols(&self) -> Vec<Symbol> {
        let one = |(p, f): (&Piece, &FileEntry)| {
            let name = p.symbol.clone().filter(|_| p.defines)?;
            Some(Symbol {
                name,
                kind: p.kind,
                path: f.path.clone(),
                lines: p.lines,
            })
        };
        self.files
            .iter()
            .flat_map(|f| f.pieces.iter().map(move |p| (p, f)))
            .filter_map(one)
            .collect()
    }

    /// The best chunks for a question: BM25 over path, symbol and body, and what the question names
    /// outright (frames of tracebacks, identifiers, files). A hit's score is the sum of its
    /// evidence; tests keep two fifths of theirs unless they are asked for.
    ///
    /// # Errors
    /// [`MemoryError::Index`] if the index could not be read.
    pub fn search(&self, query: &CodeQuery) -> Result<Vec<Hit>> {
        let terms = tokens::query_terms(&query.text, TERMS);
        let scores = match &self.engine {
            Some(engine) if !terms.is_empty() && query.limit > 0 => engine.scores(&terms)?,
            _ => return Ok(Vec::new()),
        };
        let located = locate::locate(self, &entities::extract(&query.text));
        let top = scores.iter().map(|(_, s)| *s).fold(0.0, f32::max);
        let unit = if top > 0.0 { top } else { 1.0 };
        let mut bm25 = vec![0.0; self.owner.len()];
        for (c, score) in scores {
            bm25[c as usize] = score;
        }
        let prefix = query.path_prefix.as_deref();
        let mut found: Vec<(u32, f32)> = (0..)
            .zip(&bm25)
            .filter(|(c, s)| **s > 0.0 || located.chunks.contains_key(c))
            .filter(|(c, _)| self.is_under(*c, prefix))
            .map(|(c, s)| (c, sum(&self.evidence(c, *s, unit, &located, query))))
            .collect();
        found.sort_by(|(a, x), (b, y)| y.total_cmp(x).then(a.cmp(b)));
        found.truncate(query.limit);
        let hit = |(c, _)| {
            let evidence = self.evidence(c, bm25[c as usize], unit, &located, query);
            let named = evidence.into_iter().map(|(n, s)| (n.to_string(), s));
            Hit::new(self.chunk(c), named.collect())
        };
        Ok(found.into_iter().map(hit).collect())
    }

    /// What the score of a chunk is made of; `unit` is the best BM25 score.
    fn evidence<'a>(
        &self,
        chunk: u32,
        bm25: f32,
        unit: f32,
        located: &'a Located,
        query: &CodeQuery,
    ) -> Vec<(&'a str, f32)> {
        let mut all = Vec::with_capacity(4);
        if bm25 > 0.0 {
            all.push(("bm25", bm25));
            if let Some((name, factor)) = located.files.get(&self.owner[chunk as usize]) {
                all.push((name, factor * bm25));
            }
        }
        for (name, factor) in located.chunks.get(&chunk).into_iter().flatten() {
            all.push((name, factor * unit));
        }
        if !query.include_tests && self.is_test(chunk) {
            all.push(("test", (TEST_FACTOR - 1.0) * sum(&all)));
        }
        all
    }

    fn is_under(&self, chunk: u32, prefix: Option<&str>) -> bool {
        let Some(prefix) = prefix.map(|p| p.trim_start_matches("./").trim_end_matches('/')) else {
            return true;
        };
        let path = &self.files[self.owner[chunk as usize] as usize].path;
        let rest = path.strip_prefix(prefix);
        prefix.is_empty() || rest.is_some_and(|r| r.is_empty() || r.starts_with('/'))
    }

    fn is_test(&self, chunk: u32) -> bool {
        self.files[self.owner[chunk as usize] as usize].test_path || self.piece(chunk).test
    }

    fn file_number(&self, path: &str) -> Option<u32> {
        let at = self.files.binary_search_by(|f| f.path.as_str().cmp(path));
        at.ok().and_then(|n| u32::try_from(n).ok())
    }

    fn chunk_number(&self, file: u32, line: u32) -> Option<u32> {
        let f = &self.files[file as usize];
        let after = f.pieces.partition_point(|p| p.lines.0 <= line);
        let at = after.checked_sub(1)?;
        (f.pieces[at].lines.1 >= line).then(|| f.first + u32::try_from(at).unwrap_or(u32::MAX))
    }

    fn piece(&self, chunk: u32) -> &Piece {
        let f = &self.files[self.owner[chunk as usize] as usize];
        &f.pieces[(chunk - f.first) as usize]
    }

    fn chunk(&self, chunk: u32) -> Chunk {
        let f = &self.files[self.owner[chunk as usize] as usize];
        self.piece(chunk).chunk(&f.path, f.test_path)
    }
}

fn sum(evidence: &[(&str, f32)]) -> f32 {
    evidence.iter().map(|(_, s)| s).sum()
}

#[async_trait]
impl Retriever for CodeIndex {
    async fn retrieve(&self, query: &CodeQuery, cx: &CallCx) -> Result<Vec<Hit>> {
        if cx.cancel().is_cancelled() {
            return Err(MemoryError::Cancelled);
        }
        self.search(query)
    }
}
