use super::{RepoStore, git::with, id};
use crate::SandboxError;
use std::path::Path;

impl RepoStore {
    /// Gives the user's repository a new branch with a commit of the store. Adds objects and one
    /// reference; working tree, index and hooks stay as they are.
    ///
    /// # Errors
    /// The branch exists, its name is not allowed, or the repository does not know what the commit
    /// is based on.
    pub fn publish(&self, commit: &str, repo: &Path, branch: &str) -> Result<(), SandboxError> {
        let commit = id(commit)?;
        let theirs = || self.git.theirs(repo);
        let name = format!("refs/heads/{branch}");
        let check = with(theirs(), ["check-ref-format", "--branch", branch]);
        if branch.starts_with('-') || !self.git.output(check, &[])?.status.success() {
            return Err(SandboxError::Repo(format!(
                "`{branch}` is not a name for a branch"
            )));
        }
        let exists = with(theirs(), ["rev-parse", "-q", "--verify", &name]);
        if self.git.output(exists, &[])?.status.success() {
            return Err(SandboxError::Repo(format!(
                "the branch `{branch}` exists already; choose another name"
            )));
        }
        let pack = self.pack_for(commit, repo)?;
        if let Some(pack) = pack {
            let c = with(theirs(), ["unpack-objects", "-q"]);
            self.git.run(c, &pack, "storing the commit")?;
        }
        let c = with(
            theirs(),
            ["rev-list", "--objects", "--quiet", commit, "--not", "--all"],
        );
        self.git.run(
            c,
            &[],
            "the repository does not have what the commit is based on",
        )?;
        // The empty old value refuses a branch that came into being meanwhile.
        let c = with(
            theirs(),
            ["update-ref", "-m", "smallhands", &name, commit, ""],
        );
        self.git.run(c, &[], "making the branch").map(drop)
    }

    /// The commit of a branch in the user's repository, with its message.
    ///
    /// # Errors
    /// The repository cannot be read.
    pub fn find_branch(
        &self,
        repo: &Path,
        branch: &str,
    ) -> Result<Option<(String, String)>, SandboxError> {
        let name = format!("refs/heads/{branch}");
        let found = with(
            self.git.theirs(repo),
            ["rev-parse", "-q", "--verify", &name],
        );
        let out = self.git.output(found, &[])?;
        if !out.status.success() {
            return Ok(None);
        }
        let commit = String::from_utf8_lossy(&out.stdout).trim().to_owned();
        let message = with(self.git.theirs(repo), ["log", "-1", "--format=%B", &commit]);
        let message = self.git.run(message, &[], "reading a branch")?;
        Ok(Some((
            commit,
            String::from_utf8_lossy(&message).into_owned(),
        )))
    }

    /// The objects of a commit that the other repository lacks; `None` if it has the commit.
    fn pack_for(&self, commit: &str, repo: &Path) -> Result<Option<Vec<u8>>, SandboxError> {
        let what = "packing the commit";
        let list = with(self.git.ours(), ["rev-list", commit]);
        let commits = self.git.run(list, &[], what)?;
        let c = with(self.git.theirs(repo), ["cat-file", "--batch-check"]);
        let known = self.git.run(c, &commits, what)?;
        let known = String::from_utf8_lossy(&known);
        let refs = with(
            self.git.ours(),
            ["for-each-ref", "--format=%(objectname)", "refs/imports"],
        );
        let imported = self.git.run(refs, &[], what)?;
        let imported = String::from_utf8_lossy(&imported);
        let mut revs = format!("{commit}\n");
        for line in known.lines() {
            match line.split_once(' ') {
                Some((id, rest)) if rest.starts_with("commit") => {
                    if id == commit {
                        return Ok(None);
                    }
                    revs += &format!("^{id}\n");
                }
                // Of those that came from a repository, we have no history to give.
                Some((id, _)) if imported.lines().any(|i| i == id) => {
                    return Err(SandboxError::Repo(format!(
                        "{} does not have the commit {id} that this is based on",
                        repo.display()
                    )));
                }
                _ => {}
            }
        }
        let c = with(
            self.git.ours(),
            ["pack-objects", "--revs", "--stdout", "-q"],
        );
        self.git.run(c, revs.as_bytes(), what).map(Some)
    }
}
