//! From names in a question to chunks. Each kind is gated: what fits too many places says nothing.

use super::{CodeIndex, entities::Entities};
use std::collections::BTreeMap;

const FILES_AT_MOST: usize = 3;
const SYMBOLS_AT_MOST: usize = 8;

/// Evidence as factors of the best BM25 score.
#[derive(Debug, Default)]
pub(crate) struct Located {
    /// For chunks whether or not a word matched.
    pub(crate) chunks: BTreeMap<u32, Vec<(String, f32)>>,
    /// For the chunks of a file, by its number, as a factor of their own score.
    pub(crate) files: BTreeMap<u32, (String, f32)>,
}

pub(crate) fn locate(index: &CodeIndex, e: &Entities) -> Located {
    let mut out = Located::default();
    let mut weight = 1.0;
    for f in &e.frames {
        let files = index.files_named(&f.path);
        let mut found = false;
        for file in files {
            if let Some(chunk) = index.frame_chunk(file, f.line, f.function.as_deref()) {
                let of = out.chunks.entry(chunk).or_default();
                // Recursion: the nearest frame counts.
                if !of.iter().any(|(name, _)| name.starts_with("frame ")) {
                    of.push((format!("frame {}:{}", f.path, f.line), weight));
                    found = true;
                }
            }
        }
        if found {
            weight = (weight * 0.7_f32).max(0.1);
        }
    }
    for s in &e.symbols {
        let chunks = index.chunks_named(s);
        let plain = !s.contains(|c: char| c == '.' || c == '_' || c.is_uppercase());
        let factor = if plain { 0.2 } else { 0.5 } / count(chunks.len()).sqrt();
        for c in chunks {
            let of = out.chunks.entry(c).or_default();
            if !of.iter().any(|(name, _)| name.starts_with("symbol ")) {
                of.push((format!("symbol {s}"), factor));
            }
        }
    }
    for f in &e.files {
        for file in index.files_named(f) {
            out.files.entry(file).or_insert((format!("file {f}"), 0.3));
        }
    }
    out
}

#[allow(clippy::cast_precision_loss)]
fn count(n: usize) -> f32 {
    n as f32
}

/// Installed code, whose paths may end like those of the repository.
fn is_vendored(path: &str) -> bool {
    [
        "site-packages/",
        "dist-packages/",
        "/rustc/",
        "registry/src/",
        "lib/python3",
    ]
    .iter()
    .any(|v| path.contains(v))
}

fn segments(symbol: &str) -> impl Iterator<Item = &str> {
    symbol.rsplit(['.', ':']).filter(|s| !s.is_empty())
}

impl CodeIndex {
    /// Files whose path is the end of `path`, or the other way round; none if it is ambiguous.
    fn files_named(&self, path: &str) -> Vec<u32> {
        let parts: Vec<&str> = path.rsplit('/').filter(|p| !p.is_empty()).collect();
        let Some(same_name) = parts.first().and_then(|n| self.by_name.get(*n)) else {
            return Vec::new();
        };
        let mut best = (1, Vec::new());
        for file in same_name {
            let of: Vec<&str> = self.files[*file as usize].path.rsplit('/').collect();
            let common = of.iter().zip(&parts).take_while(|(a, b)| a == b).count();
            let fits = if is_vendored(path) {
                common == of.len() && common > 1
            } else {
                common == of.len().min(parts.len())
            };
            if fits && common > best.0 {
                best = (common, vec![*file]);
            } else if fits && common == best.0 {
                best.1.push(*file);
            }
        }
        if best.1.len() > FILES_AT_MOST {
            best.1.clear();
        }
        best.1
    }

    /// The chunk of a frame: the one with that line, unless the file has moved since and another
    /// chunk of it has the function's name.
    fn frame_chunk(&self, file: u32, line: u32, function: Option<&str>) -> Option<u32> {
        let at = self.chunk_number(file, line);
        let Some(name) = function.and_then(|f| segments(f).next()) else {
            return at;
        };
        let is_it = |c: &u32| {
            let symbol = self.piece(*c).symbol.as_deref().unwrap_or_default();
            segments(symbol).next() == Some(name)
        };
        if at.as_ref().is_some_and(is_it) {
            return at;
        }
        let f = &self.files[file as usize];
        let mut named = (f.first..f.first + f.len()).filter(is_it);
        match (named.next(), named.next()) {
            (Some(only), None) => Some(only),
            _ => at,
        }
    }

    /// The definitions that a dotted name may mean; none if there are too many.
    fn chunks_named(&self, name: &str) -> Vec<u32> {
        let asked: Vec<&str> = segments(name).collect();
        let Some(same_name) = asked.first().and_then(|n| self.by_symbol.get(*n)) else {
            return Vec::new();
        };
        let mut best = (1, Vec::new());
        for c in same_name {
            let symbol = self.piece(*c).symbol.as_deref().unwrap_or_default();
            let of: Vec<&str> = segments(symbol).collect();
            let common = of.iter().zip(&asked).take_while(|(a, b)| a == b).count();
            if common < of.len().min(asked.len()) {
                continue;
            }
            if common > best.0 {
                best = (common, vec![*c]);
            } else if common == best.0 {
                best.1.push(*c);
            }
        }
        if best.1.len() > SYMBOLS_AT_MOST {
            best.1.clear();
        }
        best.1
    }

    /// Fills the table of definitions.
    pub(super) fn name_symbols(&mut self) {
        for c in 0..self.owner.len() {
            let c = u32::try_from(c).unwrap_or(u32::MAX);
            let piece = self.piece(c);
            if !piece.defines {
                continue;
            }
            let last = piece.symbol.as_deref().and_then(|s| segments(s).next());
            if let Some(last) = last.map(str::to_string) {
                self.by_symbol.entry(last).or_default().push(c);
            }
        }
    }
}
