use super::{
    RepoStore, empty,
    git::{io_error, with, with_index},
    id,
};
use crate::SandboxError;
use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt, fs::DirBuilderExt},
    path::{Path, PathBuf},
};

impl RepoStore {
    /// The directory with the files of a commit, made once, those of its submodules among them where
    /// the repository had these when it was imported. Nobody may change what is in it.
    ///
    /// # Errors
    /// The commit is not in the store, or the disk is full.
    pub fn checkout(&self, commit: &str) -> Result<PathBuf, SandboxError> {
        let inner = self.submodules(id(commit)?)?;
        // A copy that was made before a submodule was had stays as it is.
        let present = inner.iter().filter(|s| s.present).count();
        let name = match present {
            0 => commit.to_owned(),
            n => format!("{commit}-{n}"),
        };
        let done = self.git.checkouts().join(name);
        if done.exists() {
            return Ok(done);
        }
        let failed = io_error("a clean copy");
        let tmp = self.git.scratch("checkout");
        let mut make = fs::DirBuilder::new();
        make.mode(0o700).create(&tmp.0).map_err(&failed)?;
        self.files_of(commit, &tmp.0)?;
        for module in inner.iter().filter(|m| m.present) {
            let place = tmp.0.join(OsStr::from_bytes(&module.path));
            self.files_of(&module.commit, &place)?;
        }
        let c = with(self.git.ours(), ["cat-file", "commit", commit]);
        let message = self.git.run(c, &[], "a clean copy")?;
        empty::make(&tmp.0, &message).map_err(&failed)?;
        crate::give_to_agents(&tmp.0).map_err(&failed)?;
        match fs::rename(&tmp.0, &done) {
            // Somebody else was faster; theirs is the same.
            Err(_) if done.exists() => Ok(done),
            other => other.map(|()| done).map_err(failed),
        }
    }

    fn files_of(&self, commit: &str, to: &Path) -> Result<(), SandboxError> {
        let index = self.git.scratch("index");
        let on_index = || with_index(self.git.ours(), &index.0);
        let tree = with(on_index(), ["read-tree", id(commit)?]);
        self.git.run(tree, &[], "a clean copy")?;
        let mut files = on_index();
        files
            .arg("--work-tree")
            .arg(to)
            .args(["checkout-index", "-a", "-q"]);
        self.git.run(files, &[], "a clean copy").map(drop)
    }
}
