use serde::{Deserialize, Serialize};
use smallhands_core::{Digest, Failure, FailureClass};
use smallhands_sandbox::Sandbox;

/// One replacement in one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edit {
    /// The file, relative to the repository.
    pub path: String,
    /// Byte offset of `old` in the file as the edits before this one left it.
    pub at: usize,
    /// What stands there.
    pub old: String,
    /// What shall stand there.
    pub new: String,
}

/// A proposed change: edits on top of the clean copy, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// The edits.
    pub edits: Vec<Edit>,
}

impl Candidate {
    /// The same with one more edit.
    #[must_use]
    pub fn with(&self, e: Edit) -> Self {
        let mut c = self.clone();
        c.edits.push(e);
        c
    }
    /// Candidates that differ only in comments, blank lines and spaces within a line are one.
    pub(crate) fn key(&self) -> String {
        let code = |l: &str| {
            let indent = l.len() - l.trim_start().len();
            let code = l.split('#').next().unwrap_or("").split_whitespace();
            (indent, code.collect::<String>())
        };
        let lines = |e: &Edit| {
            let lines: Vec<_> = e
                .new
                .lines()
                .map(code)
                .filter(|l| !l.1.is_empty())
                .collect();
            (e.path.clone(), e.at, lines)
        };
        let all: Vec<_> = self.edits.iter().map(lines).collect();
        let key = Digest::of_bytes(format!("{all:?}").as_bytes()).to_string();
        key.rsplit(':')
            .next()
            .unwrap_or(&key)
            .chars()
            .take(16)
            .collect()
    }
    /// Lines that it touches: among equals, less is better.
    pub fn size(&self) -> usize {
        let lines = |s: &str| s.lines().count();
        let differ = |e: &Edit| {
            let same = e
                .old
                .lines()
                .zip(e.new.lines())
                .filter(|(a, b)| a == b)
                .count();
            lines(&e.old).max(lines(&e.new)) - same
        };
        self.edits.iter().map(differ).sum()
    }
}

/// Makes the edits of a candidate in a workspace.
///
/// # Errors
/// A file is not as the candidate expects it, or the sandbox failed.
pub async fn apply(files: &dyn Sandbox, c: &Candidate) -> Result<(), Failure> {
    for e in &c.edits {
        let mut bytes = files.read(&e.path).await?;
        let end = e.at + e.old.len();
        if bytes.get(e.at..end) != Some(e.old.as_bytes()) {
            let why = format!("{} is not as the edit expects it", e.path);
            return Err(Failure::new("edit.stale", FailureClass::Task, why));
        }
        bytes.splice(e.at..end, e.new.bytes());
        files.write(&e.path, &bytes).await?;
    }
    Ok(())
}
