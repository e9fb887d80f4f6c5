//! Clean copies, diffs and commits of repositories.

mod apply;
mod checkout;
mod diff;
mod empty;
mod git;
mod ignored;
mod import;
mod publish;
mod submodule;
mod tree;

use crate::SandboxError;
use git::{Git, with};
use smallhands_core::Timestamp;
use std::path::PathBuf;
pub use submodule::Submodule;

/// Our own bare git repository, with the commits that sandboxes start from and those that come out
/// of them.
///
/// The user's repository is read, and gets a new branch by [`publish`](Self::publish); nothing else
/// in it ever changes. All methods block.
#[derive(Debug)]
pub struct RepoStore {
    git: Git,
}

/// Whether uncommitted changes of the user's working tree become part of the base.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Uncommitted {
    /// Changes of tracked files.
    Include,
    /// Changes of tracked files, and files and empty directories that are neither tracked nor
    /// ignored.
    IncludeUntracked,
    /// None: the last commit as it is.
    #[default]
    Exclude,
}

/// A commit that sandboxes can start from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// In the store: the commit asked for, or one on top of it with the uncommitted changes.
    pub commit: String,
    /// The commit asked for, in the user's repository.
    pub head_commit: String,
    /// The branch that is checked out there.
    pub branch: Option<String>,
    /// Paths with uncommitted changes, lossily decoded; untracked ones only with
    /// [`Uncommitted::IncludeUntracked`].
    pub dirty: Vec<String>,
    /// Whether `commit` holds them.
    pub included: bool,
    /// Its submodules, and theirs.
    pub submodules: Vec<Submodule>,
}

/// Who made a commit, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitMeta {
    /// The whole message.
    pub message: String,
    /// Author and committer.
    pub author_name: String,
    /// Author and committer.
    pub author_email: String,
    /// When.
    pub time: Timestamp,
}

impl RepoStore {
    /// Opens a store, or makes one. `git` is the git program.
    ///
    /// # Errors
    /// The directory cannot be used, or git cannot be run.
    pub fn open(dir: impl Into<PathBuf>, git: impl Into<PathBuf>) -> Result<Self, SandboxError> {
        let git = Git::open(dir.into(), git.into())?;
        Ok(Self { git })
    }

    /// The regular files of a commit, with their sizes in bytes. Names that are not UTF-8 are left
    /// out.
    ///
    /// # Errors
    /// The commit is not in the store.
    pub fn files(&self, commit: &str) -> Result<Vec<(String, u64)>, SandboxError> {
        let c = with(self.git.ours(), ["ls-tree", "-r", "-l", "-z", id(commit)?]);
        let out = self.git.run(c, &[], "the files of a commit")?;
        let entries = out.split(|&b| b == 0).filter_map(|line| {
            let (head, path) = std::str::from_utf8(line).ok()?.split_once('\t')?;
            let mut head = head.split_whitespace();
            let regular = head.next()?.starts_with("100");
            let size = head.nth(2)?.parse().ok()?;
            regular.then(|| (path.to_owned(), size))
        });
        Ok(entries.collect())
    }

    /// The bytes of a file of a commit.
    ///
    /// # Errors
    /// [`SandboxError::NotFound`] if the commit has no such file.
    pub fn read_file(&self, commit: &str, path: &str) -> Result<Vec<u8>, SandboxError> {
        let name = format!("{}:{path}", id(commit)?);
        let c = with(self.git.ours(), ["cat-file", "blob", &name]);
        let out = self.git.output(c, &[])?;
        if out.status.success() {
            return Ok(out.stdout);
        }
        Err(SandboxError::NotFound(path.into()))
    }
}

/// A commit id, so that nothing else ends up on git's command line.
fn id(commit: &str) -> Result<&str, SandboxError> {
    let hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    if matches!(commit.len(), 40 | 64) && commit.bytes().all(hex) {
        return Ok(commit);
    }
    Err(SandboxError::Repo(format!(
        "`{commit}` is not a commit id of the store; import the repository first"
    )))
}
