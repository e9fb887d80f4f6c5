//! Cuts a file into chunks. Every chunk is an exact byte range of the file; the ranges are in
//! order, do not overlap, and cover each line that has a letter or a digit.

mod assemble;
mod lines;
#[cfg(any(feature = "languages-python", feature = "languages-rust"))]
mod parse;
#[cfg(feature = "languages-python")]
mod python;
#[cfg(feature = "languages-python")]
mod python_lines;
#[cfg(feature = "languages-rust")]
mod rust;

use crate::{Chunk, ChunkKind};
use lines::Lines;

/// The rest of a class, module or file longer than this is split.
pub(crate) const REST_LINES: usize = 60;
/// A function longer than this is split.
pub(crate) const FUNCTION_LINES: usize = 120;
/// How deep classes, modules and blocks are followed.
#[cfg(any(feature = "languages-python", feature = "languages-rust"))]
pub(crate) const DEPTH: usize = 64;

/// A chunk without its path: what is cached by content.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) lines: (u32, u32),
    pub(crate) bytes: (usize, usize),
    pub(crate) symbol: Option<String>,
    pub(crate) kind: ChunkKind,
    pub(crate) context: Option<String>,
    pub(crate) part: u32,
    /// The first chunk of a definition.
    pub(crate) defines: bool,
    /// Marked as test code in the source itself.
    pub(crate) test: bool,
    /// Just the header of a class or module whose members are chunks of their own.
    pub(crate) bare: bool,
    pub(crate) text: String,
}

impl Piece {
    pub(crate) fn chunk(&self, path: &str, test_path: bool) -> Chunk {
        Chunk {
            path: path.into(),
            lines: self.lines,
            bytes: self.bytes,
            symbol: self.symbol.clone(),
            kind: self.kind,
            context: self.context.clone(),
            part: self.part,
            is_test: test_path || self.test,
            text: self.text.clone(),
        }
    }
}

/// A definition with what is defined in it, as a parser sees it.
#[derive(Debug)]
pub(crate) struct Outline {
    /// Start and end, with decorators, attributes and comments that belong to it.
    pub(crate) range: (usize, usize),
    /// From the keyword to the end of the header: `class A(B):`, `impl A {`.
    pub(crate) header: (usize, usize),
    pub(crate) kind: ChunkKind,
    pub(crate) symbol: Option<String>,
    pub(crate) context: Option<String>,
    /// Not an `impl`, which only adds to what is defined elsewhere.
    pub(crate) defines: bool,
    pub(crate) test: bool,
    pub(crate) children: Vec<Outline>,
}

impl Outline {
    fn file(kind: ChunkKind, len: usize, children: Vec<Outline>) -> Self {
        Self {
            range: (0, len),
            header: (0, 0),
            kind,
            symbol: None,
            context: None,
            defines: false,
            test: false,
            children,
        }
    }
}

/// Which parser a file gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Language {
    #[cfg(feature = "languages-python")]
    Python,
    #[cfg(feature = "languages-rust")]
    Rust,
    Other,
}

impl Language {
    pub(crate) fn of(path: &str) -> Self {
        match path.rsplit_once('.').map(|(_, e)| e) {
            #[cfg(feature = "languages-python")]
            Some("py" | "pyi") => Self::Python,
            #[cfg(feature = "languages-rust")]
            Some("rs") => Self::Rust,
            _ => Self::Other,
        }
    }

    /// The definitions of a file; `None` if it could not be parsed within bounds.
    fn outline(self, bytes: &[u8], lines: &Lines) -> Option<Vec<Outline>> {
        match self {
            #[cfg(feature = "languages-python")]
            Self::Python => python::outline(bytes, lines),
            #[cfg(feature = "languages-rust")]
            Self::Rust => rust::outline(bytes),
            Self::Other => {
                let _ = (bytes, lines);
                None
            }
        }
    }
}

/// Cuts a file into functions, methods, classes without their methods, and the rest.
///
/// Decorators, attributes and comments right above a definition belong to it. Functions of over
/// 120 lines and rests of over 60 are split. Files of other languages, and what cannot be parsed,
/// become windows of lines.
pub fn chunk_file(path: &str, bytes: &[u8]) -> Vec<Chunk> {
    let test_path = is_test_path(path);
    let (pieces, _) = pieces(Language::of(path), bytes);
    pieces.iter().map(|p| p.chunk(path, test_path)).collect()
}

/// Whether a text parses as the language of its path; also where that is not known.
pub fn is_well_formed(path: &str, bytes: &[u8]) -> bool {
    match Language::of(path) {
        #[cfg(feature = "languages-python")]
        Language::Python => python::is_well_formed(bytes),
        #[cfg(feature = "languages-rust")]
        Language::Rust => rust::is_well_formed(bytes),
        Language::Other => {
            let _ = bytes;
            true
        }
    }
}

/// The pieces of a file, and whether its language was known but it could not be parsed.
pub(crate) fn pieces(language: Language, bytes: &[u8]) -> (Vec<Piece>, bool) {
    let lines = Lines::new(bytes);
    let outline = language.outline(bytes, &lines);
    let failed = outline.is_none() && language != Language::Other;
    let root = match outline {
        Some(children) => Outline::file(ChunkKind::Module, bytes.len(), children),
        None => Outline::file(ChunkKind::Window, bytes.len(), Vec::new()),
    };
    (assemble::pieces(bytes, &lines, &root), failed)
}

/// Whether a path says that it holds tests.
pub(crate) fn is_test_path(path: &str) -> bool {
    let mut components: Vec<&str> = path.split('/').collect();
    let name = components.pop().unwrap_or_default();
    let stem = name.split('.').next().unwrap_or_default();
    components
        .iter()
        .any(|c| matches!(*c, "tests" | "test" | "__tests__" | "testdata"))
        || matches!(stem, "tests" | "test" | "conftest")
        || stem.starts_with("test_")
        || stem.ends_with("_test")
        || stem.ends_with("_tests")
}

#[cfg(all(test, feature = "languages-python", feature = "languages-rust"))]
mod tests {
    use super::is_well_formed;

    #[test]
    fn well_formed() {
        for (path, text, good) in [
            ("a.py", "def f(x):\n    return x\n", true),
            ("a.py", "def f(x):\n    return (x\n", false),
            ("a.py", "def f(x):\n    if x:\n    return x\n", false),
            ("a.py", "def f(x):\n    if x: return x\n", true),
            ("a.rs", "fn f(&self) -> u8 { 1 }", true),
            ("a.rs", "fn f(&self) -> u8 { 1", false),
            ("a.txt", "anything (", true),
        ] {
            assert_eq!(is_well_formed(path, text.as_bytes()), good, "{text}");
        }
    }
}
