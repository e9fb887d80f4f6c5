use super::{
    RepoStore,
    git::{io_error, with, with_index},
    id,
};
use crate::{SandboxError, agent_ids};
use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, lchown},
    path::{Path, PathBuf},
};

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
        if let Some((uid, gid)) = agent_ids() {
            own(&tmp.0, uid, gid).map_err(&failed)?;
        }
        match fs::rename(&tmp.0, &done) {
            // Somebody else was faster; theirs is the same.
            Err(_) if done.exists() => Ok(done),
            other => other.map(|()| done).map_err(failed),
        }
    }
}

/// Hands a tree of ours to somebody else. Depth is that of a commit's tree, which git bounds.
fn own(path: &Path, uid: u32, gid: u32) -> io::Result<()> {
    lchown(path, Some(uid), Some(gid))?;
    if fs::symlink_metadata(path)?.is_dir() {
        for entry in fs::read_dir(path)? {
            own(&entry?.path(), uid, gid)?;
        }
    }
    Ok(())
}
