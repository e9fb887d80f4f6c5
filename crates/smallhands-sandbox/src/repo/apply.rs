use super::{
    RepoStore,
    git::{with, with_index},
    id,
};
use crate::SandboxError;

impl RepoStore {
    /// A commit of the store with a patch on top of another: what `git diff --binary` prints, or
    /// [`diff`](Self::diff). The same patch gives the same commit, and one without changes the
    /// base itself.
    ///
    /// # Errors
    /// [`SandboxError::Patch`] if it is none or does not fit: then all of it is left out. The base
    /// is not in the store.
    pub fn apply(&self, base: &str, patch: &[u8]) -> Result<String, SandboxError> {
        let what = "the base is not in the store";
        let index = self.git.scratch("index");
        let on_index = || with_index(self.git.ours(), &index.0);
        self.git
            .run(with(on_index(), ["read-tree", id(base)?]), &[], what)?;
        if !patch.trim_ascii().is_empty() {
            let c = ["apply", "--cached", "--binary", "--whitespace=nowarn"];
            let out = self.git.output(with(on_index(), c), patch)?;
            if !out.status.success() {
                let said = String::from_utf8_lossy(&out.stderr);
                let said = said.trim().replace("error: ", "");
                return Err(SandboxError::Patch(said));
            }
        }
        let tree = self.git.line(with(on_index(), ["write-tree"]), &[], what)?;
        let commit = self.on_top(base, &tree, "A patch\n")?;
        self.same_submodules(base, &commit)?;
        Ok(commit)
    }

    /// A commit of ours with this tree, or its parent where that has the same. The same tree and
    /// message give the same commit.
    pub(super) fn on_top(
        &self,
        base: &str,
        tree: &str,
        message: &str,
    ) -> Result<String, SandboxError> {
        let what = "the base is not in the store";
        // With more to say than what git keeps, the same tree is something else.
        if self.base_tree(Some(base))? == tree && message.lines().count() == 1 {
            return Ok(base.to_owned());
        }
        let date = with(
            self.git.ours(),
            ["show", "-s", "--format=@%ct +0000", id(base)?],
        );
        let date = self.git.line(date, &[], what)?;
        let who = ("SmallHands", "smallhands@localhost");
        self.commit_tree(tree, Some(base), message, who, &date)
    }
}
