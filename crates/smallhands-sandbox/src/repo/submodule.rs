//! Repositories in a repository: shown at the recorded commit where the user has it.

use super::{
    RepoStore,
    git::{io_error, with},
    id,
    tree::is_plain,
};
use crate::SandboxError;
use std::{
    ffi::OsStr,
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// More submodules, with those inside them, are not looked for: one may hold itself.
const MAX: usize = 1000;
const WHAT: &str = "the submodules of a commit";

/// A submodule of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Submodule {
    /// Where it lies, lossily decoded.
    pub path: String,
    /// The commit that is recorded for it.
    pub commit: String,
    /// Whether copies hold its files; else the directory is empty, because the user's repository
    /// does not have that commit: `git submodule update --init` gets it.
    pub present: bool,
}

/// The same, with the path as it is.
#[derive(Clone, Debug)]
pub(super) struct Inner {
    pub(super) path: Vec<u8>,
    pub(super) commit: String,
    pub(super) present: bool,
}

/// A name, and a path.
type Named = (Vec<u8>, Vec<u8>);

impl RepoStore {
    /// Takes what a commit has of submodules, from beside it in the user's repository, and notes it
    /// for [`checkout`](Self::checkout).
    pub(super) fn take_submodules(
        &self,
        git_dir: &Path,
        top: Option<&Path>,
        commit: &str,
    ) -> Result<Vec<Submodule>, SandboxError> {
        let mut found = Vec::new();
        self.below(git_dir, top, commit, b"", &mut found)?;
        if !found.is_empty() {
            self.note(
                commit,
                &found.iter().flat_map(Inner::line).collect::<Vec<_>>(),
            )?;
        }
        let shown = |s: Inner| Submodule {
            path: String::from_utf8_lossy(&s.path).into_owned(),
            commit: s.commit,
            present: s.present,
        };
        Ok(found.into_iter().map(shown).collect())
    }

    /// `prefix` is what lies above it, with a slash at its end.
    fn below(
        &self,
        git_dir: &Path,
        top: Option<&Path>,
        commit: &str,
        prefix: &[u8],
        found: &mut Vec<Inner>,
    ) -> Result<(), SandboxError> {
        let names = self.names(commit)?;
        if names.is_empty() || found.len() > MAX {
            return Ok(());
        }
        let c = with(self.git.ours(), ["ls-tree", "-r", "-z", id(commit)?]);
        let list = self.git.run(c, &[], WHAT)?;
        for line in list.split(|b| *b == 0) {
            let Some((at, path)) = line
                .strip_prefix(b"160000 commit ")
                .and_then(|rest| split_at(rest, b'\t'))
            else {
                continue;
            };
            let at = String::from_utf8_lossy(at).into_owned();
            let place = top.map(|t| t.join(OsStr::from_bytes(path)));
            let named = names.iter().find(|(_, p)| p == path);
            let dir = self.repository(git_dir, place.as_deref(), named.map(|(n, _)| &n[..]));
            let taken = |dir: &PathBuf| self.fetch(dir, dir.as_os_str(), id(&at)?);
            let dir = dir.filter(|dir| taken(dir).is_ok());
            let path = [prefix, path].concat();
            found.push(Inner {
                path: path.clone(),
                commit: at.clone(),
                present: dir.is_some(),
            });
            if let Some(dir) = dir {
                let prefix = [&path[..], b"/"].concat();
                self.below(&dir, place.as_deref(), &at, &prefix, found)?;
            }
        }
        Ok(())
    }

    /// The names of the submodules of a commit, with their paths. The names are the user's as
    /// little as the rest of the repository: one that leads elsewhere is left out.
    fn names(&self, commit: &str) -> Result<Vec<Named>, SandboxError> {
        let blob = format!("{}:.gitmodules", id(commit)?);
        let c = with(self.git.ours(), ["cat-file", "-e", &blob]);
        if !self.git.output(c, &[])?.status.success() {
            return Ok(Vec::new());
        }
        let c = ["config", "-z", "--no-includes", "--blob", &blob];
        let c = with(self.git.ours(), c);
        let c = with(c, ["--get-regexp", r"^submodule\..*\.path$"]);
        // It fails where none is named.
        let list = self.git.output(c, &[])?.stdout;
        let entries = list.split(|b| *b == 0).filter_map(|entry| {
            let (key, path) = split_at(entry, b'\n')?;
            let name = key.strip_prefix(b"submodule.")?.strip_suffix(b".path")?;
            (is_plain(name) && is_plain(path)).then(|| (name.to_vec(), path.to_vec()))
        });
        Ok(entries.collect())
    }

    /// Where the user has a submodule: among those that git keeps for the repository around it, or
    /// as a repository in its place.
    fn repository(
        &self,
        around: &Path,
        place: Option<&Path>,
        name: Option<&[u8]>,
    ) -> Option<PathBuf> {
        let kept = around.join("modules").join(OsStr::from_bytes(name?));
        if kept.join("HEAD").is_file() {
            return Some(kept);
        }
        let own = place?.join(".git");
        own.join("HEAD").is_file().then_some(own)
    }

    fn list_of(&self, commit: &str) -> Result<PathBuf, SandboxError> {
        let name = format!("{}.submodules", id(commit)?);
        Ok(self.git.checkouts().join(name))
    }

    /// The submodules of a commit as the last import of it found them, outer ones first.
    pub(super) fn submodules(&self, commit: &str) -> Result<Vec<Inner>, SandboxError> {
        let list = match fs::read(self.list_of(commit)?) {
            Ok(list) => list,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(io_error(WHAT)(e)),
        };
        Ok(list.split(|b| *b == 0).filter_map(Inner::read).collect())
    }

    /// A commit of ours has the submodules of the one below it.
    pub(super) fn same_submodules(&self, from: &str, to: &str) -> Result<(), SandboxError> {
        let list: Vec<u8> = self
            .submodules(from)?
            .iter()
            .flat_map(Inner::line)
            .collect();
        if list.is_empty() || from == to {
            return Ok(());
        }
        self.note(to, &list)
    }

    fn note(&self, commit: &str, list: &[u8]) -> Result<(), SandboxError> {
        let fresh = self.git.scratch("submodules");
        let kept = self.list_of(commit)?;
        fs::write(&fresh.0, list)
            .and_then(|()| fs::rename(&fresh.0, kept))
            .map_err(io_error(WHAT))
    }
}

impl Inner {
    fn line(&self) -> Vec<u8> {
        let head = format!("{} {} ", self.commit, u8::from(self.present));
        [head.as_bytes(), &self.path, b"\0"].concat()
    }

    fn read(line: &[u8]) -> Option<Self> {
        let (commit, rest) = split_at(line, b' ')?;
        let (present, path) = split_at(rest, b' ')?;
        Some(Self {
            path: path.to_vec(),
            commit: String::from_utf8_lossy(commit).into_owned(),
            present: present == b"1",
        })
    }

    /// The name of a path in it, if it lies there.
    pub(super) fn inside<'a>(&self, path: &'a [u8]) -> Option<&'a [u8]> {
        path.strip_prefix(&self.path[..])?.strip_prefix(b"/")
    }
}

/// What stands before and behind the first of such bytes.
fn split_at(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let (before, after) = text.split_at(text.iter().position(|b| *b == at)?);
    Some((before, &after[1..]))
}
