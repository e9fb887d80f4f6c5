use super::{
    RepoStore,
    git::{io_error, with, with_index},
    id,
};
use crate::SandboxError;
use std::{fs, os::unix::fs::DirBuilderExt, path::PathBuf};

impl RepoStore {
    /// The directory with the files of a commit, made once. Nobody may change what is in it.
    ///
    /// # Errors
    /// The commit is not in the store, or the disk is full.
    pub fn checkout(&self, commit: &str) -> Result<PathBuf, SandboxError> {
        let done = self.git.checkouts().join(id(commit)?);
        if done.exists() {
            return Ok(done);
        }
        let failed = io_error("a clean copy");
        let (tmp, index) = (self.git.scratch("checkout"), self.git.scratch("index"));
        let mut make = fs::DirBuilder::new();
        make.mode(0o700).create(&tmp.0).map_err(&failed)?;
        let on_index = || with_index(self.git.ours(), &index.0);
        let tree = with(on_index(), ["read-tree", commit]);
        self.git.run(tree, &[], "a clean copy")?;
        let mut files = on_index();
        files
            .arg("--work-tree")
            .arg(&tmp.0)
            .args(["checkout-index", "-a", "-q"]);
        self.git.run(files, &[], "a clean copy")?;
        crate::give_to_agents(&tmp.0).map_err(&failed)?;
        match fs::rename(&tmp.0, &done) {
            // Somebody else was faster; theirs is the same.
            Err(_) if done.exists() => Ok(done),
            other => other.map(|()| done).map_err(failed),
        }
    }
}
