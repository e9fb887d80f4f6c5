//! From changes to trees and commits, through temporary indexes and without a working tree.

use super::{
    CommitMeta, RepoStore,
    git::{io_error, with, with_index},
    id,
};
use crate::{Change, Content, SandboxError};
use std::{fs, path::Path};

impl RepoStore {
    /// Makes a commit in the store with the changes on top of the base, without ignored files as in
    /// [`diff`](Self::diff); gives back its id.
    ///
    /// # Errors
    /// As [`diff`](Self::diff); or something in a submodule changed, which a commit of what is around
    /// it cannot hold.
    pub fn commit(
        &self,
        base: Option<&str>,
        changes: &[Change<Vec<u8>>],
        meta: &CommitMeta,
    ) -> Result<String, SandboxError> {
        let (own, inner) = self.by_module(base, changes)?;
        for (module, changes) in inner {
            let base = module.present.then_some(&module.commit[..]);
            if self.tree(base, &changes)? != self.base_tree(base)? {
                return Err(SandboxError::Repo(format!(
                    "`{}` is a submodule: a commit of what is around it cannot hold changes in \
                     it; take the patch, or leave it as it is",
                    String::from_utf8_lossy(&module.path)
                )));
            }
        }
        let tree = self.tree(base, &own)?;
        let date = format!("@{} +0000", meta.time.0 / 1000);
        let who = (meta.author_name.as_str(), meta.author_email.as_str());
        let commit = self.commit_tree(&tree, base, &meta.message, who, &date)?;
        if let Some(base) = base {
            self.same_submodules(base, &commit)?;
        }
        Ok(commit)
    }

    pub(super) fn commit_tree(
        &self,
        tree: &str,
        parent: Option<&str>,
        message: &str,
        (name, email): (&str, &str),
        date: &str,
    ) -> Result<String, SandboxError> {
        let mut c = with(self.git.ours(), ["commit-tree", tree, "-F", "-"]);
        if let Some(parent) = parent {
            c.args(["-p", id(parent)?]);
        }
        for (role, who) in [("NAME", name), ("EMAIL", email), ("DATE", date)] {
            c.env(format!("GIT_AUTHOR_{role}"), who);
            c.env(format!("GIT_COMMITTER_{role}"), who);
        }
        let commit = self.git.line(c, message.as_bytes(), "a commit")?;
        let keep = format!("refs/commits/{commit}");
        let c = with(self.git.ours(), ["update-ref", &keep, &commit]);
        self.git.run(c, &[], "a commit")?;
        Ok(commit)
    }

    pub(super) fn base_tree(&self, base: Option<&str>) -> Result<String, SandboxError> {
        let c = match base {
            Some(base) => {
                let name = format!("{}^{{tree}}", id(base)?);
                with(self.git.ours(), ["rev-parse", "-q", "--verify", &name])
            }
            None => with(self.git.ours(), ["mktree"]),
        };
        self.git.line(c, &[], "the base is not in the store")
    }

    /// The tree of the base with the changes.
    pub(super) fn tree(
        &self,
        base: Option<&str>,
        changes: &[Change<Vec<u8>>],
    ) -> Result<String, SandboxError> {
        let index = self.git.scratch("index");
        let on_index = || with_index(self.git.ours(), &index.0);
        let start = match base {
            Some(base) => with(on_index(), ["read-tree", id(base)?]),
            None => with(on_index(), ["read-tree", "--empty"]),
        };
        self.git.run(start, &[], "the base is not in the store")?;
        if let Some(c) = changes.iter().find(|c| !is_plain(&c.path)) {
            let path = String::from_utf8_lossy(&c.path);
            return Err(SandboxError::Repo(format!(
                "`{path}` is not a path that a commit can have"
            )));
        }
        let ignored = self.ignored(&index.0, changes)?;
        let wanted = changes.iter().filter(|c| !ignored.contains(&c.path));
        let lines = self.index_lines(&index.0, &wanted.collect::<Vec<_>>())?;
        let c = with(on_index(), ["update-index", "-z", "--index-info"]);
        let out = self.git.output(c, &lines)?;
        let said = String::from_utf8_lossy(&out.stderr);
        // Of a name such as `.GIT` it says so, and goes on without it.
        if !out.status.success() || said.contains("gnoring path") {
            let said = said.trim();
            return Err(SandboxError::Repo(format!(
                "git refuses the changes: {said}"
            )));
        }
        let c = with(on_index(), ["write-tree"]);
        self.git.line(c, &[], "git refuses the changes")
    }

