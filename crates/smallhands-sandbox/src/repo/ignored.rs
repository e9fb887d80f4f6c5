use super::{
    RepoStore,
    git::{io_error, with, with_index},
};
use crate::{Change, Content, SandboxError};
use std::{collections::HashSet, ffi::OsStr, fs, os::unix::ffi::OsStrExt, path::Path};

const IGNORE: &[u8] = b".gitignore";

impl RepoStore {
    /// The changed paths that the repository ignores and the base does not have: what commands
    /// leave behind, such as build directories. `index` holds the base.
    pub(super) fn ignored(
        &self,
        index: &Path,
        changes: &[Change<Vec<u8>>],
    ) -> Result<HashSet<Vec<u8>>, SandboxError> {
        let what = "the ignored files";
        let on_index = || with_index(self.git.ours(), index);
        // Git reads the rules from a working tree: one that holds nothing else, of our own making.
        let rules = self.git.scratch("rules");
        fs::create_dir(&rules.0).map_err(io_error(what))?;
        let list = with(on_index(), ["ls-files", "-z", "--", ":(glob)**/.gitignore"]);
        let list = self.git.run(list, &[], what)?;
        // Without symbolic links, so that what is written there next stays there.
        let mut c = with(on_index(), ["-c", "core.symlinks=false"]);
        c.arg("--work-tree").arg(&rules.0);
        self.git
            .run(with(c, ["checkout-index", "-z", "--stdin"]), &list, what)?;
        for change in changes
            .iter()
            .filter(|c| c.path.rsplit(|&b| b == b'/').next() == Some(IGNORE))
        {
            // What is a file there and a directory here has no rules that anyone could mean.
            drop(put_rules(&rules.0, change));
        }
        let paths = changes.iter().filter(|c| !matches!(c.now, Content::Gone));
        // With a prefix, so that no name is taken for one of git's own signs.
        let asked: Vec<u8> = paths
            .flat_map(|c| [b"./", &c.path[..], b"\0"].concat())
            .collect();
        if asked.is_empty() {
            return Ok(HashSet::new());
        }
        let mut c = on_index();
        c.arg("--work-tree").arg(&rules.0).current_dir(&rules.0);
        // It fails where none is ignored, and for files in submodules, which then are not ignored.
        let out = self
            .git
            .output(with(c, ["check-ignore", "-z", "--stdin"]), &asked)?;
        let paths = out
            .stdout
            .split(|&b| b == 0)
            .filter_map(|p| p.strip_prefix(b"./"));
        Ok(paths.map(<[u8]>::to_vec).collect())
    }
}

/// Brings one changed file of rules into the tree of rules. The caller has checked its path, and
/// there are no symbolic links there.
fn put_rules(top: &Path, change: &Change<Vec<u8>>) -> std::io::Result<()> {
    let path = top.join(OsStr::from_bytes(&change.path));
    match &change.now {
        Content::File { bytes, .. } => {
            fs::create_dir_all(path.parent().unwrap_or(top))?;
            fs::write(path, bytes)
        }
        _ if path.is_file() => fs::remove_file(path),
        _ => Ok(()),
    }
}
