//! From trees to patches.

use super::{
    RepoStore,
    git::{io_error, with},
    submodule::Inner,
};
use crate::{Change, SandboxError};
use std::{
    borrow::Cow,
    ffi::{OsStr, OsString},
    fs,
    os::unix::ffi::{OsStrExt, OsStringExt},
};

/// Changes in a submodule, with their names there.
type InModule = (Inner, Vec<Change<Vec<u8>>>);

/// Changes of a commit itself, and of what lies in its submodules.
type ByModule<'a> = (Cow<'a, [Change<Vec<u8>>]>, Vec<InModule>);

/// Two trees to compare.
struct Trees<'a> {
    old: String,
    new: String,
    /// What stands before their paths.
    prefix: &'a [u8],
}

impl RepoStore {
    /// The changes as a patch that `git apply` takes; empty if they change nothing that git knows.
    ///
    /// Files that the repository ignores and the base does not have, such as what a build leaves
    /// behind, are left out. Files that are not UTF-8 are binary patches, so that the text survives.
    /// Changes in submodules come last; of one that was not there, all is new.
    ///
    /// # Errors
    /// The base is not in the store, or git refuses a name such as `.GIT`.
    pub fn diff(
        &self,
        base: Option<&str>,
        changes: &[Change<Vec<u8>>],
    ) -> Result<String, SandboxError> {
        let (own, inner) = self.by_module(base, changes)?;
        let mut all = self.difference(base, &own, b"")?;
        for (module, changes) in inner {
            let base = module.present.then_some(&module.commit[..]);
            all += &self.difference(base, &changes, &[&module.path[..], b"/"].concat())?;
        }
        Ok(all)
    }

    /// Changes of the commit itself, and those in each submodule.
    pub(super) fn by_module<'a>(
        &self,
        base: Option<&str>,
        changes: &'a [Change<Vec<u8>>],
    ) -> Result<ByModule<'a>, SandboxError> {
        let modules = base.map_or(Ok(Vec::new()), |b| self.submodules(b))?;
        if modules.is_empty() {
            return Ok((changes.into(), Vec::new()));
        }
        let mut own = Vec::new();
        let mut inner: Vec<InModule> = modules.into_iter().map(|m| (m, Vec::new())).collect();
        for change in changes {
            // Inner ones come later.
            let mut deepest = inner.iter_mut().rev();
            let of = deepest.find_map(|(m, list)| Some((m.inside(&change.path)?, list)));
            let Some((path, list)) = of else {
                own.push(change.clone());
                continue;
            };
            let (path, now) = (path.to_vec(), change.now.clone());
            list.push(Change { path, now });
        }
        inner.retain(|(_, list)| !list.is_empty());
        Ok((own.into(), inner))
    }

    fn difference(
        &self,
        base: Option<&str>,
        changes: &[Change<Vec<u8>>],
        prefix: &[u8],
    ) -> Result<String, SandboxError> {
        let (old, new) = (self.base_tree(base)?, self.tree(base, changes)?);
        if old == new {
            return Ok(String::new());
        }
        let trees = Trees { old, new, prefix };
        match String::from_utf8(self.patch(&trees, None, false)?) {
            Ok(text) => Ok(text),
            Err(_) => self.patch_by_file(&trees),
        }
    }

    fn patch_by_file(&self, trees: &Trees<'_>) -> Result<String, SandboxError> {
        let c = with(
            self.git.ours(),
            ["diff-tree", "-r", "-z", "--name-only", "--no-renames"],
        );
        let c = with(c, [&trees.old, &trees.new]);
        let names = self.git.run(c, &[], "a patch")?;
        let mut all = String::new();
        for name in names.split(|&b| b == 0).filter(|n| !n.is_empty()) {
            all += &match String::from_utf8(self.patch(trees, Some(name), false)?) {
                Ok(text) => text,
                Err(_) => String::from_utf8(self.patch(trees, Some(name), true)?)
                    // Git has links as text only.
                    .map_err(|_| not_text(name))?,
            };
        }
        Ok(all)
    }

    fn patch(
        &self,
        trees: &Trees<'_>,
        only: Option<&[u8]>,
        binary: bool,
    ) -> Result<Vec<u8>, SandboxError> {
        let mut c = self.git.ours();
        let attributes = self.git.scratch("attributes");
        if binary {
            fs::write(&attributes.0, "* -diff\n").map_err(io_error("a patch"))?;
            let mut option = OsString::from("core.attributesFile=");
            option.push(&attributes.0);
            c.arg("-c").arg(option);
        }
        c.arg("--literal-pathspecs");
        let c = with(
            c,
            [
                "diff-tree",
                "-r",
                "-p",
                "--binary",
                "--full-index",
                "--no-ext-diff",
                "--no-textconv",
                "--no-renames",
                "--no-color",
            ],
        );
        let side = |option: &[u8]| OsString::from_vec([option, trees.prefix].concat());
        let c = with(c, [side(b"--src-prefix=a/"), side(b"--dst-prefix=b/")]);
        let c = with(c, [&trees.old, &trees.new, "--"]);
        let c = with(c, only.map(OsStr::from_bytes));
        self.git.run(c, &[], "a patch")
    }
}

fn not_text(path: &[u8]) -> SandboxError {
    SandboxError::Repo(format!(
        "`{}` is a link to a name that is not UTF-8: no patch can hold that; make a commit of it",
        path.escape_ascii()
    ))
}
