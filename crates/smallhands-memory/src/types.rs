use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

/// What is looked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CodeQuery {
    /// Anything: an issue, a sentence, identifiers, the output of a failed test.
    pub text: String,
    /// How many hits at most.
    pub limit: usize,
    /// Tests count as much as other code; otherwise they are ranked lower.
    pub include_tests: bool,
    /// Only this file, or files below this directory.
    pub path_prefix: Option<String>,
}

impl Default for CodeQuery {
    /// No text, ten hits, tests ranked lower, everywhere.
    fn default() -> Self {
        Self {
            text: String::new(),
            limit: 10,
            include_tests: false,
            path_prefix: None,
        }
    }
}

impl CodeQuery {
    /// Ten hits for `text`, from everywhere, tests ranked lower.
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            ..Self::default()
        }
    }
}

/// What a chunk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ChunkKind {
    /// A function outside a class or type; a macro.
    Function,
    /// A function of a class, trait or `impl`.
    Method,
    /// A class, struct, enum, trait or `impl` without its methods.
    Class,
    /// What is outside all functions and classes of a module.
    Module,
    /// Lines of a file whose language is not known here.
    Window,
}

/// A piece of a file: a function, a class without its methods, or what lies between.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// The file, relative to the repository, with `/`.
    pub path: String,
    /// First and last line, counted from 1.
    pub lines: (u32, u32),
    /// Start and end in the file's bytes; the end is not included.
    pub bytes: (usize, usize),
    /// Qualified name: `Class.method`, `module::Type::function`.
    pub symbol: Option<String>,
    /// What it is.
    pub kind: ChunkKind,
    /// The headers of the classes, `impl`s and inline modules around it, outermost first.
    pub context: Option<String>,
    /// Which piece of its symbol, from 0: long functions and scattered class bodies have several.
    pub part: u32,
    /// Whether it is test code, by its path or its attributes.
    pub is_test: bool,
    /// The source, lossily decoded where it is not UTF-8.
    pub text: String,
}

/// A chunk that was found, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hit {
    /// The file, relative to the repository, with `/`.
    pub path: String,
    /// First and last line, counted from 1.
    pub lines: (u32, u32),
    /// Start and end in the file's bytes; the end is not included.
    pub bytes: (usize, usize),
    /// Qualified name: `Class.method`, `module::Type::function`.
    pub symbol: Option<String>,
    /// What it is.
    pub kind: ChunkKind,
    /// The headers of the classes, `impl`s and inline modules around it, outermost first.
    pub context: Option<String>,
    /// Whether it is test code.
    pub is_test: bool,
    /// The source, lossily decoded where it is not UTF-8.
    pub text: String,
    /// How well it fits; comparable within one answer only.
    pub score: f32,
    /// What the score is made of.
    pub evidence: Vec<(String, f32)>,
}

impl Hit {
    /// A hit whose score is the sum of its evidence.
    pub fn new(chunk: Chunk, evidence: Vec<(String, f32)>) -> Self {
        Self {
            path: chunk.path,
            lines: chunk.lines,
            bytes: chunk.bytes,
            symbol: chunk.symbol,
            kind: chunk.kind,
            context: chunk.context,
            is_test: chunk.is_test,
            text: chunk.text,
            score: evidence.iter().map(|(_, s)| s).sum(),
            evidence,
        }
    }
}

/// A file as it is handed to the index.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFile {
    /// Relative to the repository, with `/`.
    pub path: String,
    /// The content; any bytes.
    pub bytes: Vec<u8>,
}

impl SourceFile {
    /// A file.
    pub fn new(path: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            path: path.into(),
            bytes: bytes.into(),
        }
    }
}

impl fmt::Debug for SourceFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SourceFile({}, {} bytes)", self.path, self.bytes.len())
    }
}

/// A definition that the index knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Symbol {
    /// Qualified name: `Class.method`, `module::Type::function`.
    pub name: String,
    /// What it is.
    pub kind: ChunkKind,
    /// The file.
    pub path: String,
    /// The lines of its first chunk: for a class its header, for a function all of it unless it
    /// is very long.
    pub lines: (u32, u32),
}

/// Why a file is not in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SkipReason {
    /// Over 1 MiB.
    TooLarge,
    /// It contains a zero byte.
    Binary,
    /// Its lines are too long to be written by a person.
    Minified,
    /// Another file with the same path came before.
    Duplicate,
}

/// What an index holds and what it left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Coverage {
    /// Files in the index.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Chunks in the index.
    pub chunks: usize,
    /// Files that were cut into chunks in this build.
    pub parsed: usize,
    /// Files whose chunks were taken over from the previous index.
    pub reused: usize,
    /// Files of a known language that could not be parsed within bounds and became windows.
    pub unparsed: usize,
    /// Files that were left out, by reason.
    pub skipped: BTreeMap<SkipReason, usize>,
}