    /// What `update-index --index-info` reads: removals first, then what is there now.
    fn index_lines(
        &self,
        index: &Path,
        changes: &[&Change<Vec<u8>>],
    ) -> Result<Vec<u8>, SandboxError> {
        let mut blobs = self.blobs(changes)?.into_iter();
        let null = "0".repeat(40);
        let (mut lines, mut added) = (Vec::new(), Vec::new());
        let line = |out: &mut Vec<u8>, mode: &str, blob: &str, path: &[u8]| {
            out.extend(format!("{mode} {blob}\t").bytes());
            out.extend(path);
            out.push(0);
        };
        let mut known: Option<Vec<u8>> = None;
        for Change { path, now } in changes {
            let mode = match now {
                Content::File { exec: true, .. } => "100755",
                Content::File { .. } => "100644",
                Content::Symlink { .. } => "120000",
                Content::Gone | Content::Dir => {
                    if known.is_none() {
                        let c = with_index(self.git.ours(), index);
                        let c = with(c, ["ls-files", "-z"]);
                        known = Some(self.git.run(c, &[], "the base")?);
                    }
                    let below = matches!(now, Content::Gone);
                    let known = known.as_deref().unwrap_or_default();
                    for gone in removed(known, path, below) {
                        line(&mut lines, "0", &null, gone);
                    }
                    continue;
                }
            };
            let blob = blobs.next().unwrap_or_default();
            line(&mut added, mode, &blob, path);
        }
        lines.extend(added);
        Ok(lines)
    }

    /// Stores the bytes of files and links; gives back their ids in order.
    fn blobs(&self, changes: &[&Change<Vec<u8>>]) -> Result<Vec<String>, SandboxError> {
        let failed = io_error("storing changed files");
        let dir = self.git.scratch("blobs");
        fs::create_dir(&dir.0).map_err(&failed)?;
        let mut paths = String::new();
        for (i, change) in changes.iter().enumerate() {
            let bytes = match &change.now {
                Content::File { bytes, .. } => bytes,
                Content::Symlink { target } => target,
                Content::Gone | Content::Dir => continue,
            };
            // Under names of ours, so that one git can take them all.
            let path = dir.0.join(i.to_string());
            fs::write(&path, bytes).map_err(&failed)?;
            paths += &format!("{}\n", path.display());
        }
        let c = with(
            self.git.ours(),
            ["hash-object", "-w", "--no-filters", "--stdin-paths"],
        );
        let out = self
            .git
            .line(c, paths.as_bytes(), "storing changed files")?;
        Ok(out.lines().map(str::to_owned).collect())
    }
}

/// Whether a path stays below where it is put, and touches no repository there.
pub(super) fn is_plain(path: &[u8]) -> bool {
    path.split(|&b| b == b'/')
        .all(|c| !matches!(c, b"" | b"." | b"..") && !c.eq_ignore_ascii_case(b".git"))
}

/// The known paths that a removal takes away: the path itself, and all below it.
fn removed<'a>(
    known: &'a [u8],
    path: &'a [u8],
    below: bool,
) -> impl Iterator<Item = &'a [u8]> + 'a {
    known.split(|&b| b == 0).filter(move |k| {
        let rest = k.strip_prefix(path);
        rest.is_some_and(|r| r.is_empty() || (below && r.starts_with(b"/")))
    })
}
